import { check, isNativeFailure } from '../errors.js'
import { type NativeFiles, type NativeOutcomes, native } from '../native.js'
import type { FileRef } from './batch.js'
import type { CallOptions } from './call.js'
import type { Root } from './directory.js'
import { callOptions, compressOptions, fileRefs } from './options.js'
import type { Volume } from './volume.js'
import { checkRoot } from './walk.js'

/**
 * Why a file was left alone: an errno name, or
 * - 'CHANGED': it is no longer the regular file that was seen, or was read since;
 * - 'EXDEV': the path leads out of the root ('..', a mount point, a nested subvolume); 'ELOOP': through a symlink;
 * - compressing only: 'SHARED' (a snapshot or reflink holds its extents: rewriting would take more space),
 *   'NOCOW' (no copy-on-write or no checksums, so the kernel cannot compress it), 'NOCOMPRESS' (flagged so by its
 *   owner, or by the kernel after a bad ratio), 'COMPRESSED' (already).
 */
export interface FileFailure {
  readonly ok: false
  readonly code: string
}

export type FileOutcome = { readonly ok: true; readonly code?: undefined } | FileFailure

/** `diskBytes…` as in FileExtents. After a refusal both are absent, or equal. */
export type Compressed = FileOutcome & {
  readonly diskBytesBefore?: number | undefined
  readonly diskBytesAfter?: number | undefined
}

/** What FIEMAP says of one file. Bytes are logical (before compression). */
export interface FileExtents {
  readonly extents: number
  /** In extents that a snapshot or reflink holds too. */
  readonly sharedBytes: number
  readonly compressedBytes: number
  /** In extents at all: the size without holes. */
  readonly bytes: number
  /** What the file takes on disk, after compression (not per copy); undefined without CAP_SYS_ADMIN. */
  readonly diskBytes?: number | undefined
}

export type FileExtentsOutcome = ({ readonly ok: true; readonly code?: undefined } & FileExtents) | FileFailure

/** compressed / uncompressed size on disk, 0–1; 1: nothing to gain. */
export type RatioOutcome = { readonly ok: true; readonly code?: undefined; readonly ratio: number } | FileFailure

export interface CompressOptions extends CallOptions {
  /** Default 'lzo'. */
  readonly algorithm?: 'lzo' | 'zlib' | 'zstd' | undefined
}

/** The kernel's numbers. */
const ALGORITHMS = { zlib: 1, lzo: 2, zstd: 3 } as const

function columns(operation: string, files: readonly FileRef[]): NativeFiles {
  const checked = check(`${operation}: files`, fileRefs, files)
  const ends = new Uint32Array(checked.length)
  const identity = new Float64Array(checked.length * 5)
  let end = 0
  for (const [index, file] of checked.entries()) {
    end += file.path.length
    ends[index] = end
    const { inode, sizeBytes, mtimeMs, ctimeMs, atimeMs = Number.NaN } = file
    identity.set([inode, sizeBytes, mtimeMs, ctimeMs, atimeMs], index * 5)
  }
  const paths = new Uint8Array(end)
  for (const [index, file] of checked.entries()) paths.set(file.path, index === 0 ? 0 : ends[index - 1])
  return [paths, ends, identity]
}

function outcomes({ codes, names }: NativeOutcomes): FileOutcome[] {
  return Array.from(codes, (code) => (code === 0 ? { ok: true } : { ok: false, code: names[code] ?? `${code}` }))
}

/**
 * Unlinks files that still are what a walk saw: same inode, size, mtime and ctime, not read since, a regular file, on
 * the same subvolume. Each is opened beneath `root` anew, never through a symlink, across a mount or through '..'.
 * openat2, unlinkat · write permission on the directories · long for many files: pass a few thousand at a time.
 *
 * Between the last look and the unlink there is a microsecond in which another process can put another file in the
 * same place of the same directory; then that one is removed. Nothing else can be: the directory is pinned, and unlink
 * neither follows symlinks nor removes directories.
 *
 * The space is free after `sync()`, unless a process still has the file open, or it has other links or a snapshot.
 * @returns one outcome a file, in order; failures are values, so that one file does not stop the others
 * @throws BtrfsError ENOENT, ENOTDIR, ELOOP, ESTALE, EBADF (the root, as `walk`); ECANCELED after an abort, ETIMEDOUT, both with the
 * outcomes so far in `progress`; BtrmindError BTRMIND_ERR_WRONG_VOLUME, BTRMIND_ERR_ARGUMENT
 * @example
 * for await (const batch of fs.walk(root)) await fs.removeFiles(root, [fileRef(batch, 0)])
 */
