/** What the upper layers rely on, of any filesystem: one suite for the kernel and for the simulator. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type FileRef, fileRef } from '../../src/btrfs/batch.js'
import type { Root } from '../../src/btrfs/directory.js'
import type { Filesystem } from '../../src/btrfs/interface.js'
import type { Measurement } from '../../src/btrfs/measure.js'
import type { Subvolume } from '../../src/btrfs/subvolume-list.js'
import { BtrfsError } from '../../src/errors.js'
import { DAY_MS, MIB } from '../../src/units.js'

export interface FileTraits {
  /** How long ago it was last read and written. Default 0. */
  readonly ageMs?: number
  /** Text that shrinks to a few percent; else random bytes. */
  readonly compressible?: boolean
}

/** A volume of one device of 1 GiB or more, data single, metadata DUP, nothing on it. Paths are relative to `root`. */
export interface Bench {
  readonly fs: Filesystem
  readonly root: string
  writeFile(path: string, bytes: number, traits?: FileTraits): Promise<void>
  makeDirectory(path: string): Promise<void>
  makeSymlink(path: string, target: string): Promise<void>
  dispose(): Promise<void>
}

const PARTS = { space, directories, subvolumes, walk, files, compression, balance, calls }
export type Part = keyof typeof PARTS

export function filesystemContract(
  name: string,
  make: () => Promise<Bench>,
  parts = Object.keys(PARTS) as readonly Part[],
): void {
  for (const part of parts) {
    describe(`${name}: ${part}`, () => {
      let bench: Bench | undefined
      beforeAll(async () => {
        bench = await make()
      })
      afterAll(() => bench?.dispose())
      PARTS[part](() => bench!)
    })
  }
}

/** What `act` rejects with. */
export async function refusal(act: () => Promise<unknown>): Promise<unknown> {
  try {
    await act()
  } catch (error) {
    return error
  }
  throw new Error('it did not fail')
}

export async function rows(fs: Filesystem, root: Root, batchSize?: number): Promise<(FileRef & { name: string })[]> {
  const found: (FileRef & { name: string })[] = []
  for await (const batch of fs.walk(root, { batchSize })) {
    for (let index = 0; index < batch.length; index++) found.push({ ...fileRef(batch, index), name: batch.path(index) })
  }
  return found
}

async function list(fs: Filesystem, below?: string): Promise<Subvolume[]> {
  const found: Subvolume[] = []
  for await (const subvolume of fs.subvolumes(below === undefined ? {} : { below })) found.push(subvolume)
  return found
}

async function settled(fs: Filesystem): Promise<Measurement> {
  await fs.sync()
  return fs.measure()
}

