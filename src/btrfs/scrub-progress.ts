/** How far a scrub is: what it has checked of what it will. */
import type { BlockGroup } from './inspect.js'
import { parityOf } from './space.js'

/** Counts and bytes, on one device or summed over them. Copies count each. */
export interface ScrubCounters {
  readonly dataExtents: number
  readonly treeExtents: number
  readonly dataBytes: number
  readonly treeBytes: number
  /** The device could not read. */
  readonly readErrors: number
  readonly checksumErrors: number
  /** Metadata whose checksum is right and whose content cannot be. */
  readonly verifyErrors: number
  /** Blocks of files that keep no checksums: not checked. */
  readonly blocksWithoutChecksum: number
  readonly checksumsWithoutData: number
  readonly superErrors: number
  readonly memoryErrors: number
  /** No copy was good. */
  readonly uncorrectableErrors: number
  /** Repaired. Always 0 of a read-only scrub. */
  readonly correctedErrors: number
  /** A read-only scrub's: another copy was good. */
  readonly correctableErrors: number
  /** Bad when read, good when read again. */
  readonly unverifiedErrors: number
}
export interface ScrubDevice extends ScrubCounters {
  readonly devid: number
  readonly state: 'running' | 'finished' | 'cancelled' | 'failed'
  /** Of what is used on it where it is scrubbed, all copies; where that cannot be read, of what is allocated. 0–1. */
  readonly ratio: number
  /** Up to here it was scrubbed, in bytes of the device: where to begin again. */
  readonly lastPhysicalBytes: number
}
export interface ScrubProgress extends ScrubCounters {
  readonly devices: readonly ScrubDevice[]
  readonly ratio: number
  readonly elapsedMs: number
  /** Read and checked, all devices together. */
  readonly bytesPerSecond: number
  /** Of the device that takes longest. Undefined while there is nothing to tell it from. */
  readonly remainingMs: number | undefined
}

/** Of a scrub that somebody began; whether it repairs, the kernel does not say. */
export interface ScrubDeviceStatus extends Omit<ScrubCounters, 'correctedErrors' | 'correctableErrors'> {
  readonly devid: number
  /** Up to here it is scrubbed, in bytes of the device. */
  readonly lastPhysicalBytes: number
  /** Repaired, or of a read-only scrub: another copy was good. */
  readonly correctedOrCorrectableErrors: number
}
export interface ScrubStatus {
  /** Those that are scrubbed now. */
  readonly devices: readonly ScrubDeviceStatus[]
}

export interface DeviceScrub {
  readonly devid: number
  readonly from: number
  readonly end: number | undefined
  /** What is allocated: [start, length] of each. */
  readonly extents: Float64Array
  /** What it will check, by the use of the block groups; undefined: that could not be read. */
  readonly expectedBytes: number | undefined
  counters: Float64Array | undefined
  state: ScrubDevice['state']
}

export function unpack(counters: Float64Array | undefined, readonly: boolean): ScrubCounters {
  const at = (index: number) => counters?.[index] ?? 0
  return {
    dataExtents: at(0),
    treeExtents: at(1),
    dataBytes: at(2),
    treeBytes: at(3),
    readErrors: at(4),
    checksumErrors: at(5),
    verifyErrors: at(6),
    blocksWithoutChecksum: at(7),
    checksumsWithoutData: at(8),
    superErrors: at(9),
    memoryErrors: at(10),
    uncorrectableErrors: at(11),
    // The kernel counts what it could have corrected in the same place.
    correctedErrors: readonly ? 0 : at(12),
    correctableErrors: readonly ? at(12) : 0,
    unverifiedErrors: at(14),
  }
}

export function statusOf(devid: number, counters: Float64Array): ScrubDeviceStatus {
  const { correctedErrors, correctableErrors: _, ...rest } = unpack(counters, false)
  return {
    devid,
    lastPhysicalBytes: counters[LAST_PHYSICAL]!,
    ...rest,
    correctedOrCorrectableErrors: correctedErrors,
  }
}

/**
 * Bytes that a scrub of a device checks: of each block group between `from` and `to` what is used, in as many copies as
 * lie there. The one that `from` is in is scrubbed whole. Parity is not counted by the kernel.
 */
export function expectedOn(
  groups: readonly BlockGroup[],
  { devid, from, end = Number.POSITIVE_INFINITY, extents }: Pick<DeviceScrub, 'devid' | 'from' | 'end' | 'extents'>,
): number {
  const lengths = new Map<number, number>()
  for (let i = 0; i < extents.length; i += 2) lengths.set(extents[i]!, extents[i + 1]!)
  let bytes = 0
  for (const { profile, sizeBytes, usedBytes = 0, stripes } of groups) {
    for (const stripe of stripes) {
      if (stripe.devid !== devid || stripe.offsetBytes >= end) continue
      const lengthBytes = lengths.get(stripe.offsetBytes) ?? 0
      if (stripe.offsetBytes + lengthBytes <= from) continue
      // Of a stripe the part that is data: each byte of it stands for as much as the block group is used.
      const data = (stripes.length - parityOf(profile)) / stripes.length
      bytes += (usedBytes / sizeBytes) * lengthBytes * data
    }
  }
  return bytes
}

/** Bytes allocated on the device from `from` on and before `to`. */
function allocated(extents: Float64Array, from: number, to: number): number {
  let bytes = 0
  for (let i = 0; i < extents.length; i += 2) {
    const start = extents[i]!
    bytes += Math.max(0, Math.min(start + extents[i + 1]!, to) - Math.max(start, from))
  }
  return bytes
}

function passed({ from, end = Number.POSITIVE_INFINITY, extents, expectedBytes, counters, state }: DeviceScrub) {
  const whole = expectedBytes ?? allocated(extents, from, end)
  if (state === 'finished') return { whole, done: whole }
  const at = (index: number) => counters?.[index] ?? 0
  const done = expectedBytes === undefined ? allocated(extents, from, at(LAST_PHYSICAL)) : at(2) + at(3)
  return { whole, done: Math.min(whole, done) }
}
const LAST_PHYSICAL = 13

export function summary(runs: readonly DeviceScrub[], elapsedMs: number, readonly: boolean): ScrubProgress {
  let total = 0
  let checked = 0
  let remainingMs: number | undefined = 0
  const each = runs.map((run): ScrubDevice => {
    const { devid, from, state } = run
    const { whole, done } = passed(run)
    total += whole
    checked += done
    // They are scrubbed at once.
    if (state === 'running' && remainingMs !== undefined)
      remainingMs = done > 0 ? Math.max(remainingMs, (elapsedMs * (whole - done)) / done) : undefined
    const lastPhysicalBytes = Math.max(from, run.counters?.[LAST_PHYSICAL] ?? 0)
    return { devid, state, ratio: whole === 0 ? 1 : done / whole, lastPhysicalBytes, ...unpack(run.counters, readonly) }
  })
  const sums = Object.fromEntries(
    Object.keys(unpack(undefined, readonly)).map((key) => [
      key,
      each.reduce((sum, device) => sum + device[key as keyof ScrubCounters], 0),
    ]),
  ) as unknown as ScrubCounters
  const bytesPerSecond = elapsedMs > 0 ? (1000 * (sums.dataBytes + sums.treeBytes)) / elapsedMs : 0
  const ratio = total === 0 ? 1 : checked / total
  return { ...sums, devices: each, ratio, elapsedMs, bytesPerSecond, remainingMs }
}
