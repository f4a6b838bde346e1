import { BtrfsError, check } from '../errors.js'
import { native, SpacePart } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions } from './options.js'
import {
  allocation,
  liveDataBytes,
  notRead,
  type Reading,
  type SpaceDevice,
  seedBytes,
  sum,
  unpack,
  utilisationPercent,
} from './space.js'
import type { DeviceErrors, Measurement } from './types.js'
import type { Volume } from './volume.js'

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
  return measurementOf(unpack(raw), raw.exclusiveOperation, volume.path)
}

/** Pure. Internal: the simulator's figures come the same way. */
export function measurementOf(reading: Reading, exclusiveOperation: string | undefined, path: string): Measurement {
  const { devices } = reading
  const space = allocation(reading)
  if (!space.known) {
    const failure = { code: reading.failures.chunks ?? 'ENODATA', errno: -1, text: 'RAID5/6 stripes are not readable' }
    throw new BtrfsError('measure', failure, { path })
  }
  const deviceSizeBytes = sum(devices, (device) => device.sizeBytes)
  const allocatedBytes = sum(devices, (device) => device.allocatedBytes)
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