function space(bench: () => Bench) {
  it('info() identifies the volume', async () => {
    const { fs } = bench()
    const info = await fs.info()
    expect(info.uuid).toBe(fs.uuid)
    expect(info).toMatchObject({ devices: 1, maxDeviceId: 1, nodeSizeBytes: 16384, sectorSizeBytes: 4096 })
    // Twice: the kernel counts a transaction when it begins, and one may have begun before.
    for (const path of ['first', 'second']) {
      await bench().writeFile(path, MIB)
      await fs.sync()
    }
    expect((await fs.info()).generation).toBeGreaterThan(info.generation!)
  })

  it('usage(), devices(), measure() and statfs() agree with each other', async () => {
    const { fs } = bench()
    await bench().writeFile('third', 5 * MIB)
    await fs.sync()
    const [usage, devices, measured, statfs] = [
      await fs.usage(),
      await fs.devices(),
      await fs.measure(),
      await fs.statfs(),
    ]
    const sum = <T>(items: readonly T[], of: (item: T) => number) => items.reduce((total, item) => total + of(item), 0)
    expect(sum(devices, (device) => device.sizeBytes)).toBe(usage.deviceSizeBytes)
    expect(sum(devices, (device) => device.allocatedBytes)).toBe(usage.deviceAllocatedBytes)
    expect(usage.deviceAllocatedBytes + usage.deviceUnallocatedBytes).toBe(usage.deviceSizeBytes)
    expect(sum(usage.unallocated, (device) => device.sizeBytes)).toBe(usage.deviceUnallocatedBytes)
    const raw = usage.blockGroups.flatMap((group) => group.devices!)
    expect(sum(raw, (device) => device.sizeBytes)).toBe(usage.deviceAllocatedBytes)
    expect(usage).toMatchObject({ dataRatio: 1, metadataRatio: 2, multipleProfiles: false, deviceMissingBytes: 0 })
    for (const group of usage.blockGroups) {
      expect(group.usedBytes).toBeLessThanOrEqual(group.sizeBytes)
      expect(sum(group.devices!, (device) => device.sizeBytes)).toBe(group.sizeBytes * (group.type === 'data' ? 1 : 2))
    }
    const of = (type: string) => usage.blockGroups.find((group) => group.type === type)!
    expect(usage.usedBytes).toBe(of('data').usedBytes + 2 * (of('metadata').usedBytes + of('system').usedBytes))

    expect(measured).toMatchObject({
      deviceSizeBytes: usage.deviceSizeBytes,
      unallocatedBytes: usage.deviceUnallocatedBytes,
      dataUsedBytes: of('data').usedBytes,
      dataAllocatedBytes: of('data').sizeBytes,
      metadataUsedBytes: of('metadata').usedBytes,
      metadataAllocatedBytes: of('metadata').sizeBytes,
      globalReserveBytes: usage.globalReserveBytes,
      freeBytes: usage.freeStatfsBytes,
      missingDevices: 0,
      devices: 1,
      exclusiveOperation: 'none',
      readOnly: false,
      deviceErrors: { write: 0, read: 0, flush: 0, corruption: 0, generation: 0 },
    })
    const overhead = 2 * (of('metadata').sizeBytes + of('system').sizeBytes)
    expect(measured.metadataOverheadRatio).toBeCloseTo(overhead / usage.deviceSizeBytes, 9)
    expect(measured.usedPercent).toBeCloseTo((100 * (of('data').usedBytes + overhead)) / usage.deviceSizeBytes, 6)
    expect(measured.freeBytes).toBe(statfs.freeBytes)
    expect(statfs.sizeBytes).toBe(usage.deviceSizeBytes)
    expect(statfs.usedPercent).toBeCloseTo((100 * (statfs.sizeBytes - statfs.freeBytes)) / statfs.sizeBytes, 6)
  })

  it('counts what is not flushed yet as live, and a sync settles it', async () => {
    const { fs } = bench()
    const before = await settled(fs)
    await bench().writeFile('fresh', 20 * MIB)
    const written = await fs.measure()
    expect(written.liveDataUsedBytes! - before.dataUsedBytes).toBeGreaterThanOrEqual(20 * MIB)
    expect(written.liveUsedPercent).toBeGreaterThanOrEqual(written.usedPercent)
    const after = await settled(fs)
    expect(after.dataUsedBytes - before.dataUsedBytes).toBe(20 * MIB)
    expect(after.liveDataUsedBytes).toBe(after.dataUsedBytes)
    expect(after.liveUsedPercent).toBe(after.usedPercent)
    for (const percent of [after.usedPercent, written.liveUsedPercent!]) {
      expect(percent).toBeGreaterThan(0)
      expect(percent).toBeLessThan(100)
    }
    expect((await fs.usage()).live).toEqual({ dataUsedBytes: after.dataUsedBytes, usedPercent: after.usedPercent })
  })

  it('sees contiguous files as not fragmented', async () => {
    const { fragmentationRatio } = await bench().fs.measure()
    expect(fragmentationRatio).toBeGreaterThanOrEqual(0)
    expect(fragmentationRatio).toBeLessThan(0.5)
  })
}

