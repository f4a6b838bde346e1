// Makes a fresh clone ready: system packages, npm packages, addon, TypeScript. Skips what is up to date.
//   npm run setup                       everything
//   node scripts/setup.mjs --for demo   what the demo needs (also: bench, test)
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import {
  at,
  dim,
  excerpt,
  filesBelow,
  green,
  hashOf,
  logged,
  nodePrefix,
  Problem,
  red,
  Stamp,
  seconds,
  which,
  yellow,
} from './tool.mjs'

const OLDEST_NODE = [20, 19]
const PURPOSES = ['demo', 'test', 'bench', 'package']

// Debian's names. `required`: no addon without it. `without`: what the others cost, by purpose.
const REAL = {
  demo: 'the demo runs on a simulated volume',
  test: 'tests on real volumes are skipped',
  bench: 'only what needs no volume is measured',
}
const SYSTEM = [
  { name: 'g++', has: () => which((process.env.CXX ?? 'c++').split(' ')[0], 'g++'), required: true },
  { name: 'make', has: () => which('make'), required: true },
  { name: 'python3', has: () => which(process.env.npm_config_python ?? 'python3'), required: true },
  { name: 'libbtrfsutil-dev', has: () => header('btrfsutil.h'), required: true },
  { name: 'btrfs-progs', has: () => which('mkfs.btrfs'), without: REAL },
  { name: 'mount', has: () => which('losetup'), without: REAL },
  {
    name: 'btrfs-compsize',
    has: () => which('compsize'),
    without: { test: 'compression is not compared with compsize' },
  },
  {
    name: 'python3-btrfs',
    has: () => inPython('btrfs'),
    without: { bench: 'no comparison with python-btrfs' },
  },
  {
    name: 'python3-btrfsutil',
    has: () => inPython('btrfsutil'),
    without: { bench: 'no comparison with libbtrfsutil' },
  },
  { name: 'clang-format-19', has: () => which('clang-format-19'), without: { test: 'C++ formatting is not checked' } },
  { name: 'clang-tidy-19', has: () => which('clang-tidy-19'), without: { test: 'C++ is not linted' } },
  { name: 'clang-19', has: () => which('clang++-19'), without: { test: 'the parsers are not fuzzed' } },
  {
    name: 'libclang-rt-19-dev',
    has: () => existsSync('/usr/lib/llvm-19/lib/clang/19/lib/linux'),
    without: { test: 'the parsers are not fuzzed' },
  },
  { name: 'cmake', has: () => which('cmake'), without: { test: 'no ASan/UBSan run, no C++ coverage, no C++ lint' } },
  { name: 'gcovr', has: () => which('gcovr'), without: { test: 'C++ coverage is not measured' } },
  { name: 'strace', has: () => which('strace'), without: { test: 'that no process is started is not checked' } },
]

const PYTHON = '/usr/lib/python3/dist-packages'
const inPython = (module) => existsSync(PYTHON) && readdirSync(PYTHON).some((name) => name.split('.')[0] === module)
const header = (name) => ['/usr/include', '/usr/local/include'].map((dir) => join(dir, name)).find(existsSync)
const isRoot = process.getuid?.() === 0
const LOG = at('build/setup.log')

let worked = false
/** One line for one piece of work, with its seconds; on failure the end of its log and what to do. */
async function step(name, what, advice, commands) {
  worked = true
  const start = performance.now()
  process.stdout.write(`  ${name.padEnd(9)} ${what} … `)
  rmSync(LOG, { force: true })
  for (const [command, args, env] of commands) {
    const code = await logged(LOG, command, args, env)
    if (code === 0) continue
    console.log(red(`failed (${code}), ${seconds(start)}`))
    throw new Problem(`${command} ${args.join(' ')}\n${excerpt(LOG)}\n\n${advice}`)
  }
  console.log(green(seconds(start)))
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (process.platform !== 'linux') throw new Problem(`btrfs is Linux only; this is ${process.platform}`)
  if (major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1])) return
  throw new Problem(
    `Node ${process.versions.node} is too old: ${OLDEST_NODE.join('.')} or newer is needed (nodejs.org)`,
  )
}

