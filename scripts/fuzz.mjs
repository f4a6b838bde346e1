// libFuzzer, with ASan and UBSan, on every parser of bytes that the kernel gives (test/fuzz), from the kept corpus on.
//   npm run fuzz -- --seconds 600    of all targets together. Default 120
//   npm run fuzz -- --target scan    only this one
//   npm run fuzz -- --keep           what is new stays in the corpus, minimised
//   npm run fuzz -- --record         begins with what this machine's kernel answers (root, loop devices)
// What it finds lies in build-fuzz/found, one input a file: `npm run fuzz -- --target scan --input FILE` runs it again.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { brotliCompressSync, brotliDecompressSync } from 'node:zlib'
import { at, excerpt, filesBelow, hashOf, logged, Problem, red, Stamp } from './tool.mjs'

const OUT = 'build-fuzz'
const BINARY = at(OUT, 'fuzz')
const KEPT = 'test/fuzz/corpus'
const COMPILER = 'clang++-19'
const SANITIZERS = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-fno-omit-frame-pointer']
const FLAGS = [
  ...['-std=c++17', '-O1', '-g', '-Wall', '-Wextra', '-Werror', ...SANITIZERS, '-fsanitize=fuzzer-no-link'],
  ...['NAPI_VERSION=9', 'NODE_ADDON_API_CPP_EXCEPTIONS', 'NODE_ADDON_API_REQUIRE_BASIC_FINALIZERS'].map(
    (d) => `-D${d}`,
  ),
  ...['-D_FILE_OFFSET_BITS=64', '-I', at('native')],
  ...['node-addon-api', 'node-api-headers/include'].flatMap((name) => ['-isystem', at('node_modules', name)]),
]
const LINK = [
  ...SANITIZERS,
  '-fsanitize=fuzzer',
  // Without Node: what would call it is never called. And no system call asks the kernel.
  '-no-pie',
  '-Wl,--unresolved-symbols=ignore-all',
  ...['ioctl', 'fstat64', 'fstatfs64', 'open_by_handle_at', 'usleep'].map((name) => `-Wl,--wrap=${name}`),
]

/** Runs `work` on each of `items`, one on each core. */
async function spread(items, work) {
  const waiting = [...items]
  const next = async () => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await work(item)
  }
  await Promise.all(Array.from({ length: availableParallelism() }, next))
}

async function run(name, command, args, env) {
  const log = at(OUT, 'log', name)
  rmSync(log, { force: true })
  const code = await logged(log, command, args, env)
  if (code !== 0) throw new Error(`${name}: exit code ${code}\n${excerpt(log, 30, 40)}`)
  return readFileSync(log, 'utf8')
}

/** What has changed is compiled anew. The addon's calls and threads are no parsers. */
export async function fuzzBuild() {
  const own = filesBelow('test/fuzz').filter((file) => file.endsWith('.cpp'))
  const native = filesBelow('native').filter((file) => /^native\/\w+\.cpp$/.test(file))
  const sources = [...own, ...native.filter((file) => !/\/(addon|task)\.cpp$/.test(file))]
  const headers = [...filesBelow('native'), ...filesBelow('test/fuzz')].filter((file) => file.endsWith('.h'))
  const object = (file) => at(OUT, 'objects', `${file.replaceAll('/', '-')}.o`)
  mkdirSync(at(OUT, 'objects'), { recursive: true })
  await spread(sources, async (file) => {
    const hash = hashOf([file, ...headers, 'scripts/fuzz.mjs', 'package-lock.json'], at())
    const stamp = new Stamp(join(OUT, 'objects', `${file.replaceAll('/', '-')}.stamp`), hash)
    if (stamp.matches() && existsSync(object(file))) return
    rmSync(BINARY, { force: true })
    await run(`compile-${file.replaceAll('/', '-')}`, COMPILER, [...FLAGS, '-c', at(file), '-o', object(file)])
    stamp.write()
  })
  const linked = new Stamp(join(OUT, 'linked'), hashOf([], sources))
  if (linked.matches() && existsSync(BINARY)) return
  await run('link', COMPILER, [...LINK, ...sources.map(object), '-o', BINARY])
  linked.write()
}

const kept = (target) => at(KEPT, `${target}.br`)
const working = (target) => at(OUT, 'corpus', target)

