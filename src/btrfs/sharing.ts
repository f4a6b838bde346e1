/** Files that share their data: deduplicated, or cloned. */
import * as v from 'valibot'
import { check } from '../errors.js'
import type { NativeDeduplicated } from '../native/extents.js'
import { native } from '../native.js'
import type { CallOptions } from './call.js'
import { cancelled, LongOperation, type Operation, type ResumeOptions } from './operation.js'
import { callOptions, pathArgument, resumeOptions, whole } from './options.js'
import type { Volume } from './volume.js'

export interface DedupeRange {
  /** Where it begins in the source. Default 0. */
  readonly startBytes?: number | undefined
  /** Default: to the source's end. */
  readonly lengthBytes?: number | undefined
}
export interface DedupeDestination {
  readonly path: string
  /** Where it begins in this file. Default 0. */
  readonly startBytes?: number | undefined
}
/** What became of one destination. */
export interface Deduplicated {
  readonly path: string
  readonly startBytes: number
  readonly outcome: 'same' | 'differs' | 'failed'
  /** From the beginning of the range; each call to the kernel compares 16 MiB and takes all of it or nothing. */
  readonly dedupedBytes: number
  /** Where it failed: an errno name, its number (negative), and what to do. */
  readonly code?: string | undefined
  readonly errno?: number | undefined
  readonly hint?: string | undefined
}
export interface DeduplicateProgress {
  /** Gone through, of each destination; what differs or fails counts as gone through to its end. */
  readonly doneBytes: number
  /** Length of the range × destinations; undefined until the source was looked at. */
  readonly totalBytes: number | undefined
  /** Shared now, of all destinations. */
  readonly dedupedBytes: number
}
/** `progress` of the error when it was stopped. */
export interface DeduplicateStopped extends DeduplicateProgress {
  /** Of each destination; what was not gone through to its end is 'failed' with ECANCELED. */
  readonly outcomes: readonly Deduplicated[]
}
const range = v.strictObject({
  startBytes: v.optional(whole, 0),
  lengthBytes: v.optional(v.pipe(whole, v.minValue(1))),
})
const destinations = v.array(v.strictObject({ path: pathArgument, startBytes: v.optional(whole, 0) }))

/**
 * Lets ranges of other files share the data of one, where they hold the same: the kernel locks both and compares byte
 * by byte, so that nothing can be lost. FIDEDUPERANGE (BTRFS_IOC_FILE_EXTENT_SAME) · read permission on all; the
 * destinations' owner, or write permission on them · long: all of it is read. Any number of destinations and bytes.
 *
 * Ranges begin at multiples of the sector size (info()), and so is the length unless it ends at the end of both files;
 * else, or where the source ends before the range does, the destination fails with EINVAL and a hint. Of an empty source
 * without `lengthBytes` there is nothing to share, and each destination that is there is 'same', with 0 bytes. A file without checksums (NOCOW) shares only with its like.
 * cancel(), an aborted signal and close() stop it within the 64 MiB that the kernel compares at once; what is shared by
 * then stays so.
 * @param source absolute or relative to the filesystem's path, as those of the destinations; no symlink is followed
 * @returns an operation; its `result` is one outcome a destination, in order: a difference or a failure of one is a
 * value, and the others go on. It rejects with BtrfsError, of the source: ENOENT, EACCES, ELOOP, EISDIR, EBADF;
 * ECANCELED, with the outcomes so far in `progress` (DeduplicateStopped); BtrmindError BTRMIND_ERR_WRONG_VOLUME
 * @throws BtrmindError BTRMIND_ERR_ARGUMENT, BTRMIND_ERR_OPTION
 * @example
 * const [copy] = await fs.deduplicate('a.iso', {}, [{ path: 'copy of a.iso' }]).result
 * if (copy?.outcome === 'same') console.log(copy.dedupedBytes)
 */