function directories(bench: () => Bench) {
  it('directory() resolves through symlinks and says where it is', async () => {
    const { fs, root } = bench()
    await bench().makeDirectory('real')
    await bench().makeSymlink('link', 'real')
    await fs.createSubvolume(`${root}/inner`)
    const real = await fs.directory(`${root}/real`)
    expect(real).toMatchObject({ path: `${root}/real`, subvolumeTop: false })
    expect(await fs.directory(`${root}/link`)).toEqual(real)
    await fs.createSubvolume(`${root}/other`)
    await bench().makeSymlink('other/up', './../real')
    await bench().makeSymlink('other/over', `${root}/other/up`)
    await bench().makeSymlink('other/out', '/nowhere/at/all')
    expect(await fs.directory(`${root}/other/up`)).toEqual(real)
    expect(await fs.directory(`${root}/other/over`)).toEqual(real)
    await expect(fs.directory(`${root}/other/out`)).rejects.toMatchObject({ code: 'ENOENT' })
    const inner = await fs.directory(`${root}/inner`)
    expect(inner).toMatchObject({ path: `${root}/inner`, inode: 256, subvolumeTop: true })
    expect(inner.subvolumeId).toBe((await fs.subvolume(`${root}/inner`)).id)
    expect(inner.subvolumeId).not.toBe(real.subvolumeId)
  })
  it('says what is wrong with a path', async () => {
    const { fs, root } = bench()
    await bench().writeFile('file', 10)
    const operation = 'directory'
    expect(await refusal(() => fs.directory(`${root}/none`))).toMatchObject({ code: 'ENOENT', operation })
    expect(await refusal(() => fs.directory(`${root}/none/deeper`))).toMatchObject({ code: 'ENOENT', operation })
    expect(await refusal(() => fs.directory(`${root}/file`))).toMatchObject({ code: 'ENOTDIR', operation })
    await bench().makeSymlink('loop', 'loop')
    expect(await refusal(() => fs.directory(`${root}/loop`))).toMatchObject({ code: 'ELOOP', operation })
    expect(await refusal(() => fs.directory(''))).toMatchObject({ code: 'BTRMIND_ERR_ARGUMENT' })
  })
}

