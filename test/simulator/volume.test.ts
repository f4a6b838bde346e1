import { describe, expect, it } from 'vitest'
import { SimulatedClock, SimulatedFilesystem, type VolumeOptions } from '../../src/simulator/index.js'
import { GIB, MIB } from '../../src/units.js'
import { refusal, rows } from '../contract/bench.js'

function make(options: Partial<VolumeOptions> = {}) {
  const clock = new SimulatedClock()
  const fs = new SimulatedFilesystem({ clock, seed: 1, devicesBytes: [GIB], ...options })
  return { clock, fs, volume: fs.volume, root: fs.path }
}

/** What mkfs.btrfs 6.2 and kernel 6.18 made on real loop devices; the second figure after the first write. */
const LAYOUTS = [
  { mib: 256, metadata: 32 * MIB, unallocated: 176_160_768, firstData: 32 * MIB },
  { mib: 1024, metadata: 53_673_984, unallocated: 941_228_032, firstData: 112 * MIB },
  { mib: 2048, metadata: 107_347_968, unallocated: 1_907_621_888, firstData: 208 * MIB },
  { mib: 4096, metadata: 256 * MIB, unallocated: 3_732_930_560, firstData: 416 * MIB },
  { mib: 102_400, metadata: GIB, unallocated: 105_201_532_928, firstData: GIB },
]

describe('block groups', () => {
  it.each(LAYOUTS)('of a new volume of $mib MiB are as mkfs and the kernel size them', async (layout) => {
    const { fs, volume, root } = make({ devicesBytes: [layout.mib * MIB] })
    const { blockGroups, deviceUnallocatedBytes } = await fs.usage()
    const size = (type: string) => blockGroups.find((group) => group.type === type)!.sizeBytes
    expect([size('data'), size('metadata'), size('system')]).toEqual([8 * MIB, layout.metadata, 8 * MIB])
    expect(deviceUnallocatedBytes).toBe(layout.unallocated)
    volume.writeFile(`${root}/file`, 10 * MIB)
    expect((await fs.measure()).dataAllocatedBytes).toBe(8 * MIB + layout.firstData)
  })

  it('are spread over devices as their profile says', async () => {
    const two = make({ devicesBytes: [GIB, 2 * GIB], data: 'raid1' })
    expect(await two.fs.usage()).toMatchObject({ dataRatio: 2, metadataRatio: 2 })
    two.volume.writeFile(`${two.root}/file`, 300 * MIB)
    const { blockGroups } = await two.fs.usage()
    for (const { devices, sizeBytes } of blockGroups) {
      expect(devices!.map((device) => device.sizeBytes)).toEqual([sizeBytes, sizeBytes])
    }
    const four = make({ devicesBytes: [GIB, GIB, GIB, GIB], data: 'raid6', metadata: 'raid1c3' })
    expect(await four.fs.usage()).toMatchObject({ dataRatio: 2, metadataRatio: 3 })
    expect(() => make({ devicesBytes: [GIB], data: 'raid1' })).toThrow('too few')
    expect(() => make({ devicesBytes: [] })).toThrow('at least one device')
    expect(() => make({ profile: 'raid1' } as never)).toThrow("unknown option 'profile'")
  })

  it('go back to unallocated ten seconds after they emptied, but for the last', async () => {
    const { fs, volume, root, clock } = make()
    volume.writeFile(`${root}/large`, 300 * MIB)
    await fs.sync()
    const { dataAllocatedBytes } = await fs.measure()
    volume.unlink(`${root}/large`)
    await fs.sync()
    expect((await fs.measure()).dataAllocatedBytes).toBe(dataAllocatedBytes)
    clock.advance(60_000)
    expect((await fs.measure()).dataAllocatedBytes).toBeLessThanOrEqual(112 * MIB)
  })
})

