/**
 * The figures that people read, worked out from the kernel's raw ones. Pure: no clock, no kernel, no state.
 *
 * Logical bytes are bytes of data or metadata; raw bytes are what they take of the devices, copies and parity counted.
 */
import { reason } from '../errors.js'
import type { NativeSpace } from '../native.js'
import type { BlockGroupType, DeviceErrors, Profile, Unavailable } from './types.js'

/** In the order of the kernel's flags, which is also the order that btrfs-progs lists them in. */
const TYPES = ['data', 'metadata', 'data+metadata', 'system'] as const satisfies BlockGroupType[]
const PROFILES = [
  'single',
  'raid0',
  'raid1',
  'dup',
  'raid10',
  'raid5',
  'raid6',
  'raid1c3',
  'raid1c4',
] as const satisfies Profile[]

/** From the kernel's flags of a block group. */
export function blockGroupKind(flags: bigint): { type: BlockGroupType; profile: Profile } {
  const bits = Number(flags & 0x7ffn)
  const type = bits & 2 ? 'system' : (bits & 5) === 5 ? 'data+metadata' : bits & 4 ? 'metadata' : 'data'
  return { type, profile: PROFILES.find((_, index) => index > 0 && bits & (4 << index)) ?? 'single' }
}

/** Raw bytes for one logical byte; 0 for RAID5 and RAID6, where it depends on how many stripes a chunk has. */
const COPIES: Readonly<Record<Profile, number>> = {
  single: 1,
  raid0: 1,
  raid1: 2,
  dup: 2,
  raid10: 2,
  raid5: 0,
  raid6: 0,
  raid1c3: 3,
  raid1c4: 4,
}
/** Stripes of each chunk that hold parity. */
export const parityOf = (profile: Profile) => (profile === 'raid5' ? 1 : profile === 'raid6' ? 2 : 0)

/** All block groups of one type and profile; logical. */
export interface Space {
  readonly type: BlockGroupType
  readonly profile: Profile
  readonly totalBytes: number
  readonly usedBytes: number
}

export interface SpaceDevice {
  readonly devid: number
  readonly path: string | undefined
  readonly missing: boolean
  readonly sizeBytes: number
  readonly allocatedBytes: number
  /** Of the block device below, which may be larger. */
  readonly blockDeviceBytes: number | undefined
  readonly errors: DeviceErrors | undefined
}

/** Chunks of one type, profile and width, on one device; raw. */
export interface DeviceChunks {
  readonly type: BlockGroupType
  readonly profile: Profile
  readonly devid: number
  readonly stripes: number
  readonly bytes: number
}

export interface Reading {
  readonly spaces: readonly Space[]
  readonly devices: readonly SpaceDevice[]
  /** Undefined when not asked for or not permitted. */
  readonly chunks: readonly DeviceChunks[] | undefined
  readonly statfsSizeBytes: number
  readonly statfsFreeBytes: number
  readonly readOnly: boolean
  readonly reserveBytes: number
  readonly reserveUsedBytes: number
  /** sysfs bytes_reserved and bytes_may_use of data (or of data+metadata). */
  readonly live: { readonly reserved: number; readonly mayUse: number } | undefined
  readonly fragmentation: { readonly extents: number; readonly breaks: number } | undefined
  readonly failures: Readonly<Record<string, string>>
}

const HEAD = 13
const SPACE = 4
const DEVICE = 10
const CHUNK = 5

/** The rows of native/ops/space.cpp's pack(), named. */
export function unpack({ figures, paths, failures }: NativeSpace): Reading {
  const spaces: Space[] = []
  const devices: SpaceDevice[] = []
  const chunks: DeviceChunks[] = []
  let at = HEAD
  for (let i = 0; i < figures[0]!; i++, at += SPACE) {
    spaces.push({
      type: TYPES[figures[at]!]!,
      profile: PROFILES[figures[at + 1]!]!,
      totalBytes: figures[at + 2]!,
      usedBytes: figures[at + 3]!,
    })
  }
  for (let i = 0; i < figures[1]!; i++, at += DEVICE) {
    devices.push({
      devid: figures[at]!,
      path: paths[i],
      missing: figures[at + 3] === 1,
      sizeBytes: figures[at + 1]!,
      allocatedBytes: figures[at + 2]!,
      blockDeviceBytes: unlessAbsent(figures[at + 4]!),
      errors: errorsOf(figures, at + 5),
    })
  }
  for (let i = 0; i < figures[2]!; i++, at += CHUNK) {
    chunks.push({
      type: TYPES[figures[at]!]!,
      profile: PROFILES[figures[at + 1]!]!,
      devid: figures[at + 2]!,
      stripes: figures[at + 3]!,
      bytes: figures[at + 4]!,
    })
  }
  return {
    spaces,
    devices,
    chunks: figures[8] === 1 ? chunks : undefined,
    statfsSizeBytes: figures[3]!,
    statfsFreeBytes: figures[4]!,
    readOnly: figures[5] === 1,
    reserveBytes: figures[6]!,
    reserveUsedBytes: figures[7]!,
    live: Number.isNaN(figures[9]) ? undefined : { reserved: figures[9]!, mayUse: figures[10]! },
    fragmentation: Number.isNaN(figures[11]) ? undefined : { extents: figures[11]!, breaks: figures[12]! },
    failures: failures ?? {},
  }
}

