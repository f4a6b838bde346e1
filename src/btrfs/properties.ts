/** What is set on a file or directory. */
import * as v from 'valibot'
import { BtrmindError, check, nearest, quote } from '../errors.js'
import { native } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions, pathArgument } from './options.js'
import type { Volume } from './volume.js'

/**
 * How new data of a file, or new files in a directory, are to be compressed, where that was set for it.
 * fgetxattr(btrfs.compression) · read permission · quick.
 * @returns 'zstd', 'zlib', 'lzo', with a level if one was set ('zstd:3'); 'none' ('no' from an older tool): never;
 * undefined: nothing is set, the mount's options decide
 * @throws BtrfsError ENOENT, EACCES, ELOOP (a symlink), EINVAL (neither file nor directory), EBADF; BtrmindError
 * BTRMIND_ERR_WRONG_VOLUME
 * @example
 * if ((await fs.compressionProperty('logs')) === undefined) await fs.setCompressionProperty('logs', 'zstd')
 */
export async function compressionProperty(
  volume: Volume,
  path: string,
  options: CallOptions = {},
): Promise<string | undefined> {
  const target = volume.resolve(check('compressionProperty: path', pathArgument, path))
  return volume.call('compressionProperty', { path: target }, check('compressionProperty', callOptions, options), (t) =>
    native.compression(t, volume.handle, target),
  )
}

/** 'zstd:3' and the like; levels of zlib to 9, of zstd to 15. */
export type Compression = 'lzo' | 'zlib' | 'zstd' | 'none' | `zlib:${number}` | `zstd:${number}`
const compressionValue = v.optional(
  v.pipe(
    v.string(),
    // The kernel would take whatever begins like one of them.
    v.regex(
      /^(lzo|none|zlib(:[1-9])?|zstd(:([1-9]|1[0-5]))?)$/,
      "'lzo', 'zlib', 'zstd', 'zlib:1'–'zlib:9', 'zstd:1'–'zstd:15', 'none'",
    ),
  ),
)

/**
 * Sets how new data of a file, or new files in a directory, are compressed; what is written already stays as it is
 * (defragment() rewrites it). fsetxattr(btrfs.compression) · write permission · quick.
 *
 * Linux up to 6.18 keeps the level and compresses with the algorithm's default one all the same; the mount option and
 * defragment() heed theirs.
 * @param value undefined takes the property away; 'none' forbids compression
 * @throws BtrfsError as compressionProperty(), and EINVAL (NOCOW, see the hint), EPERM, EROFS; BtrmindError BTRMIND_ERR_ARGUMENT
 * @example
 * await fs.setCompressionProperty('logs', 'zstd')
 */
export async function setCompressionProperty(
  volume: Volume,
  path: string,
  value: Compression | undefined,
  options: CallOptions = {},
): Promise<void> {
  const target = volume.resolve(check('setCompressionProperty: path', pathArgument, path))
  const wanted = check('setCompressionProperty: value', compressionValue, value)
  await volume.call(
    'setCompressionProperty',
    { path: target },
    check('setCompressionProperty', callOptions, options),
    (t) => native.setCompression(t, volume.handle, target, wanted),
  )
}

/** Of chattr(1). */
export interface Attributes {
  /** C: overwritten in place, without checksums and compression. Of a directory: so will be new files in it. */
  readonly nocow: boolean
  /** c: the same as a compression property. */
  readonly compress: boolean
  /** m: never compressed; the kernel sets it too, after a bad ratio. */
  readonly nocompress: boolean
  /** i: cannot be changed, removed or linked. */
  readonly immutable: boolean
  /** a: only appended to. */
  readonly appendOnly: boolean
  /** A: reading leaves the access time alone. */
  readonly noatime: boolean
  /** S: each write is on disk before it returns. */
  readonly sync: boolean
  /** D: so is each change of the directory. */
  readonly dirsync: boolean
  /** d: left out by dump(8). */
  readonly nodump: boolean
}
/** On or off; what is not named stays. */
export type AttributeChanges = { readonly [name in keyof Attributes]?: boolean | undefined }
/** FS_*_FL */
const FLAGS: Readonly<Record<keyof Attributes, number>> = {
  nocow: 0x0080_0000,
  compress: 0x4,
  nocompress: 0x400,
  immutable: 0x10,
  appendOnly: 0x20,
  noatime: 0x80,
  sync: 0x8,
  dirsync: 0x1_0000,
  nodump: 0x40,
}
const NAMES = Object.keys(FLAGS) as (keyof Attributes)[]

/**
 * The attributes of a file or directory, as lsattr(1) shows them. FS_IOC_GETFLAGS · read permission · quick.
 * @throws BtrfsError ENOENT, EACCES, ELOOP (a symlink), EINVAL (neither file nor directory), EBADF; BtrmindError
 * BTRMIND_ERR_WRONG_VOLUME
 * @example
 * if ((await fs.attributes('images')).nocow) console.log('no checksums in there')
 */
export async function attributes(volume: Volume, path: string, options: CallOptions = {}): Promise<Attributes> {
  const target = volume.resolve(check('attributes: path', pathArgument, path))
  const flags = await volume.call('attributes', { path: target }, check('attributes', callOptions, options), (t) =>
    native.attributes(t, volume.handle, target),
  )
  return Object.fromEntries(NAMES.map((name) => [name, (flags & FLAGS[name]) !== 0])) as unknown as Attributes
}

const wantedAttributes = v.record(v.string(), v.optional(v.boolean()), 'an object of attributes')

/**
 * Sets or takes away attributes; those that are not named stay. FS_IOC_SETFLAGS · owner; `immutable` and `appendOnly`:
 * CAP_LINUX_IMMUTABLE · quick.
 *
 * `nocow` of a file that is not empty is refused: the kernel would say yes and leave it as it is. `compress` takes
 * `nocompress` away and the other way round; with `nocow` the kernel has neither.
 * @throws BtrfsError as attributes(), and EINVAL (see the hint), EPERM, EROFS; BtrmindError BTRMIND_ERR_ARGUMENT,
 * BTRMIND_ERR_OPTION
 * @example
 * await fs.setAttributes('images', { nocow: true })
 */
export async function setAttributes(
  volume: Volume,
  path: string,
  wanted: AttributeChanges,
  options: CallOptions = {},
): Promise<void> {
  const target = volume.resolve(check('setAttributes: path', pathArgument, path))
  const callWith = check('setAttributes', callOptions, options)
  let set = 0
  let clear = 0
  for (const [name, on] of Object.entries(check('setAttributes: attributes', wantedAttributes, wanted))) {
    const flag = (FLAGS as Readonly<Record<string, number>>)[name]
    if (flag === undefined) {
      throw new BtrmindError('BTRMIND_ERR_OPTION', `setAttributes: unknown attribute ${quote(name)}`, {
        hint: nearest(name, NAMES),
      })
    }
    if (on === true) set |= flag
    if (on === false) clear |= flag
  }
  if (set & FLAGS.compress && !(set & FLAGS.nocompress)) clear |= FLAGS.nocompress
  if (set & FLAGS.nocompress && !(set & FLAGS.compress)) clear |= FLAGS.compress
  await volume.call('setAttributes', { path: target }, callWith, (t) =>
    native.setAttributes(t, volume.handle, target, set, clear),
  )
}