describe('time', () => {
  it('flushes what was written within 30 s', async () => {
    const { fs, volume, root, clock } = make()
    volume.writeFile(`${root}/file`, MIB)
    clock.advance(29_999)
    expect(await fs.measure()).toMatchObject({ dataUsedBytes: 0, liveDataUsedBytes: MIB })
    clock.advance(1)
    expect(await fs.measure()).toMatchObject({ dataUsedBytes: MIB, liveDataUsedBytes: MIB })
  })

  it('is what the cleaner needs, after a commit woke it', async () => {
    const { fs, volume, root, clock } = make({ cleanerNodesPerSecond: 10 })
    await fs.createSubvolume(`${root}/sub`)
    for (let index = 0; index < 49; index++) volume.writeFile(`${root}/sub/f${index}`, MIB)
    await fs.sync()
    await fs.deleteSubvolume(`${root}/sub`)
    clock.advance(1000)
    await fs.sync()
    expect((await fs.measure()).dataUsedBytes).toBe(49 * MIB)
    clock.advance(2000)
    await fs.sync()
    const halfway = (await fs.measure()).dataUsedBytes
    expect(halfway).toBeGreaterThan(20 * MIB)
    expect(halfway).toBeLessThan(40 * MIB)
    clock.advance(4000)
    await fs.sync()
    expect((await fs.measure()).dataUsedBytes).toBe(0)
  })

  it('moves on in calls that wait', async () => {
    const { fs, volume, root, clock } = make({ cleanerNodesPerSecond: 10, rewriteBytesPerSecond: MIB })
    await fs.createSubvolume(`${root}/sub`)
    volume.writeFile(`${root}/sub/file`, MIB, { compressibleRatio: 0.2 })
    await fs.sync()
    const [file] = await rows(fs, `${root}/sub`)
    const before = clock.elapsedMs()
    expect(await fs.compressFile(`${root}/sub`, file!)).toMatchObject({ ok: true })
    expect(clock.elapsedMs() - before).toBe(1000)
    await fs.deleteSubvolume(`${root}/sub`, { waitUntilFreed: true })
    expect(clock.elapsedMs() - before).toBeGreaterThanOrEqual(1200)
    expect((await fs.measure()).dataUsedBytes).toBe(0)
    expect(() => clock.advance(-1)).toThrow('-1')
    const asleep = clock.elapsedMs()
    await clock.sleep(500, new AbortController().signal)
    await clock.sleep(500, AbortSignal.abort())
    expect(clock.elapsedMs() - asleep).toBe(500)
    expect(clock.wallMs()).toBe(clock.startMs + asleep + 500)
  })
})

describe('a full volume', () => {
  it('takes what fits and says ENOSPC; deleting helps at once', async () => {
    const { fs, volume, root } = make({ devicesBytes: [256 * MIB] })
    const error = await refusal(async () => volume.writeFile(`${root}/large`, GIB))
    expect(error).toMatchObject({ code: 'ENOSPC', path: `${root}/large` })
    const [large] = await rows(fs, root)
    expect(large!.sizeBytes).toBeGreaterThan(150 * MIB)
    await fs.sync()
    const full = await fs.measure()
    expect(full.usedPercent).toBeGreaterThan(99)
    expect(full.dataUsedBytes).toBe(large!.sizeBytes)
    expect(full.unallocatedBytes).toBeLessThan(2 * MIB)
    expect(await refusal(async () => volume.appendFile(`${root}/large`, MIB))).toMatchObject({ code: 'ENOSPC' })
    await fs.removeFiles(root, await rows(fs, root))
    volume.writeFile(`${root}/after`, MIB)
    expect((await fs.measure()).usedPercent).toBeLessThan(40)
  })

  it('of metadata refuses files and directories, not snapshots', async () => {
    const { fs, volume, root } = make({ devicesBytes: [256 * MIB] })
    await refusal(async () => volume.writeFile(`${root}/large`, GIB))
    const fill = async () => {
      for (let index = 0; ; index++) volume.writeFile(`${root}/inline${index}`, 2000)
    }
    expect(await refusal(fill)).toMatchObject({ code: 'ENOSPC', operation: 'writeFile' })
    expect(await refusal(async () => volume.makeDirectory(`${root}/d`))).toMatchObject({ code: 'ENOSPC' })
    await fs.snapshot(root, `${root}/snapshot`, { readonly: true })
    const { metadataUsedBytes, metadataAllocatedBytes, freeBytes } = await fs.measure()
    expect(metadataUsedBytes).toBeGreaterThan(0.7 * metadataAllocatedBytes)
    expect(freeBytes).toBe(0)
  })
})

