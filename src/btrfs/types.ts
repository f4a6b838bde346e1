/** The interface that the kernel and the simulator both implement; nothing above this layer knows which one it has. */
import type { CallOptions } from './call.js'
import type { Operation } from './operation.js'

export type BlockGroupType = 'data' | 'metadata' | 'system' | 'data+metadata'
export type Profile = 'single' | 'dup' | 'raid0' | 'raid1' | 'raid1c3' | 'raid1c4' | 'raid10' | 'raid5' | 'raid6'

/** What could not be had, and why ("EPERM: needs root (CAP_SYS_ADMIN)"). The field itself is then undefined. */
export interface Unavailable {
  readonly field: string
  readonly reason: string
}

/** FS_INFO. No privilege needed. */
export interface FilesystemInfo {
  readonly uuid: string
  /** Differs from `uuid` after `btrfstune -m`. */
  readonly metadataUuid: string
  /** Devices that belong to the volume, the missing ones counted. */
  readonly devices: number
  readonly maxDeviceId: number
  readonly nodeSizeBytes: number
  readonly sectorSizeBytes: number
  readonly cloneAlignmentBytes: number
  /** The newest transaction, which may still be open: a commit shows once the next one begins. */
  readonly generation: number | undefined
  readonly checksum: 'crc32c' | 'xxhash64' | 'sha256' | 'blake2b' | undefined
  /** Empty string when the volume has none. */
  readonly label: string
}

export interface DeviceErrors {
  readonly write: number
  readonly read: number
  readonly flush: number
  readonly corruption: number
  readonly generation: number
}

export interface Device {
  readonly devid: number
  readonly uuid: string
  /** Undefined when the device is missing. */
  readonly path: string | undefined
  readonly missing: boolean
  readonly sizeBytes: number
  /** Bytes in chunks (allocated), not bytes of files. */
  readonly allocatedBytes: number
  readonly unallocatedBytes: number
  /** Device size beyond what the filesystem uses; undefined when it cannot be read. */
  readonly slackBytes: number | undefined
  /** Cumulative counters; undefined when missing or not permitted. */
  readonly errors: DeviceErrors | undefined
}

export interface DeviceBytes {
  readonly devid: number
  readonly path: string | undefined
  readonly sizeBytes: number
}

export interface BlockGroupUsage {
  readonly type: BlockGroupType
  readonly profile: Profile
  /** Logical bytes (before copies and parity). */
  readonly sizeBytes: number
  readonly usedBytes: number
  /** Raw bytes on each device that has any; undefined without CAP_SYS_ADMIN. */
  readonly devices: readonly DeviceBytes[] | undefined
}

/**
 * Every figure of `btrfs filesystem usage -b`, and `live`. Bytes are raw (copies and parity counted) unless noted.
 * Without CAP_SYS_ADMIN the stripes of RAID5 and RAID6 are unknown, and what rests on them is undefined; so are the
 * ratio and the estimates of a volume that has no data block group (yet).
 */
export interface Usage {
  readonly deviceSizeBytes: number
  readonly deviceAllocatedBytes: number
  readonly deviceUnallocatedBytes: number
  /** Size of the devices that are missing. */
  readonly deviceMissingBytes: number
  /** Parts of the devices that the filesystem was not grown into; undefined when one's size cannot be read. */
  readonly deviceSlackBytes: number | undefined
  readonly usedBytes: number | undefined
  /** Logical: unused data block groups, and all that is unallocated at the data ratio. */
  readonly freeEstimatedBytes: number | undefined
  /** Logical: the same, with what is unallocated at the worst ratio in use. */
  readonly freeEstimatedMinBytes: number | undefined
  /** statfs bavail × block size. */
  readonly freeStatfsBytes: number
  /** Raw bytes for one byte of data, over the data block groups there are. */
  readonly dataRatio: number | undefined
  readonly metadataRatio: number | undefined
  readonly globalReserveBytes: number
  readonly globalReserveUsedBytes: number
  /** Some type has block groups of more than one profile: an unfinished conversion. */
  readonly multipleProfiles: boolean
  readonly blockGroups: readonly BlockGroupUsage[]
  readonly unallocated: readonly DeviceBytes[]
  /** Counts data that is not flushed yet (logical bytes); undefined where sysfs is not readable. */
  readonly live: { readonly dataUsedBytes: number; readonly usedPercent: number } | undefined
  readonly unavailable: readonly Unavailable[]
}

