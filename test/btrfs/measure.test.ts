import { spawnSync } from 'node:child_process'
import { closeSync, fsyncSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import type { Device } from '../../src/btrfs/devices.js'
import { type KernelFilesystem, openFilesystem } from '../../src/btrfs/filesystem.js'
import type { Measurement } from '../../src/btrfs/measure.js'
import type { Statfs } from '../../src/btrfs/statfs.js'
import type { Usage } from '../../src/btrfs/usage.js'
import { readingOf } from '../../src/monitor/sample.js'
import { MIB } from '../../src/units.js'
import { cannotMount, makeVolume, run, type VolumeOptions } from '../helpers/volume.js'

const settledDataBytes = (usage: Usage) =>
  usage.blockGroups.filter((row) => row.type.startsWith('data')).reduce((sum, row) => sum + row.usedBytes, 0)

function write(path: string, mib: number) {
  const fd = openSync(path, 'w')
  const block = new Uint8Array(MIB).map((_, index) => (index * 2_654_435_761) >>> 13)
  try {
    for (let i = 0; i < mib; i++) writeSync(fd, block)
  } finally {
    closeSync(fd)
  }
}

/**
 * Writes a file and takes readings while nothing of it is flushed. The kernel may write back at any moment, also
 * because others wrote much: then again.
 */
async function unflushed<T>(fs: KernelFilesystem, path: string, mib: number, read: () => Promise<T>): Promise<T> {
  const before = await fs.measure()
  for (;;) {
    write(path, mib)
    const first = await fs.measure()
    const readings = await read()
    const last = await fs.measure()
    const steady = first.liveDataUsedBytes === last.liveDataUsedBytes
    if (steady && last.dataUsedBytes === before.dataUsedBytes) return readings
    rmSync(path)
    await fs.sync()
  }
}

describe.skipIf(cannotMount)('measure()', () => {
  // The kernel commits every 30 s unless told otherwise.
  const mountOptions = 'commit=600'

  it('on a sprout counts its own devices, not the seed’s', async () => {
    using volume = makeVolume({ devicesMiB: [512, 256], data: 'single', metadata: 'raid1' })
    const [seed, sprout] = volume.loops as [string, string]
    run('umount', volume.path)
    run('mkfs.btrfs', '-q', '-f', seed)
    run('mount', seed, volume.path)
    write(join(volume.path, 'old'), 300)
    run('umount', volume.path)
    run('btrfstune', '-S', '1', seed)
    run('mount', seed, volume.path)
    run('btrfs', 'device', 'add', '-f', sprout, volume.path)
    run('mount', '-o', 'remount,rw', volume.path)
    await using fs = await openFilesystem(volume.path)
    write(join(volume.path, 'new'), 30)
    await fs.sync()
    const measured = await fs.measure()
    const usage = await fs.usage()
    const own = (type: string) =>
      usage.blockGroups
        .filter((row) => row.type === type)
        .flatMap(({ devices }) => devices!.map(({ sizeBytes }) => sizeBytes))
        .reduce((sum, bytes) => sum + bytes, 0)
    expect(usage.deviceUnallocatedBytes).toBeLessThan(0) // So says btrfs-progs.
    const expected = (100 * (30 * MIB + own('metadata') + own('system'))) / (256 * MIB)
    expect(Math.abs(measured.usedPercent - expected)).toBeLessThan(1)
    expect(measured.liveUsedPercent).toBeCloseTo(measured.usedPercent, 3)
    expect(usage.live!.usedPercent).toBe(measured.liveUsedPercent)
    expect(measured.metadataOverheadRatio).toBeLessThanOrEqual(1)
    const held = usage.deviceAllocatedBytes - own('data') - own('metadata') - own('system')
    expect(measured.seedBytes).toBe(held)
    const notOwn = { code: 'EPERM', hint: expect.stringContaining('no device 1 of its own (a seed’s are not)') }
    await expect(fs.resizeDevice(1, 256 * MIB)).rejects.toMatchObject(notOwn)
    const sample = readingOf(measured, 0, 0)
    expect(sample.metadataSlackBytes).toBeUndefined()
    expect(sample.unavailable.map(({ field }) => field)).toContain('metadataSlackBytes')
    rmSync(join(volume.path, 'new'))
    await fs.sync()
    const emptied = await fs.measure()
    expect(measured.usedPercent - emptied.usedPercent).toBeCloseTo((100 * 30) / 256, 0)
  })

  it('of a degraded volume is full when nothing more can be written to what is there', async () => {
    using volume = makeVolume({ devicesMiB: [300, 300], data: 'raid1', metadata: 'raid1' })
    write(join(volume.path, 'old'), 30)
    run('umount', volume.path)
    run('btrfs', 'device', 'scan', '--forget', volume.loops[1]!)
    run('wipefs', '--all', '--quiet', volume.loops[1]!)
    run('mount', '-o', 'degraded', volume.loops[0]!, volume.path)
    await using fs = await openFilesystem(volume.path)
    const before = await fs.measure()
    // Half of what RAID1 holds raw: its metadata and system block groups, and the file.
    const groups = (await fs.usage()).blockGroups.filter(({ type }) => type !== 'data')
    const held = 30 * MIB + groups.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    expect(before.usedPercent).toBeCloseTo((100 * held) / (300 * MIB), 6)
    expect(before.deviceSizeBytes).toBe(300 * MIB)
    expect(before.unallocatedBytes).toBe((await fs.devices())[0]!.unallocatedBytes)
    expect(() => write(join(volume.path, 'new'), 600)).toThrow('ENOSPC')
    await fs.sync()
    const full = await fs.measure()
    expect(full.usedPercent).toBeGreaterThan(97)
    expect(full.usedPercent).toBeLessThanOrEqual(100)
    expect(full.liveUsedPercent).toBeGreaterThan(97)
    const usage = await fs.usage()
    expect(usage.live!.usedPercent).toBe(full.liveUsedPercent)
    const progs = run('btrfs', 'filesystem', 'usage', '-b', volume.path)
    expect(usage.deviceUnallocatedBytes).toBe(Number(/Device unallocated:\s+(\d+)/.exec(progs)![1]))
    rmSync(join(volume.path, 'new'))
    await fs.sync()
    expect((await fs.measure()).usedPercent).toBeLessThan(full.usedPercent - 50)
  })

  it('live figures see 200 MiB that are not flushed, the settled ones do not', async () => {
    using volume = makeVolume({ devicesMiB: [1024], data: 'single', metadata: 'dup', mountOptions })
    await using fs = await openFilesystem(volume.path)
    const empty = await fs.measure()
    const read = async () => [await fs.usage(), await fs.measure()] as const
    const [usage, dirty] = await unflushed(fs, join(volume.path, 'file'), 200, read)
    expect(dirty.dataUsedBytes).toBe(0)
    expect(settledDataBytes(usage)).toBe(0)
    expect(dirty.usedPercent).toBe(empty.usedPercent)
    expect(usage.live!.dataUsedBytes).toBe(200 * MIB)
    expect(dirty.liveDataUsedBytes).toBe(200 * MIB)
    expect(dirty.liveUsedPercent! - dirty.usedPercent).toBeCloseTo((100 * 200) / 1024, 6)
    await fs.sync()
    const [settled, after] = [await fs.usage(), await fs.measure()]
    expect(settledDataBytes(settled)).toBe(200 * MIB)
    expect(after).toMatchObject({ dataUsedBytes: 200 * MIB, liveDataUsedBytes: 200 * MIB })
    expect(after.liveUsedPercent).toBe(after.usedPercent)
    expect(settled.live!.usedPercent).toBe(after.usedPercent)
    // (data used + 2 × (metadata + system) allocated) / size, by what btrfs-progs prints
    const progs = run('btrfs', 'filesystem', 'usage', '-b', volume.path)
    const bytes = (pattern: RegExp) => Number(pattern.exec(progs)?.[1])
    const overhead = 2 * (bytes(/Metadata,DUP: Size:(\d+)/) + bytes(/System,DUP: Size:(\d+)/))
    expect(after.usedPercent).toBeCloseTo((100 * (bytes(/Data,single: .*Used:(\d+)/) + overhead)) / (1024 * MIB), 9)
    expect(after.metadataOverheadRatio).toBeCloseTo(overhead / (1024 * MIB), 9)
  })

  it('live figures count raw bytes at the ratio of the data', async () => {
    using volume = makeVolume({ devicesMiB: [256, 256, 256], data: 'raid5', metadata: 'raid1', mountOptions })
    await using fs = await openFilesystem(volume.path)
    const dirty = await unflushed(fs, join(volume.path, 'file'), 40, () => fs.measure())
    expect(dirty.liveDataUsedBytes).toBe(40 * MIB)
    expect(dirty.liveUsedPercent! - dirty.usedPercent).toBeCloseTo((100 * 40 * 1.5) / 768, 6)
    await fs.sync()
    expect((await fs.measure()).usedPercent).toBeCloseTo(dirty.liveUsedPercent!, 6)
  })

  it('mixed block groups count as data, and their reserve is no live data', async () => {
    using volume = makeVolume({ devicesMiB: [512], mkfs: ['--mixed'], mountOptions })
    await using fs = await openFilesystem(volume.path)
    const empty = await fs.measure()
    expect(empty).toMatchObject({ metadataUsedBytes: 0, metadataAllocatedBytes: 0 })
    expect(empty.liveDataUsedBytes! - empty.dataUsedBytes).toBeLessThan(MIB)
    const dirty = await unflushed(fs, join(volume.path, 'file'), 40, () => fs.measure())
    expect(dirty.dataUsedBytes - empty.dataUsedBytes).toBeLessThan(MIB)
    expect(dirty.liveDataUsedBytes! - dirty.dataUsedBytes).toBeGreaterThanOrEqual(40 * MIB)
    await fs.sync()
    const after = await fs.measure()
    expect(after.dataUsedBytes - empty.dataUsedBytes).toBeGreaterThanOrEqual(40 * MIB)
    expect(after.liveDataUsedBytes! - after.dataUsedBytes).toBeLessThan(MIB)
  })

  it('knows a read-only volume, an exclusive operation and a missing device', async () => {
    using volume = makeVolume({ devicesMiB: [256, 256, 256], data: 'raid1', metadata: 'raid1' })
    {
      await using fs = await openFilesystem(volume.path)
      expect(await fs.measure()).toMatchObject({ readOnly: false, exclusiveOperation: 'none', missingDevices: 0 })
      write(join(volume.path, 'file'), 120)
      run('sync', '--file-system', volume.path)
      // Again when the balance is over before it is paused, or has not begun.
      while (spawnSync('btrfs', ['balance', 'pause', volume.path]).status !== 0) {
        spawnSync('btrfs', ['balance', 'start', '--background', '--full-balance', volume.path])
      }
      expect((await fs.measure()).exclusiveOperation).toBe('balance paused')
      run('btrfs', 'balance', 'cancel', volume.path)
      run('mount', '-o', 'remount,ro', volume.path)
      expect(await fs.measure()).toMatchObject({ readOnly: true, exclusiveOperation: 'none' })
    }
    run('umount', volume.path)
    run('btrfs', 'device', 'scan', '--forget', volume.loops[2]!)
    run('wipefs', '--all', '--quiet', volume.loops[2]!)
    run('mount', '-o', 'degraded', volume.loops[0]!, volume.path)
    await using fs = await openFilesystem(volume.path)
    expect(await fs.measure()).toMatchObject({ readOnly: false, missingDevices: 1, devices: 3 })
  })

  it('adds up the error counters of the devices', async () => {
    using volume = makeVolume({ devicesMiB: [256, 256], data: 'raid1', metadata: 'raid1' })
    await using fs = await openFilesystem(volume.path)
    write(join(volume.path, 'file'), 60)
    await fs.sync()
    // Past the copies of the superblock, a stretch that holds part of the file.
    const fd = openSync(volume.loops[1]!, 'r+')
    for (let mib = 70; mib < 170; mib++) writeSync(fd, new Uint8Array(MIB), 0, MIB, mib * MIB)
    fsyncSync(fd)
    closeSync(fd)
    run('btrfs', 'scrub', 'start', '-B', volume.path)
    const devices = await fs.devices()
    const progs = run('btrfs', 'device', 'stats', volume.path)
    const counter = (index: number) =>
      Number(new RegExp(`${volume.loops[index]}\\]\\.corruption_errs\\s+(\\d+)`).exec(progs)?.[1])
    expect(devices.map((device) => device.errors?.corruption)).toEqual([counter(0), counter(1)])
    const { corruption } = devices[1]!.errors!
    expect(corruption).toBeGreaterThan(1000)
    expect((await fs.measure()).deviceErrors).toMatchObject({ corruption, write: 0, read: 0 })
  })
})

describe.skipIf(cannotMount)('devices()', () => {
  it('are those that btrfs-progs shows', async () => {
    using volume = makeVolume({ devicesMiB: [300, 256], data: 'raid0', metadata: 'raid1' })
    await using fs = await openFilesystem(volume.path)
    const show = run('btrfs', 'filesystem', 'show', '--raw', volume.path)
    const rows = [...show.matchAll(/devid\s+(\d+) size (\d+) used (\d+) path (\S+)/g)].map((match) => match.slice(1))
    const devices = await fs.devices()
    expect(devices.map((d) => [d.devid, d.sizeBytes, d.allocatedBytes, d.path].map(String))).toEqual(rows)
    const super_ = (loop: string) =>
      /dev_item\.uuid\s+(\S+)/.exec(run('btrfs', 'inspect-internal', 'dump-super', loop))![1]
    expect(devices.map((device) => device.uuid)).toEqual(volume.loops.map(super_))
  })

  it('follow a device that is added, replaced and removed while the filesystem is open', async () => {
    using volume = makeVolume({ devicesMiB: [300, 512, 400], data: 'single', metadata: 'single' })
    const [first, second, third] = volume.loops as [string, string, string]
    await using fs = await openFilesystem(volume.path)
    const seen = async () => (await fs.devices()).map((device) => [device.devid, device.path, device.slackBytes])
    const all = [
      [1, first, 0],
      [2, second, 0],
      [3, third, 0],
    ]
    expect(await seen()).toEqual(all)
    run('btrfs', 'device', 'remove', second, volume.path)
    expect(await seen()).toEqual([all[0], all[2]])
    run('btrfs', 'replace', 'start', '-B', '-f', '3', second, volume.path)
    expect(await seen()).toEqual([all[0], [3, second, 112 * MIB]])
    run('btrfs', 'device', 'add', '-f', third, volume.path)
    expect(await seen()).toEqual([all[0], [3, second, 112 * MIB], [4, third, 0]])
  })
})

describe.skipIf(cannotMount)('statfs()', () => {
  it('is what df says', async () => {
    using volume = makeVolume()
    await using fs = await openFilesystem(volume.path)
    write(join(volume.path, 'file'), 20)
    await fs.sync()
    const [size, free] = run('df', '--block-size=1', '--output=size,avail', volume.path).trim().split(/\s+/).slice(2)
    const said = await fs.statfs()
    expect(said).toMatchObject({ sizeBytes: Number(size), freeBytes: Number(free) })
    expect(said.usedPercent).toBeCloseTo((100 * (said.sizeBytes - said.freeBytes)) / said.sizeBytes, 9)
    await expect(fs.statfs({ timoutMs: 1 } as never)).rejects.toThrow("did you mean 'timeoutMs'?")
  })
})

describe.skipIf(cannotMount)('an unprivileged user', () => {
  interface Read {
    usage: Usage
    devices: Device[]
    statfs: Statfs
    measured: Measurement & { refused?: string }
  }
  const asNobody = (path: string): Read => {
    const script = fileURLToPath(new URL('../helpers/space-as-nobody.ts', import.meta.url))
    return JSON.parse(run('node', '--import', 'tsx', script, path)) as Read
  }
  async function both(options: VolumeOptions) {
    const volume = makeVolume(options)
    run('chmod', '755', volume.directory)
    write(join(volume.path, 'file'), 20)
    await using fs = await openFilesystem(volume.path)
    await fs.sync()
    const root = { usage: await fs.usage(), devices: await fs.devices(), measured: await fs.measure() }
    return { root, nobody: asNobody(volume.path), [Symbol.dispose]: () => volume[Symbol.dispose]() }
  }
  const EPERM = 'EPERM: needs root (CAP_SYS_ADMIN)'
  const plain = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T

  it('gets every figure but the bytes of each block group on each device', async () => {
    using seen = await both({ devicesMiB: [256, 300, 256], data: 'raid1c3', metadata: 'raid1' })
    const { root, nobody } = seen
    expect(nobody.usage).toEqual({
      ...plain(root.usage),
      blockGroups: root.usage.blockGroups.map(({ devices, ...group }) => group),
      unavailable: [{ field: 'blockGroups.devices', reason: EPERM }],
    })
    expect(nobody.devices).toEqual(plain(root.devices))
    const { fragmentationRatio, ...rest } = plain(root.measured)
    expect(fragmentationRatio).toBe(0)
    expect(nobody.measured).toEqual({ ...rest, unavailable: [{ field: 'fragmentationRatio', reason: EPERM }] })
  })

  it('gets RAID5 by difference, but not its stripes', async () => {
    using seen = await both({ devicesMiB: [256, 300, 256], data: 'raid5', metadata: 'raid1' })
    const { root, nobody } = seen
    expect(nobody.usage.usedBytes! / root.usage.usedBytes!).toBeCloseTo(1, 6)
    expect(nobody.usage).toMatchObject({
      deviceAllocatedBytes: root.usage.deviceAllocatedBytes,
      dataRatio: 1.5,
      metadataRatio: 2,
      freeEstimatedBytes: root.usage.freeEstimatedBytes,
      unallocated: root.usage.unallocated,
      unavailable: [
        { field: 'blockGroups.devices', reason: EPERM },
        { field: 'freeEstimatedMinBytes', reason: EPERM },
      ],
    })
    expect(nobody.usage).not.toHaveProperty('freeEstimatedMinBytes')
    expect(nobody.measured.usedPercent).toBeCloseTo(root.measured.usedPercent, 6)
  })

  it('is told what cannot be known where data and metadata are both RAID5 or RAID6', async () => {
    using seen = await both({ devicesMiB: [256, 300, 256], data: 'raid5', metadata: 'raid6' })
    const { root, nobody } = seen
    expect(nobody.usage).toMatchObject({
      deviceAllocatedBytes: root.usage.deviceAllocatedBytes,
      deviceUnallocatedBytes: root.usage.deviceUnallocatedBytes,
      freeStatfsBytes: root.usage.freeStatfsBytes,
    })
    const fields = nobody.usage.unavailable.map((row) => row.field)
    expect(fields).toEqual([
      'blockGroups.devices',
      'usedBytes',
      'freeEstimatedBytes',
      'freeEstimatedMinBytes',
      'dataRatio',
      'metadataRatio',
      'live',
    ])
    for (const field of fields.slice(1)) expect(nobody.usage).not.toHaveProperty(field)
    expect(nobody.measured.refused).toMatch(/^EPERM: .*needs root/)
  })
})
