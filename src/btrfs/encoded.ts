/** A file's data as it lies on disk. */
import * as v from 'valibot'
import { check } from '../errors.js'
import { type NativeHandle, native } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions, pathArgument, whole } from './options.js'
import type { Volume } from './volume.js'

/** In the kernel's order. */
export const ENCODINGS = ['none', 'zlib', 'zstd', 'lzo4k', 'lzo8k', 'lzo16k', 'lzo32k', 'lzo64k'] as const
/** lzo4k …: framed for a volume with sectors of so many bytes. */
export type Encoding = (typeof ENCODINGS)[number]

/** What the kernel takes and gives in one call. */
const MOST_BYTES = 128 * 1024
/** One piece: as much as one extent has, 128 KiB of the file at most. */
export interface EncodedData {
  /** Compressed, unless `compression` is 'none'. */
  readonly data: Uint8Array<ArrayBuffer>
  /** Where in the file. */
  readonly startBytes: number
  /** Of the file: the next piece begins so much further on. */
  readonly lengthBytes: number
  /** What `data` unpacks to: cut there if longer, zeros up to there if shorter. */
  readonly unencodedLengthBytes: number
  /** Where in the unpacked data the piece begins: more than 0 where the file uses only a part, or from its middle. */
  readonly unencodedOffsetBytes: number
  readonly compression: Encoding
  readonly encryption: 'none'
}

export interface ReadEncodedOptions extends CallOptions {
  /** What touches [startBytes, startBytes + lengthBytes) of the file; extents are given to their end. Default: all. */
  readonly startBytes?: number | undefined
  readonly lengthBytes?: number | undefined
}
const readOptions = v.strictObject({
  ...callOptions.entries,
  startBytes: v.optional(whole, 0),
  lengthBytes: v.optional(v.pipe(whole, v.minValue(1))),
})

/**
 * Reads data of a file without unpacking it, piece by piece. BTRFS_IOC_ENCODED_READ (Linux 5.18) · CAP_SYS_ADMIN · each
 * piece is one quick hop, which `timeoutMs` is for. A hole reads as zeros that are not compressed. The file is opened
 * once: a rename under way does not matter, writing under way shows.
 * @returns in order, without gaps; nothing at or past the end of the file
 * @throws BtrfsError EPERM, ENOENT, ELOOP, EISDIR, EINVAL, EBADF, ENOTTY (Linux before 5.18); BtrmindError
 * BTRMIND_ERR_WRONG_VOLUME, BTRMIND_ERR_ARGUMENT, BTRMIND_ERR_OPTION
 * @example
 * for await (const { compression, data } of fs.readEncoded('log')) console.log(compression, data.length)
 */
export async function* readEncoded(
  volume: Volume,
  path: string,
  options: ReadEncodedOptions = {},
): AsyncGenerator<EncodedData, void, void> {
  const target = volume.resolve(check('readEncoded: path', pathArgument, path))
  const { startBytes, lengthBytes, ...callWith } = check('readEncoded', readOptions, options)
  const end = startBytes + (lengthBytes ?? Number.POSITIVE_INFINITY)
  const unknown = (what: string, number: number) => `unknown ${what} ${number}` as never
  let file: NativeHandle | undefined
  try {
    for (let at = startBytes; at < end; ) {
      const from = file ?? target
      const read = await volume.call('readEncoded', { path: target, hints: OLD }, callWith, (t) =>
        native.readEncoded(t, volume.handle, from, at, MOST_BYTES),
      )
      if (read === undefined) return
      const { compression, encryption, file: opened, ...rest } = read
      file ??= opened
      yield {
        ...rest,
        startBytes: at,
        compression: ENCODINGS[compression] ?? unknown('compression', compression),
        encryption: encryption === 0 ? 'none' : unknown('encryption', encryption),
      }
      at += rest.lengthBytes
    }
  } finally {
    if (file !== undefined) native.close(file)
  }
}
const OLD = { ENOTTY: 'needs Linux 5.18' }

export interface WriteEncodedOptions extends CallOptions {
  /** Where in the file, a multiple of the sector size. Default 0. */
  readonly startBytes?: number | undefined
  /** At most 128 KiB, and not more than it unpacks to. */
  readonly data: Uint8Array
  readonly compression: Exclude<Encoding, 'none'>
  /** What `data` unpacks to; at most 131,072. */
  readonly unencodedLengthBytes: number
  /** Where in the unpacked data the piece for the file begins. Default 0. */
  readonly unencodedOffsetBytes?: number | undefined
  /** Of the file: a multiple of the sector size unless it ends there. Default: all of the unpacked data from there. */
  readonly lengthBytes?: number | undefined
}
const piece = v.pipe(whole, v.minValue(1), v.maxValue(MOST_BYTES))
const writeOptions = v.strictObject({
  ...callOptions.entries,
  startBytes: v.optional(whole, 0),
  data: v.pipe(
    v.instance(Uint8Array),
    v.check(({ length }) => length > 0 && length <= MOST_BYTES, '1 to 131072 bytes'),
  ),
  compression: v.picklist(ENCODINGS.slice(1) as Exclude<Encoding, 'none'>[]),
  unencodedLengthBytes: piece,
  unencodedOffsetBytes: v.optional(whole, 0),
  lengthBytes: v.optional(piece),
})

/**
 * Writes data that is compressed already into a file. BTRFS_IOC_ENCODED_WRITE (Linux 5.18) · CAP_SYS_ADMIN · quick. The
 * data is copied before the call returns.
 *
 * **The kernel does not look whether it unpacks**: what does not is an I/O error (EIO) for whoever reads the file. What
 * readEncoded() gave of a volume with the same sector size can be written as it is.
 * @param path of a file that is there
 * @throws BtrfsError EINVAL (see the hint), EPERM, ENOENT, ELOOP, EISDIR, EROFS, ENOSPC, EBADF, ENOTTY (Linux before
 * 5.18); BtrmindError BTRMIND_ERR_WRONG_VOLUME, BTRMIND_ERR_ARGUMENT, BTRMIND_ERR_OPTION
 * @example
 * const data = zlib.deflateSync(text)
 * await fs.writeEncoded('log', { data, compression: 'zlib', unencodedLengthBytes: text.length })
 */
export async function writeEncoded(volume: Volume, path: string, options: WriteEncodedOptions): Promise<void> {
  const target = volume.resolve(check('writeEncoded: path', pathArgument, path))
  const checked = check('writeEncoded', writeOptions, options)
  const { startBytes, data, compression, unencodedLengthBytes, unencodedOffsetBytes, lengthBytes, ...callWith } =
    checked
  const length = lengthBytes ?? Math.max(0, unencodedLengthBytes - unencodedOffsetBytes)
  const number = ENCODINGS.indexOf(compression)
  await volume.call('writeEncoded', { path: target, hints: OLD }, callWith, (t) =>
    native.writeEncoded(
      t,
      volume.handle,
      target,
      data,
      startBytes,
      length,
      unencodedLengthBytes,
      unencodedOffsetBytes,
      number,
    ),
  )
}