function subvolumes(bench: () => Bench) {
  it('makes, describes and lists them', async () => {
    const { fs, root } = bench()
    await fs.createSubvolume(`${root}/a`)
    await bench().writeFile('a/file', 5 * MIB)
    await fs.createSubvolume(`${root}/a/nested`)
    await bench().makeDirectory('kept')
    await fs.snapshot(`${root}/a`, `${root}/kept/one`, { readonly: true })
    await fs.snapshot(`${root}/a`, `${root}/kept/two`)
    const a = await fs.subvolume(`${root}/a`)
    expect(await fs.subvolume(`${root}/a/file`)).toEqual(a)
    expect(a).toMatchObject({ readonly: false, parentUuid: undefined, receivedUuid: undefined })
    const one = await fs.subvolume(`${root}/kept/one`)
    expect(one).toMatchObject({ readonly: true, parentUuid: a.uuid })
    expect(one.uuid).not.toBe(a.uuid)
    expect(one.id).toBeGreaterThan(a.id)
    expect(await fs.subvolume(`${root}/kept/two`)).toMatchObject({ readonly: false, parentUuid: a.uuid })
    expect(Math.abs(one.createdAt.getTime() - a.createdAt.getTime())).toBeLessThan(60_000)

    const all = await list(fs)
    const top = (await fs.subvolume(root)).path
    const paths = ['a', 'a/nested', 'kept/one', 'kept/two'].map((path) => (top === '' ? path : `${top}/${path}`))
    expect(all.map(({ path }) => path).sort()).toEqual(paths)
    expect(all.find(({ path }) => path === paths[1])!.parentId).toBe(a.id)
    expect(all.find(({ path }) => path === paths[2])).toEqual(one)
    expect((await list(fs, `${root}/kept`)).map(({ path }) => path).sort()).toEqual(paths.slice(2))
    expect((await list(fs, `${root}/a`)).map(({ path }) => path)).toEqual([paths[1]])
  })

  it('a snapshot keeps what is removed or written over in its source', async () => {
    const { fs, root } = bench()
    await bench().writeFile('a/later', 3 * MIB)
    expect((await rows(fs, `${root}/kept/one`)).map(({ name }) => name)).toEqual(['file'])
    const before = await settled(fs)
    const [file] = (await rows(fs, `${root}/a`)).filter(({ name }) => name === 'file')
    expect(await fs.removeFiles(`${root}/a`, [file!])).toEqual([{ ok: true }])
    const after = await settled(fs)
    expect(after.dataUsedBytes).toBe(before.dataUsedBytes)
    expect((await rows(fs, `${root}/a`)).map(({ name }) => name)).toEqual(['later'])
    expect((await rows(fs, `${root}/kept/two`)).map(({ name }) => name)).toEqual(['file'])
  })

  it('a deleted snapshot frees what only it held, and waitUntilFreed shows it', async () => {
    const { fs, root } = bench()
    const before = await settled(fs)
    await fs.deleteSubvolume(`${root}/kept/one`, { waitUntilFreed: true })
    expect((await fs.measure()).dataUsedBytes).toBe(before.dataUsedBytes)
    await fs.deleteSubvolume(`${root}/kept/two`, { waitUntilFreed: true })
    const after = await fs.measure()
    expect(before.dataUsedBytes - after.dataUsedBytes).toBe(5 * MIB)
    expect(after.freeBytes).toBeGreaterThanOrEqual(before.freeBytes + 4 * MIB)
    expect(await list(fs, `${root}/kept`)).toEqual([])
  })

  it('deletes the one that was seen, where it was seen, or none', async () => {
    const { fs, root } = bench()
    for (const parent of ['here', 'there']) {
      await bench().makeDirectory(parent)
      await fs.snapshot(`${root}/a`, `${root}/${parent}/s`, { readonly: true })
    }
    const [here, there] = [await fs.directory(`${root}/here`), await fs.directory(`${root}/there`)]
    const { id } = await fs.subvolume(`${root}/here/s`)
    const { id: other } = await fs.subvolume(`${root}/there/s`)
    const deleting = (options: object) => refusal(() => fs.deleteSubvolume(`${root}/here/s`, options))
    expect(await deleting({ id: other })).toMatchObject({ code: 'ESTALE', path: `${root}/here/s` })
    expect(await deleting({ id, parent: there })).toMatchObject({ code: 'ESTALE' })
    expect(await deleting({ parent: there })).toMatchObject({ code: 'ESTALE' })
    expect(await deleting({ id: 1.5 })).toMatchObject({ code: 'BTRMIND_ERR_ARGUMENT' })
    expect((await list(fs, `${root}/here`)).length + (await list(fs, `${root}/there`)).length).toBe(2)
    await fs.deleteSubvolume(`${root}/here/s`, { id, parent: here, waitUntilFreed: true })
    await fs.deleteSubvolume(`${root}/there/s`, { id: other })
    expect((await list(fs, `${root}/here`)).length + (await list(fs, `${root}/there`)).length).toBe(0)
  })

  it('says what is wrong', async () => {
    const { fs, root } = bench()
    const code = async (act: () => Promise<unknown>) => {
      const error = await refusal(act)
      expect(error).toBeInstanceOf(BtrfsError)
      const { code, operation, path } = error as BtrfsError
      expect(path).toMatch(root)
      return [operation, code]
    }
    await bench().makeDirectory('plain')
    const create = (path: string) => code(() => fs.createSubvolume(`${root}/${path}`))
    expect(await create('a')).toEqual(['createSubvolume', 'EEXIST'])
    expect(await create('plain')).toEqual(['createSubvolume', 'EEXIST'])
    expect(await create('none/x')).toEqual(['createSubvolume', 'ENOENT'])
    expect(await create('a/later/x')).toEqual(['createSubvolume', 'ENOTDIR'])
    const snapshot = (from: string, to: string) => code(() => fs.snapshot(`${root}/${from}`, `${root}/${to}`))
    expect(await snapshot('a', 'kept')).toEqual(['snapshot', 'EEXIST'])
    expect(await snapshot('none', 'x')).toEqual(['snapshot', 'ENOENT'])
    expect(await snapshot('a', 'none/x')).toEqual(['snapshot', 'ENOENT'])
    expect(await snapshot('plain', 'x')).toEqual(['snapshot', 'EINVAL'])
    const remove = (path: string) => code(() => fs.deleteSubvolume(`${root}/${path}`))
    expect(await remove('none')).toEqual(['deleteSubvolume', 'ENOENT'])
    expect(await remove('plain')).toEqual(['deleteSubvolume', 'EINVAL'])
    expect(await remove('a/later')).toEqual(['deleteSubvolume', 'EINVAL'])
    expect(await remove('a')).toEqual(['deleteSubvolume', 'ENOTEMPTY'])
    expect(await code(() => fs.subvolume(`${root}/none`))).toEqual(['subvolume', 'ENOENT'])
    await fs.snapshot(`${root}/a`, `${root}/frozen`, { readonly: true })
    expect(await create('frozen/x')).toEqual(['createSubvolume', 'EROFS'])
    await fs.deleteSubvolume(`${root}/frozen`)
    await fs.deleteSubvolume(`${root}/a/nested`)
    await fs.deleteSubvolume(`${root}/a`, { waitUntilFreed: true })
    expect(await list(fs, root)).toEqual([])
  })
}

