import { check } from '../errors.js'
import { type NativeRoot, native } from '../native.js'
import { batches, type FileBatch } from './batch.js'
import type { DirectoryRef, Root } from './directory.js'
import { rootArgument, walkOptions } from './options.js'
import type { Volume } from './volume.js'

export interface WalkOptions {
  readonly signal?: AbortSignal | undefined
  /** Rows in a batch, at most. Default 1,024. */
  readonly batchSize?: number | undefined
}

/** A root as the addon takes it. Internal. */
export function checkRoot(operation: string, root: Root): NativeRoot {
  const checked = check(`${operation}: root`, rootArgument, root)
  return typeof checked === 'string' ? [checked, undefined] : [checked.path, seen(checked)]
}

/** A directory as the addon compares it. Internal. */
export function seen({ inode, subvolumeId }: Omit<DirectoryRef, 'path'>): Float64Array {
  return Float64Array.of(inode, subvolumeId)
}

/**
 * Every regular file below a directory, depth first, in batches of columns; pull-based, so a slow reader holds it up
 * and memory stays flat. openat2, getdents64, statx · what the caller may read · each batch is one quick hop.
 *
 * Symlinks are never followed; mount points and nested subvolumes are never entered. What could not be read is counted
 * in the batch's `skipped`, and is no error; what vanishes under way is passed over. A batch may be empty when only
 * `skipped` has news. Breaking off the iteration closes the walk.
 * @param root absolute path of a directory on this volume, whose last component may not be a symlink; or what
 * `directory()` gave, which is then found to be the same still, with no symlink in its whole path, as it is opened
 * @throws BtrfsError ENOENT, ENOTDIR, ELOOP (a symlink), ESTALE (no longer the same directory), EACCES, EBADF;
 * BtrmindError BTRMIND_ERR_WRONG_VOLUME
 * @example
 * for await (const batch of fs.walk('/mnt/pool/tmp'))
 *   for (let i = 0; i < batch.length; i++) console.log(batch.path(i), batch.sizeBytes[i])
 */
export function walk(volume: Volume, root: Root, options: WalkOptions = {}): AsyncGenerator<FileBatch, void, void> {
  const { signal, batchSize } = check('walk', walkOptions, options)
  const from = checkRoot('walk', root)
  const open = (ticket: number) => native.walkOpen(ticket, volume.handle, ...from, false)
  return batches(volume, { operation: 'walk', path: from[0], open, batchSize, signal })
}
