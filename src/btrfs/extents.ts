import * as v from 'valibot'
import { check } from '../errors.js'
import { type NativeHandle, native } from '../native.js'
import { pathArgument, whole } from './options.js'
import type { Volume } from './volume.js'

/** One extent as FIEMAP has it. */
export interface FileExtent {
  /** Where it begins in the file. */
  readonly logicalBytes: number
  /**
   * Where it begins in the volume's address space, which is what logicalFiles() takes, and no place on a device.
   * Undefined of what has none: inline and delayed extents.
   */
  readonly physicalBytes: number | undefined
  /** In the file, before compression. */
  readonly lengthBytes: number
  readonly compressed: boolean
  readonly encrypted: boolean
  /** Small data beside the inode, in metadata. */
  readonly inline: boolean
  /** A snapshot, a clone or another place of this file has it too. */
  readonly shared: boolean
  /** Preallocated, and never written. */
  readonly preallocated: boolean
  /** Not on disk yet. Never with `sync`, unless somebody writes meanwhile. */
  readonly delayed: boolean
  /** The file's last. */
  readonly last: boolean
}
export interface ExtentsOptions {
  /** What touches [startBytes, startBytes + lengthBytes) of the file; extents are given whole. Default: all. */
  readonly startBytes?: number | undefined
  readonly lengthBytes?: number | undefined
  /** Write out what is not on disk yet first. Default true. */
  readonly sync?: boolean | undefined
  readonly signal?: AbortSignal | undefined
}
const extentsOptions = v.strictObject({
  signal: v.optional(v.instance(AbortSignal)),
  startBytes: v.optional(whole, 0),
  lengthBytes: v.optional(v.pipe(whole, v.minValue(1))),
  sync: v.optional(v.boolean(), true),
})

/** FIEMAP_EXTENT_* */
const LAST = 1
const UNKNOWN = 2
const DELAYED = 4
const ENCODED = 8
const ENCRYPTED = 0x80
const INLINE = 0x200
const UNWRITTEN = 0x800
const SHARED = 0x2000

/**
 * The extents of a file, in order; holes are what lies between them. FS_IOC_FIEMAP · read permission · each 4,096 of
 * them are one quick hop, so that a file of millions takes no memory; the first waits for the write-out. The file is
 * opened once: a rename under way does not matter, writing under way shows.
 * @param path of a regular file, absolute or relative to the filesystem's path; a symlink in its last place is not
 * followed
 * @throws BtrfsError ENOENT, EACCES, ELOOP (a symlink), EISDIR, EINVAL (no regular file), EBADF; BtrmindError
 * BTRMIND_ERR_WRONG_VOLUME
 * @example
 * let shared = 0
 * for await (const extent of fs.extents('images/disk.raw')) if (extent.shared) shared += extent.lengthBytes
 */
export async function* extents(
  volume: Volume,
  path: string,
  options: ExtentsOptions = {},
): AsyncGenerator<FileExtent, void, void> {
  const target = volume.resolve(check('extents: path', pathArgument, path))
  const { startBytes, lengthBytes, sync, signal } = check('extents', extentsOptions, options)
  const end = lengthBytes === undefined ? undefined : Math.min(startBytes + lengthBytes, Number.MAX_SAFE_INTEGER)
  let file: NativeHandle | undefined
  try {
    for (let at = startBytes; ; ) {
      const from = file ?? target
      const page = await volume.call('extents', { path: target }, { signal }, (t) =>
        native.fileMap(t, volume.handle, from, at, end, sync && file === undefined),
      )
      file ??= page.file
      const { rows, more } = page
      for (let row = 0; row < rows.length; row += 4) yield extent(rows, row)
      if (!more) return
      at = rows.at(-4)! + rows.at(-2)!
    }
  } finally {
    if (file !== undefined) native.close(file)
  }
}

function extent(rows: Float64Array, row: number): FileExtent {
  const flags = rows[row + 3]!
  return {
    logicalBytes: rows[row]!,
    physicalBytes: flags & (UNKNOWN | DELAYED | INLINE) ? undefined : rows[row + 1]!,
    lengthBytes: rows[row + 2]!,
    compressed: (flags & (ENCODED | ENCRYPTED)) === ENCODED,
    encrypted: (flags & ENCRYPTED) !== 0,
    inline: (flags & INLINE) !== 0,
    shared: (flags & SHARED) !== 0,
    preallocated: (flags & UNWRITTEN) !== 0,
    delayed: (flags & DELAYED) !== 0,
    last: (flags & LAST) !== 0,
  }
}
