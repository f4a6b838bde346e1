/**
 * The whole native surface (families of their own in native/), and the only file that loads the addon. Every asynchronous function takes a ticket first
 * (0: cannot be cancelled) and rejects with a NativeFailure. Types are checked again in C++.
 */
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { BtrmindError } from './errors.js'
import type { BalanceNative } from './native/balance.js'
import type { ExtentsNative } from './native/extents.js'
import type { NativeHandle } from './native/handle.js'
import type { MlpNative } from './native/mlp.js'
import type { SysfsNative } from './native/sysfs.js'
import type { TreeNative } from './native/tree.js'

export type { NativeBalance, NativeBalanceProgress } from './native/balance.js'
export type { NativeHandle } from './native/handle.js'

export interface NativeInfo {
  uuid: string
  metadataUuid: string
  devices: number
  maxDeviceId: number
  nodeSizeBytes: number
  sectorSizeBytes: number
  cloneAlignmentBytes: number
  generation?: number
  checksumType?: number
  label: string
}

/** A walk or a scan under way; opaque. */
export type NativeFileCursor = { readonly __files: unique symbol }

/** What several scans add up; opaque. */
export type NativeTally = { readonly __tally: unique symbol }

/** Rows of numbers, and a path for each. */
export interface NativeNamed {
  numbers: Float64Array
  /** One after the other, and where each ends. */
  paths: Uint8Array
  ends: Uint32Array
}

export interface NativeFileBatch {
  /**
   * [8 to 12 × rows], a column at a time: inode, size, disk bytes, atime, mtime, ctime (ms), mode, links; of a scan also
   * the generation, and where asked extents, compressed bytes, shared bytes (NaN: not known).
   */
  columns: Float64Array<ArrayBuffer>
  /** All paths, one after the other, and where each ends. */
  paths: Uint8Array<ArrayBuffer>
  ends: Uint32Array<ArrayBuffer>
  skipped: { reason: string; count: number; example: Uint8Array<ArrayBuffer> }[]
  done: boolean
  /** Of a scan: how often it had to wait for the disk. */
  waits: number
  /** Of a scan that is done with its range: the first inode after it; Infinity: there is none. */
  next?: number
}

/** One code a file: 0, an errno, or a negative number of ours; and the name of each that occurred. */
export interface NativeOutcomes {
  codes: Int32Array
  names: Record<string, string>
}

/** A directory that was named: its path, and if that is to hold still [inode, subvolume id] of what it was. */
export type NativeRoot = readonly [path: string, seen: Float64Array | undefined]

/** Files as columns: paths one after the other, where each ends, and [inode, size, mtimeMs, ctimeMs, atimeMs or NaN]. */
export type NativeFiles = readonly [paths: Uint8Array, ends: Uint32Array, identity: Float64Array]

/** Rows of subvolumes, as columns. */
export interface NativeSubvolumes {
  /**
   * [rows × 13]: id, parent id, directory's inode; generation now, at creation, of the last change, when sent, when
   * received; read-only; created, changed, sent, received (ms).
   */
  numbers: Float64Array
  /** [rows × 3 × 36] characters: uuid, parent's, received. */
  uuids: Uint8Array
  /** UTF-8, one after the other, and where each ends. */
  paths: Uint8Array
  pathEnds: Uint32Array
  /** The mount that the volume was opened through: what it shows, from the top of the volume ('/', '/home'), and where. */
  mountRoot: Uint8Array
  mountPoint: Uint8Array
}

/** What space() reads beyond SPACE_INFO, DEV_INFO and statfs; as in native/ops/space.cpp. */
export const SpacePart = {
  chunks: 1,
  parityChunks: 2,
  live: 4,
  blockDevices: 8,
  errors: 16,
  exclusive: 32,
  fragmentation: 64,
} as const

export interface NativeSpace {
  /** Rows of numbers; unpack() of src/btrfs/space.ts names them. */
  figures: Float64Array
  /** As many as there are devices; a hole where one is missing. */
  paths: (string | undefined)[]
  /** With SpacePart.errors. */
  uuids?: string[]
  /** With SpacePart.exclusive. */
  exclusiveOperation?: string
  /** errno name for each part that could not be read. */
  failures?: Record<string, string>
}

