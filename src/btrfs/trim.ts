/** Telling devices which of their blocks are free. */
import * as v from 'valibot'
import { check } from '../errors.js'
import { native } from '../native.js'
import { cancelled, LongOperation, type Operation, type ResumeOptions } from './operation.js'
import { resumeOptions, whole } from './options.js'
import type { Volume } from './volume.js'

export interface TrimOptions extends ResumeOptions {
  /** Logical bytes; of what is in no block group everything is trimmed, whatever the range. Default: all. */
  readonly startBytes?: number | undefined
  readonly lengthBytes?: number | undefined
  /** Leave smaller free pieces alone. Default 0: the device's own least. */
  readonly minimumBytes?: number | undefined
}
/** So far. */
export interface TrimProgress {
  readonly blockGroups: number
  /** Those in the range as it began. */
  readonly totalBlockGroups: number
  /** On all devices, each copy counted. */
  readonly trimmedBytes: number
}
const trimOptions = v.strictObject({
  ...resumeOptions.entries,
  startBytes: v.optional(whole, 0),
  lengthBytes: v.optional(v.pipe(whole, v.minValue(1))),
  minimumBytes: v.optional(whole, 0),
})

/**
 * Tells the devices which of their blocks are free. FITRIM, chunk tree · CAP_SYS_ADMIN · long: seconds to minutes, a
 * block group at a time. What is in no block group goes with the first one, and the kernel remembers until it is
 * unmounted what of that was trimmed. cancel(), an aborted signal and close() stop it between two block groups.
 * @returns an operation; its `result` rejects with BtrfsError EPERM, EBADF; EOPNOTSUPP (no device can), EINVAL (a
 * `lengthBytes` of less than a sector), EROFS (mounted with `nologreplay`), ECANCELED, with what was trimmed in `progress`
 * @throws BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT
 * @example
 * const { trimmedBytes } = await fs.trim({ minimumBytes: 1024 ** 2 }).result
 * console.log(formatBytes(trimmedBytes))
 */
export function trim(volume: Volume, options: TrimOptions = {}): Operation<TrimProgress, TrimProgress> {
  const checked = check('trim', trimOptions, options)
  const { startBytes: start, lengthBytes: length, minimumBytes, signal, intervalMs } = checked
  let now: TrimProgress | undefined
  const work = async (stop: AbortSignal) => {
    const { groups } = await volume.call('trim', {}, {}, (t) => native.blockGroups(t, volume.handle))
    const end = start + (length ?? Number.POSITIVE_INFINITY)
    const starts: number[] = []
    for (let at = 0; at < groups.length; at += 4)
      if (groups[at]! < end && groups[at]! + groups[at + 1]! > start) starts.push(groups[at]!)
    const cuts = starts.filter((at) => at >= start + LEAST && at + LEAST <= end)
    const slices = [start, ...cuts.filter((at) => at !== starts[0])]
    let blockGroups = 0
    now = { blockGroups: 0, totalBlockGroups: starts.length, trimmedBytes: 0 }
    for (const [index, from] of slices.entries()) {
      if (stop.aborted) throw cancelled('trim', volume.path, now)
      const to = slices[index + 1]
      // The last one has the rest, and what became a block group meanwhile.
      const bytes = to !== undefined ? to - from : length === undefined ? undefined : length - (from - start)
      const begin = (ticket: number) => native.trim(ticket, volume.handle, from, bytes, minimumBytes)
      const trimmed = await volume.callLong('trim', {}, {}, begin).catch((error) => {
        throw Object.assign(error, { progress: now })
      })
      while (blockGroups < starts.length && starts[blockGroups]! < (to ?? end)) blockGroups++
      now = { ...now, blockGroups, trimmedBytes: now.trimmedBytes + trimmed }
    }
    return now
  }
  return new LongOperation({
    operation: 'trim',
    path: volume.path,
    start: (stop) => volume.track(work(AbortSignal.any([stop, volume.closing]))),
    progress: async () => now,
    last: () => now,
    signal,
    intervalMs,
  })
}

/** The kernel takes no range that is shorter than a sector, of which this is the longest. */
const LEAST = 64 * 1024