function walk(bench: () => Bench) {
  it('finds exactly the regular files, not in nested subvolumes nor behind symlinks', async () => {
    const { fs, root } = bench()
    await bench().makeDirectory('tree')
    await bench().makeDirectory('tree/deep')
    await bench().makeDirectory('tree/deep/empty')
    await bench().makeDirectory('outside')
    await fs.createSubvolume(`${root}/tree/nested`)
    const wanted = ['tree/one', 'tree/two', 'tree/deep/three', 'tree/deep/vier mit ümlaut']
    for (const path of [...wanted, 'outside/no', 'tree/nested/no']) await bench().writeFile(path, 100)
    await bench().makeSymlink('tree/link', '../outside')
    await bench().makeSymlink('tree/file-link', '../outside/no')
    const found = await rows(fs, `${root}/tree`)
    expect(found.map(({ name }) => `tree/${name}`).sort()).toEqual([...wanted].sort())
    expect(new Set(found.map(({ inode }) => inode)).size).toBe(4)
    const skipped = []
    for await (const batch of fs.walk(`${root}/tree`)) {
      for (const { reason, count, example } of batch.skipped) skipped.push([reason, count, `${Buffer.from(example)}`])
    }
    expect(skipped).toEqual([['SUBVOLUME', 1, 'nested']])
  })

  it('gives sizes, times and modes in columns, in batches of the asked size', async () => {
    const { fs, root } = bench()
    await bench().makeDirectory('many')
    for (let index = 0; index < 10; index++) {
      await bench().writeFile(`many/f${index}`, 1000 * index, { ageMs: index * DAY_MS })
    }
    await fs.sync()
    const lengths = []
    const found = new Map<string, { sizeBytes: number; diskBytes: number; ageMs: number; unreadMs: number }>()
    for await (const batch of fs.walk(`${root}/many`, { batchSize: 4 })) {
      lengths.push(batch.length)
      for (let index = 0; index < batch.length; index++) {
        const sizeBytes = batch.sizeBytes[index]!
        const now = batch.ctimeMs[index]!
        const age = { ageMs: now - batch.mtimeMs[index]!, unreadMs: now - batch.atimeMs[index]! }
        found.set(batch.path(index), { sizeBytes, diskBytes: batch.diskBytes[index]!, ...age })
        expect(batch.mode[index]! & 0o170000).toBe(0o100000)
        expect(batch.links[index]).toBe(1)
      }
    }
    expect(Math.max(...lengths)).toBe(4)
    expect(found.size).toBe(10)
    for (let index = 0; index < 10; index++) {
      const { sizeBytes, diskBytes, ageMs, unreadMs } = found.get(`f${index}`)!
      expect(sizeBytes).toBe(1000 * index)
      expect(diskBytes).toBe(4096 * Math.ceil((1000 * index) / 4096))
      for (const age of [ageMs, unreadMs]) expect(Math.abs(age - index * DAY_MS)).toBeLessThan(60_000)
    }
  })

  it('says what is wrong with the root', async () => {
    const { fs, root } = bench()
    const code = async (path: string) => refusal(() => rows(fs, path))
    expect(await code(`${root}/none`)).toMatchObject({ code: 'ENOENT', operation: 'walk' })
    expect(await code(`${root}/many/f1`)).toMatchObject({ code: 'ENOTDIR', operation: 'walk' })
    await bench().makeSymlink('root-link', 'many')
    expect(await code(`${root}/root-link`)).toMatchObject({ code: 'ELOOP', operation: 'walk' })
    expect(await code('many')).toMatchObject({ code: 'BTRMIND_ERR_ARGUMENT' })
  })
}

