// Set-up without dependencies: packages, addon, TypeScript.
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'

const run = (command, ...args) => execFileSync(command, args, { stdio: 'inherit' })
if (!existsSync('node_modules')) run('npm', 'ci', '--no-audit', '--no-fund')
run(
  'npx',
  'node-gyp',
  existsSync('build/Makefile') ? 'build' : 'rebuild',
  `--nodedir=${existsSync('/usr/include/node/node_api.h') ? '/usr' : ''}`,
)
run('npx', 'tsc', '-p', 'tsconfig.build.json')