/**
 * Raw figures behind a monitor's sample, read in one hop. Logical bytes unless noted.
 * Mixed block groups (`mkfs --mixed`) count as data.
 */
export interface Measurement {
  /** Raw: sum of the devices. */
  readonly deviceSizeBytes: number
  /** Raw bytes in no block group. */
  readonly unallocatedBytes: number
  readonly dataUsedBytes: number
  /** With what is not flushed yet; undefined where sysfs is not readable. */
  readonly liveDataUsedBytes: number | undefined
  readonly dataAllocatedBytes: number
  readonly metadataUsedBytes: number
  readonly metadataAllocatedBytes: number
  readonly globalReserveBytes: number
  /**
   * Raw bytes of block groups on a seed device, which the figures above count in, as the kernel does; they can be
   * neither written nor freed. 0 without a seed.
   */
  readonly seedBytes: number
  /** (raw data used + raw metadata and system allocated) / device size, 0–100. A seed's are left out. */
  readonly usedPercent: number
  /** The same with `liveDataUsedBytes`; undefined with it. */
  readonly liveUsedPercent: number | undefined
  /**
   * Raw metadata and system allocated / device size, 0–1: the part of `usedPercent` that is not data. With a seed an
   * upper bound.
   */
  readonly metadataOverheadRatio: number
  /** statfs bavail × block size: what an unprivileged writer may still use. */
  readonly freeBytes: number
  /**
   * Share of sampled extents that do not follow on, on disk, from the extent before them in their file, 0–1
   * (docs/fragmentation.md); undefined without CAP_SYS_ADMIN.
   */
  readonly fragmentationRatio: number | undefined
  /** Summed over devices. */
  readonly deviceErrors: DeviceErrors | undefined
  readonly missingDevices: number
  /** Devices that belong to the volume, the missing ones counted. */
  readonly devices: number
  /** 'none' or what holds the exclusive lock: 'balance', 'balance paused', 'device add' …; undefined if unreadable. */
  readonly exclusiveOperation: string | undefined
  readonly readOnly: boolean
  readonly unavailable: readonly Unavailable[]
}

/** What statfs(2) says: logical bytes, no privilege, 0.3 µs, also when nothing else answers. */
export interface Statfs {
  readonly sizeBytes: number
  /** bavail × block size. bfree would count metadata slack, also on a full volume. */
  readonly freeBytes: number
  /** 100 × (size − free) / size. */
  readonly usedPercent: number
}

export interface Subvolume {
  readonly id: number
  /** From the top of the volume (id 5), without a leading slash; '' for the top itself. */
  readonly path: string
  /** The subvolume that it lies in, and the inode of the directory there. Undefined for the top of the volume. */
  readonly parentId: number | undefined
  readonly directoryInode: number | undefined
  readonly uuid: string | undefined
  readonly parentUuid: string | undefined
  readonly receivedUuid: string | undefined
  /** The transaction that last wrote it, that made it, and that last changed something in it. */
  readonly generation: number
  readonly originGeneration: number
  readonly changedGeneration: number
  readonly readonly: boolean
  readonly createdAt: Date
  readonly changedAt: Date
  /**
   * Of a subvolume that was received: the generation that it had where it was sent, when it was sent (btrfs receive
   * leaves that out), and when it came.
   */
  readonly sentGeneration: number | undefined
  readonly receivedGeneration: number | undefined
  readonly sentAt: Date | undefined
  readonly receivedAt: Date | undefined
}

/** Directories and files that a walk left out for one reason. */
export interface Skipped {
  /** 'SUBVOLUME', 'MOUNT', 'CHANGED' (moved away under way), or an errno name ('EACCES'). */
  readonly reason: string
  readonly count: number
  /** The first of them, relative to the root. */
  readonly example: Uint8Array
}