function files(bench: () => Bench) {
  it('removeFiles() frees their bytes, once synced', async () => {
    const { fs, root } = bench()
    await bench().makeDirectory('tmp')
    for (let index = 0; index < 8; index++) await bench().writeFile(`tmp/f${index}`, 2 * MIB)
    await bench().writeFile('keep', MIB)
    const before = await settled(fs)
    const found = await rows(fs, `${root}/tmp`)
    expect(await fs.removeFiles(`${root}/tmp`, found)).toEqual(Array(8).fill({ ok: true }))
    const after = await settled(fs)
    expect(before.dataUsedBytes - after.dataUsedBytes).toBe(16 * MIB)
    expect(await rows(fs, `${root}/tmp`)).toEqual([])
    expect((await rows(fs, root)).map(({ name }) => name)).toEqual(['keep'])
    expect(await fs.removeFiles(`${root}/tmp`, found.slice(0, 1))).toEqual([{ ok: false, code: 'ENOENT' }])
  })

  it('leaves alone what is not the file that was seen, or not beneath the root', async () => {
    const { fs, root } = bench()
    await fs.createSubvolume(`${root}/tmp/nested`)
    for (const path of ['tmp/changed', 'tmp/same', 'tmp/nested/inside']) await bench().writeFile(path, 5000)
    const [changed] = (await rows(fs, `${root}/tmp`)).filter(({ name }) => name === 'changed')
    await bench().writeFile('tmp/changed', 6000)
    const [same] = (await rows(fs, `${root}/tmp`)).filter(({ name }) => name === 'same')
    const at = (path: string) => ({ ...same!, path: new Uint8Array(Buffer.from(path)) })
    await bench().makeSymlink('tmp/link', '.')
    const asked = [changed!, { ...same!, inode: 99_999 }, at('../keep'), at('link/same'), at('nested/inside'), at('no')]
    const codes = (await fs.removeFiles(`${root}/tmp`, asked)).map(({ code }) => code)
    expect(codes).toEqual(['CHANGED', 'CHANGED', 'EXDEV', 'ELOOP', 'EXDEV', 'ENOENT'])
    expect((await rows(fs, `${root}/tmp`)).map(({ name }) => name).sort()).toEqual(['changed', 'same'])
    expect((await rows(fs, root)).map(({ name }) => name)).toContain('keep')
  })

  it('finds a root that was looked up to be that directory still, or does nothing', async () => {
    const { fs, root } = bench()
    for (const parent of ['named', 'other']) {
      await bench().makeDirectory(parent)
      await bench().makeDirectory(`${parent}/tmp`)
      await bench().writeFile(`${parent}/tmp/file`, 5000)
    }
    const named = await fs.directory(`${root}/named/tmp`)
    const other = await fs.directory(`${root}/other/tmp`)
    const [file] = await rows(fs, named)
    const acts = (where: Root) => [
      () => rows(fs, where),
      () => fs.removeFiles(where, [file!]),
      () => fs.fileExtents(where, file!),
      () => fs.compressFile(where, file!),
      () => fs.estimateCompressedRatio(where, file!),
    ]
    await bench().makeSymlink('way', 'named')
    await fs.createSubvolume(`${root}/version1`)
    await fs.snapshot(`${root}/version1`, `${root}/version2`)
    const version = await fs.directory(`${root}/version1`)
    const wrong = [
      { ...other, path: named.path },
      { ...named, path: `${root}/way/tmp` },
      { ...version, path: `${root}/version2` },
    ]
    for (const where of wrong) {
      for (const act of acts(where)) expect(await refusal(act)).toMatchObject({ code: 'ESTALE', path: where.path })
    }
    expect(await refusal(acts({ ...named, path: 'named' })[1]!)).toMatchObject({ code: 'BTRMIND_ERR_ARGUMENT' })
    expect(await fs.fileExtents(named, file!)).toMatchObject({ ok: true })
    expect(await fs.removeFiles(named, [file!])).toEqual([{ ok: true }])
    expect(await rows(fs, other)).toHaveLength(1)
  })

  it('leaves alone what was read since it was seen, if that is told', async () => {
    const { fs, root } = bench()
    await bench().writeFile('tmp/read', 5000, { ageMs: DAY_MS })
    const [file] = (await rows(fs, `${root}/tmp`)).filter(({ name }) => name === 'read')
    const earlier = { ...file!, atimeMs: file!.atimeMs! - 1 }
    const changed = { ok: false, code: 'CHANGED' }
    expect(await fs.removeFiles(`${root}/tmp`, [earlier])).toEqual([changed])
    for (const act of ['fileExtents', 'compressFile', 'estimateCompressedRatio'] as const) {
      expect(await fs[act](`${root}/tmp`, earlier)).toEqual(changed)
    }
    expect(await fs.estimateCompressedRatio(`${root}/tmp`, file!)).toMatchObject({ ok: true })
    expect(await fs.removeFiles(`${root}/tmp`, [{ ...earlier, atimeMs: undefined }])).toEqual([{ ok: true }])
  })

  it('does not remove from a read-only snapshot', async () => {
    const { fs, root } = bench()
    await fs.snapshot(`${root}/tmp/nested`, `${root}/frozen`, { readonly: true })
    const frozen = await rows(fs, `${root}/frozen`)
    expect(frozen).toHaveLength(1)
    expect(await fs.removeFiles(`${root}/frozen`, frozen)).toEqual([{ ok: false, code: 'EROFS' }])
  })
}

