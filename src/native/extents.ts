import type { NativeHandle } from './handle.js'

/** A defragmentation that has not begun: what is asked of each file; opaque. */
export type NativeDefragment = { readonly __defragment: unique symbol }

/** Of files that are written out, which are earlier ones too, and not always the one of the call. */
export interface NativeDiskBytes {
  diskBytesBefore: number
  diskBytesAfter: number
  /** Not permitted. */
  unread: boolean
}

export interface NativeDefragmented extends NativeDiskBytes {
  /** '' or a reason: 'NOCOW', 'NOCOMPRESS', 'CHANGED'. */
  code: string
  givenBytes: number
  sharedBytes: number
  compressedBytes: number
}

/** How far a deduplication is; opaque. */
export type NativeDeduplicateCounters = { readonly __deduplicate: unique symbol }

/** Of one destination: '' (the same), 'DIFFERS' or an errno name. */
export interface NativeDeduplicated {
  dedupedBytes: number
  code: string
  errno: number
  hint: string
}

export interface NativeEncoded {
  data: Uint8Array<ArrayBuffer>
  lengthBytes: number
  unencodedLengthBytes: number
  unencodedOffsetBytes: number
  compression: number
  encryption: number
  /** Of the first piece: to go on with. */
  file?: NativeHandle
}

/** Paths are absolute and normal; none is followed where its last component is a symlink. */
export interface ExtentsNative {
  // native/ops/extents.cpp
  /** FIEMAP rows: logical, physical, length, flags. The first page has `file`, to go on with, if there are more. */
  fileMap(
    ticket: number,
    handle: NativeHandle,
    file: string | NativeHandle,
    start: number,
    end: number | undefined,
    sync: boolean,
  ): Promise<{ rows: Float64Array; more: boolean; file?: NativeHandle }>

  // native/ops/sharing.cpp
  deduplicateCounters(): NativeDeduplicateCounters
  /** `totalBytes` once the source was looked at. */
  deduplicateDone(counters: NativeDeduplicateCounters): {
    doneBytes: number
    totalBytes: number | undefined
    dedupedBytes: number
  }
  /** Of each destination. Rejects with ECANCELED and them as `progress`. */
  deduplicate(
    ticket: number,
    handle: NativeHandle,
    source: string,
    startBytes: number,
    lengthBytes: number | undefined,
    paths: readonly string[],
    startsBytes: Float64Array,
    counters: NativeDeduplicateCounters,
  ): Promise<NativeDeduplicated[]>
  clone(
    ticket: number,
    handle: NativeHandle,
    source: string,
    destination: string,
    sourceStartBytes: number,
    lengthBytes: number | undefined,
    destinationStartBytes: number,
    create: boolean,
  ): Promise<void>

  // native/ops/defragment.cpp
  defragmentPrepare(
    flags: number,
    thresholdBytes: number,
    type: number,
    level: number,
    startBytes: number,
    lengthBytes: number | undefined,
    sliceBytes: number,
    skipShared: boolean,
    skipCompressed: boolean,
  ): NativeDefragment
  /** Of the file under way. */
  defragmentDone(prepared: NativeDefragment): { doneBytes: number; totalBytes: number }
  /** Of one file: the one that `path` is, or `inner` beneath it. Rejects with the figures as `progress`. */
  defragmentFile(
    ticket: number,
    handle: NativeHandle,
    prepared: NativeDefragment,
    path: string,
    seen: Float64Array | undefined,
    inner: Uint8Array | undefined,
  ): Promise<NativeDefragmented>
  /** The last call: disk bytes of what is not counted yet. */
  defragmentSettle(ticket: number, handle: NativeHandle, prepared: NativeDefragment): Promise<NativeDiskBytes>

  // native/ops/properties.cpp
  compression(ticket: number, handle: NativeHandle, path: string): Promise<string | undefined>
  setCompression(ticket: number, handle: NativeHandle, path: string, value: string | undefined): Promise<void>
  /** FS_*_FL of linux/fs.h. */
  attributes(ticket: number, handle: NativeHandle, path: string): Promise<number>
  setAttributes(ticket: number, handle: NativeHandle, path: string, set: number, clear: number): Promise<void>

  // native/ops/encoded.cpp
  readEncoded(
    ticket: number,
    handle: NativeHandle,
    file: string | NativeHandle,
    startBytes: number,
    roomBytes: number,
  ): Promise<NativeEncoded | undefined>
  writeEncoded(
    ticket: number,
    handle: NativeHandle,
    path: string,
    data: Uint8Array,
    startBytes: number,
    lengthBytes: number,
    unencodedLengthBytes: number,
    unencodedOffsetBytes: number,
    compression: number,
  ): Promise<void>
}