/** One batch of files, as columns. Index i of each is the same file. */
export interface FileBatch {
  readonly length: number
  readonly inode: Float64Array
  readonly sizeBytes: Float64Array
  /** st_blocks × 512: without holes, but before compression (btrfs counts so); FileExtents has what is on disk. */
  readonly diskBytes: Float64Array
  readonly atimeMs: Float64Array
  readonly mtimeMs: Float64Array
  readonly ctimeMs: Float64Array
  /** st_mode. */
  readonly mode: Float64Array
  readonly links: Float64Array
  /** What the walk passed by since the batch before; usually empty. */
  readonly skipped: readonly Skipped[]
  /** Relative to the root, decoded as UTF-8 (bad bytes become U+FFFD). */
  path(index: number): string
  /** Relative to the root, as the bytes that the kernel has. */
  pathBytes(index: number): Uint8Array
}

/**
 * A batch of a scan: directories, symlinks and special files too, told apart by `mode`. One row a name: those of a hard
 * link have one inode and follow one another. In the order of inodes. Paths are relative to what was scanned, which is
 * '' itself.
 */
export interface ScanBatch extends FileBatch {
  /** The transaction that last changed the inode. This and the next columns: undefined where not asked or permitted. */
  readonly generation: Float64Array | undefined
  /** As FIEMAP counts: what goes on where the one before ends, in the file and on disk, belongs to it. */
  readonly extentCount: Float64Array | undefined
  /** Logical bytes in compressed extents. */
  readonly compressedBytes: Float64Array | undefined
  /** In extents that a snapshot or a reflink holds too; NaN: it went away under way. */
  readonly sharedBytes: Float64Array | undefined
}

/** One file of a batch. */
export interface FileRow {
  readonly path: string
  readonly pathBytes: Uint8Array
  readonly inode: number
  readonly sizeBytes: number
  readonly diskBytes: number
  readonly atimeMs: number
  readonly mtimeMs: number
  readonly ctimeMs: number
  readonly mode: number
  readonly links: number
  readonly generation: number | undefined
  readonly extentCount: number | undefined
  readonly compressedBytes: number | undefined
  readonly sharedBytes: number | undefined
}

export interface ScanOptions {
  readonly signal?: AbortSignal | undefined
  /** Rows in a batch, about. Default 2,048: larger ones hold the event loop up for longer. */
  readonly batchSize?: number | undefined
  /** A subvolume, or a directory in one: then only what is below it. Default: the directory that was opened. */
  readonly subvolume?: string | undefined
  /** Only inodes changed in this transaction or later: after a snapshot, its `originGeneration` + 1. Default 0: all. */
  readonly sinceGeneration?: number | undefined
  /** Count extents and compressed bytes. Default false. */
  readonly extents?: boolean | undefined
  /** Also what of them is shared: an open and a FIEMAP for each file. Implies `extents`. Default false. */
  readonly sharing?: boolean | undefined
  /** One moment's view: of a read-only snapshot that is made before and deleted after. Default false. */
  readonly consistent?: boolean | undefined
  /** Sync the volume first: what is not committed is not in its trees. Default true. */
  readonly sync?: boolean | undefined
}

/** A file as it was seen; acted upon only if it still is the same. */
export interface FileRef {
  /** Bytes, relative to the root. */
  readonly path: Uint8Array
  readonly inode: number
  readonly sizeBytes: number
  readonly mtimeMs: number
  readonly ctimeMs: number
  /** Given, a file that was read since is another too. (Nothing shows on a volume mounted `noatime`.) */
  readonly atimeMs?: number | undefined
}

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

/** At least `min` and at most `max`; what is left out has no bound. */
export interface Bounds {
  readonly min?: number | undefined
  readonly max?: number | undefined
}
/** From `startBytes` (default 0) up to and without `endBytes` (default: the end). */
export interface ByteRange {
  readonly startBytes?: number | undefined
  readonly endBytes?: number | undefined
}

