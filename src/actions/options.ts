import * as v from 'valibot'
import { GIB, KIB, MIB } from '../units.js'

const atLeast = (minimum: number, maximum = Number.MAX_SAFE_INTEGER) =>
  v.pipe(v.number(), v.minValue(minimum), v.maxValue(maximum))
const whole = (minimum: number, maximum?: number) => v.pipe(atLeast(minimum, maximum), v.integer())

const cooldownMinutes = v.strictObject({
  temp: v.optional(atLeast(0), 0),
  compress: v.optional(atLeast(0), 0),
  balance: v.optional(atLeast(0), 24 * 60),
  snapshots: v.optional(atLeast(0), 5),
})

/** What the actions take, each with its default; docs/actions.md says why. */
export const actionOptions = v.strictObject({
  /** Temporary files younger than this stay. Youngest of atime, mtime, ctime. 240 h is what systemd-tmpfiles has. */
  tempAgeHours: v.optional(atLeast(0), 240),
  /** The same in an emergency (the volume is 99 % full). */
  emergencyAgeMinutes: v.optional(atLeast(0), 10),
  /** An emergency deletes until the volume is less full than this. */
  emergencyTargetPercent: v.optional(atLeast(50, 99), 95),
  /** Files read, written or changed later than this are active: they are not compressed. */
  inactiveDays: v.optional(atLeast(0), 30),
  /** Smaller files are not worth a rewrite; larger ones would hold a step up. */
  compressMinBytes: v.optional(whole(4096), 128 * KIB),
  compressMaxBytes: v.optional(whole(4096), 4 * GIB),
  compression: v.optional(v.picklist(['lzo', 'zlib', 'zstd']), 'lzo'),
  /** So many snapshots stay in each named directory. */
  keepSnapshots: v.optional(whole(1), 3),
  /** Metadata slack that a balance must leave, in block groups. Default: 2 + number of devices. */
  metadataReserveBlockGroups: v.optional(whole(1)),
  /** An action rests so long after it acted. */
  cooldownMinutes: v.optional(cooldownMinutes, {}),
  /** Bounds of one step: files, and milliseconds after which nothing more is begun. */
  stepFiles: v.optional(whole(1, 100_000), 5_000),
  stepMs: v.optional(atLeast(1), 20_000),
  /** Compression rewrites about so many bytes a step; at least one file. */
  stepCompressBytes: v.optional(whole(1), 512 * MIB),
  /** Bounds of one look for candidates, for each root: rows and milliseconds. The next look goes on from there. */
  scanFiles: v.optional(whole(1_000), 200_000),
  scanMs: v.optional(atLeast(1), 2_000),
})

export type ActionOptions = v.InferOutput<typeof actionOptions>
/** As the caller gives them. */
export type ActionSettings = v.InferInput<typeof actionOptions>
