/** Files that share their data: deduplicated, or cloned. */
import * as v from 'valibot'
import { check } from '../errors.js'
import { native } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions, pathArgument, whole } from './options.js'
import type { Volume } from './volume.js'

export interface DedupeRange {
  /** Where it begins in the source. Default 0. */
  readonly offset?: number | undefined
  /** Default: to the source's end. */
  readonly lengthBytes?: number | undefined
}
export interface DedupeDestination {
  readonly path: string
  /** Where it begins in this file. Default 0. */
  readonly offset?: number | undefined
}
/** What became of one destination. */
export interface Deduplicated {
  readonly path: string
  readonly offset: number
  readonly outcome: 'same' | 'differs' | 'failed'
  /** From the beginning of the range; each call to the kernel compares 16 MiB and takes all of it or nothing. */
  readonly dedupedBytes: number
  /** Where it failed: an errno name, its number (negative), and what to do. */
  readonly code?: string | undefined
  readonly errno?: number | undefined
  readonly hint?: string | undefined
}
const range = v.strictObject({
  offset: v.optional(whole, 0),
  lengthBytes: v.optional(v.pipe(whole, v.minValue(1))),
})
const destinations = v.array(v.strictObject({ path: pathArgument, offset: v.optional(whole, 0) }))

/**
 * Lets ranges of other files share the data of one, where they hold the same: the kernel locks both and compares byte
 * by byte, so that nothing can be lost. FIDEDUPERANGE (BTRFS_IOC_FILE_EXTENT_SAME) · read permission on all; the
 * destinations' owner, or write permission on them · long: all of it is read. Any number of destinations and bytes.
 *
 * Offsets are multiples of the sector size (info()), and so is the length unless it ends at the end of both files; else
 * the destination fails with EINVAL and a hint. A file without checksums (NOCOW) shares only with its like.
 * cancel by `signal` and close() work between two pieces of 16 MiB; what is shared by then stays so.
 * @param source absolute or relative to the filesystem's path, as those of the destinations; no symlink is followed
 * @returns one outcome a destination, in order; a difference or a failure of one is a value, and the others go on
 * @throws BtrfsError of the source ENOENT, EACCES, ELOOP, EISDIR, EINVAL, EBADF; ECANCELED and ETIMEDOUT, with the
 * outcomes so far in `progress`; BtrmindError BTRMIND_ERR_WRONG_VOLUME, BTRMIND_ERR_ARGUMENT, BTRMIND_ERR_OPTION
 * @example
 * const [copy] = await fs.deduplicate('a.iso', {}, [{ path: 'copy of a.iso' }])
 * if (copy?.outcome === 'same') console.log(copy.dedupedBytes)
 */
export async function deduplicate(
  volume: Volume,
  source: string,
  of: DedupeRange,
  to: readonly DedupeDestination[],
  options: CallOptions = {},
): Promise<Deduplicated[]> {
  const from = volume.resolve(check('deduplicate: source', pathArgument, source))
  const { offset, lengthBytes } = check('deduplicate: range', range, of)
  const targets = check('deduplicate: destinations', destinations, to)
  const callWith = check('deduplicate', callOptions, options)
  const paths = targets.map(({ path }) => volume.resolve(path))
  const offsets = Float64Array.from(targets, ({ offset }) => offset)
  type Row = Awaited<ReturnType<typeof native.deduplicate>>[number]
  const outcome = ({ dedupedBytes, code, errno, hint }: Row, index: number): Deduplicated => {
    const { path, offset } = targets[index]!
    if (code === '') return { path, offset, outcome: 'same', dedupedBytes }
    if (code === 'DIFFERS') return { path, offset, outcome: 'differs', dedupedBytes }
    return { path, offset, outcome: 'failed', dedupedBytes, code, errno, ...(hint === '' ? {} : { hint }) }
  }
  try {
    const rows = await volume.callLong('deduplicate', { path: from }, callWith, (t) =>
      native.deduplicate(t, volume.handle, from, offset, lengthBytes, paths, offsets),
    )
    return rows.map(outcome)
  } catch (error) {
    const { progress } = error as { progress?: Row[] }
    if (Array.isArray(progress)) Object.assign(error as Error, { progress: progress.map(outcome) })
    throw error
  }
}

export interface CloneOptions extends CallOptions {
  /** Where to begin in the source. Default 0. */
  readonly sourceOffset?: number | undefined
  /** Default: to the source's end. */
  readonly lengthBytes?: number | undefined
  /** Where it comes to lie in the destination. Default 0. */
  readonly destinationOffset?: number | undefined
  /** Make the destination, which must not be there, with the source's permissions; gone again if the clone fails. */
  readonly create?: boolean | undefined
}
const cloneOptions = v.strictObject({
  ...callOptions.entries,
  sourceOffset: v.optional(whole, 0),
  lengthBytes: v.optional(v.pipe(whole, v.minValue(1))),
  destinationOffset: v.optional(whole, 0),
  create: v.optional(v.boolean(), false),
})

/**
 * Puts a file's data, or a part of it, into another file without copying it: both share it until one is written to.
 * FICLONE, FICLONERANGE · read permission on the source, write permission on the destination · quick, seconds for a
 * file of very many extents, in which the kernel cannot be stopped: `signal` and `timeoutMs` are answered when it is
 * done.
 *
 * What was in the destination's range is gone; the rest of it stays. Offsets are multiples of the sector size, and so is
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
  const { sourceOffset, lengthBytes, destinationOffset, create, ...callWith } = check('clone', cloneOptions, options)
  await volume.callLong('clone', { path: from, dest: to }, callWith, (t) =>
    native.clone(t, volume.handle, from, to, sourceOffset, lengthBytes, destinationOffset, create),
  )
}
