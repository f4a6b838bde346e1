import type { Profile } from '../btrfs/types.js'
import type { SimulatedClock } from './clock.js'

export interface VolumeOptions {
  readonly clock: SimulatedClock
  /** Of the UUIDs; the volume itself leaves nothing to chance. */
  readonly seed?: number
  /** Default one device of 2 GiB. */
  readonly devicesBytes?: readonly number[]
  /** Default single on one device, raid1 for metadata on more (mkfs.btrfs). */
  readonly data?: Profile
  readonly metadata?: Profile
  readonly label?: string
  /** Where it pretends to be mounted. Default '/simulated'. */
  readonly path?: string
  /** Default 30 s, the kernel's. */
  readonly commitIntervalMs?: number
  /** Files and directories that the cleaner frees a second. Default 90,000: measured on a loop device. */
  readonly cleanerNodesPerSecond?: number
  /** What balance and compression rewrite a second. Default 256 MiB. */
  readonly rewriteBytesPerSecond?: number
}

/** Times default to now. */
export interface FileOptions {
  readonly atimeMs?: number
  readonly mtimeMs?: number
  readonly ctimeMs?: number
  /** Compressed size / size that zstd reaches: 0.25 for text, 1 (default) for what is compressed already. */
  readonly compressibleRatio?: number
}
