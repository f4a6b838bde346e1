/** Large trees: 10,000 subvolumes listed, 300,000 files scanned, beside the commands that do the same. */
import { execFile } from 'node:child_process'
import {
  closeSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { promisify } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { rows as rowsOf } from '../src/btrfs/batch.js'
import { type KernelFilesystem, openFilesystem } from '../src/btrfs/filesystem.js'
import type { ScanOptions } from '../src/btrfs/scan.js'
import { makeVolume, run, type TestVolume } from '../test/helpers/volume.js'
import { limitRow, median, medians, type Row, row } from './measure.js'
import { cannotImport, pythonPeer } from './python.js'

/** Calls before the first that counts: by then V8 has compiled what it will compile. */
const WARM_UP = 30

/** Output as a reader in JavaScript gets it. */
const peer = (command: string, ...args: string[]) =>
  promisify(execFile)(command, args, { maxBuffer: 1 << 30 }).then(({ stdout }) => stdout.length)
const dropCaches = () => {
  run('sync')
  writeFileSync('/proc/sys/vm/drop_caches', '3')
}

/**
 * A loop device reads through its image's page cache, one request after the other in one worker; now it hands each on as
 * a disk takes it, several at a time.
 */
function queueLikeADisk(volume: TestVolume): void {
  for (const loop of volume.loops) run('losetup', '--direct-io=on', loop)
}

/** @param scale of the sizes that the rows name; smaller is quicker and says less */
export async function rows(rounds = 7, scale = 1): Promise<Row[]> {
  return [
    ...(await listing(rounds, Math.round(10_000 * scale))),
    ...(await scanning(rounds, Math.round(300_000 * scale))),
  ]
}

async function listing(rounds: number, count: number): Promise<Row[]> {
  using volume = makeVolume({ devicesMiB: [8192] })
  queueLikeADisk(volume)
  await using fs = await openFilesystem(volume.path)
  await fs.createSubvolume('base')
  for (let i = 0; i < 16; i++) mkdirSync(join(volume.path, `dir${i}`))
  for (let i = 0; i < count; ) {
    const some = Array.from({ length: 16 }, (_, d) => `dir${d}/subvolume-${i++}`)
    await Promise.all(
      some.map((path, d) => (d % 2 ? fs.snapshot('base', path, { readonly: true }) : fs.createSubvolume(path))),
    )
  }
  await fs.sync()
  const list = async () => {
    const all = []
    for await (const subvolume of fs.subvolumes()) all.push(subvolume)
    return all
  }
  const command = () => peer('btrfs', 'subvolume', 'list', '-puqR', volume.path)
  for (let i = 0; i < WARM_UP; i++) await list()
  const warm = await medians({ ours: { run: list }, peer: { run: command } }, 3 * rounds)
  const cold = await medians(
    { ours: { run: list, prepare: dropCaches }, peer: { run: command, prepare: dropCaches } },
    3,
  )

  const name = `list ${count} subvolumes, all fields`
  const iterated = await againstIterator(volume.path, name, list, rounds)

  let made = 0
  const fresh = () => `dir${made % 16}/fresh-${made++}`
  const snapshots = await medians(
    {
      ours: { run: () => Promise.all(Array.from({ length: 64 }, () => fs.snapshot('base', fresh()))) },
      peer: {
        run: async () => {
          for (let i = 0; i < 64; i++) await fs.snapshot('base', fresh())
        },
      },
    },
    9,
  )
  return [
    row(name, 'btrfs subvolume list -puqR', warm.ours, warm.peer, { target: '≥ 4×' }),
    row(`${name}, cold`, 'btrfs subvolume list -puqR', cold.ours, cold.peer, { target: '≥ 8×' }),
    iterated,
    row('64 snapshots into 16 directories', 'one after the other', snapshots.ours, snapshots.peer, { target: '≥ 4×' }),
  ]
}

/** libbtrfsutil’s own, from Python, whose objects cost less than its searches: one and more for each subvolume. */
async function againstIterator(path: string, operation: string, list: () => unknown, rounds: number): Promise<Row> {
  const peerName = 'libbtrfsutil’s iterator'
  const skipped = cannotImport('btrfsutil')
  if (skipped !== undefined) return { operation, peerName, skipped }
  await using python = pythonPeer(path, 'import btrfsutil', 'list(btrfsutil.SubvolumeIterator(path, top=5, info=True))')
  const measured = await medians({ ours: { run: list }, python: { run: python.ask } }, rounds)
  return row(operation, peerName, measured.ours, median(python.seconds.slice(1)) * 1000, { target: '≥ 4×' })
}

/** @param made so many are there already */
export function makeFiles(root: string, count: number, made = 0): void {
  const content = Buffer.alloc(5000, 'some content ')
  for (let d = made / 100; d < count / 100; d++) {
    const directory = join(root, `group-${d % 50}`, `directory-${d}`)
    mkdirSync(directory, { recursive: true })
    for (let i = 0; i < 100; i++) {
      const fd = openSync(join(directory, `file-with-a-name-${i}.dat`), 'w')
      // A tenth of them in extents, some sparse, the others small enough to lie beside their inodes.
      if (i % 10 === 0) writeSync(fd, content)
      else if (i % 4 === 0) ftruncateSync(fd, 10_000)
      else writeSync(fd, 'some content')
      closeSync(fd)
    }
  }
}

async function paths(fs: KernelFilesystem, options: ScanOptions = {}): Promise<number> {
  let bytes = 0
  for await (const batch of fs.scan({ sync: false, ...options }))
    for (let i = 0; i < batch.length; i++) bytes += batch.path(i).length + batch.sizeBytes[i]!
  return bytes
}

function nodeWalk(directory: string): number {
  let bytes = 0
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name)
    bytes += path.length + lstatSync(path).size
    if (entry.isDirectory()) bytes += nodeWalk(path)
  }
  return bytes
}

