import type { ExclusiveOperation } from '../btrfs/exclusive.js'
import type { Measurement } from '../btrfs/measure.js'
import type { Statfs } from '../btrfs/statfs.js'
import type { DeviceErrors, Unavailable } from '../btrfs/types.js'

/**
 * One reading of a volume. What could not be had is undefined and listed in `unavailable` with its reason.
 * Sources: M = Filesystem.measure(), S = Filesystem.statfs(), T = the monitor's own trends (docs/monitor.md).
 */
export interface Sample {
  /** When it was taken. Milliseconds since 1970, wall clock (may jump). */
  readonly timeMs: number
  /** 'statfs': the full query failed (see `fallbackReason`), and only what statfs knows is there. */
  readonly source: 'kernel' | 'statfs'
  /**
   * 0–100. Kernel: 100 × (raw data used + raw metadata and system *allocated*) / device size (M).
   * statfs: 100 × (size − free) / size (S), a different definition: left out of the slope.
   */
  readonly usedPercent: number
  /** 0–100, the same with data that is not flushed yet counted (M); undefined where sysfs is not readable. */
  readonly liveUsedPercent?: number | undefined
  /** Kernel: raw, the sum of the devices (M). statfs: logical (S). */
  readonly sizeBytes: number
  /** What an unprivileged writer may still use: statfs bavail × block size, logical. The same from both sources. */
  readonly freeBytes: number
  /** Raw bytes in no block group (M). */
  readonly unallocatedBytes?: number | undefined
  /** 0–1, raw metadata and system allocated / device size (M). */
  readonly metadataOverheadRatio?: number | undefined
  /**
   * Logical: metadata allocated − used − global reserve (M). What is left before a metadata chunk must be allocated;
   * negative when the reserve is no longer covered. Undefined where block groups are mixed, and on a seed's sprout.
   */
  readonly metadataSlackBytes?: number | undefined
  /** 0–1, see docs/fragmentation.md (M). */
  readonly fragmentationRatio?: number | undefined
  /** Cumulative counters, summed over the devices (M). */
  readonly deviceErrors?: DeviceErrors | undefined
  readonly missingDevices?: number | undefined
  /** Devices of the volume, the missing ones counted (M). */
  readonly devices?: number | undefined
  /** What holds the volume's exclusive lock, or 'none' (M). */
  readonly exclusiveOperation?: ExclusiveOperation | undefined
  readonly readOnly?: boolean | undefined
  /** MB (10^6 bytes) an hour, positive when space becomes free: least squares of `freeBytes` over the last hour (T). */
  readonly freeDeltaMBPerHour?: number | undefined
  /** Percentage points an hour: least squares of the utilisation over the last 24 hours (T). */
  readonly slopePercentPerHour?: number | undefined
  /** From the question to the answer, retries and fallback counted. */
  readonly durationMs: number
  /** Why the full query failed. Only with source 'statfs'. */
  readonly fallbackReason?: string | undefined
  readonly unavailable: readonly Unavailable[]
}

/** What is read; the trends are added by the monitor. */
export type Reading = Omit<Sample, 'freeDeltaMBPerHour' | 'slopePercentPerHour'>

/** Utilisation in percent as the agent sees it: live where it is known. */
export function utilisationPercent(sample: Pick<Sample, 'usedPercent' | 'liveUsedPercent'>): number {
  return sample.liveUsedPercent ?? sample.usedPercent
}

export function readingOf(measured: Measurement, timeMs: number, durationMs: number): Reading {
  const { metadataAllocatedBytes, seedBytes } = measured
  const seeded = seedBytes > 0
  const unavailable = measured.unavailable.filter(({ field }) => field !== 'liveDataUsedBytes') // Not in a sample.
  if (metadataAllocatedBytes === 0) {
    unavailable.push({ field: 'metadataSlackBytes', reason: 'mixed block groups: metadata has none of its own' })
  } else if (seeded) {
    unavailable.push({ field: 'metadataSlackBytes', reason: 'a seed: how much of the metadata is its own is not told' })
  }
  return {
    timeMs,
    source: 'kernel',
    usedPercent: measured.usedPercent,
    liveUsedPercent: measured.liveUsedPercent,
    sizeBytes: measured.deviceSizeBytes,
    freeBytes: measured.freeBytes,
    unallocatedBytes: measured.unallocatedBytes,
    metadataOverheadRatio: measured.metadataOverheadRatio,
    metadataSlackBytes:
      metadataAllocatedBytes === 0 || seeded
        ? undefined
        : metadataAllocatedBytes - measured.metadataUsedBytes - measured.globalReserveBytes,
    fragmentationRatio: measured.fragmentationRatio,
    deviceErrors: measured.deviceErrors,
    missingDevices: measured.missingDevices,
    devices: measured.devices,
    exclusiveOperation: measured.exclusiveOperation,
    readOnly: measured.readOnly,
    durationMs,
    unavailable,
  }
}

const NOT_IN_STATFS = [
  'liveUsedPercent',
  'unallocatedBytes',
  'metadataOverheadRatio',
  'metadataSlackBytes',
  'fragmentationRatio',
  'deviceErrors',
  'missingDevices',
  'devices',
  'exclusiveOperation',
  'readOnly',
] as const satisfies readonly (keyof Sample)[]

export function fallbackReadingOf(statfs: Statfs, reason: string, timeMs: number, durationMs: number): Reading {
  return {
    timeMs,
    source: 'statfs',
    usedPercent: statfs.usedPercent,
    sizeBytes: statfs.sizeBytes,
    freeBytes: statfs.freeBytes,
    durationMs,
    fallbackReason: reason,
    unavailable: NOT_IN_STATFS.map((field) => ({ field, reason: `statfs does not know it; ${reason}` })),
  }
}
