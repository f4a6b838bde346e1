/** The interface that the kernel and the simulator both implement; nothing above this layer knows which one it has. */
import type { BalanceOptions, BalanceProgress, BalanceStatus } from './balance-filters.js'
import type { FileBatch, FileRef } from './batch.js'
import type { CallOptions } from './call.js'
import type { Device } from './devices.js'
import type { Directory, Root } from './directory.js'
import type { Compressed, CompressOptions, FileExtentsOutcome, FileOutcome, RatioOutcome } from './files.js'
import type { FilesystemInfo } from './info.js'
import type { Measurement } from './measure.js'
import type { Operation } from './operation.js'
import type { Statfs } from './statfs.js'
import type { Subvolume, SubvolumeListOptions } from './subvolume-list.js'
import type { DeleteOptions, SnapshotOptions } from './subvolumes.js'
import type { Usage } from './usage.js'
import type { WalkOptions } from './walk.js'

export interface Filesystem extends AsyncDisposable {
  /** The directory that was opened. */
  readonly path: string
  readonly uuid: string

  info(options?: CallOptions): Promise<FilesystemInfo>
  usage(options?: CallOptions): Promise<Usage>
  devices(options?: CallOptions): Promise<Device[]>
  /** Writes out what is dirty, and commits. */
  sync(options?: CallOptions): Promise<void>
  /** All of a monitor's raw figures in one hop. */
  measure(options?: CallOptions): Promise<Measurement>
  statfs(options?: CallOptions): Promise<Statfs>

  /**
   * Resolves a directory of this volume, through symlinks.
   * @throws BtrfsError ENOENT, ENOTDIR, EACCES, ENOTTY (not btrfs); BtrmindError BTRMIND_ERR_WRONG_VOLUME
   */
  directory(path: string, options?: CallOptions): Promise<Directory>

  subvolumes(options?: SubvolumeListOptions): AsyncIterable<Subvolume>
  /** The subvolume that holds `path`. */
  subvolume(path?: string, options?: CallOptions): Promise<Subvolume>
  createSubvolume(path: string, options?: CallOptions): Promise<void>
  snapshot(source: string, destination: string, options?: SnapshotOptions): Promise<void>
  deleteSubvolume(path: string, options?: DeleteOptions): Promise<void>

  /** Regular files below `root`; never through symlinks, across mounts or into subvolumes. */
  walk(root: Root, options?: WalkOptions): AsyncIterable<FileBatch>
  /** Unlinks what still is what was seen, opened beneath `root` without following symlinks. One outcome a file. */
  removeFiles(root: Root, files: readonly FileRef[], options?: CallOptions): Promise<FileOutcome[]>
  /** FIEMAP of a file that still is what was seen. */
  fileExtents(root: Root, file: FileRef, options?: CallOptions): Promise<FileExtentsOutcome>
  /** Rewrites a file's data compressed, in slices, without changing its content, size or mtime. */
  compressFile(root: Root, file: FileRef, options?: CompressOptions): Promise<Compressed>
  /** What `compressFile` with lzo would leave of a file's space on disk, from a bounded sample. */
  estimateCompressedRatio(root: Root, file: FileRef, options?: CallOptions): Promise<RatioOutcome>

  balance(options: BalanceOptions): Operation<BalanceProgress, BalanceProgress>
  /** Undefined when idle. */
  balanceStatus(options?: CallOptions): Promise<BalanceStatus | undefined>

  /** Waits for tasks in flight (cancels long ones); afterwards every call fails with EBADF. Idempotent. */
  close(): Promise<void>
}