describe('fragmentation', () => {
  /** Full, then with holes of 64 KiB. */
  async function withHoles() {
    const made = make({ devicesBytes: [256 * MIB] })
    const { fs, volume, root } = made
    volume.makeDirectory(`${root}/small`)
    const write = async () => {
      for (let index = 0; ; index++) volume.writeFile(`${root}/small/f${index}`, 65_536)
    }
    expect(await refusal(write)).toMatchObject({ code: 'ENOSPC' })
    await fs.sync()
    expect((await fs.measure()).fragmentationRatio).toBe(0)
    const found = await rows(fs, `${root}/small`)
    await fs.removeFiles(
      `${root}/small`,
      found.filter((_, index) => index % 2 === 0),
    )
    await fs.sync()
    return made
  }

  it('is the share of sampled extents that do not follow on from the one before in their file', async () => {
    const { fs, volume, root } = await withHoles()
    for (const row of await rows(fs, `${root}/small`)) volume.unlink(`${root}/small/${row.name}`)
    // Before the next commit only the holes are free: two pieces each.
    for (let index = 0; index < 100; index++) volume.writeFile(`${root}/f${index}`, 131_072)
    for (let index = 0; index < 100; index++) volume.flush(volume.find(`${root}/f${index}`, 'test').node as never)
    expect((await fs.measure()).fragmentationRatio).toBeCloseTo(0.5, 2)
    const [first] = await rows(fs, root)
    expect(await fs.fileExtents(root, first!)).toMatchObject({ ok: true, extents: 2 })
  })

  it('what is appended goes on where the file ends on disk, while nobody else is there', async () => {
    const { fs, volume, root } = make()
    for (let index = 0; index < 4; index++) {
      if (index === 0) volume.writeFile(`${root}/alone`, MIB)
      else volume.appendFile(`${root}/alone`, MIB)
      await fs.sync()
    }
    expect((await fs.measure()).fragmentationRatio).toBe(0)
    for (let index = 0; index < 4; index++) {
      for (const name of ['a', 'b']) {
        if (index === 0) volume.writeFile(`${root}/${name}`, MIB)
        else volume.appendFile(`${root}/${name}`, MIB)
      }
      await fs.sync()
    }
    expect((await fs.measure()).fragmentationRatio).toBe(0.5)
  })
})

describe('snapshots', () => {
  it('of the top into itself does not hold itself; nested subvolumes are empty directories in it', async () => {
    const { fs, volume, root } = make()
    await fs.createSubvolume(`${root}/nested`)
    volume.writeFile(`${root}/nested/inside`, MIB)
    volume.writeFile(`${root}/file`, MIB)
    await fs.snapshot(root, `${root}/snapshot`)
    expect((await rows(fs, `${root}/snapshot`)).map(({ name }) => name)).toEqual(['file'])
    expect(await fs.directory(`${root}/snapshot/nested`)).toMatchObject({ subvolumeTop: false })
    await expect(fs.directory(`${root}/snapshot/snapshot`)).rejects.toMatchObject({ code: 'ENOENT' })
    volume.writeFile(`${root}/snapshot/file`, 2 * MIB)
    expect((await rows(fs, root)).map(({ name, sizeBytes }) => [name, sizeBytes])).toEqual([['file', MIB]])
    await fs.sync()
    expect((await fs.measure()).dataUsedBytes).toBe(4 * MIB)
  })

  it('keep the old data when a shared file is compressed: usage rises until they go', async () => {
    const { fs, volume, root } = make()
    await fs.createSubvolume(`${root}/docs`)
    volume.writeFile(`${root}/docs/text`, 64 * MIB, { compressibleRatio: 0.25 })
    await fs.snapshot(`${root}/docs`, `${root}/kept`, { readonly: true })
    volume.compress(volume.find(`${root}/docs/text`, 'test'), 0.25, 'test')
    await fs.sync()
    expect((await fs.measure()).dataUsedBytes).toBe(80 * MIB)
    await fs.deleteSubvolume(`${root}/kept`, { waitUntilFreed: true })
    expect((await fs.measure()).dataUsedBytes).toBe(16 * MIB)
  })

  it('give all metadata back with their last trace', async () => {
    const { fs, volume, root } = make()
    await fs.sync()
    const before = await fs.measure()
    await fs.createSubvolume(`${root}/docs`)
    volume.makeDirectory(`${root}/docs/deep`)
    for (let index = 0; index < 500; index++) volume.writeFile(`${root}/docs/deep/f${index}`, 3000)
    for (let round = 0; round < 3; round++) {
      await fs.snapshot(`${root}/docs`, `${root}/s${round}`, { readonly: true })
      for (let index = round; index < 500; index += 7) volume.writeFile(`${root}/docs/deep/f${index}`, 9000)
    }
    for (const name of ['s1', 'docs', 's0', 's2']) await fs.deleteSubvolume(`${root}/${name}`, { waitUntilFreed: true })
    const after = await fs.measure()
    expect(after.dataUsedBytes).toBe(0)
    expect(after.metadataUsedBytes - before.metadataUsedBytes).toBeLessThanOrEqual(32_768)
    expect([volume.space.pendingBytes, volume.nodes.files]).toEqual([0, []])
  })
})