async function systemPackages(purposes, retry) {
  const wanted = SYSTEM.filter((item) => item.required || purposes.some((purpose) => item.without[purpose]))
  const missing = () => wanted.filter((item) => !item.has())
  // What could not be had is not asked for again on every run: `npm run setup` does.
  const memory = at('build/setup-unavailable.json')
  let given = []
  try {
    given = retry ? [] : JSON.parse(readFileSync(memory, 'utf8'))
  } catch {}

  const names = missing().map((item) => item.name)
  const apt = which('apt-get')
  if (isRoot && apt && missing().some((item) => item.required || !given.includes(item.name))) {
    await install(apt, names)
    const left = missing().map((item) => item.name)
    mkdirSync(dirname(memory), { recursive: true })
    writeFileSync(memory, JSON.stringify(left))
  }
  const left = missing()
  if (left.length > 0) {
    const list = left.map((item) => item.name)
    const why = isRoot ? (apt ? 'apt-get could not install them' : 'no apt-get here') : 'not root'
    const sudo = isRoot ? '' : 'sudo '
    const command = `${sudo}apt-get update && ${sudo}apt-get install -y --no-install-recommends ${list.join(' ')}`
    const how = `${yellow(`missing: ${list.join(', ')}`)} (${why}). To have them (Debian, Ubuntu):\n    ${command}`
    if (left.some((item) => item.required)) throw new Problem(`${how}\n  Without them the addon cannot be built.`)
    console.log(`  ${how}`)
  }
  const costs = new Set(left.flatMap((item) => purposes.flatMap((purpose) => item.without[purpose] ?? [])))
  if (!isRoot) for (const purpose of purposes) if (REAL[purpose]) costs.add(REAL[purpose])
  if (costs.size === 0) return
  const why = isRoot ? '' : `${yellow('not root')}, so no loop devices; `
  console.log(`  ${why}going on: ${[...costs].join('; ')}.`)
}

/** All at once; where that fails, one by one, so that a package that is not to be had costs only itself. */
async function install(apt, names) {
  const start = performance.now()
  worked = true
  process.stdout.write(`  packages  ${names.join(' ')} … `)
  rmSync(LOG, { force: true })
  const env = { DEBIAN_FRONTEND: 'noninteractive' }
  const lock = ['-o', 'DPkg::Lock::Timeout=300']
  const get = (...some) => logged(LOG, apt, [...lock, 'install', '-y', '--no-install-recommends', ...some], env)
  await logged(LOG, apt, [...lock, 'update'], env)
  const failed = []
  if ((await get(...names)) !== 0) for (const name of names) if ((await get(name)) !== 0) failed.push(name)
  if (failed.length === 0) return console.log(green(seconds(start)))
  console.log(`${red(`not installed: ${failed.join(' ')}`)}, ${seconds(start)}\n${dim(excerpt(LOG, 0, 8))}`)
}

/** npm's own record of what it installed last says whether node_modules is what the lock file asks for. */
function npmIsUpToDate() {
  try {
    const read = (path) => JSON.parse(readFileSync(at(path), 'utf8')).packages
    const installed = read('node_modules/.package-lock.json')
    return Object.entries(read('package-lock.json')).every(
      ([path, entry]) =>
        path === '' ||
        installed[path]?.version === entry.version ||
        (entry.optional === true && installed[path] === undefined),
    )
  } catch {
    return false
  }
}

async function npmPackages() {
  if (npmIsUpToDate()) return
  const npm = process.env.npm_execpath?.endsWith('.js') ? [process.execPath, process.env.npm_execpath] : ['npm']
  // None of them needs its install script; not running any is quieter and safer.
  const args = [
    'ci',
    '--include=dev',
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--no-update-notifier',
    '--loglevel=error',
  ]
  await step('npm', 'npm ci', 'npm could not install the packages: is the registry reachable (npm ping)?', [
    [npm[0], [...npm.slice(1), ...args]],
  ])
}