/** Each row with its path and its figures, beside a scan whose batches nobody looks into. */
async function intoRows(fs: KernelFilesystem, rounds: number) {
  const batches = async () => {
    let length = 0
    for await (const batch of fs.scan({ sync: false })) length += batch.length
    return length
  }
  const read = async (look: () => void = () => {}) => {
    let sum = 0
    for await (const row of rowsOf(fs.scan({ sync: false }))) {
      sum += row.path.length + row.inode + row.sizeBytes + row.diskBytes + row.mtimeMs + row.ctimeMs + row.atimeMs
      sum += row.mode + row.links + (row.generation ?? 0)
      if (row.inode % 50_000 === 0) look()
    }
    return sum
  }
  const { alone, rows } = await medians({ alone: { run: batches }, rows: { run: () => read() } }, rounds)
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  await read()
  delay.disable()
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const inUse = () => {
    collect()
    return process.memoryUsage().heapUsed
  }
  const before = inUse()
  let most = before
  await read(() => {
    most = Math.max(most, inUse())
  })
  return { overMs: rows - alone, heapBytes: most - before, delayMs: delay.max / 1e6 }
}

async function scanning(rounds: number, count: number): Promise<Row[]> {
  using volume = makeVolume({ devicesMiB: [8192] })
  queueLikeADisk(volume)
  await using fs = await openFilesystem(volume.path)
  makeFiles(volume.path, count)
  await fs.sync()
  const find = () => peer('find', volume.path, '-printf', '%i %s %b %A@ %T@ %C@ %m %n %p\\n')
  const ours = { run: () => paths(fs) }
  const warm = await medians({ ours, peer: { run: find }, walk: { run: () => nodeWalk(volume.path) } }, rounds)
  const cold = await medians({ ours: { ...ours, prepare: dropCaches }, peer: { run: find, prepare: dropCaches } }, 3)

  const compressed = await medians(
    {
      ours: { run: () => fs.compression().result },
      peer: { run: () => peer('compsize', volume.path) },
    },
    rounds,
  )
  const eachFile = `find ${volume.path} -type f -print0 | xargs -0 filefrag`
  const scattered = await medians(
    { ours: { run: () => fs.fragmentation().result }, peer: { run: () => peer('sh', '-c', eachFile) } },
    Math.ceil(rounds / 3),
  )
  const shared = await medians(
    { ours: { run: () => fs.du().result }, peer: { run: () => peer('btrfs', 'filesystem', 'du', '-s', volume.path) } },
    Math.ceil(rounds / 3),
  )
  const into = await intoRows(fs, rounds)

  const { generation } = await fs.subvolume('.')
  const since = new Date().toISOString()
  for (let d = 0; d < count / 100; d++)
    writeFileSync(join(volume.path, `group-${d % 50}`, `directory-${d}`, 'file-with-a-name-1.dat'), 'changed')
  await fs.sync()
  const changed = { run: () => paths(fs, { sinceGeneration: generation + 1 }) }
  const newer = { run: () => peer('find', volume.path, '-newermt', since) }
  const findNew = { run: () => peer('btrfs', 'subvolume', 'find-new', volume.path, String(generation + 1)) }
  const warmSince = await medians({ ours: changed, peer: newer, findNew }, rounds)
  const coldSince = await medians(
    { ours: { ...changed, prepare: dropCaches }, peer: { ...newer, prepare: dropCaches } },
    3,
  )
  const scan = `scan ${count} files with paths`
  return [
    row(scan, 'find -printf', warm.ours, warm.peer, { target: '≥ 2×' }),
    row(scan, 'a Node walk', warm.ours, warm.walk, { target: '≥ 2.5×' }),
    row(`${scan}, cold`, 'find -printf', cold.ours, cold.peer, { target: '≥ 2×' }),
    row(`compression of ${count} files`, 'compsize', compressed.ours, compressed.peer, { target: '≥ 4×' }),
    row(`fragmentation of ${count} files`, 'filefrag on each', scattered.ours, scattered.peer, { target: '≥ 7×' }),
    row(`du of ${count} files, what is shared`, 'btrfs filesystem du', shared.ours, shared.peer),
    limitRow(`${count} rows, each read whole, over the scan itself`, into.overMs, 150, 'ms'),
    limitRow('heap in use meanwhile', into.heapBytes / 1e6, 5, 'MB'),
    limitRow('longest delay of the event loop meanwhile', into.delayMs, 10, 'ms'),
    row('scan what changed, 1 %', 'find -newermt', warmSince.ours, warmSince.peer, { target: '≥ 5×' }),
    row('scan what changed, 1 %', 'btrfs subvolume find-new', warmSince.ours, warmSince.findNew, { target: '≥ 1×' }),
    row('scan what changed, 1 %, cold', 'find -newermt', coldSince.ours, coldSince.peer, { target: '≥ 15×' }),
  ]
}
