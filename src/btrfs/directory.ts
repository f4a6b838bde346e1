import { dirname, resolve } from 'node:path'
import { BtrfsError, BtrmindError, check } from '../errors.js'
import { native } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions, pathArgument } from './options.js'

import type { Volume } from './volume.js'

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

/** The inode number of every subvolume's top directory. */
export const TOP_INODE = 256

/**
 * Resolves a directory of the volume, through symlinks. realpath(3), BTRFS_IOC_INO_LOOKUP · no privilege · quick.
 * @param path absolute, or relative to the working directory
 * @throws BtrfsError ENOENT, ENOTDIR, EACCES, ENOTTY (not btrfs), EBADF; BtrmindError BTRMIND_ERR_WRONG_VOLUME
 * @example
 * const { path } = await fs.directory('/mnt/pool/latest')
 */
export async function directory(volume: Volume, path: string, options: CallOptions = {}): Promise<Directory> {
  const absolute = resolve(check('directory: path', pathArgument, path))
  return directoryFor('directory', volume, absolute, check('directory', callOptions, options))
}

/** The same on behalf of another call, which its errors name. Internal. */
export async function directoryFor(
  operation: string,
  volume: Volume,
  absolute: string,
  options?: CallOptions,
): Promise<Directory> {
  const found = await volume.call(operation, { path: absolute }, options, (ticket) =>
    native.directory(ticket, volume.handle, absolute),
  )
  if (found.uuid !== volume.uuid) {
    throw new BtrmindError(
      'BTRMIND_ERR_WRONG_VOLUME',
      `'${absolute}' is on volume ${found.uuid}, '${volume.path}' on ${volume.uuid}`,
    )
  }
  const { path: real, inode, subvolumeId } = found
  return { path: real, inode, subvolumeId, subvolumeTop: inode === TOP_INODE }
}

/** The subvolume's own directory. */
export async function topOf(volume: Volume, root: Directory, operation: string): Promise<string> {
  let at = root
  while (!at.subvolumeTop) {
    const path = dirname(at.path)
    const above = await directoryFor(operation, volume, path).catch((error: { code?: string }) => {
      // Above the mount is something else.
      if (error.code === 'ENOTTY' || error.code === 'BTRMIND_ERR_WRONG_VOLUME') return undefined
      throw error
    })
    if (path === at.path || above?.subvolumeId !== root.subvolumeId) {
      const text = 'its subvolume is not mounted as a whole'
      throw new BtrfsError(operation, {
        code: 'EPERM',
        errno: -1,
        text,
        path: root.path,
        hint: 'mount its top (subvol=…), or leave out `consistent` and `nested`',
      })
    }
    at = above
  }
  return at.path
}
