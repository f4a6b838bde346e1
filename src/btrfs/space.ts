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

/** Raw bytes for one logical byte. RAID5 and RAID6 depend on how many stripes a chunk has, so they have none. */
const COPIES: Readonly<Record<Profile, number | undefined>> = {
  single: 1,
  raid0: 1,
  raid1: 2,
  dup: 2,
  raid10: 2,
  raid5: undefined,
  raid6: undefined,
  raid1c3: 3,
  raid1c4: 4,
}
const PARITIES: Partial<Record<Profile, number>> = { raid5: 1, raid6: 2 }

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
  /** sysfs bytes_used, bytes_reserved, bytes_may_use of data (or of data+metadata). */
  readonly live: { readonly used: number; readonly reserved: number; readonly mayUse: number } | undefined
  readonly fragmentation: { readonly extents: number; readonly breaks: number } | undefined
  readonly failures: Readonly<Record<string, string>>
}

const HEAD = 15
const SPACE = 4
const DEVICE = 10
const CHUNK = 5

/** The rows of native/ops/space.cpp's pack(), named. */
export function unpack(raw: NativeSpace): Reading {
  const { figures, paths } = raw
  const n = (index: number) => figures[index]!
  const optional = (index: number) => (Number.isNaN(n(index)) ? undefined : n(index))
  const spaces: Space[] = []
  const devices: SpaceDevice[] = []
  const chunks: DeviceChunks[] = []
  let at = HEAD
  for (let i = 0; i < n(0); i++, at += SPACE) {
    spaces.push({
      type: TYPES[n(at)]!,
      profile: PROFILES[n(at + 1)]!,
      totalBytes: n(at + 2),
      usedBytes: n(at + 3),
    })
  }
  for (let i = 0; i < n(1); i++, at += DEVICE) {
    devices.push({
      devid: n(at),
      path: paths[i],
      missing: n(at + 3) === 1,
      sizeBytes: n(at + 1),
      allocatedBytes: n(at + 2),
      blockDeviceBytes: optional(at + 4),
      errors: Number.isNaN(n(at + 5))
        ? undefined
        : { write: n(at + 5), read: n(at + 6), flush: n(at + 7), corruption: n(at + 8), generation: n(at + 9) },
    })
  }
  for (let i = 0; i < n(2); i++, at += CHUNK) {
    chunks.push({
      type: TYPES[n(at)]!,
      profile: PROFILES[n(at + 1)]!,
      devid: n(at + 2),
      stripes: n(at + 3),
      bytes: n(at + 4),
    })
  }
  return {
    spaces,
    devices,
    chunks: n(8) === 1 ? chunks : undefined,
    statfsSizeBytes: n(3),
    statfsFreeBytes: n(4),
    readOnly: n(5) === 1,
    reserveBytes: n(6),
    reserveUsedBytes: n(7),
    live: Number.isNaN(n(9)) ? undefined : { used: n(9), reserved: n(10), mayUse: n(11) },
    fragmentation: Number.isNaN(n(12)) ? undefined : { extents: n(12), breaks: n(13) },
    failures: raw.failures ?? {},
  }
}

export function sum<T>(rows: readonly T[], value: (row: T) => number): number {
  let total = 0
  for (const row of rows) total += value(row)
  return total
}

/** What all block groups of a kind hold. Mixed ones (data+metadata) count as data. */
export interface Totals {
  total: number
  used: number
  /** Undefined when they include RAID5 or RAID6 whose stripes are unknown. */
  rawTotal: number
  rawUsed: number
}

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

const isParity = (row: { readonly profile: Profile }) => PARITIES[row.profile] !== undefined

/**
 * Raw bytes of each type.
 *
 * A profile with copies takes copies × logical bytes. RAID5 and RAID6 chunks are added up from the chunk tree, where
 * each carries its own number of stripes; how much of them is used is spread evenly, by the type's used / total, and
 * cut to whole bytes for each device and width. Without the chunk tree one RAID5/6 kind still follows by difference
 * from what the devices have allocated; two kinds cannot be told apart.
 */