function compression(bench: () => Bench) {
  const one = async (name: string) => (await rows(bench().fs, bench().root)).find((row) => row.name === name)!

  it('compressFile() frees bytes of compressible private files, and only of those', async () => {
    const { fs, root } = bench()
    await bench().writeFile('text', 10 * MIB, { compressible: true, ageMs: DAY_MS })
    await bench().writeFile('noise', 10 * MIB)
    const before = await settled(fs)
    const text = await one('text')
    expect(await fs.fileExtents(root, text)).toMatchObject({
      ok: true,
      sharedBytes: 0,
      compressedBytes: 0,
      bytes: 10 * MIB,
    })
    const { ok, diskBytesBefore, diskBytesAfter } = await fs.compressFile(root, text)
    expect([ok, diskBytesBefore]).toEqual([true, 10 * MIB])
    const after = await settled(fs)
    expect(before.dataUsedBytes - after.dataUsedBytes).toBeGreaterThan(5 * MIB)
    expect(before.dataUsedBytes - after.dataUsedBytes).toBe(diskBytesBefore! - diskBytesAfter!)
    const again = await one('text')
    expect(again).toMatchObject({ sizeBytes: text.sizeBytes, mtimeMs: text.mtimeMs, inode: text.inode })
    expect(await fs.fileExtents(root, again)).toMatchObject({ ok: true, compressedBytes: 10 * MIB, bytes: 10 * MIB })
    expect(await fs.compressFile(root, again)).toMatchObject({ ok: false, code: 'COMPRESSED' })
  })

  it('gains nothing from noise, which the kernel marks, nor from what lies inline', async () => {
    const { fs, root } = bench()
    const before = await settled(fs)
    expect(await fs.compressFile(root, await one('noise'))).toMatchObject({ ok: true })
    expect((await settled(fs)).dataUsedBytes).toBe(before.dataUsedBytes)
    expect(await fs.compressFile(root, await one('noise'))).toMatchObject({ ok: false, code: 'NOCOMPRESS' })
    await bench().writeFile('inline', 1000, { compressible: true })
    await fs.sync()
    const outcome = await fs.compressFile(root, await one('inline'))
    expect(outcome.ok).toBe(true)
    expect(outcome.diskBytesAfter).toBe(outcome.diskBytesBefore)
  })

  it('estimates what it would leave', async () => {
    const { fs, root } = bench()
    await bench().writeFile('more text', 2 * MIB, { compressible: true })
    const estimate = await fs.estimateCompressedRatio(root, await one('more text'))
    expect(estimate.ok && estimate.ratio).toBeLessThan(0.5)
    const noise = await fs.estimateCompressedRatio(root, await one('noise'))
    expect(noise.ok && noise.ratio).toBeGreaterThan(0.9)
  })

  it('refuses what a snapshot shares, and what has changed', async () => {
    const { fs, root } = bench()
    await fs.createSubvolume(`${root}/docs`)
    await bench().writeFile('docs/shared', 4 * MIB, { compressible: true })
    await fs.snapshot(`${root}/docs`, `${root}/snap`, { readonly: true })
    const [shared] = await rows(fs, `${root}/docs`)
    expect(await fs.fileExtents(`${root}/docs`, shared!)).toMatchObject({ ok: true, sharedBytes: 4 * MIB })
    const before = await settled(fs)
    expect(await fs.compressFile(`${root}/docs`, shared!)).toMatchObject({ ok: false, code: 'SHARED' })
    expect((await settled(fs)).dataUsedBytes).toBe(before.dataUsedBytes)
    const [frozen] = await rows(fs, `${root}/snap`)
    expect(await fs.compressFile(`${root}/snap`, frozen!)).toMatchObject({ ok: false })
    const changed = { ...(await one('more text')), sizeBytes: 1 }
    expect(await fs.compressFile(root, changed)).toMatchObject({ ok: false, code: 'CHANGED' })
    expect(await fs.fileExtents(root, changed)).toMatchObject({ ok: false, code: 'CHANGED' })
  })
}