async function addon() {
  const prefix = nodePrefix()
  const binary = 'build/Release/btrmind_native.node'
  const library = execFileSync(process.execPath, [at('scripts/btrfsutil.mjs')], { encoding: 'utf8' }).trim()
  const sources = [...filesBelow('native'), 'binding.gyp', 'node_modules/node-addon-api/package.json']
  const linked = existsSync(library) ? statSync(library).mtimeMs : 0
  const { arch, versions } = process
  const stamp = new Stamp(
    'build/addon.stamp',
    hashOf(sources, library, linked, arch, versions.modules, prefix, process.env.CXX),
  )
  if (stamp.matches() && existsSync(at(binary))) return
  const gyp = at('node_modules/node-gyp/bin/node-gyp.js')
  const advice =
    'The addon needs a C++17 compiler, libbtrfsutil-dev and Node’s headers (npm_config_nodedir=<prefix of node>).'
  await step('addon', 'compiling', advice, [
    [
      process.execPath,
      [gyp, 'configure', 'build', '--jobs=max', ...(prefix === undefined ? [] : [`--nodedir=${prefix}`])],
    ],
    [process.execPath, ['-e', `require(${JSON.stringify(at(binary))})`]],
  ])
  stamp.write()
}

async function typescript() {
  const sources = filesBelow('src').filter((file) => file.endsWith('.ts'))
  const inputs = [
    ...sources,
    'tsconfig.json',
    'tsconfig.build.json',
    'scripts/api.mjs',
    'scripts/method-docs.mjs',
    'node_modules/typescript/package.json',
  ]
  const output = (file) => file.replace(/^src/, 'dist').replace(/\.ts$/, '.js')
  const stamp = new Stamp('build/typescript.stamp', hashOf(inputs))
  const complete = sources.every((file) => existsSync(at(output(file))))
  if (stamp.matches() && complete) return
  // tsc does not notice that its output has gone, and leaves that of files that no longer are.
  if (!complete) rmSync(at('build/tsconfig.tsbuildinfo'), { force: true })
  const current = new Set(sources.map((file) => output(file).replace(/\.js$/, '')))
  for (const file of filesBelow('dist')) {
    const [, stem] = /^(.*?)(?:\.d\.ts|\.js)$/.exec(file) ?? []
    if (stem !== undefined && !current.has(stem)) rmSync(at(file))
  }
  const tsc = at('node_modules/typescript/bin/tsc')
  await step('types', 'compiling', 'TypeScript found errors in src.', [
    [process.execPath, [tsc, '-p', at('tsconfig.build.json')]],
    [process.execPath, [at('scripts/method-docs.mjs')]],
  ])
  const { bin } = JSON.parse(readFileSync(at('package.json'), 'utf8'))
  for (const file of Object.values(bin)) if (existsSync(at(file))) chmodSync(at(file), 0o755)
  stamp.write()
}

/** Two runs at once would remove each other's node_modules: the second waits for the first. */
async function alone(work) {
  const lock = at('build/setup.lock')
  const mine = `${lock}.${process.pid}`
  mkdirSync(dirname(lock), { recursive: true })
  writeFileSync(mine, String(process.pid))
  process.once('exit', () => rmSync(mine, { force: true }))
  for (let said = false; ; said = true) {
    try {
      linkSync(mine, lock)
      break
    } catch (error) {
      if (error.code !== 'EEXIST') throw error
    }
    const owner = holder(lock)
    if (owner === undefined) {
      rmSync(lock, { force: true })
    } else {
      if (!said) console.log(`  waiting for another set-up (process ${owner}) …`)
      await new Promise((resolve) => setTimeout(resolve, 250))
    }
  }
  process.once('exit', () => rmSync(lock, { force: true }))
  await work()
}

/** The process that holds the lock; undefined when it died with it. */
function holder(lock) {
  try {
    const pid = readFileSync(lock, 'utf8')
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('setup.mjs') ? pid : undefined
  } catch {
    return undefined
  }
}

async function main([flag, purpose, ...rest]) {
  if ((flag !== undefined && (flag !== '--for' || !PURPOSES.includes(purpose))) || rest.length > 0) {
    throw new Problem(`usage: setup.mjs [--for ${PURPOSES.join('|')}]`)
  }
  const start = performance.now()
  checkNode()
  await alone(async () => {
    await systemPackages(purpose === undefined ? PURPOSES : [purpose], purpose === undefined)
    await npmPackages()
    await addon()
    await typescript()
  })
  console.log(`set-up: ${worked ? 'done' : 'up to date'} ${dim(`(${seconds(start)})`)}`)
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`\n${red('set-up failed:')} ${error instanceof Problem || error.code ? error.message : error.stack}`)
  process.exitCode = 1
})