export interface NativeReplace {
  state: 'never' | 'running' | 'finished' | 'cancelled' | 'suspended'
  ratio: number
  startedSeconds: number
  stoppedSeconds: number
  writeErrors: number
  readErrors: number
}

export interface NativeBlockGroups {
  /** Logical start, length, used (−1: gone), number of stripes. */
  groups: Float64Array
  /** The kernel's, of each group. */
  flags: BigUint64Array
  /** Device id and offset, of one group after the other. */
  stripes: Float64Array
}

/** Rows of numbers; a group is its level and its id. */
export interface NativeQuota {
  flags: number
  /** Group, referenced bytes, the same compressed, exclusive bytes, the same compressed. */
  infos: Float64Array
  /** Group, referenced bytes, exclusive bytes; −1: no limit. */
  limits: Float64Array
  /** Member, group that it belongs to. */
  relations: Float64Array
}

export interface Native extends BalanceNative, ExtentsNative, MlpNative, SysfsNative, TreeNative {
  /** Settles a quick task now (ECANCELED), asks a long one to stop. False when the ticket is not in flight. */
  cancel(ticket: number): boolean

  // native/ops/filesystem.cpp
  open(ticket: number, path: string): Promise<{ handle: NativeHandle; uuid: string }>
  directory(
    ticket: number,
    handle: NativeHandle,
    path: string,
  ): Promise<{ uuid: string; path: string; inode: number; subvolumeId: number }>
  /** Gives what asks whether tasks in flight still hold it. */
  close(handle: NativeHandle): () => boolean
  /** Of the same descriptor; close() of one leaves the other open. */
  share(handle: NativeHandle): NativeHandle
  info(ticket: number, handle: NativeHandle): Promise<NativeInfo>
  sync(ticket: number, handle: NativeHandle): Promise<void>

  // native/ops/lock.cpp
  /** The handle holds the lock until close(). EAGAIN: somebody else holds it. */
  lockFile(ticket: number, path: string): Promise<NativeHandle>

  // native/ops/walk.cpp
  /** `everything`: not only regular files. */
  walkOpen(
    ticket: number,
    handle: NativeHandle,
    ...rootAndMode: [...NativeRoot, everything: boolean]
  ): Promise<NativeFileCursor>
  scanOpen(
    ticket: number,
    handle: NativeHandle,
    ...rootAndMode: [
      ...NativeRoot,
      since: number,
      extents: boolean,
      sharing: boolean,
      tally?: NativeTally,
      prefix?: string,
    ]
  ): Promise<NativeFileCursor>
  /** Before the first batch, or after one that was done. */
  scanRange(cursor: NativeFileCursor, first: number, last: number): void
  /** `most`: of the files with most breaks, up to 1,000. `depth`: how far down directories have sums of their own. */
  tallyOpen(most: number, depth: number): NativeTally
  /**
   * Inodes, files, extents, references to them, inline ones, breaks, files with breaks, bytes used, exclusive, shared;
   * then of each kind (none, zlib, lzo, zstd, preallocated, unknown) bytes on disk, uncompressed, referenced; then files
   * by the number of runs on disk: 1, 2, 3–4, 5–8 …
   */
  tallySums(tally: NativeTally): Float64Array
  /** Most breaks first: breaks, inode, size. Directories: files, bytes used, exclusive. */
  tallyNames(tally: NativeTally): { worst: NativeNamed; directories: NativeNamed }
  filesNext(ticket: number, handle: NativeHandle, cursor: NativeFileCursor, rows: number): Promise<NativeFileBatch>
  filesClose(cursor: NativeFileCursor): void

  // native/ops/files.cpp
  /** Rejects with ECANCELED and the outcomes so far as `progress`. */
  removeFiles(
    ticket: number,
    handle: NativeHandle,
    ...rootAndFiles: [...NativeRoot, ...NativeFiles]
  ): Promise<NativeOutcomes>
  /** Of one file, as the two below. `code` is '' when all went well. */
  fileExtents(
    ticket: number,
    handle: NativeHandle,
    ...rootAndFile: [...NativeRoot, ...NativeFiles]
  ): Promise<{
    code: string
    extents: number
    bytes: number
    sharedBytes: number
    compressedBytes: number
    diskBytes?: number
  }>