export async function removeFiles(
  volume: Volume,
  root: Root,
  files: readonly FileRef[],
  options: CallOptions = {},
): Promise<FileOutcome[]> {
  const where = checkRoot('removeFiles', root)
  const packed = columns('removeFiles', files)
  const work = volume.callLong(
    'removeFiles',
    { path: where[0] },
    check('removeFiles', callOptions, options),
    async (t) => {
      try {
        return outcomes(await native.removeFiles(t, volume.handle, ...where, ...packed))
      } catch (error) {
        if (!isNativeFailure(error) || error.progress === undefined) throw error
        throw { ...error, progress: outcomes(error.progress as NativeOutcomes) }
      }
    },
  )
  return work
}

/**
 * How a file's data lies on the volume. FS_IOC_FIEMAP · read permission · quick; dirty data is flushed first.
 * @returns a failure as a value when the file no longer is what was seen
 * @throws BtrfsError ENOENT, ENOTDIR, ELOOP, ESTALE, EBADF (the root, as `walk`); BtrmindError as `removeFiles`
 * @example
 * const { ok, sharedBytes } = await fs.fileExtents(root, fileRef(batch, 0))
 */
export async function fileExtents(
  volume: Volume,
  root: Root,
  file: FileRef,
  options: CallOptions = {},
): Promise<FileExtentsOutcome> {
  const where = checkRoot('fileExtents', root)
  const packed = columns('fileExtents', [file])
  const work = volume.call('fileExtents', { path: where[0] }, check('fileExtents', callOptions, options), (t) =>
    native.fileExtents(t, volume.handle, ...where, ...packed),
  )
  const { code, ...extents } = await work
  return code === '' ? { ok: true, ...extents } : { ok: false, code }
}

/**
 * Rewrites a file compressed, 32 MiB at a time; content, size and times stay. BTRFS_IOC_DEFRAG_RANGE · write permission
 * or CAP_SYS_ADMIN, but no writable descriptor, so running programs can be compressed · long.
 *
 * Refused, because rewriting would cost space or gain none: files with shared extents ('SHARED', looked up again before
 * each slice), without copy-on-write or checksums ('NOCOW'; the latter shows only to root), flagged against compression
 * ('NOCOMPRESS'), compressed already ('COMPRESSED'; slices that are compressed in part are left as they are). The kernel
 * flags a file against compression itself when a block of it would not shrink.
 *
 * The old extents are freed by the next commit: `sync()` once after several files. Until then the volume holds both.
 * @param options.algorithm default 'lzo'
 * @returns failures as values; on 'CHANGED' and errno names under way, slices that were done stay compressed
 * @throws BtrfsError ENOENT, ENOTDIR, ELOOP, ESTALE, EBADF (the root, as `walk`); ECANCELED after an abort, ETIMEDOUT, both with
 * `diskBytesBefore` and `diskBytesAfter` in `progress`; BtrmindError as `removeFiles`
 * @example
 * const { ok, diskBytesBefore, diskBytesAfter } = await fs.compressFile(root, file, { algorithm: 'zstd' })
 */
export async function compressFile(
  volume: Volume,
  root: Root,
  file: FileRef,
  options: CompressOptions = {},
): Promise<Compressed> {
  const where = checkRoot('compressFile', root)
  const packed = columns('compressFile', [file])
  const { algorithm, ...callWith } = check('compressFile', compressOptions, options)
  const work = volume.callLong('compressFile', { path: where[0] }, callWith, (t) =>
    native.compressFile(t, volume.handle, ...where, ...packed, ALGORITHMS[algorithm]),
  )
  const { code, ...figures } = await work
  return code === '' ? { ok: true, ...figures } : { ok: false, code, ...figures }
}

/**
 * What lzo would leave of a file's disk space: 0–1, 1 where nothing is to be gained. Reads up to 16 blocks of 128 KiB,
 * evenly spaced, and counts what LZO1X would write for each sector, without writing it. pread · read permission,
 * and to be the file's owner or root, so that the access time stays · quick (up to 2 MiB read).
 *
 * Multiply the `diskBytes` of `fileExtents` by 1 − ratio for the bytes to be gained. For zlib and zstd the ratio is an upper bound.
 * Measured on 15 files of 0.1–100 MB (source, programs, logs, CSV, archives, noise): off by 0.001 at the median, by
 * 0.022 at most (60 MB of shared libraries); a sparse file of 8 GiB was off by 0.033.
 * @throws as `fileExtents`
 * @example
 * const { ok, ratio } = await fs.estimateCompressedRatio(root, file)
 */
export async function estimateCompressedRatio(
  volume: Volume,
  root: Root,
  file: FileRef,
  options: CallOptions = {},
): Promise<RatioOutcome> {
  const where = checkRoot('estimateCompressedRatio', root)
  const packed = columns('estimateCompressedRatio', [file])
  const work = volume.call(
    'estimateCompressedRatio',
    { path: where[0] },
    check('estimateCompressedRatio', callOptions, options),
    (t) => native.estimateCompressedRatio(t, volume.handle, ...where, ...packed),
  )
  const { code, ratio } = await work
  return code === '' ? { ok: true, ratio } : { ok: false, code }
}
