import { spawn } from 'node:child_process'
import {
  appendFileSync,
  linkSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import { describe, expect, it, vi } from 'vitest'
import { type FileRow, fileRef, rows } from '../../src/btrfs/batch.js'
import { type KernelFilesystem, openFilesystem } from '../../src/btrfs/filesystem.js'
import type { ScanOptions } from '../../src/btrfs/scan.js'
import { type NativeHandle, native } from '../../src/native.js'
import { createRandom } from '../../src/random.js'
import { openFiles } from '../helpers/open-files.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

/** find's own rows of a tree, without what lies in other subvolumes. */
function reference(root: string): string[] {
  const format = '%i %s %b %A@ %T@ %C@ %#m %n %y %P\\0'
  return run('find', root, '-xdev', '-printf', format)
    .split('\0')
    .filter((line) => line !== '' && !/^256 (\S+ ){8}./.test(line)) // a nested subvolume's own directory
    .map((line) => {
      const [inode, size, blocks, atime, mtime, ctime, mode, links, type, ...path] = line.split(' ')
      const times = [atime, mtime, ctime].map((time) => milliseconds(time!))
      const kind = { f: 0o100000, d: 0o040000, l: 0o120000, p: 0o010000, s: 0o140000 }[type!]!
      return [inode, size, Number(blocks) * 512, ...times, kind + Number(`0o${mode}`), links, path.join(' ')].join(' ')
    })
    .sort()
}
function milliseconds(time: string): number {
  const [seconds, fraction] = time.split('.')
  return Number(seconds) * 1000 + Number(fraction!.slice(0, 9)) / 1e6
}
const asReference = (row: FileRow) =>
  [row.inode, row.sizeBytes, row.diskBytes, row.atimeMs, row.mtimeMs, row.ctimeMs, row.mode, row.links, row.path].join(
    ' ',
  )

describe.skipIf(cannotMount)('scan()', () => {
  const { volume, fs, at } = useVolume({ devicesMiB: [1024] })
  const collect = async (options?: ScanOptions, from = fs) => {
    const out: FileRow[] = []
    for await (const row of rows(from.scan(options))) out.push(row)
    return out
  }
  const paths = async (options?: ScanOptions) => (await collect(options)).map(({ path }) => path).sort()
  const same = async (options: ScanOptions = {}) =>
    expect((await collect(options)).map(asReference).sort()).toEqual(reference(at(options.subvolume ?? '.')))

  it('shows a row with its columns where it is printed', async () => {
    mkdirSync(at('shown'))
    writeFileSync(at('shown/file'), 'twelve bytes')
    const row = (await collect({ subvolume: 'shown' })).find(({ path }) => path === 'file')!
    expect(inspect(row)).toMatch(/sizeBytes: 12,[\s\S]*path: 'file'/)
  })

  it('gives what find gives: each column of every kind of file, any name, every hard link', async () => {
    mkdirSync(at('tree/a/b'), { recursive: true })
    for (let i = 0; i < 300; i++) writeFileSync(at('tree/a', `file ${i}`), Buffer.alloc(i * 37, i))
    writeFileSync(Buffer.concat([Buffer.from(at('tree/a/b/')), Buffer.from([0xc3, 0xa9, 0x0a, 0x27])]), 'odd')
    writeFileSync(at('tree/sparse'), 'x')
    truncateSync(at('tree/sparse'), 2 ** 40)
    run('fallocate', '-l', '1M', at('tree/reserved'))
    symlinkSync('/etc', at('tree/link'))
    run('mkfifo', at('tree/fifo'))
    linkSync(at('tree/sparse'), at('tree/a/hard'))
    linkSync(at('tree/sparse'), at('tree/a/harder'))
    run('btrfs', 'subvolume', 'create', at('tree/nested'))
    writeFileSync(at('tree/nested/inside'), 'x')
    await same()
    await same({ subvolume: 'tree' })
    await same({ subvolume: 'tree/nested' })
    await same({ subvolume: 'tree', batchSize: 1 })
    const links = (await collect()).filter(({ path }) => /sparse|hard/.test(path))
    expect(links.map(({ path }) => path).sort()).toEqual(['tree/a/hard', 'tree/a/harder', 'tree/sparse'])
  })

  it('gives names that are no UTF-8 as bytes', async () => {
    const name = Buffer.from([0x62, 0xff, 0xfe])
    writeFileSync(Buffer.concat([Buffer.from(at('tree/')), name]), '')
    const odd = (await collect({ subvolume: 'tree' })).find(({ path }) => path.startsWith('b\ufffd'))
    expect(Buffer.from(odd!.pathBytes)).toEqual(name)
    unlinkSync(Buffer.concat([Buffer.from(at('tree/')), name]))
  })

  it('finds every link where they overflow into extended references', async () => {
    mkdirSync(at('many'))
    writeFileSync(at('many/0'), 'x')
    for (let i = 1; i < 400; i++) linkSync(at('many/0'), at('many', `${i}-${'n'.repeat(200)}`))
    await same({ subvolume: 'many' })
    await fs.sync()
    const { generation } = await fs.subvolume('many')
    appendFileSync(at('many/0'), 'y')
    expect(await paths({ subvolume: 'many', sinceGeneration: generation + 1 })).toHaveLength(400)
  })

  it('a batch stays small, however many names a file has in a deep directory', async () => {
    const deep = at(`linked/${Array(14).fill('d'.repeat(250)).join('/')}`)
    mkdirSync(deep, { recursive: true })
    writeFileSync(join(deep, 'f'), '')
    for (let i = 0; i < 3_000; i++) linkSync(join(deep, 'f'), join(deep, `l${i}`))
    await fs.sync()
    const names = new Set<string>()
    for await (const batch of fs.scan({ subvolume: 'linked' })) {
      let bytes = 0
      for (let i = 0; i < batch.length; i++) {
        bytes += batch.pathBytes(i).length
        if (batch.links[i] === 3_001) names.add(batch.path(i).slice(14 * 251))
      }
      expect(bytes).toBeLessThan(2 ** 20 + 4096)
    }
    expect(names.size).toBe(3_001)
    rmSync(at('linked'), { recursive: true })
  })

  it('follows directories that were moved below younger ones, and is not stopped by depth', async () => {
    mkdirSync(at('moved/old/x'), { recursive: true })
    writeFileSync(at('moved/old/x/file'), 'x')
    mkdirSync(at('moved/young/er'), { recursive: true })
    renameSync(at('moved/old'), at('moved/young/er/old'))
    await same({ subvolume: 'moved' })
    await same({ subvolume: 'moved/young/er/old' })
    const name = 'd'.repeat(200)
    run(
      'python3',
      '-c',
      `import os; os.chdir('${at('moved')}')\nfor i in range(60): os.mkdir('${name}'); os.chdir('${name}')\nopen('end','w')`,
    )
    expect(await paths({ subvolume: 'moved' })).toContain(`${`${name}/`.repeat(60)}end`)
    run('rm', '-rf', at('moved', name))
  })

  it('agrees with find on random trees, also while batches are small', async () => {
    const random = createRandom(7)
    const whole = (below: number) => random.integer(below)
    mkdirSync(at('random'))
    const directories = ['random']
    const files: string[] = []
    for (let i = 0; i < 2_000; i++) {
      const parent = directories[whole(directories.length)]!
      const path = `${parent}/${i}${'x'.repeat(whole(60))}`
      const dice = random.next()
      if (dice < 0.15) {
        mkdirSync(at(path))
        directories.push(path)
      } else if (dice < 0.25 && files.length > 0) linkSync(at(files[whole(files.length)]!), at(path))
      else if (dice < 0.3) symlinkSync('x'.repeat(1 + whole(100)), at(path))
      else {
        writeFileSync(at(path), Buffer.alloc(whole(20_000)))
        files.push(path)
      }
    }
    for (let i = 0; i < 200; i++) unlinkSync(at(files.splice(whole(files.length), 1)[0]!))
    await same({ subvolume: 'random' })
    await same({ subvolume: 'random', batchSize: 7 })
    const inner = directories[directories.length >> 2]!
    await same({ subvolume: inner })
  })

  it('since a generation: what changed then or later, with all its names and extents, and nothing else', async () => {
    await fs.sync()
    const { generation } = await fs.subvolume('.')
    expect(await paths({ subvolume: 'random', sinceGeneration: generation + 1 })).toEqual([])
    const all = (await collect({ subvolume: 'random' })).filter(
      ({ mode, links }) => (mode & 0o170000) === 0o100000 && links === 1,
    )
    const changed = all.filter((_, i) => i % 97 === 0).map(({ path }) => path)
    for (const path of changed) appendFileSync(at('random', path), 'more')
    const since = await collect({ subvolume: 'random', sinceGeneration: generation + 1, extents: true })
    expect(since.map(({ path }) => path).sort()).toEqual(changed.sort())
    const full = new Map((await collect({ subvolume: 'random', extents: true })).map((row) => [row.path, row]))
    for (const row of since) {
      expect(row.generation).toBeGreaterThan(generation)
      expect(JSON.stringify(row)).toBe(JSON.stringify(full.get(row.path)))
    }
  })

  it('counts extents as FIEMAP does, and knows what is compressed and what is shared', async () => {
    mkdirSync(at('extents'))
    const block = run('head', '-c', '65536', '/dev/zero')
    run('dd', 'if=/dev/urandom', `of=${at('extents/plain')}`, 'bs=1M', 'count=4', 'status=none')
    run('cp', '--reflink=always', at('extents/plain'), at('extents/clone'))
    for (let i = 0; i < 32; i++)
      run(
        'dd',
        'if=/dev/urandom',
        `of=${at('extents/broken')}`,
        'bs=4k',
        'count=1',
        `seek=${2 * i}`,
        'conv=notrunc,fsync',
        'status=none',
      )
    writeFileSync(at('extents/squeezed'), '')
    run('btrfs', 'property', 'set', at('extents/squeezed'), 'compression', 'zstd')
    writeFileSync(at('extents/squeezed'), block.repeat(16))
    writeFileSync(at('extents/tiny'), 'inline')
    run('fallocate', '-l', '8M', at('extents/reserved'))
    const found = new Map((await collect({ subvolume: 'extents', sharing: true })).map((row) => [row.path, row]))
    for (const name of readdirSync(at('extents'))) {
      const counted = run('filefrag', '-v', at('extents', name)).match(/^ +\d+:/gm)!.length
      expect([name, found.get(name)!.extentCount]).toEqual([name, counted])
    }
    expect(found.get('plain')).toMatchObject({ compressedBytes: 0, sharedBytes: 4 << 20 })
    expect(found.get('clone')).toMatchObject({ sharedBytes: 4 << 20 })
    expect(found.get('squeezed')).toMatchObject({ compressedBytes: 1 << 20, sharedBytes: 0 })
    expect(found.get('broken')).toMatchObject({ compressedBytes: 0, sharedBytes: 0 })
    const without = await collect({ subvolume: 'extents' })
    expect(without[0]).toMatchObject({ extentCount: undefined, sharedBytes: undefined })
    // Its rows are files to act on.
    for await (const batch of fs.scan({ subvolume: 'extents' })) {
      const index = Array.from({ length: batch.length }, (_, i) => batch.path(i)).indexOf('plain')
      expect(await fs.fileExtents(at('extents'), fileRef(batch, index))).toMatchObject({ ok: true, bytes: 4 << 20 })
    }
  })

  it('of one moment, from a snapshot that is gone afterwards, also when the caller leaves early', async () => {
    await fs.createSubvolume('home')
    mkdirSync(at('home/in'))
    for (let i = 0; i < 100; i++) writeFileSync(at('home/in', `${i}`), 'x')
    const expected = await paths({ subvolume: 'home' })
    const scan = fs.scan({ subvolume: 'home', consistent: true, batchSize: 1 })
    const seen: string[] = []
    for await (const row of rows(scan)) {
      seen.push(row.path)
      rmSync(at('home/in', `${99 - seen.length}`), { force: true })
    }
    expect(seen.sort()).toEqual(expected)
    expect(await paths({ subvolume: 'home/in', consistent: true })).toEqual(await paths({ subvolume: 'home/in' }))
    for await (const _ of fs.scan({ subvolume: 'home', consistent: true })) break
    await fs.snapshot('home', 'frozen', { readonly: true })
    expect(await paths({ subvolume: 'frozen', consistent: true })).toEqual(await paths({ subvolume: 'home' }))
    expect(run('btrfs', 'subvolume', 'list', volume.path)).not.toContain('.btrmind-scan')
  })

  it('of one moment, where nothing can be written to the volume, needs no snapshot', async () => {
    await fs.createSubvolume('still')
    writeFileSync(at('still/file'), 'x')
    const still = { subvolume: 'still', consistent: true }
    const expected = await paths(still)
    // One mount of two: the other one can change it, and no snapshot can be made here.
    const there = join(volume.directory, 'read-only')
    mkdirSync(there)
    run('mount', '--bind', volume.path, there)
    try {
      run('mount', '-o', 'remount,bind,ro', there)
      await using other = await openFilesystem(there)
      await expect(other.scan(still).next()).rejects.toMatchObject({ code: 'EROFS' })
    } finally {
      run('umount', there)
    }
    run('mount', '-o', 'remount,ro', volume.path)
    try {
      expect(await paths(still)).toEqual(expected)
    } finally {
      run('mount', '-o', 'remount,rw', volume.path)
    }
  })

  it('of one moment is refused with what is shared: it would be everything, with its own snapshot', async () => {
    const both = async () => collect({ consistent: true, sharing: true })
    await expect(both()).rejects.toMatchObject({
      code: 'BTRMIND_ERR_ARGUMENT',
      message: expect.stringContaining('every extent would be shared with the snapshot'),
    })
  })

  it('no snapshot stays behind, whenever it is aborted or closed', async () => {
    mkdirSync(at('left'))
    for (let i = 0; i < 300; i++) writeFileSync(at('left', `${i}`), '')
    const left = () => readdirSync(volume.path).filter((name) => name.startsWith('.btrmind-scan'))
    const consume = async (from: KernelFilesystem, signal?: AbortSignal) => {
      for await (const _ of from.scan({ subvolume: 'left', consistent: true, batchSize: 1, signal })) {
        await from.close()
        expect(left()).toEqual([]) // though somebody reads it
      }
    }
    // While the kernel makes it, and by close() while it makes it and while it is read.
    for (const how of ['abort', 'close', 'read'] as const) {
      const other = await openFilesystem(volume.path)
      const stop = new AbortController()
      let closed: Promise<void> | undefined
      const make = native.snapshot
      const spy = vi.spyOn(native, 'snapshot').mockImplementation((...args) => {
        const made = make(...args)
        if (how === 'abort') stop.abort()
        if (how === 'close') closed = other.close()
        return made
      })
      try {
        await expect(consume(other, stop.signal)).rejects.toMatchObject(
          how === 'abort' ? { name: 'AbortError' } : { code: 'EBADF' },
        )
        await closed
      } finally {
        spy.mockRestore()
        await other.close()
      }
      expect(left()).toEqual([])
    }
    // While it is about to be opened: the name is looked for when close() has taken it away.
    for (const call of ['directory', 'scanOpen'] as const) {
      const other = await openFilesystem(volume.path)
      let closed: Promise<void> | undefined
      const open = native[call] as (ticket: number, handle: NativeHandle, ...rest: unknown[]) => Promise<never>
      const spy = vi
        .spyOn(native, call)
        .mockImplementation(async (ticket: number, handle: NativeHandle, ...rest: unknown[]) => {
          if (!String(rest[0]).includes('.btrmind-scan')) return open(ticket, handle, ...rest)
          const shared = native.share(handle)
          closed = other.close()
          await vi.waitFor(() => expect(left()).toEqual([]), { timeout: 10_000 })
          return open(ticket, shared, ...rest).finally(() => native.close(shared))
        })
      try {
        await expect(consume(other)).rejects.toMatchObject({ code: 'EBADF', operation: 'scan' })
        expect(closed).toBeDefined()
        await closed
      } finally {
        spy.mockRestore()
      }
    }
    // Before it is begun.
    {
      const other = await openFilesystem(volume.path)
      const share = native.share
      const make = vi.spyOn(native, 'snapshot')
      const spy = vi.spyOn(native, 'share').mockImplementation((handle) => {
        const own = share(handle)
        void other.close()
        return own
      })
      try {
        await expect(consume(other)).rejects.toMatchObject({ code: 'EBADF' })
        expect(make).not.toHaveBeenCalled()
      } finally {
        spy.mockRestore()
        make.mockRestore()
      }
    }
    // Nobody reads on.
    const other = await openFilesystem(volume.path)
    await other.scan({ subvolume: 'left', consistent: true, batchSize: 1 }).next()
    expect(left()).toHaveLength(1)
    await other.close()
    expect(left()).toEqual([])
  })

  it('who never reads on does not keep a closed volume busy', async () => {
    mkdirSync(at('abandoned'))
    for (let i = 0; i < 3_000; i++) writeFileSync(at('abandoned', `${i}`), '')
    const held = () => openFiles().filter((path) => path.startsWith(volume.path)).length
    const before = held()
    const readers = {
      scan: (from: KernelFilesystem) => from.scan({ subvolume: 'abandoned', batchSize: 256 }),
      consistent: (from: KernelFilesystem) => from.scan({ subvolume: 'abandoned', consistent: true, batchSize: 256 }),
      walk: (from: KernelFilesystem) => from.walk(at('abandoned'), { batchSize: 256 }),
      changed: (from: KernelFilesystem) => from.changed(1),
    }
    for (const [name, read] of Object.entries(readers)) {
      const other = await openFilesystem(volume.path)
      const batches = read(other)[Symbol.asyncIterator]()
      expect((await batches.next()).done, name).toBe(false)
      expect(held(), name).toBeGreaterThan(before)
      await other.close()
      expect(held(), name).toBe(before)
      // What was read already comes.
      const on = async () => {
        for (;;) if ((await batches.next()).done) return
      }
      await expect(on(), name).rejects.toMatchObject({ code: 'EBADF', name: 'BtrfsError' })
      expect(held(), name).toBe(before)
    }
  })

  it('under a writer, what stays is there exactly once', async () => {
    mkdirSync(at('busy/churn'), { recursive: true })
    for (let i = 0; i < 3_000; i++) writeFileSync(at('busy', `stays-${i}`), '')
    const script = `i=0; while [ -e ${at('busy/go')} ]; do i=$((i+1)); echo $i > ${at('busy/churn')}/$((i%50)); mv ${at('busy/churn')}/$((i%50)) ${at('busy/churn')}/m$((i%50)); [ $((i%40)) = 0 ] && sync -f ${volume.path}; done; true`
    writeFileSync(at('busy/go'), '')
    const writer = spawn('sh', ['-c', script])
    const ended = new Promise((resolve) => writer.once('exit', resolve))
    try {
      for (let i = 0; i < 20; i++) {
        const stays = (await paths({ subvolume: 'busy', batchSize: 100 })).filter((path) => path.startsWith('stays-'))
        expect(new Set(stays).size).toBe(3_000)
        expect(stays).toHaveLength(3_000)
      }
    } finally {
      unlinkSync(at('busy/go'))
      await ended
    }
  })

  it('a name that the kernel has not taken away yet is none, a link that it has not counted yet is one', async () => {
    for (const name of ['low', 'high']) mkdirSync(at('unsettled', name), { recursive: true })
    const names = async () =>
      (await collect({ subvolume: 'unsettled', sync: false }))
        .filter(({ mode }) => (mode & 0o170000) === 0o100000)
        .map(({ path }) => path)
        .sort()
    writeFileSync(at('unsettled/low/up'), '')
    writeFileSync(at('unsettled/high/down'), '')
    writeFileSync(at('unsettled/linked'), '')
    writeFileSync(at('unsettled/low/twice'), '')
    linkSync(at('unsettled/low/twice'), at('unsettled/high/twice'))
    await fs.sync()
    renameSync(at('unsettled/low/up'), at('unsettled/high/up'))
    renameSync(at('unsettled/high/down'), at('unsettled/low/down'))
    linkSync(at('unsettled/linked'), at('unsettled/high/linked'))
    linkSync(at('unsettled/low/twice'), at('unsettled/thrice'))
    const expected = ['high/linked', 'high/twice', 'high/up', 'linked', 'low/down', 'low/twice', 'thrice']
    expect(await names()).toEqual(expected)
    await fs.sync()
    expect(await names()).toEqual(expected)
  })

  it('while files with several names are renamed, none has one too many', async () => {
    mkdirSync(at('hard/a/b'), { recursive: true })
    for (let i = 0; i < 500; i++) {
      writeFileSync(at('hard/a/b', `s${i}`), '')
      for (const name of ['x', 'y']) linkSync(at('hard/a/b', `s${i}`), at('hard/a', `${name}${i}`))
    }
    writeFileSync(at('hard/go'), '')
    const script = `const { renameSync, existsSync } = require('node:fs')
      while (existsSync('go')) for (let i = 0; i < 500; i += 7) {
        renameSync('a/b/s' + i, 'a/S' + i)
        renameSync('a/S' + i, 'a/b/s' + i)
      }`
    const writer = spawn('node', ['-e', script], { cwd: at('hard') })
    const ended = new Promise((resolve) => writer.once('exit', resolve))
    try {
      for (let i = 0; i < 60; i++) {
        const names = new Map<number, string[]>()
        for (const { inode, mode, path } of await collect({ subvolume: 'hard/a', batchSize: 64, sync: false }))
          if ((mode & 0o170000) === 0o100000) names.set(inode, [...(names.get(inode) ?? []), path])
        expect(names.size).toBe(500)
        expect([...names.values()].filter((of) => of.length !== 3)).toEqual([])
      }
    } finally {
      unlinkSync(at('hard/go'))
      await ended
    }
  })

  it('without privilege walks, and says what only root may ask', async () => {
    mkdirSync(at('open/x'), { recursive: true })
    writeFileSync(at('open/x/file'), 'abc')
    symlinkSync('x', at('open/link'))
    run('chmod', '-R', 'a+rX', at('open'))
    await fs.sync()
    const helper = fileURLToPath(new URL('../helpers/scan-as-nobody.ts', import.meta.url))
    run('chmod', '755', volume.directory)
    const found = JSON.parse(run('node', '--import', 'tsx', helper, at('open')))
    const expected = (await collect({ subvolume: 'open' })).map(
      (row) => `${row.inode} ${row.sizeBytes} undefined ${row.path}`,
    )
    expect(found.plain.sort()).toEqual(expected.sort())
    expect(found).toMatchObject({ largest: 1, unread: [] })
    mkdirSync(at('open/closed'), { mode: 0o700 })
    expect(JSON.parse(run('node', '--import', 'tsx', helper, at('open')))).toMatchObject({
      largest: 1,
      unread: ['EACCES 1'],
    })
    for (const refused of [found.since, found.extents, found.consistent])
      expect(refused).toMatchObject({ code: 'EPERM', hint: expect.stringContaining('root') })
    // It could not delete its own snapshot again.
    run('chown', '-R', '65534:65534', at('open'))
    await fs.createSubvolume('theirs')
    run('chown', '65534:65534', at('theirs'))
    expect(JSON.parse(run('node', '--import', 'tsx', helper, at('theirs'))).consistent.code).toBe('EPERM')
    expect(readdirSync(at('theirs'))).toEqual([])
  })

  it('a size that no number holds is NaN, and ends nothing', async () => {
    mkdirSync(at('sizes'))
    run('truncate', '-s', '9P', at('sizes/exact'))
    run('truncate', '-s', String(2n ** 60n + 1n), at('sizes/odd'))
    await fs.sync()
    const sizes = (await collect({ subvolume: 'sizes' })).map(({ path, sizeBytes }) => [path, sizeBytes])
    expect(sizes).toEqual([
      ['', expect.any(Number)],
      ['exact', 9 * 2 ** 50],
      ['odd', Number.NaN],
    ])
    expect(await fs.compression({ subvolume: 'sizes' }).result).toMatchObject({ files: 2, diskBytes: 0 })
    expect(await fs.du({ subvolume: 'sizes' }).result).toMatchObject({ files: 2, totalBytes: 0 })
    rmSync(at('sizes'), { recursive: true })
  })

  it('while files are renamed, each has the one name that it has', async () => {
    mkdirSync(at('renamed/a/b'), { recursive: true })
    for (let i = 0; i < 2_000; i++) writeFileSync(at('renamed/a/b', `s${i}`), '')
    // Where a rename falls between two pages: the search that reads names is told of both.
    writeFileSync(at('renamed/go'), '')
    const script = `while [ -e ${at('renamed/go')} ]; do for i in $(seq 0 97 1999); do mv ${at('renamed/a/b')}/s$i ${at('renamed/a')}/S$i; done; for i in $(seq 0 97 1999); do mv ${at('renamed/a')}/S$i ${at('renamed/a/b')}/s$i; done; done; true`
    const writer = spawn('sh', ['-c', script])
    const ended = new Promise((resolve) => writer.once('exit', resolve))
    try {
      for (let i = 0; i < 15; i++) {
        const files = (await collect({ subvolume: 'renamed/a', batchSize: 64 })).filter(
          ({ links, mode }) => links === 1 && (mode & 0o170000) === 0o100000,
        )
        expect(new Set(files.map(({ inode }) => inode)).size).toBe(files.length)
        expect(files).toHaveLength(2_000)
      }
    } finally {
      unlinkSync(at('renamed/go'))
      await ended
    }
  })

  it('stops on an abort and on close(), and leaves no descriptor behind', async () => {
    const before = readdirSync('/proc/self/fd').length
    const controller = new AbortController()
    const reason = new Error('enough')
    const scan = rows(fs.scan({ batchSize: 10, signal: controller.signal }))
    await scan.next()
    controller.abort(reason)
    await expect(
      (async () => {
        for await (const _ of scan);
      })(),
    ).rejects.toBe(reason)
    const other = await openFilesystem(volume.path)
    const open = other.scan({ batchSize: 10 })
    await open.next()
    await other.close()
    await expect(
      (async () => {
        for await (const _ of open);
      })(),
    ).rejects.toMatchObject({ code: 'EBADF' })
    await expect(collect({}, other)).rejects.toMatchObject({ code: 'EBADF' })
    expect(readdirSync('/proc/self/fd').length).toBe(before)
  })

  it('bad input: what is wrong is said', async () => {
    await expect(collect({ subvolume: 'not there' })).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(collect({ subvolume: 'tree/sparse' })).rejects.toMatchObject({ code: 'ENOTDIR' })
    await expect(collect({ subvolume: '/proc' })).rejects.toThrow(/'\/proc'/)
    await expect(collect({ batchSize: 0 })).rejects.toThrow(/batchSize/)
    await expect(collect({ sinceGeneration: -1 })).rejects.toThrow(/sinceGeneration/)
    await expect(collect({ since: 1 } as never)).rejects.toThrow(/since/)
    expect(statSync(at('tree')).isDirectory()).toBe(true)
  })
})