function unlessAbsent(figure: number): number | undefined {
  return Number.isNaN(figure) ? undefined : figure
}

function errorsOf(figures: Float64Array, at: number): DeviceErrors | undefined {
  if (Number.isNaN(figures[at])) return undefined
  return {
    write: figures[at]!,
    read: figures[at + 1]!,
    flush: figures[at + 2]!,
    corruption: figures[at + 3]!,
    generation: figures[at + 4]!,
  }
}

export function sum<T>(rows: readonly T[], value: (row: T) => number): number {
  let total = 0
  for (const row of rows) total += value(row)
  return total
}

/** What all block groups of a kind hold. Mixed ones (data+metadata) count as data. */
export interface Totals {
  readonly total: number
  readonly used: number
  readonly rawTotal: number
  readonly rawUsed: number
}
type Kind = 'data' | 'metadata' | 'system'

export interface Allocation {
  readonly data: Totals
  readonly metadata: Totals
  readonly system: Totals
  /** False when RAID5 or RAID6 stripes are unknown: the raw figures are then not to be used. */
  readonly known: boolean
  readonly mixed: boolean
  readonly dataRatio: number | undefined
  readonly metadataRatio: number | undefined
  /** The most raw bytes that any block group takes for one logical byte; undefined without RAID5/6 stripes. */
  readonly worstRatio: number | undefined
}

const hasParity = (row: { readonly profile: Profile }) => COPIES[row.profile] === 0
type ParityBytes = Pick<DeviceChunks, 'type' | 'profile' | 'bytes'>

/**
 * Raw bytes of each type.
 *
 * A profile with copies takes copies × logical bytes. RAID5 and RAID6 chunks are added up from the chunk tree, where
 * each carries its own number of stripes; how much of them is used is spread evenly, by the type's used / total, and
 * cut to whole bytes for each device and width. Without the chunk tree one RAID5/6 kind still follows by difference
 * from what the devices have allocated; two kinds cannot be told apart.
 */
export function allocation(reading: Pick<Reading, 'spaces' | 'devices' | 'chunks'>): Allocation {
  const { spaces, devices, chunks } = reading
  let worstRatio: number | undefined = 1
  for (const space of spaces) worstRatio = Math.max(worstRatio, COPIES[space.profile])
  let known = true
  let parityBytes: readonly ParityBytes[] = []
  const [parity, another] = spaces.filter(hasParity)
  if (parity !== undefined && chunks !== undefined) {
    const rows = chunks.filter(hasParity)
    for (const row of rows) worstRatio = Math.max(worstRatio, row.stripes / (row.stripes - parityOf(row.profile)))
    parityBytes = rows
  } else if (parity !== undefined) {
    const copied = sum(spaces, (space) => COPIES[space.profile] * space.totalBytes)
    const bytes = sum(devices, (device) => device.allocatedBytes) - copied
    known = another === undefined && bytes > parity.totalBytes
    parityBytes = [{ type: parity.type, profile: parity.profile, bytes }]
    worstRatio = undefined
  }
  const data = totalsOf('data', spaces, parityBytes)
  const metadata = totalsOf('metadata', spaces, parityBytes)
  const mixed = spaces.some((space) => space.type === 'data+metadata')
  const dataRatio = known && data.total > 0 ? data.rawTotal / data.total : undefined
  const metadataRatio = known && metadata.total > 0 ? metadata.rawTotal / metadata.total : undefined
  return {
    data,
    metadata,
    system: totalsOf('system', spaces, parityBytes),
    known,
    mixed,
    dataRatio,
    metadataRatio: mixed ? dataRatio : metadataRatio,
    worstRatio,
  }
}

