import { closeSync, ftruncateSync, linkSync, mkdirSync, openSync, readdirSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { type KernelFilesystem, openFilesystem } from '../../src/btrfs/filesystem.js'
import type { CompressionReport } from '../../src/btrfs/reports.js'
import { native } from '../../src/native.js'
import { createRandom, type Random } from '../../src/random.js'
import { cannotMount, makeVolume, run, type TestVolume } from '../helpers/volume.js'

/** Files in every state an extent can be in. */
function randomTree(root: string, random: Random, files: number): void {
  const whole = (below: number) => Math.floor(random.next() * below)
  const noise = Buffer.alloc(1 << 20)
  for (let i = 0; i < noise.length; i++) noise[i] = whole(256)
  const content = (bytes: number) =>
    random.next() < 0.5 ? noise.subarray(0, bytes) : Buffer.alloc(bytes, `text that repeats ${whole(10)} `)
  const algorithms = ['zlib', 'lzo', 'zstd', 'none']
  const made: string[] = []
  for (const [index, algorithm] of algorithms.entries()) {
    const directory = join(root, `d${index}`, 'below')
    mkdirSync(directory, { recursive: true })
    if (algorithm !== 'none') run('btrfs', 'property', 'set', directory, 'compression', algorithm)
    for (let i = 0; i < files / algorithms.length; i++) {
      const path = join(directory, `file ${i}`)
      const what = random.next()
      if (what < 0.15 && made.length > 0) {
        run('cp', '--reflink=always', made[whole(made.length)]!, path)
      } else if (what < 0.25) {
        run('fallocate', '-l', String(4096 * (1 + whole(200))), path)
      } else if (what < 0.35) {
        writeFileSync(path, content(1 + whole(1500)))
      } else {
        const fd = openSync(path, 'w')
        ftruncateSync(fd, whole(1 << 20))
        for (let piece = 0; piece <= whole(6); piece++)
          writeSync(fd, content(1 + whole(400_000)), 0, undefined, whole(1 << 19))
        closeSync(fd)
      }
      made.push(path)
      if (random.next() < 0.2) run('sync', '-f', root)
      if (random.next() < 0.4) {
        const fd = openSync(made[whole(made.length)]!, 'r+')
        writeSync(fd, content(1 + whole(60_000)), 0, undefined, whole(1 << 19))
        closeSync(fd)
      }
    }
  }
  run('sync', '-f', root)
}

/** What compsize prints of it. */
function compsize(...paths: string[]): Pick<CompressionReport, 'files' | 'extents' | 'references' | 'inlineExtents'> & {
  bytes: Record<string, number[]>
} {
  const text = run('compsize', '-b', ...paths)
  const [files, extents, references, inlineExtents] = text.match(/\d+/g)!.map(Number) as [
    number,
    number,
    number,
    number,
  ]
  const bytes: Record<string, number[]> = {}
  for (const [, kind, ...figures] of text.matchAll(/^(\w+) +\d+% +(\d+) +(\d+) +(\d+)/gm))
    bytes[kind!] = figures.map(Number)
  return { files, extents, references, inlineExtents, bytes }
}
function asCompsize({ files, extents, references, inlineExtents, ...report }: CompressionReport) {
  const figures = (of: typeof report | CompressionReport['algorithms'][number]) => [
    of.diskBytes,
    of.uncompressedBytes,
    of.referencedBytes,
  ]
  const bytes: Record<string, number[]> = { TOTAL: figures(report) }
  for (const kind of report.algorithms)
    bytes[kind.algorithm === 'preallocated' ? 'prealloc' : kind.algorithm] = figures(kind)
  return { files, extents, references, inlineExtents, bytes }
}

/** Of each inode with extents, its references and breaks, from the tree as btrfs-progs prints it. */
function dumped(device: string, subvolume: number): Map<number, { references: number; breaks: number }> {
  const files = new Map<number, { references: number; breaks: number }>()
  let inode = 0
  let at = 0
  let disk = 0
  let diskBytes = 0
  let before = { inode: 0, end: -1, disk: -1, diskEnd: -1 }
  for (const line of run('btrfs', 'inspect-internal', 'dump-tree', '-t', String(subvolume), device).split('\n')) {
    const [, key, offset] = /key \((\d+) EXTENT_DATA (\d+)\)/.exec(line) ?? []
    if (key !== undefined) [inode, at] = [Number(key), Number(offset)]
    const where = /(?:extent|prealloc) data disk byte (\d+) nr (\d+)/.exec(line)
    if (where !== null) [disk, diskBytes] = [Number(where[1]), Number(where[2])]
    const part = /data offset (\d+) nr (\d+)/.exec(line)
    if (part === null || disk === 0) continue
    const [skip, bytes] = [Number(part[1]), Number(part[2])]
    // Its compression is told a line later, but a compressed extent never takes as much as it holds.
    const ram = Number(/ram (\d+)/.exec(line)?.[1] ?? diskBytes)
    const compressed = ram !== diskBytes
    const start = compressed ? disk : disk + skip
    const end = compressed ? disk + diskBytes : start + bytes
    const file = files.get(inode) ?? { references: 0, breaks: 0 }
    files.set(inode, file)
    file.references++
    const follows = before.inode === inode && before.end === at
    if (follows && !(compressed && before.disk === disk) && before.diskEnd !== start) file.breaks++
    before = { inode, end: at + bytes, disk, diskEnd: end }
  }
  return files
}

describe.skipIf(cannotMount)('compression(), fragmentation()', () => {
  let volume: TestVolume
  let fs: KernelFilesystem
  const at = (...names: string[]) => join(volume.path, ...names)

  beforeAll(async () => {
    volume = makeVolume({ devicesMiB: [2048] })
    fs = await openFilesystem(volume.path)
  })
  afterAll(async () => {
    await fs?.close()
    volume?.[Symbol.dispose]()
  })

  it.each([1, 2, 3, 4])(
    'random tree %i: to the byte what compsize says, break for break what the tree has',
    async (seed) => {
      const name = `random${seed}`
      await fs.createSubvolume(name)
      randomTree(at(name), createRandom(seed), 160)
      const report = await fs.compression({ subvolume: name }).result
      expect(asCompsize(report)).toEqual(compsize(at(name)))
      expect(report.algorithms.length).toBeGreaterThan(3)
      expect(report.ratio).toBe(report.diskBytes / report.uncompressedBytes)
      expect(asCompsize(await fs.compression({ subvolume: `${name}/d1` }).result)).toEqual(compsize(at(name, 'd1')))

      const files = [...dumped(volume.loops[0]!, (await fs.subvolume(name)).id)]
      const found = await fs.fragmentation({ subvolume: name, worst: 1000 }).result
      const breaks = files.reduce((sum, [, file]) => sum + file.breaks, 0)
      expect(breaks).toBeGreaterThan(50)
      expect(found).toMatchObject({
        files: report.files,
        extents: report.references,
        breaks,
        ratio: breaks / report.references,
      })
      expect(found.worst.map(({ inode, breaks }) => `${inode} ${breaks}`).sort()).toEqual(
        files
          .filter(([, file]) => file.breaks > 0)
          .map(([inode, { breaks }]) => `${inode} ${breaks}`)
          .sort(),
      )
      expect(found.scatteredFiles).toBe(found.worst.length)
      for (const { from, to, files: count } of found.runs)
        expect(count).toBe(files.filter(([, file]) => file.breaks + 1 >= from && file.breaks + 1 <= to).length)
      expect(found.runs.reduce((sum, { files }) => sum + files, 0)).toBe(files.length)
      const few = await fs.fragmentation({ subvolume: name, worst: 3 }).result
      expect(few.worst.map(({ breaks }) => breaks)).toEqual(found.worst.slice(0, 3).map(({ breaks }) => breaks))
      for (const { path, inode } of few.worst)
        expect(run('stat', '-c', '%i', at(name, path)).trim()).toBe(String(inode))
    },
  )

  it('with nested subvolumes, and snapshots whose extents count once', async () => {
    await fs.createSubvolume('outer')
    mkdirSync(at('outer/dir'))
    writeFileSync(at('outer/file'), Buffer.alloc(3_000_000, 1))
    await fs.createSubvolume('outer/dir/inner')
    writeFileSync(at('outer/dir/inner/file'), Buffer.alloc(1_000_000, 2))
    await fs.snapshot('outer', 'outer/dir/inner/again')
    await fs.createSubvolume('outer-not')
    writeFileSync(at('outer-not/file'), Buffer.alloc(1_000_000, 2))
    const alone = await fs.compression({ subvolume: 'outer' }).result
    expect(asCompsize(alone)).toEqual(compsize('-x', at('outer')))
    const nested = await fs.compression({ subvolume: 'outer', nested: true }).result
    expect(asCompsize(nested)).toEqual(compsize(at('outer')))
    expect(nested.diskBytes).toBeLessThan(nested.referencedBytes)
    expect(asCompsize(await fs.compression({ subvolume: 'outer/dir', nested: true }).result)).toEqual(
      compsize(at('outer/dir')),
    )
    // A scattered file in an inner one has its path from the outer one.
    const fd = openSync(at('outer/dir/inner/file'), 'r+')
    writeSync(fd, Buffer.alloc(8192, 3), 0, undefined, 40_960)
    closeSync(fd)
    const { worst } = await fs.fragmentation({ subvolume: 'outer', nested: true }).result
    expect(worst.map(({ path }) => path)).toEqual(['dir/inner/file'])
  })

  it('a file with many names counts once, one that is gone and open not at all', async () => {
    await fs.createSubvolume('names')
    mkdirSync(at('names/a'))
    mkdirSync(at('names/b'))
    writeFileSync(at('names/a/file'), Buffer.alloc(1_000_000, 1))
    linkSync(at('names/a/file'), at('names/b/file'))
    const fd = openSync(at('names/gone'), 'w')
    writeSync(fd, Buffer.alloc(500_000, 1))
    run('rm', at('names/gone'))
    await fs.sync()
    for (const subvolume of ['names', 'names/a', 'names/b']) {
      const report = await fs.compression({ subvolume }).result
      expect(report).toMatchObject({ files: 1, referencedBytes: 1_003_520 })
    }
    closeSync(fd)
  })

  it('an empty tree has nothing, and no ratio', async () => {
    await fs.createSubvolume('empty')
    expect(await fs.compression({ subvolume: 'empty' }).result).toEqual({
      files: 0,
      extents: 0,
      references: 0,
      inlineExtents: 0,
      diskBytes: 0,
      uncompressedBytes: 0,
      referencedBytes: 0,
      ratio: undefined,
      algorithms: [],
    })
    expect(await fs.fragmentation({ subvolume: 'empty' }).result).toMatchObject({
      files: 0,
      ratio: 0,
      worst: [],
      runs: [],
    })
  })

  it('of one moment, from snapshots that are gone afterwards', async () => {
    const report = await fs.compression({ subvolume: 'outer', nested: true, consistent: true }).result
    expect(asCompsize(report)).toEqual(compsize(at('outer')))
    expect(run('btrfs', 'subvolume', 'list', volume.path)).not.toContain('.btrmind-scan')
  })

  it('stops where it is asked to, and tells how far it came', async () => {
    const before = readdirSync('/proc/self/fd').length
    const next = native.filesNext
    for (const how of ['cancel', 'signal', 'close'] as const) {
      const other = await openFilesystem(volume.path)
      const stop = new AbortController()
      const operation = other.compression({ subvolume: 'outer', signal: stop.signal })
      const spy = vi.spyOn(native, 'filesNext').mockImplementation((...args) => {
        if (how === 'cancel') void operation.cancel()
        if (how === 'signal') stop.abort()
        if (how === 'close') void other.close()
        return next(...args)
      })
      try {
        await expect(operation.result).rejects.toMatchObject(
          how === 'close'
            ? { code: 'EBADF', operation: 'compression' }
            : { code: 'ECANCELED', operation: 'compression', progress: { subvolumes: 0, files: expect.any(Number) } },
        )
      } finally {
        spy.mockRestore()
        await other.close()
      }
    }
    expect(readdirSync('/proc/self/fd').length).toBe(before)
    await using operation = fs.fragmentation({ subvolume: 'random1', intervalMs: 1 })
    const seen: number[] = []
    for await (const { files } of operation) seen.push(files)
    expect((await operation.result).files).toBe(160)
    expect(seen.every((files, i) => files >= (seen[i - 1] ?? 0))).toBe(true)
  })

  it('bad input: what is wrong is said', async () => {
    expect(() => fs.compression({ subvolumes: 'x' } as never)).toThrow(/subvolumes/)
    expect(() => fs.fragmentation({ worst: 1001 })).toThrow(/worst.*1001|1001.*worst/)
    await expect(fs.compression({ subvolume: 'not there' }).result).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(fs.compression({ subvolume: '/proc' }).result).rejects.toThrow(/'\/proc'/)
  })
})
