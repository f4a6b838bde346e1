import * as v from 'valibot'
import { PROFILE_RULES } from '../btrfs/chunk-allocator.js'
import { GIB, MIB } from '../units.js'
import { SimulatedClock } from './clock.js'

const profile = v.picklist(Object.keys(PROFILE_RULES) as (keyof typeof PROFILE_RULES)[])
const positive = v.pipe(v.number(), v.finite(), v.gtValue(0))

export const volumeOptions = v.strictObject({
  clock: v.instance(SimulatedClock),
  /** Of the UUIDs; the volume itself leaves nothing to chance. */
  seed: v.optional(v.pipe(v.number(), v.integer()), 1),
  /** One number a device. */
  devicesBytes: v.optional(
    v.pipe(v.array(v.pipe(v.number(), v.integer(), v.minValue(128 * MIB))), v.minLength(1, 'at least one device')),
    [2 * GIB],
  ),
  /** Default: single. */
  data: v.optional(profile, 'single'),
  /** Default: dup on one device, raid1 on more, as mkfs.btrfs. */
  metadata: v.optional(profile),
  label: v.optional(v.string(), ''),
  /** Where it pretends to be mounted. */
  path: v.optional(v.pipe(v.string(), v.startsWith('/', 'an absolute path')), '/simulated'),
  /** 30 s is the kernel's. */
  commitIntervalMs: v.optional(positive, 30_000),
  /** Files and directories that the cleaner frees a second; measured on a loop device. */
  cleanerNodesPerSecond: v.optional(positive, 90_000),
  /** What balance and compression rewrite a second. */
  rewriteBytesPerSecond: v.optional(positive, 256 * MIB),
})
export type VolumeOptions = v.InferInput<typeof volumeOptions>

/** Times default to now. */
export interface FileOptions {
  readonly atimeMs?: number
  readonly mtimeMs?: number
  readonly ctimeMs?: number
  /** Compressed size / size that zstd reaches: 0.25 for text, 1 (default) for what is compressed already. */
  readonly compressibleRatio?: number
}