/** A target's inputs in one file: the length of each in four bytes, and the bytes. */
function unpack(target) {
  rmSync(working(target), { recursive: true, force: true })
  mkdirSync(working(target), { recursive: true })
  if (!existsSync(kept(target))) return
  const packed = brotliDecompressSync(readFileSync(kept(target)))
  for (let from = 0; from < packed.length; ) {
    const end = from + 4 + packed.readUInt32LE(from)
    const input = packed.subarray(from + 4, end)
    writeFileSync(join(working(target), createHash('sha1').update(input).digest('hex')), input)
    from = end
  }
}

/** The least inputs that reach as much. */
async function keep(target) {
  const least = at(OUT, 'least', target)
  rmSync(least, { recursive: true, force: true })
  mkdirSync(least, { recursive: true })
  await run(`merge-${target}`, BINARY, ['-merge=1', least, working(target)], { FUZZ_TARGET: target })
  const parts = readdirSync(least)
    .sort()
    .flatMap((name) => {
      const input = readFileSync(join(least, name))
      const length = Buffer.alloc(4)
      length.writeUInt32LE(input.length)
      return [length, input]
    })
  mkdirSync(at(KEPT), { recursive: true })
  writeFileSync(kept(target), brotliCompressSync(Buffer.concat(parts)))
}

/**
 * Each target for its part of the seconds; throws with what was found.
 * @returns what the table of npm test says
 */
export async function fuzz({ seconds = 120, target, record = false, keeping = false, say = (_) => {} } = {}) {
  await fuzzBuild()
  const all = targets()
  if (target !== undefined && !all.includes(target)) throw new Problem(`no target '${target}': ${all.join(', ')}`)
  const chosen = target === undefined ? all : [target]
  for (const one of chosen) unpack(one)
  const volumes = ['--import', 'tsx', at('test/fuzz/record.ts'), BINARY, at(OUT, 'corpus')]
  if (record) await run('record', process.execPath, volumes)
  mkdirSync(at(OUT, 'found'), { recursive: true })
  const each = Math.max(1, Math.round(seconds / chosen.length))
  let runs = 0
  const found = []
  await spread(chosen, async (one) => {
    const limits = [`-max_total_time=${each}`, '-timeout=20', '-rss_limit_mb=2048']
    const artifacts = `-artifact_prefix=${at(OUT, 'found', `${one}-`)}`
    try {
      const log = await run(one, BINARY, [...limits, artifacts, working(one)], { FUZZ_TARGET: one })
      const [, times] = /Done (\d+) runs/.exec(log)
      const [, covered] = [...log.matchAll(/cov: (\d+)/g)].at(-1)
      runs += Number(times)
      say(
        `${one.padEnd(14)}  ${times.padStart(9)} runs  ${covered.padStart(5)} edges  ${readdirSync(working(one)).length} inputs`,
      )
      if (keeping) await keep(one)
    } catch (error) {
      found.push(error.message)
    }
  })
  if (found.length > 0)
    throw new Error(`${found.length} targets failed; the inputs are in ${OUT}/found\n${found.join('\n')}`)
  return { detail: `${chosen.length} targets, ${(runs / 1e6).toFixed(1)} M runs` }
}

/** Asked for none, it names them. */
function targets() {
  try {
    execFileSync(BINARY, { env: {}, encoding: 'utf8' })
  } catch ({ status, stdout }) {
    if (status === 2) return stdout.trim().split('\n')
  }
  throw new Error('the fuzzer does not start')
}

async function main() {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '120' },
      target: { type: 'string' },
      input: { type: 'string' },
      record: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
    },
  })
  const { target, input, record, keep: keeping } = values
  const seconds = Number(values.seconds)
  if (!(seconds > 0)) throw new Problem(`expected seconds, got '${values.seconds}'`)
  if (input !== undefined) {
    await fuzzBuild()
    return execFileSync(BINARY, [input], { stdio: 'inherit', env: { ...process.env, FUZZ_TARGET: target ?? '' } })
  }
  const { detail } = await fuzz({ seconds, target, record, keeping, say: console.log })
  console.log(detail)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main().catch((error) => {
    console.error(red(error instanceof Problem ? error.message : error.stack))
    process.exitCode = 1
  })
}