  // native/ops/compress.cpp
  /** Type 1 zlib, 2 lzo, 3 zstd. Rejects with ECANCELED and the figures as `progress`. */
  compressFile(
    ticket: number,
    handle: NativeHandle,
    ...rootFileAndType: [...NativeRoot, ...NativeFiles, type: number]
  ): Promise<{ code: string; diskBytesBefore?: number; diskBytesAfter?: number }>
  estimateCompressedRatio(
    ticket: number,
    handle: NativeHandle,
    ...rootAndFile: [...NativeRoot, ...NativeFiles]
  ): Promise<{ code: string; ratio: number }>

  // native/ops/resize.cpp
  resize(ticket: number, handle: NativeHandle, devid: number, sizeBytes: number): Promise<void>

  // native/ops/device.cpp
  deviceAdd(ticket: number, handle: NativeHandle, path: string, force: boolean): Promise<void>
  /** 0: a missing one. */
  deviceRemove(ticket: number, handle: NativeHandle, devid: number): Promise<void>
  deviceReplace(
    ticket: number,
    handle: NativeHandle,
    devid: number,
    target: string,
    force: boolean,
    avoidSource: boolean,
  ): Promise<NativeReplace>
  deviceReplaceStatus(ticket: number, handle: NativeHandle): Promise<NativeReplace>
  /** Write, read, flush, corruption, generation. */
  deviceErrorsReset(ticket: number, handle: NativeHandle, devid: number): Promise<Float64Array>
  /** 0 scan, 1 forget ('': all that are not mounted), 2 ready. */
  deviceControl(ticket: number, what: 0 | 1 | 2, path: string): Promise<boolean>

  // native/ops/settings.cpp
  setLabel(ticket: number, handle: NativeHandle, label: string): Promise<void>
  /** Compat-ro, incompat of each: in use, supported, settable, clearable. */
  features(ticket: number, handle: NativeHandle): Promise<bigint[]>
  setFeatures(
    ticket: number,
    handle: NativeHandle,
    compatRoMask: bigint,
    compatRo: bigint,
    incompatMask: bigint,
    incompat: bigint,
  ): Promise<void>
  startSync(ticket: number, handle: NativeHandle): Promise<number>
  waitSync(ticket: number, handle: NativeHandle, transaction: number): Promise<void>
  trim(
    ticket: number,
    handle: NativeHandle,
    start: number,
    length: number | undefined,
    minimumBytes: number,
  ): Promise<number>
  defaultSubvolume(ticket: number, handle: NativeHandle): Promise<number>
  setDefaultSubvolume(ticket: number, handle: NativeHandle, id: number): Promise<void>

  // native/ops/inspect.cpp
  blockGroups(ticket: number, handle: NativeHandle): Promise<NativeBlockGroups>
  /** From the subvolume's top, as bytes. */
  inodePaths(ticket: number, handle: NativeHandle, subvolume: number, inode: number): Promise<Uint8Array[]>
  logicalFiles(
    ticket: number,
    handle: NativeHandle,
    logical: number,
    wholeExtent: boolean,
  ): Promise<{ inode: number; offset: number; subvolume: number; paths: Uint8Array[] }[]>

  // native/ops/quota.cpp; a group is its level and its id
  /** 1 on, 2 off, 4 on in simple mode. */
  quotaControl(ticket: number, handle: NativeHandle, command: number): Promise<void>
  quotaRescan(ticket: number, handle: NativeHandle): Promise<void>
  quotaRescanning(ticket: number, handle: NativeHandle): Promise<boolean>
  qgroupCreate(ticket: number, handle: NativeHandle, level: number, id: number, create: boolean): Promise<void>
  /** Whether a rescan is needed now. */
  qgroupAssign(
    ticket: number,
    handle: NativeHandle,
    level: number,
    id: number,
    parentLevel: number,
    parentId: number,
    assign: boolean,
  ): Promise<boolean>
  /** −1: no limit; undefined: as it is. */
  qgroupLimit(
    ticket: number,
    handle: NativeHandle,
    level: number,
    id: number,
    referencedBytes: number | undefined,
    exclusiveBytes: number | undefined,
  ): Promise<void>
  quota(ticket: number, handle: NativeHandle): Promise<NativeQuota | undefined>