/** Which block groups of one type. All that is given must hold. */
export interface BalanceFilters {
  /**
   * Used less than so many percent; with bounds, at least `min` and less than `max`. 0: only the empty. 100, and any
   * bounds, leave out those that are completely full.
   */
  readonly usagePercent?: number | Bounds | undefined
  /** At most so many, from the highest address down; with `min`, none at all unless so many pass. */
  readonly limit?: number | Bounds | undefined
  /** Of one of these profiles. */
  readonly profiles?: readonly Profile[] | undefined
  /** With a stripe on this device. */
  readonly devid?: number | undefined
  /** With a stripe on device `devid` that lies, also in part, in this range of it. */
  readonly drange?: ByteRange | undefined
  /** That lie, also in part, in this range of the volume's own addresses (`BlockGroup.logicalBytes`). */
  readonly vrange?: ByteRange | undefined
  /** Of so many stripes; dup has two. */
  readonly stripes?: number | Bounds | undefined
  /** Write them anew in this profile. Until a conversion is complete the volume has both. */
  readonly convert?: Profile | undefined
  /** With `convert`: leave out those that have the profile already. Default false. */
  readonly soft?: boolean | undefined
}
export interface ResumeOptions {
  /** Cancels, as `cancel()` does. */
  readonly signal?: AbortSignal | undefined
  /** Between two readings of the progress when iterated. Default 1,000. */
  readonly intervalMs?: number | undefined
}

/** At least one type. `{}` as its filters: all its block groups. */
export interface BalanceSelection {
  readonly data?: BalanceFilters | undefined
  /** Implies `system` with the same filters unless that is given, as btrfs-progs has it. */
  readonly metadata?: BalanceFilters | undefined
  readonly system?: BalanceFilters | undefined
  /** Let a conversion take copies away from metadata or system. Default false. (Of data it always may.) */
  readonly force?: boolean | undefined
}
export interface BalanceOptions extends ResumeOptions, BalanceSelection {}
export interface BalanceProgress {
  readonly expected: number
  readonly considered: number
  readonly completed: number
}
export interface BalanceStatus extends BalanceProgress, BalanceSelection {
  readonly state: 'running' | 'paused'
}

export interface WalkOptions {
  readonly signal?: AbortSignal | undefined
  /** Rows in a batch, at most. Default 1,024. */
  readonly batchSize?: number | undefined
}

export interface SubvolumeListOptions extends CallOptions {
  /** Only those beneath this directory, at any depth and not itself; default: all that the caller may see. */
  readonly below?: string
}
export interface SnapshotOptions extends CallOptions {
  readonly readonly?: boolean
}
export interface DeleteOptions extends CallOptions {
  /** Resolve only when the cleaner is done and the counters show it. Default false. */
  readonly waitUntilFreed?: boolean
  /** Delete it only if its id is this one. */
  readonly id?: number | undefined
  /** Delete it only if the directory that holds it is this one. */
  readonly parent?: DirectoryRef | undefined
}

/** A directory, found once and for all: no symlink is left in its path. */
export interface Directory {
  /** Absolute. */
  readonly path: string
  readonly inode: number
  /** Of the subvolume that it is in. */
  readonly subvolumeId: number
  /** It is a subvolume's own top directory. */
  readonly subvolumeTop: boolean
}

/** What tells a directory from any other that may come to its place. */
export type DirectoryRef = Omit<Directory, 'subvolumeTop'>

/**
 * Where files are looked for and acted upon. A path (absolute) means whatever directory is there at the moment. What
 * `directory()` gave means that directory and no other: the call finds it there, behind no symlink, or fails (ESTALE).
 */
export type Root = string | DirectoryRef

export interface Filesystem extends AsyncDisposable {
  /** The directory that was opened. */
  readonly path: string
  readonly uuid: string

  info(options?: CallOptions): Promise<FilesystemInfo>
  usage(options?: CallOptions): Promise<Usage>
  devices(options?: CallOptions): Promise<Device[]>
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
