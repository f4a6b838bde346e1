/** What the volume says of itself. Space figures by the kernel's and btrfs-progs' formulas. */
import type { Device, Measurement, Statfs, Usage } from '../btrfs/types.js'
import { MIB } from '../units.js'
import { type BlockGroup, NODE_BYTES, REDUNDANCY } from './chunks.js'
import { nodes } from './space.js'
import type { SimulatedVolume } from './volume.js'

const NO_ERRORS = { write: 0, read: 0, flush: 0, corruption: 0, generation: 0 }
const STRIPE_BYTES = 65_536

export function devicesOf({ space }: SimulatedVolume): Device[] {
  return space.chunks.devices.map(({ devid, uuid, path, sizeBytes, allocatedBytes, unallocatedBytes }) => ({
    ...{ devid, uuid, path, missing: false, sizeBytes, allocatedBytes, unallocatedBytes, slackBytes: 0 },
    errors: NO_ERRORS,
  }))
}

export function measurementOf(volume: SimulatedVolume, exclusiveOperation: string): Measurement {
  const { space } = volume
  const { devices } = space.chunks
  const deviceSizeBytes = total(devices, ({ sizeBytes }) => sizeBytes)
  const raw = (group: BlockGroup, bytes: number) => (bytes * group.rawBytes) / group.sizeBytes
  const data = space.groups('data')
  const other = [...space.groups('metadata'), ...space.groups('system')]
  const overhead = total(other, ({ rawBytes }) => rawBytes)
  const dataUsedBytes = space.used('data')
  const rawData = total(data, (group) => raw(group, group.usedBytes))
  const liveDataUsedBytes = dataUsedBytes + space.pendingBytes
  const rawLive = rawData + raw(data[0]!, space.pendingBytes)
  return {
    deviceSizeBytes,
    unallocatedBytes: space.chunks.unallocatedBytes,
    dataUsedBytes,
    liveDataUsedBytes,
    dataAllocatedBytes: space.allocated('data'),
    metadataUsedBytes: space.used('metadata'),
    metadataAllocatedBytes: space.allocated('metadata'),
    globalReserveBytes: space.globalReserveBytes,
    usedPercent: (100 * (rawData + overhead)) / deviceSizeBytes,
    liveUsedPercent: (100 * (rawLive + overhead)) / deviceSizeBytes,
    metadataOverheadRatio: overhead / deviceSizeBytes,
    freeBytes: availableBytes(volume),
    fragmentationRatio: space.joints === 0 ? 0 : space.brokenJoints / space.joints,
    deviceErrors: NO_ERRORS,
    missingDevices: 0,
    devices: devices.length,
    exclusiveOperation,
    readOnly: false,
    unavailable: [],
  }
}

export function usageOf(volume: SimulatedVolume): Usage {
  const { space } = volume
  const { devices, groups } = space.chunks
  const { liveDataUsedBytes, liveUsedPercent, deviceSizeBytes, unallocatedBytes } = measurementOf(volume, 'none')
  const ratio = (some: readonly BlockGroup[]) => total(some, (g) => g.rawBytes) / total(some, (g) => g.sizeBytes)
  const dataRatio = ratio(space.groups('data'))
  const metadataRatio = ratio(space.groups('metadata'))
  const free = space.allocated('data') - space.used('data')
  const used = (group: BlockGroup) => (group.type === 'metadata' ? nodes(group.usedBytes) : group.usedBytes)
  const blockGroups = (['data', 'metadata', 'system'] as const).map((type) => {
    const some = space.groups(type)
    const on = devices.map(({ devid, path }) => {
      const stripes = some.flatMap((group) => group.stripes).filter(({ device }) => device.devid === devid)
      return { devid, path, sizeBytes: total(stripes, ({ range }) => range.length) }
    })
    const { profile } = some[0]!
    const sums = { sizeBytes: space.allocated(type), usedBytes: space.used(type) }
    return { type, profile, ...sums, devices: on.filter(({ sizeBytes }) => sizeBytes > 0) }
  })
  return {
    deviceSizeBytes,
    deviceAllocatedBytes: deviceSizeBytes - unallocatedBytes,
    deviceUnallocatedBytes: unallocatedBytes,
    deviceMissingBytes: 0,
    deviceSlackBytes: 0,
    usedBytes: total(groups, (group) => (used(group) * group.rawBytes) / group.sizeBytes),
    freeEstimatedBytes: free + Math.floor(unallocatedBytes / dataRatio),
    freeEstimatedMinBytes: free + Math.floor(unallocatedBytes / Math.max(dataRatio, metadataRatio)),
    freeStatfsBytes: availableBytes(volume),
    dataRatio,
    metadataRatio,
    globalReserveBytes: space.globalReserveBytes,
    globalReserveUsedBytes: 0,
    multipleProfiles: false,
    blockGroups,
    unallocated: devices.map(({ devid, path, unallocatedBytes: sizeBytes }) => ({ devid, path, sizeBytes })),
    live: { dataUsedBytes: liveDataUsedBytes!, usedPercent: liveUsedPercent! },
    unavailable: [],
  }
}

export function statfsOf(volume: SimulatedVolume): Statfs {
  const { copies } = REDUNDANCY[volume.space.chunks.profiles.data]
  const sizeBytes = total(volume.space.chunks.devices, (device) => device.sizeBytes) / copies
  const freeBytes = availableBytes(volume)
  return { sizeBytes, freeBytes, usedPercent: (100 * (sizeBytes - freeBytes)) / sizeBytes }
}

/** f_bavail of btrfs_statfs: room in data block groups, and what unallocated space would give for data. */
function availableBytes({ space }: SimulatedVolume): number {
  const { copies, devsMin, devsMax } = REDUNDANCY[space.chunks.profiles.data]
  const slack = space.allocated('metadata') - space.used('metadata')
  const full = space.chunks.unallocatedBytes < NODE_BYTES * 64 + MIB * space.chunks.devices.length
  if (full && slack - 4 * MIB < space.globalReserveBytes) return 0
  // btrfs_calc_avail_data_space: the smallest devices first, each beside as many others as the profile takes.
  const left = space.chunks.devices
    .map(({ unallocatedBytes }) => Math.floor(unallocatedBytes / STRIPE_BYTES) * STRIPE_BYTES - MIB)
    .filter((bytes) => bytes >= STRIPE_BYTES)
    .sort((a, b) => b - a)
  let raw = 0
  while (left.length >= devsMin) {
    const width = Math.min(devsMax || left.length, left.length)
    const smallest = left.at(-1)!
    if (smallest >= STRIPE_BYTES) {
      raw += smallest * width
      for (let index = left.length - width; index < left.length; index++) left[index]! -= smallest
    }
    left.pop()
  }
  const free = space.allocated('data') - space.used('data')
  return Math.floor((free + raw / copies) / 4096) * 4096
}

function total<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((sum, item) => sum + of(item), 0)
}