function balance(bench: () => Bench) {
  it('is idle at first', async () => {
    expect(await bench().fs.balanceStatus()).toBeUndefined()
  })

  it('gives thinly used data block groups back to unallocated', async () => {
    const { fs, root } = bench()
    for (let index = 0; index < 12; index++) await bench().writeFile(`f${index}`, 20 * MIB)
    await fs.sync()
    const found = (await rows(fs, root)).filter(({ name }) => !['f0', 'f11'].includes(name))
    await fs.removeFiles(root, found)
    const before = await settled(fs)
    const operation = fs.balance({ data: { usagePercent: 90 } })
    const { expected, considered, completed } = await operation.result
    expect(completed).toBeGreaterThanOrEqual(1)
    expect(considered).toBeGreaterThanOrEqual(completed)
    expect(expected).toBeGreaterThanOrEqual(completed)
    const after = await settled(fs)
    expect(after.unallocatedBytes).toBeGreaterThan(before.unallocatedBytes)
    expect(after.dataUsedBytes).toBe(before.dataUsedBytes)
    expect(await fs.balanceStatus()).toBeUndefined()
    expect((await rows(fs, root)).map(({ name }) => name).sort()).toEqual(['f0', 'f11'])
  })

  it('balances metadata, and tells how far it is', async () => {
    const { fs } = bench()
    const before = await fs.measure()
    await using operation = fs.balance({ metadata: { usagePercent: 50 }, intervalMs: 5 })
    for await (const progress of operation) {
      expect(progress.completed).toBeLessThanOrEqual(progress.expected)
    }
    const { completed } = await operation.result
    expect(completed).toBeGreaterThanOrEqual(1)
    const after = await settled(fs)
    expect(after.metadataUsedBytes).toBeLessThanOrEqual(before.metadataUsedBytes + MIB)
    expect(after.exclusiveOperation).toBe('none')
    expect(await operation.progress()).toBeUndefined()
    await operation.cancel()
  })

  it('refuses nonsense', () => {
    const { fs } = bench()
    expect(() => fs.balance({ data: { usagePercent: 101 } })).toThrow('101')
    expect(() => fs.balance({ dta: {} } as never)).toThrow("did you mean 'data'?")
    expect(() => fs.balance({})).toThrow('at least one of data, metadata, system')
  })
}

function calls(bench: () => Bench) {
  it('obey an aborted signal and refuse unknown options', async () => {
    const { fs, root } = bench()
    const reason = new Error('enough')
    const signal = AbortSignal.abort(reason)
    const acts = [
      () => fs.info({ signal }),
      () => fs.usage({ signal }),
      () => fs.measure({ signal }),
      () => fs.sync({ signal }),
      () => fs.createSubvolume(`${root}/x`, { signal }),
      () => fs.deleteSubvolume(`${root}/x`, { signal }),
      () => fs.walk(root, { signal })[Symbol.asyncIterator]().next(),
      () => fs.removeFiles(root, [], { signal }),
      () => fs.balanceStatus({ signal }),
      () => fs.balance({ data: {}, signal }).result,
    ]
    for (const act of acts) expect(await refusal(act)).toBe(reason)
    expect(await list(fs)).toEqual([])
    expect(await refusal(() => fs.info({ sginal: signal } as never))).toMatchObject({ code: 'BTRMIND_ERR_OPTION' })
    expect(await refusal(() => fs.snapshot(root, `${root}/x`, { readonly: 1 } as never))).toMatchObject({
      code: 'BTRMIND_ERR_ARGUMENT',
    })
  })

  it('fail with EBADF after close(), which may be called again', async () => {
    const { fs, root } = bench()
    await fs.close()
    await fs.close()
    const acts: [string, () => Promise<unknown>][] = [
      ['info', () => fs.info()],
      ['usage', () => fs.usage()],
      ['devices', () => fs.devices()],
      ['measure', () => fs.measure()],
      ['statfs', () => fs.statfs()],
      ['sync', () => fs.sync()],
      ['directory', () => fs.directory(root)],
      ['subvolumes', () => list(fs)],
      ['subvolume', () => fs.subvolume()],
      ['createSubvolume', () => fs.createSubvolume(`${root}/x`)],
      ['snapshot', () => fs.snapshot(root, `${root}/x`)],
      ['deleteSubvolume', () => fs.deleteSubvolume(`${root}/x`)],
      ['walk', () => rows(fs, root)],
      ['removeFiles', () => fs.removeFiles(root, [])],
      ['balanceStatus', () => fs.balanceStatus()],
      ['balance', () => fs.balance({ data: {} }).result],
    ]
    for (const [operation, act] of acts) {
      expect(await refusal(act), operation).toMatchObject({ code: 'EBADF', operation })
    }
  })
}