export function deduplicate(
  volume: Volume,
  source: string,
  of: DedupeRange,
  to: readonly DedupeDestination[],
  options: ResumeOptions = {},
): Operation<DeduplicateProgress, Deduplicated[]> {
  const from = volume.resolve(check('deduplicate: source', pathArgument, source))
  const { startBytes, lengthBytes } = check('deduplicate: range', range, of)
  const targets = check('deduplicate: destinations', destinations, to)
  const { signal, intervalMs } = check('deduplicate', resumeOptions, options)
  const paths = targets.map(({ path }) => volume.resolve(path))
  const starts = Float64Array.from(targets, ({ startBytes }) => startBytes)
  const counters = native.deduplicateCounters()
  const now = (): DeduplicateProgress => native.deduplicateDone(counters)
  const outcome = ({ dedupedBytes, code, errno, hint }: NativeDeduplicated, index: number): Deduplicated => {
    const { path, startBytes } = targets[index]!
    if (code === '') return { path, startBytes, outcome: 'same', dedupedBytes }
    if (code === 'DIFFERS') return { path, startBytes, outcome: 'differs', dedupedBytes }
    return { path, startBytes, outcome: 'failed', dedupedBytes, code, errno, ...(hint === '' ? {} : { hint }) }
  }
  const work = async (stop: AbortSignal): Promise<Deduplicated[]> => {
    try {
      const rows = await volume.callLong('deduplicate', { path: from }, { signal: stop }, (t) =>
        native.deduplicate(t, volume.handle, from, startBytes, lengthBytes, paths, starts, counters),
      )
      return rows.map(outcome)
    } catch (error) {
      const { progress } = error as { progress?: NativeDeduplicated[] }
      if (progress === undefined && (!stop.aborted || error !== stop.reason)) throw error
      // Stopped before it began: nothing is known of any.
      const rows = progress ?? paths.map(() => ({ dedupedBytes: 0, code: 'ECANCELED', errno: -125, hint: '' }))
      const stopped: DeduplicateStopped = { ...now(), outcomes: rows.map(outcome) }
      throw cancelled('deduplicate', from, stopped)
    }
  }
  return new LongOperation({
    operation: 'deduplicate',
    path: from,
    start: (stop) => volume.track(work(stop)),
    progress: async () => now(),
    last: () => now(),
    signal,
    intervalMs,
  })
}

export interface CloneOptions extends CallOptions {
  /** Where to begin in the source. Default 0. */
  readonly sourceStartBytes?: number | undefined
  /** Default: to the source's end. */
  readonly lengthBytes?: number | undefined
  /** Where it comes to lie in the destination. Default 0. */
  readonly destinationStartBytes?: number | undefined
  /**
   * Make the destination, which must not be there, with the source's permissions, whatever the umask, and NOCOW if the
   * source is, whatever the directory; gone again if the clone fails.
   */
  readonly create?: boolean | undefined
}
const cloneOptions = v.strictObject({
  ...callOptions.entries,
  sourceStartBytes: v.optional(whole, 0),
  lengthBytes: v.optional(v.pipe(whole, v.minValue(1))),
  destinationStartBytes: v.optional(whole, 0),
  create: v.optional(v.boolean(), false),
})

/**
 * Puts a file's data, or a part of it, into another file without copying it: both share it until one is written to.
 * FICLONE, FICLONERANGE · read permission on the source, write permission on the destination · quick, seconds for a
 * file of very many extents, in which the kernel cannot be stopped: `signal` and `timeoutMs` are answered when it is
 * done.
 *
 * What was in the destination's range is gone; the rest of it stays. Ranges begin at multiples of the sector size, and so is
 * the length unless it ends at the end of the source and not before the destination's. A file without checksums (NOCOW)
 * shares only with its like.
 * @param destination a regular file that is there, unless `create`
 * @throws BtrfsError ENOENT, EACCES, EEXIST (`create`), EINVAL (with the reason as its hint), ELOOP, EISDIR, EROFS,
 * ENOSPC, ETXTBSY (a swap file), EBADF; BtrmindError BTRMIND_ERR_WRONG_VOLUME, BTRMIND_ERR_ARGUMENT, BTRMIND_ERR_OPTION
 * @example
 * await fs.clone('images/base.raw', 'images/machine-7.raw', { create: true })
 */
export async function clone(
  volume: Volume,
  source: string,
  destination: string,
  options: CloneOptions = {},
): Promise<void> {
  const from = volume.resolve(check('clone: source', pathArgument, source))
  const to = volume.resolve(check('clone: destination', pathArgument, destination))
  const { sourceStartBytes, lengthBytes, destinationStartBytes, create, ...callWith } = check(
    'clone',
    cloneOptions,
    options,
  )
  await volume.callLong('clone', { path: from, dest: to }, callWith, (t) =>
    native.clone(t, volume.handle, from, to, sourceStartBytes, lengthBytes, destinationStartBytes, create),
  )
}
