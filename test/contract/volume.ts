/** The contract of a volume: its figures, directories, subvolumes, balance. */
import { expect, it } from 'vitest'
import { BtrfsError } from '../../src/errors.js'
import { MIB } from '../../src/units.js'
import { type Bench, list, refusal, rows, settled } from './bench.js'

export function space(bench: () => Bench) {
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

export function directories(bench: () => Bench) {
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

export function subvolumes(bench: () => Bench) {
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

export function balance(bench: () => Bench) {
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

export function calls(bench: () => Bench) {
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
