import { check } from '../errors.js'
import { native, SpacePart } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions } from './options.js'
import {
  type Allocation,
  allocation,
  liveDataBytes,
  notRead,
  type Reading,
  type Space,
  type SpaceDevice,
  sum,
  unpack,
  utilisationPercent,
} from './space.js'
import type { BlockGroupType, Profile, Unavailable } from './types.js'
import type { Volume } from './volume.js'

export interface DeviceBytes {
  readonly devid: number
  readonly path: string | undefined
  readonly sizeBytes: number
}

export interface BlockGroupUsage {
  readonly type: BlockGroupType
  readonly profile: Profile
  /** Logical bytes (before copies and parity). */
  readonly sizeBytes: number
  readonly usedBytes: number
  /** Raw bytes on each device that has any; undefined without CAP_SYS_ADMIN. */
  readonly devices: readonly DeviceBytes[] | undefined
}

/**
 * Every figure of `btrfs filesystem usage -b`, and `live`. Bytes are raw (copies and parity counted) unless noted.
 * Without CAP_SYS_ADMIN the stripes of RAID5 and RAID6 are unknown, and what rests on them is undefined; so are the
 * ratio and the estimates of a volume that has no data block group (yet).
 */
export interface Usage {
  readonly deviceSizeBytes: number
  readonly deviceAllocatedBytes: number
  /** As btrfs-progs has it, with that of missing devices, which nobody can write to; `measure()` leaves it out. */
  readonly deviceUnallocatedBytes: number
  /** Size of the devices that are missing. */
  readonly deviceMissingBytes: number
  /** Parts of the devices that the filesystem was not grown into; undefined when one's size cannot be read. */
  readonly deviceSlackBytes: number | undefined
  readonly usedBytes: number | undefined
  /** Logical: unused data block groups, and all that is unallocated at the data ratio. */
  readonly freeEstimatedBytes: number | undefined
  /** Logical: the same, with what is unallocated at the worst ratio in use. */
  readonly freeEstimatedMinBytes: number | undefined
  /** statfs bavail × block size. */
  readonly freeStatfsBytes: number
  /** Raw bytes for one byte of data, over the data block groups there are. */
  readonly dataRatio: number | undefined
  readonly metadataRatio: number | undefined
  readonly globalReserveBytes: number
  readonly globalReserveUsedBytes: number
  /** Some type has block groups of more than one profile: an unfinished conversion. */
  readonly multipleProfiles: boolean
  readonly blockGroups: readonly BlockGroupUsage[]
  readonly unallocated: readonly DeviceBytes[]
  /**
   * Counts data that is not flushed yet (logical bytes); undefined where sysfs is not readable. The percentage is that of
   * `measure()`: of the devices that are there.
   */
  readonly live: { readonly dataUsedBytes: number; readonly usedPercent: number } | undefined
  readonly unavailable: readonly Unavailable[]
}

const PARTS = SpacePart.chunks | SpacePart.live | SpacePart.blockDevices

/** Less than this is left out of the estimates: no block group fits into it. */
const SMALLEST_CHUNK_BYTES = 16 * 1024 ** 2

/**
 * Space by block group type, profile and device: every figure of `btrfs filesystem usage -b`, and `live`, which counts
 * data that is not flushed yet. BTRFS_IOC_SPACE_INFO, DEV_INFO, TREE_SEARCH_V2 (chunk tree), statfs, sysfs · without
 * CAP_SYS_ADMIN the bytes of each block group on each device, and some of RAID5/6, are in `unavailable` · quick.
 * @throws BtrfsError EBADF, ETIMEDOUT
 * @example
 * const { freeEstimatedBytes, live } = await fs.usage()
 * if ((live?.usedPercent ?? 0) > 95) console.log(`only ${freeEstimatedBytes} bytes left`)
 */
export async function usage(volume: Volume, options?: CallOptions): Promise<Usage> {
  const raw = await volume.call('usage', {}, check('usage', callOptions, options ?? {}), (t) =>
    native.space(t, volume.handle, PARTS),
  )
  return usageOf(unpack(raw))
}