function totalsOf(kind: Kind, spaces: readonly Space[], parityBytes: readonly ParityBytes[]): Totals {
  let [total, used, rawTotal, rawUsed] = [0, 0, 0, 0]
  for (const space of spaces) {
    if ((space.type === 'data+metadata' ? 'data' : space.type) !== kind) continue
    total += space.totalBytes
    used += space.usedBytes
    rawTotal += COPIES[space.profile] * space.totalBytes
    rawUsed += COPIES[space.profile] * space.usedBytes
    for (const { type, profile, bytes } of parityBytes) {
      if (type !== space.type || profile !== space.profile) continue
      rawTotal += bytes
      rawUsed = Math.trunc(rawUsed + bytes * (space.usedBytes / space.totalBytes))
    }
  }
  return { total, used, rawTotal, rawUsed }
}

/**
 * Data in use with what is not flushed yet (logical): in use, being written, and promised to dirty pages. In mixed
 * block groups the promises include the global reserve, which no file will ever use. Under compression it is an upper
 * bound until the data is on disk.
 */
export function liveDataBytes(
  { live, reserveBytes, reserveUsedBytes }: Pick<Reading, 'live' | 'reserveBytes' | 'reserveUsedBytes'>,
  { data, mixed }: Pick<Allocation, 'data' | 'mixed'>,
): number | undefined {
  if (live === undefined) return undefined
  const reserve = mixed ? reserveBytes - reserveUsedBytes : 0
  return data.used + live.reserved + Math.max(0, live.mayUse - reserve)
}

/**
 * Raw bytes of block groups that lie on no device of the volume but on its seed: read-only, and another volume's. The
 * kernel counts them in with the others. 0 without a seed.
 */
export function seedBytes({ devices }: Pick<Reading, 'devices'>, { data, metadata, system }: Allocation): number {
  const own = sum(devices, (device) => device.allocatedBytes)
  return Math.max(0, data.rawTotal + metadata.rawTotal + system.rawTotal - own)
}

/**
 * How full the volume is, 0–100: the raw bytes of data in use and of metadata and system block groups, over the size
 * of the devices. Metadata counts as allocated, since what it leaves over is no use to files. `liveBytes` (logical)
 * replaces the settled figure of data; what it has more is taken at the ratio of the data block groups there are.
 *
 * On a sprout only what lies on its own devices counts: what is allocated there, without what statfs has free beyond the
 * unallocated space, for it leaves out the seed's. On a degraded volume only the devices that are there count: what is
 * allocated on them, without their share of what the data block groups have free.
 */
export function utilisationPercent(reading: Reading, space: Allocation, liveBytes = space.data.used): number {
  const { data, metadata, system, dataRatio = 1 } = space
  const { sizeBytes, allocatedBytes, share } = presentBytes(reading)
  const unsettled = share * (liveBytes - data.used) * dataRatio
  const sprout = seedBytes(reading, space) > 0
  if (!sprout && share === 1) {
    return (100 * (data.rawUsed + unsettled + metadata.rawTotal + system.rawTotal)) / sizeBytes
  }
  const freeInBlockGroups = sprout
    ? Math.max(0, reading.statfsFreeBytes * dataRatio - (sizeBytes - allocatedBytes))
    : share * (data.rawTotal - data.rawUsed)
  return (100 * (Math.max(0, allocatedBytes - freeInBlockGroups) + unsettled)) / sizeBytes
}

/**
 * What the devices that are there have: nothing is written to a missing one. `share`: of all that is allocated, taken as
 * spread evenly over the block groups.
 */
export function presentBytes({ devices }: Pick<Reading, 'devices'>) {
  const present = devices.filter((device) => !device.missing)
  const sizeBytes = sum(present, (device) => device.sizeBytes)
  const allocatedBytes = sum(present, (device) => device.allocatedBytes)
  const share = present.length === devices.length ? 1 : allocatedBytes / sum(devices, (device) => device.allocatedBytes)
  return { sizeBytes, allocatedBytes, share }
}

/** "EPERM: needs root (CAP_SYS_ADMIN)" for each of `fields`, when `part` could not be read. */
export function notRead(reading: Reading, part: string, ...fields: string[]): Unavailable[] {
  const code = reading.failures[part]
  return code === undefined ? [] : fields.map((field) => ({ field, reason: reason(code) }))
}
