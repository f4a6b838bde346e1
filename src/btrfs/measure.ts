import { BtrfsError, check } from '../errors.js'
import { native, SpacePart } from '../native.js'
import type { CallOptions } from './call.js'
import type { ExclusiveOperation } from './exclusive.js'
import { callOptions } from './options.js'
import {
  allocation,
  liveDataBytes,
  notRead,
  presentBytes,
  type Reading,
  type SpaceDevice,
  seedBytes,
  sum,
  unpack,
  utilisationPercent,
} from './space.js'
import type { DeviceErrors, Unavailable } from './types.js'
import type { Volume } from './volume.js'

/**
 * Raw figures behind a monitor's sample, read in one hop. Logical bytes unless noted.
 * Mixed block groups (`mkfs --mixed`) count as data.
 */
export interface Measurement {
  /** Raw: sum of the devices that are there. On a degraded volume `usage()` has the missing ones in, as btrfs-progs. */
  readonly deviceSizeBytes: number
  /** Raw bytes in no block group, on the devices that are there. */
  readonly unallocatedBytes: number
  readonly dataUsedBytes: number
  /** With what is not flushed yet; undefined where sysfs is not readable. */
  readonly liveDataUsedBytes: number | undefined
  readonly dataAllocatedBytes: number
  readonly metadataUsedBytes: number
  readonly metadataAllocatedBytes: number
  readonly globalReserveBytes: number
  /**
   * Raw bytes of block groups on a seed device, which the figures above count in, as the kernel does; they can be
   * neither written nor freed. 0 without a seed.
   */
  readonly seedBytes: number
  /**
   * (raw data used + raw metadata and system allocated) / device size, 0–100. Left out: what is a seed's, and the missing
   * devices with what was on them; then an estimate, to the unused part of the data block groups.
   */
  readonly usedPercent: number
  /** The same with `liveDataUsedBytes`; undefined with it. */
  readonly liveUsedPercent: number | undefined
  /**
   * Raw metadata and system allocated / device size, 0–1: the part of `usedPercent` that is not data. With a seed or a
   * missing device an upper bound.
   */
  readonly metadataOverheadRatio: number
  /** statfs bavail × block size: what an unprivileged writer may still use. */
  readonly freeBytes: number
  /**
   * Share of sampled extents that do not follow on, on disk, from the extent before them in their file, 0–1
   * (docs/fragmentation.md); undefined without CAP_SYS_ADMIN.
   */
  readonly fragmentationRatio: number | undefined
  /** Summed over devices. */
  readonly deviceErrors: DeviceErrors | undefined
  readonly missingDevices: number
  /** Devices that belong to the volume, the missing ones counted. */
  readonly devices: number
  /** Undefined if unreadable. */
  readonly exclusiveOperation: ExclusiveOperation | undefined
  readonly readOnly: boolean
  readonly unavailable: readonly Unavailable[]
}

const PARTS =
  SpacePart.parityChunks |
  SpacePart.live |
  SpacePart.blockDevices |
  SpacePart.errors |
  SpacePart.exclusive |
  SpacePart.fragmentation

/**
 * All that a monitor wants to know, in one hop. BTRFS_IOC_SPACE_INFO, DEV_INFO, GET_DEV_STATS, TREE_SEARCH_V2 (a
 * bounded sample of file extents), statfs, sysfs · without CAP_SYS_ADMIN no `fragmentationRatio` · quick.
 * @throws BtrfsError EBADF, ETIMEDOUT; EPERM without CAP_SYS_ADMIN where both data and metadata are RAID5 or RAID6:
 * how full the volume is then depends on stripes that only root may read
 * @example
 * const { liveUsedPercent, usedPercent } = await fs.measure({ timeoutMs: 1000 })
 */
export async function measure(volume: Volume, options?: CallOptions): Promise<Measurement> {
  const raw = await volume.call('measure', {}, check('measure', callOptions, options ?? {}), (t) =>
    native.space(t, volume.handle, PARTS),
  )
  return measurementOf(unpack(raw), raw.exclusiveOperation as ExclusiveOperation | undefined, volume.path)
}

/** Pure. Internal: the simulator's figures come the same way. */
export function measurementOf(
  reading: Reading,
  exclusiveOperation: ExclusiveOperation | undefined,
  path: string,
): Measurement {
  const { devices } = reading
  const space = allocation(reading)
  if (!space.known) {
    const failure = { code: reading.failures.chunks ?? 'ENODATA', errno: -1, text: 'RAID5/6 stripes are not readable' }
    throw new BtrfsError('measure', failure, { path })
  }
  const { sizeBytes: deviceSizeBytes, allocatedBytes } = presentBytes(reading)
  const liveBytes = liveDataBytes(reading, space)
  return {
    deviceSizeBytes,
    unallocatedBytes: deviceSizeBytes - allocatedBytes,
    dataUsedBytes: space.data.used,
    liveDataUsedBytes: liveBytes,
    dataAllocatedBytes: space.data.total,
    metadataUsedBytes: space.metadata.used,
    metadataAllocatedBytes: space.metadata.total,
    globalReserveBytes: reading.reserveBytes,
    usedPercent: utilisationPercent(reading, space),
    liveUsedPercent: liveBytes === undefined ? undefined : utilisationPercent(reading, space, liveBytes),
    seedBytes: seedBytes(reading, space),
    metadataOverheadRatio: Math.min(space.metadata.rawTotal + space.system.rawTotal, allocatedBytes) / deviceSizeBytes,
    freeBytes: reading.statfsFreeBytes,
    fragmentationRatio: fragmentationRatio(reading),
    deviceErrors: totalErrors(devices),
    missingDevices: devices.filter((device) => device.missing).length,
    devices: devices.length,
    exclusiveOperation,
    readOnly: reading.readOnly,
    unavailable: [
      ...notRead(reading, 'live', 'liveDataUsedBytes', 'liveUsedPercent'),
      ...notRead(reading, 'fragmentation', 'fragmentationRatio'),
      ...notRead(reading, 'errors', 'deviceErrors'),
      ...notRead(reading, 'exclusiveOperation', 'exclusiveOperation'),
    ],
  }
}

/** 0 when no sampled file has an extent: nothing there is in pieces. */
function fragmentationRatio({ fragmentation }: Reading): number | undefined {
  if (fragmentation === undefined) return undefined
  return fragmentation.extents === 0 ? 0 : fragmentation.breaks / fragmentation.extents
}

function totalErrors(devices: readonly SpaceDevice[]): DeviceErrors | undefined {
  const errors = devices.flatMap((device) => device.errors ?? [])
  if (errors.length === 0) return undefined
  return {
    write: sum(errors, (row) => row.write),
    read: sum(errors, (row) => row.read),
    flush: sum(errors, (row) => row.flush),
    corruption: sum(errors, (row) => row.corruption),
    generation: sum(errors, (row) => row.generation),
  }
}