/** Pure. Internal: the simulator's figures come the same way. */
export function usageOf(reading: Reading): Usage {
  const { devices } = reading
  const space = allocation(reading)
  const deviceSizeBytes = sum(devices, (device) => device.sizeBytes)
  const deviceAllocatedBytes = space.known
    ? space.data.rawTotal + space.metadata.rawTotal + space.system.rawTotal
    : sum(devices, (device) => device.allocatedBytes)
  const deviceUnallocatedBytes = deviceSizeBytes - deviceAllocatedBytes
  const liveBytes = liveDataBytes(reading, space)
  const free = freeEstimates(reading, space, deviceUnallocatedBytes)
  return {
    deviceSizeBytes,
    deviceAllocatedBytes,
    deviceUnallocatedBytes,
    deviceMissingBytes: sum(devices, (device) => (device.missing ? device.sizeBytes : 0)),
    deviceSlackBytes: slackBytes(devices),
    usedBytes: space.known ? space.data.rawUsed + space.metadata.rawUsed + space.system.rawUsed : undefined,
    freeEstimatedBytes: free.estimated,
    freeEstimatedMinBytes: free.min,
    freeStatfsBytes: reading.statfsFreeBytes,
    dataRatio: space.dataRatio,
    metadataRatio: space.metadataRatio,
    globalReserveBytes: reading.reserveBytes,
    globalReserveUsedBytes: reading.reserveUsedBytes,
    multipleProfiles: new Set(reading.spaces.map((row) => row.type)).size < reading.spaces.length,
    blockGroups: reading.spaces.map((row) => blockGroup(row, reading)),
    unallocated: devices.map((device) => ({
      devid: device.devid,
      path: device.path,
      sizeBytes: device.sizeBytes - allocatedOn(device, reading),
    })),
    live:
      liveBytes === undefined || !space.known
        ? undefined
        : { dataUsedBytes: liveBytes, usedPercent: utilisationPercent(reading, space, liveBytes) },
    unavailable: unavailable(reading, space),
  }
}

/**
 * Free for data (logical). What data block groups have left, and the unallocated space at the data ratio (`min`: at
 * the worst ratio that any block group has). In mixed block groups the global reserve is taken off. Each sum is cut to
 * whole bytes, as btrfs-progs does.
 */
function freeEstimates({ reserveBytes, reserveUsedBytes }: Reading, space: Allocation, unallocatedBytes: number) {
  const { data, dataRatio, worstRatio, mixed } = space
  if (dataRatio === undefined) return { estimated: undefined, min: undefined }
  const reserve = mixed ? reserveBytes - reserveUsedBytes : 0
  const inBlockGroups = Math.max(0, Math.trunc((data.rawTotal - data.rawUsed) / dataRatio) - reserve)
  const usable = unallocatedBytes >= SMALLEST_CHUNK_BYTES ? unallocatedBytes : 0
  return {
    estimated: Math.trunc(inBlockGroups + usable / dataRatio),
    min: worstRatio === undefined ? undefined : Math.trunc(inBlockGroups + usable / worstRatio),
  }
}

/** Missing devices have no slack; undefined when the size of one that is there cannot be read. */
function slackBytes(devices: readonly SpaceDevice[]): number | undefined {
  const present = devices.filter((device) => !device.missing)
  if (present.some((device) => device.blockDeviceBytes === undefined)) return undefined
  return sum(present, (device) => device.blockDeviceBytes! - device.sizeBytes)
}

function blockGroup({ type, profile, totalBytes, usedBytes }: Space, { chunks, devices }: Reading): BlockGroupUsage {
  let on: DeviceBytes[] | undefined
  if (chunks !== undefined) {
    on = []
    const own = chunks.filter((row) => row.type === type && row.profile === profile)
    for (const { devid, path } of devices) {
      const sizeBytes = sum(own, (row) => (row.devid === devid ? row.bytes : 0))
      if (sizeBytes > 0) on.push({ devid, path, sizeBytes })
    }
  }
  return { type, profile, sizeBytes: totalBytes, usedBytes, devices: on }
}

function allocatedOn(device: SpaceDevice, { chunks }: Reading): number {
  if (chunks === undefined) return device.allocatedBytes
  return sum(chunks, (row) => (row.devid === device.devid ? row.bytes : 0))
}

function unavailable(reading: Reading, space: Allocation): Unavailable[] {
  const out = notRead(reading, 'chunks', 'blockGroups.devices')
  const stripes = ['usedBytes', 'freeEstimatedBytes', 'freeEstimatedMinBytes', 'dataRatio', 'metadataRatio', 'live']
  if (!space.known) out.push(...notRead(reading, 'chunks', ...stripes))
  else if (space.worstRatio === undefined) out.push(...notRead(reading, 'chunks', 'freeEstimatedMinBytes'))
  if (space.known && space.dataRatio === undefined) {
    const reason = 'no data block group'
    for (const field of ['freeEstimatedBytes', 'freeEstimatedMinBytes', 'dataRatio']) out.push({ field, reason })
  }
  if (slackBytes(reading.devices) === undefined)
    out.push({ field: 'deviceSlackBytes', reason: 'the size of a block device cannot be read from sysfs' })
  if (space.known) out.push(...notRead(reading, 'live', 'live'))
  return out
}
