import {
  closeSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import type { CompressionReport } from '../../src/btrfs/reports.js'
import { native } from '../../src/native.js'
import { createRandom, type Random } from '../../src/random.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

/** Files in every state an extent can be in. */
function randomTree(root: string, random: Random, files: number, algorithms = ['zlib', 'lzo', 'zstd', 'none']): void {
  const whole = (below: number) => Math.floor(random.next() * below)
  const noise = Buffer.alloc(1 << 20)
  for (let i = 0; i < noise.length; i++) noise[i] = whole(256)
  const content = (bytes: number) =>
    random.next() < 0.5 ? noise.subarray(0, bytes) : Buffer.alloc(bytes, `text that repeats ${whole(10)} `)
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

describe.skipIf(cannotMount)('compression(), fragmentation(), du()', () => {
  const { volume, fs, at } = useVolume({ devicesMiB: [2048] })

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

  /** Total, exclusive, set shared of each, as btrfs-progs has them. */
  const progs = (...paths: string[]) =>
    run('btrfs', 'filesystem', 'du', '-s', '--raw', ...paths)
      .trim()
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/ +/).slice(0, 3).map(Number))

  it.each([1, 2, 3])('du of random tree %i beside a snapshot: what btrfs filesystem du says', async (seed) => {
    const name = `random${seed}`
    await fs.snapshot(name, `${name}-snapshot`)
    const random = createRandom(100 + seed)
    for (let i = 0; i < 40; i++) {
      const path = at(name, `d${Math.floor(random.next() * 4)}`, 'below', `file ${Math.floor(random.next() * 40)}`)
      const fd = openSync(path, 'r+')
      writeSync(
        fd,
        Buffer.alloc(1 + Math.floor(random.next() * 100_000), i),
        0,
        undefined,
        Math.floor(random.next() * 5e5),
      )
      closeSync(fd)
    }
    linkSync(at(name, 'd0/below/file 1'), at(name, 'd1/another'))
    await fs.sync()
    const whole = await fs.du({ subvolume: name, depth: 2 }).result
    expect([whole.totalBytes, whole.exclusiveBytes]).toEqual(progs(at(name))[0]!.slice(0, 2))
    expect(whole.exclusiveBytes).toBeGreaterThan(0)
    expect(whole.setSharedBytes).toBeGreaterThan(0)
    expect(whole.files).toBe(160)
    const paths = whole.directories.map(({ path }) => path)
    expect([...paths].sort()).toEqual([0, 1, 2, 3].flatMap((d) => [`d${d}`, `d${d}/below`]))
    for (const { path, totalBytes, exclusiveBytes } of whole.directories) {
      // The file with two names counts where the first of them is.
      if (path === 'd1') continue
      expect([path, totalBytes, exclusiveBytes]).toEqual([path, ...progs(at(name, path))[0]!.slice(0, 2)])
    }
    expect(whole.directories.map(({ totalBytes }) => totalBytes)).toEqual(
      whole.directories.map(({ totalBytes }) => totalBytes).sort((a, b) => b - a),
    )
  })

  it.each([1, 2, 3])('du of uncompressed random tree %i: also what is shared, to the byte', async (seed) => {
    const name = `plain${seed}`
    await fs.createSubvolume(name)
    randomTree(at(name), createRandom(200 + seed), 100, ['none', 'none'])
    const same = async (subvolume: string) => {
      const report = await fs.du({ subvolume }).result
      const { totalBytes, exclusiveBytes, setSharedBytes, directories } = report
      expect([totalBytes, exclusiveBytes, setSharedBytes]).toEqual(progs(at(subvolume))[0])
      expect(directories).toEqual([])
      return report
    }
    const before = await same(name)
    expect(before.exclusiveBytes).toBeGreaterThan(before.setSharedBytes)
    await fs.snapshot(name, `${name}/d0/inner`)
    await same(`${name}/d1`)
    const both = await fs.du({ subvolume: name, nested: true, depth: 1 }).result
    expect([both.totalBytes, both.exclusiveBytes, both.setSharedBytes]).toEqual(progs(at(name))[0])
    expect(both.totalBytes).toBe(2 * before.totalBytes)
    expect(both.directories.reduce((sum, { totalBytes }) => sum + totalBytes, 0)).toBe(both.totalBytes)
  })

  it('du counts a compressed extent that is shared once, with what it holds', async () => {
    await fs.createSubvolume('squeezed')
    run('btrfs', 'property', 'set', at('squeezed'), 'compression', 'zstd')
    writeFileSync(at('squeezed/file'), Buffer.alloc(3 << 20, 'again and '))
    await fs.sync()
    run('cp', '--reflink=always', at('squeezed/file'), at('squeezed/copy'))
    const report = await fs.du({ subvolume: 'squeezed' }).result
    expect(report).toMatchObject({ totalBytes: 6 << 20, exclusiveBytes: 0, setSharedBytes: 3 << 20 })
  })

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

  it('of a bind mount of a directory: what needs its subvolume as a whole says so', async () => {
    await fs.createSubvolume('whole')
    mkdirSync(at('whole/part'))
    const there = mkdtempSync(join(tmpdir(), 'btrmind-bind-'))
    run('mount', '--bind', at('whole/part'), there)
    try {
      await using part = await openFilesystem(there)
      expect(await part.du().result).toMatchObject({ subvolumes: 1 })
      const not = { code: 'EPERM', message: expect.stringContaining('its subvolume is not mounted as a whole') }
      await expect(part.du({ nested: true }).result).rejects.toMatchObject(not)
      await expect(part.compression({ nested: true }).result).rejects.toMatchObject(not)
      await expect(part.scan({ consistent: true }).next()).rejects.toMatchObject(not)
    } finally {
      run('umount', there)
      rmSync(there, { recursive: true })
    }
  })

  it('right after a consistent one, du counts nothing as shared with the snapshot that was', async () => {
    await fs.createSubvolume('alone')
    for (let i = 0; i < 60; i++) writeFileSync(at('alone', `${i}`), Buffer.alloc(100_000, i + 1))
    await fs.sync()
    const before = await fs.du({ subvolume: 'alone' }).result
    expect(before.exclusiveBytes).toBeGreaterThan(0)
    for (let i = 0; i < 3; i++) {
      await fs.compression({ subvolume: 'alone', consistent: true }).result
      expect((await fs.du({ subvolume: 'alone' }).result).exclusiveBytes).toBe(before.exclusiveBytes)
    }
  })

  it('goes on without a subvolume that goes away, and without what a consistent scan has made for itself', async () => {
    await fs.createSubvolume('going')
    for (const name of ['a', 'b']) {
      await fs.createSubvolume(`going/${name}`)
      writeFileSync(at('going', name, 'file'), 'content')
    }
    const temporary = 'going/.btrmind-scan-00000000-0000-0000-0000-000000000000'
    await fs.snapshot('going', temporary, { readonly: true })
    const { subvolumes } = native
    const spy = vi.spyOn(native, 'subvolumes').mockImplementation(async (...args) => {
      const listed = await subvolumes(...args)
      await fs.deleteSubvolume('going/a')
      return listed
    })
    try {
      const report = await fs.compression({ subvolume: 'going', nested: true }).result
      expect(report).toMatchObject({ files: 1, subvolumes: 2, skippedSubvolumes: 1 })
    } finally {
      spy.mockRestore()
      await fs.deleteSubvolume(temporary)
    }
  })

  it('what may not be opened is an error, and not nothing', async () => {
    run('chmod', '755', volume.directory)
    const script = `import { openFilesystem } from './src/btrfs/filesystem.ts'; const fs = await openFilesystem('${volume.path}'); console.log(await fs.du({ subvolume: 'random1' }).result.then(() => 'none', (error) => error.code + ' ' + error.hint))`
    const without = ['setpriv', '--bounding-set=-dac_read_search', '--inh-caps=-dac_read_search']
    const said = run(...(without as [string]), process.execPath, '--import', 'tsx', '--input-type=module', '-e', script)
    expect(said.trim()).toBe('EPERM needs root (CAP_DAC_READ_SEARCH)')
  })

  it('an empty tree has nothing, and no ratio', async () => {
    await fs.createSubvolume('empty')
    expect(await fs.compression({ subvolume: 'empty' }).result).toEqual({
      subvolumes: 1,
      skippedSubvolumes: 0,
      inodes: 1,
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
    expect(() => fs.du({ consistent: true } as never)).toThrow(/consistent/)
    expect(() => fs.du({ depth: -1 })).toThrow(/depth.*-1/)
    await expect(fs.compression({ subvolume: 'not there' }).result).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(fs.compression({ subvolume: '/proc' }).result).rejects.toThrow(/'\/proc'/)
  })
})