export function allocation(reading: Pick<Reading, 'spaces' | 'devices' | 'chunks'>): Allocation {
  const empty = (): Totals => ({ total: 0, used: 0, rawTotal: 0, rawUsed: 0 })
  const totals = { data: empty(), metadata: empty(), system: empty() }
  const of = (type: BlockGroupType) => totals[type === 'data+metadata' ? 'data' : type]
  const parity = reading.spaces.filter(isParity)
  let worstRatio: number | undefined = 1
  for (const space of reading.spaces) {
    const kind = of(space.type)
    kind.total += space.totalBytes
    kind.used += space.usedBytes
    const copies = COPIES[space.profile]
    if (copies === undefined) continue
    kind.rawTotal += copies * space.totalBytes
    kind.rawUsed += copies * space.usedBytes
    worstRatio = Math.max(worstRatio, copies)
  }
  let known = true
  if (parity.length > 0 && reading.chunks !== undefined) {
    for (const chunks of reading.chunks) {
      const space = parity.find((row) => row.type === chunks.type && row.profile === chunks.profile)
      if (space === undefined) continue
      const kind = of(space.type)
      kind.rawTotal += chunks.bytes
      kind.rawUsed = Math.trunc(kind.rawUsed + chunks.bytes * (space.usedBytes / space.totalBytes))
      worstRatio = Math.max(worstRatio, chunks.stripes / (chunks.stripes - PARITIES[space.profile]!))
    }
  } else if (parity.length > 0) {
    const [only, another] = parity
    const rest = totals.data.rawTotal + totals.metadata.rawTotal + totals.system.rawTotal
    const raw = sum(reading.devices, (device) => device.allocatedBytes) - rest
    worstRatio = undefined
    known = another === undefined && raw > only!.totalBytes
    if (known) {
      const kind = of(only!.type)
      kind.rawTotal += raw
      kind.rawUsed = Math.trunc(kind.rawUsed + raw * (only!.usedBytes / only!.totalBytes))
    }
  }
  const mixed = reading.spaces.some((space) => space.type === 'data+metadata')
  const ratio = ({ rawTotal, total }: Totals) => (known && total > 0 ? rawTotal / total : undefined)
  const dataRatio = ratio(totals.data)
  return { ...totals, known, mixed, dataRatio, metadataRatio: mixed ? dataRatio : ratio(totals.metadata), worstRatio }
}

/**
 * Data in use with what is not flushed yet (logical): written, being written, and promised to dirty pages. In mixed
 * block groups the promises include the global reserve, which no file will ever use. Under compression it is an upper
 * bound until the data is on disk.
 */
export function liveDataBytes({ live, reserveBytes, reserveUsedBytes }: Reading, mixed: boolean): number | undefined {
  if (live === undefined) return undefined
  const reserve = mixed ? reserveBytes - reserveUsedBytes : 0
  return live.used + live.reserved + Math.max(0, live.mayUse - reserve)
}

/**
 * How full the volume is, 0–100: the raw bytes of data in use and of metadata and system block groups, over the size
 * of the devices. Metadata counts as allocated, since what it leaves over is no use to files. `liveBytes` (logical)
 * replaces the settled figure of data; what it has more is taken at the ratio of the data block groups there are.
 */
export function utilisationPercent(
  { data, metadata, system, dataRatio }: Pick<Allocation, 'data' | 'metadata' | 'system' | 'dataRatio'>,
  deviceSizeBytes: number,
  liveBytes: number = data.used,
): number {
  const rawData = data.rawUsed + (liveBytes - data.used) * (dataRatio ?? 1)
  return (100 * (rawData + metadata.rawTotal + system.rawTotal)) / deviceSizeBytes
}

/** "EPERM: needs root (CAP_SYS_ADMIN)" for each of `fields`, when `part` could not be read. */
export function notRead(reading: Reading, part: string, ...fields: string[]): Unavailable[] {
  const code = reading.failures[part]
  return code === undefined ? [] : fields.map((field) => ({ field, reason: reason(code) }))
}
