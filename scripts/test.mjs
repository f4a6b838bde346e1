import { execFileSync } from 'node:child_process'

const run = (command, ...args) => execFileSync(command, args, { stdio: 'inherit' })
run('node', 'scripts/setup.mjs')
run('npx', 'biome', 'check', '.')
run('npx', 'tsc', '-p', 'tsconfig.json')
run('npx', 'vitest', 'run')