  // native/ops/scrub.cpp
  /** Counters as the kernel has them, by number. Rejects with them as `progress`, however it ends. */
  scrub(
    ticket: number,
    handle: NativeHandle,
    devid: number,
    start: number,
    end: number | undefined,
    readonly: boolean,
  ): Promise<Float64Array>
  scrubProgress(ticket: number, handle: NativeHandle, devid: number): Promise<Float64Array | undefined>
  /** Whichever run, and a replacement of a device. */
  scrubCancel(ticket: number, handle: NativeHandle): Promise<void>
  /** What of the device is allocated: [start, length] of each, ascending. */
  deviceExtents(ticket: number, handle: NativeHandle, devid: number): Promise<Float64Array>

  // native/ops/subvolume.cpp; paths are absolute and normal
  /** `inherit`: quota groups, level << 48 | id. */
  createSubvolume(ticket: number, handle: NativeHandle, path: string, inherit: BigUint64Array): Promise<void>
  snapshot(
    ticket: number,
    handle: NativeHandle,
    source: string,
    destination: string | Uint8Array,
    readonly: boolean,
    inherit: BigUint64Array,
    id?: number,
  ): Promise<void>
  /**
   * With `flush`: its id, after the deletion is committed and the cleaner woken. `id` and `parent` (as NativeRoot's
   * `seen`): what must be found there.
   */
  deleteSubvolume(
    ticket: number,
    handle: NativeHandle,
    path: string | Uint8Array,
    flush: boolean,
    id?: number,
    parent?: Float64Array,
  ): Promise<number>
  deleteSubvolumeById(ticket: number, handle: NativeHandle, id: number, flush: boolean): Promise<void>
  /**
   * One of a tree, before anything of that is deleted: rejects with why it could not be. `path` '': it is named by its
   * id. `place`: from the top of the volume. `opened`, `parentOpened`: read-only, but made writable before.
   */
  deletable(
    ticket: number,
    handle: NativeHandle,
    path: string,
    place: string | Uint8Array,
    id: number,
    parentId: number,
    directoryInode: number,
    opened: boolean,
    parentOpened: boolean,
  ): Promise<void>
  /** Unlinked, and the cleaner is not done with them. */
  deletedSubvolumes(ticket: number, handle: NativeHandle): Promise<Float64Array>
  setReadonly(ticket: number, handle: NativeHandle, path: string | Uint8Array, readonly: boolean): Promise<void>
  setReadonlyById(ticket: number, handle: NativeHandle, id: number, readonly: boolean): Promise<void>

  // native/ops/subvolume_list.cpp
  /** `below` '': the whole volume. */
  subvolumes(ticket: number, handle: NativeHandle, below: string): Promise<NativeSubvolumes>
  subvolume(ticket: number, handle: NativeHandle, path: string): Promise<NativeSubvolumes>
  subvolumeById(ticket: number, handle: NativeHandle, id: number): Promise<NativeSubvolumes>

  // native/ops/space.cpp
  space(ticket: number, handle: NativeHandle, parts: number): Promise<NativeSpace>
  statfs(ticket: number, handle: NativeHandle): Promise<{ sizeBytes: number; freeBytes: number }>
}

function loadAddon(): Native {
  try {
    const load = createRequire(import.meta.url)('node-gyp-build') as (directory: string) => unknown
    return load(fileURLToPath(new URL('..', import.meta.url))) as Native
  } catch (cause) {
    throw new BtrmindError('BTRMIND_ERR_ADDON', `no addon for ${process.platform}-${process.arch}`, {
      cause,
      hint: 'in a checkout: npm run setup; installed: docs/dependencies.md says how to build it from source',
    })
  }
}

export const native: Native = loadAddon()