describe('balance', () => {
  async function thin() {
    const made = make({ devicesBytes: [2 * GIB] })
    for (let index = 0; index < 30; index++) made.volume.writeFile(`${made.root}/f${index}`, 20 * MIB)
    await made.fs.sync()
    for (let index = 0; index < 30; index++) if (index % 5 > 0) made.volume.unlink(`${made.root}/f${index}`)
    await made.fs.sync()
    return made
  }

  it('runs one at a time, is seen while it runs, and can be cancelled', async () => {
    const { fs } = await thin()
    const operation = fs.balance({ data: {} })
    expect(await fs.balanceStatus()).toMatchObject({ state: 'running', completed: 0 })
    expect((await fs.measure()).exclusiveOperation).toBe('balance')
    await expect(fs.balance({ data: {} }).result).rejects.toMatchObject({ code: 'EINPROGRESS', operation: 'balance' })
    await operation.cancel()
    await expect(operation.result).rejects.toMatchObject({ code: 'ECANCELED', progress: { considered: 6 } })
    expect(await fs.balanceStatus()).toBeUndefined()
  })

  it('is stopped by close()', async () => {
    const { fs } = await thin()
    const operation = fs.balance({ data: {} })
    await expect(fs.balance({ data: {} }).result).rejects.toMatchObject({ code: 'EINPROGRESS' })
    await fs.close()
    await expect(operation.result).rejects.toMatchObject({ code: 'ECANCELED' })
  })

  it('keeps its place while paused', async () => {
    const { fs } = await thin()
    const operation = fs.balance({ data: {} })
    await operation.pause!()
    await expect(operation.result).rejects.toMatchObject({ code: 'ECANCELED' })
    expect(await fs.balanceStatus()).toMatchObject({ state: 'paused' })
    expect((await fs.measure()).exclusiveOperation).toBe('balance paused')
    const resumed = fs.resumeBalance()
    await resumed.pause!()
    expect(await fs.balanceStatus()).toMatchObject({ state: 'paused', expected: 4 })
    expect((await fs.resumeBalance().result).completed).toBeGreaterThan(0)
    expect(await fs.balanceStatus()).toBeUndefined()
    await expect(fs.resumeBalance().result).rejects.toMatchObject({ code: 'ENOTCONN' })
    await expect(fs.cancelBalance()).rejects.toMatchObject({ code: 'ENOTCONN' })
  })

  it('leaves every file as it was', async () => {
    const { fs, root } = await thin()
    const before = await fs.measure()
    const names = (await rows(fs, root)).map(({ name }) => name)
    const { completed } = await fs.balance({ data: { usagePercent: 60 }, metadata: {} }).result
    expect(completed).toBeGreaterThanOrEqual(3)
    const after = await fs.measure()
    expect(after.dataUsedBytes).toBe(before.dataUsedBytes)
    expect(after.dataAllocatedBytes).toBeLessThan(before.dataAllocatedBytes)
    await fs.removeFiles(root, await rows(fs, root))
    await fs.sync()
    expect((await fs.measure()).dataUsedBytes).toBe(0)
    expect(names).toHaveLength(6)
  })

  it('has nowhere to go on a full volume', async () => {
    const { fs, volume, root } = make({ devicesBytes: [256 * MIB] })
    await refusal(async () => volume.writeFile(`${root}/large`, GIB))
    await fs.sync()
    await expect(fs.balance({ metadata: {} }).result).rejects.toMatchObject({ code: 'ENOSPC' })
  })
})
