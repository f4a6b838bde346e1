import { lstat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { type KernelFilesystem, openFilesystem } from '../btrfs/filesystem.js'
import type { Io } from './output.js'

/** The volume that a file or directory is on, and its absolute path. A symlink is not followed. */
export async function openVolumeOf(io: Io, path: string): Promise<{ fs: KernelFilesystem; target: string }> {
  const target = resolve(path)
  // What is not there is told by the call itself.
  const isDirectory = await lstat(target).then(
    (stat) => stat.isDirectory(),
    () => false,
  )
  return { fs: await openFilesystem(isDirectory ? target : dirname(target), { signal: io.signal }), target }
}
