import { lstat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { getSystemErrorMap } from 'node:util'
import { type KernelFilesystem, openFilesystem } from '../btrfs/filesystem.js'
import { BtrfsError } from '../errors.js'
import type { Io } from './output.js'

/** The volume that a file or directory is on, and its absolute path. A symlink is not followed. */
export async function openVolumeOf(io: Io, path: string): Promise<{ fs: KernelFilesystem; target: string }> {
  const target = resolve(path)
  // What is not there fails as what it is.
  const isFile = await lstat(target).then(
    (stat) => !stat.isDirectory(),
    () => false,
  )
  return { fs: await (isFile ? openAbove(io, target) : openFilesystem(target, { signal: io.signal })), target }
}

/** The volume of the directory that holds `target`; the error names what was asked for. */
export async function openAbove(io: Io, target: string): Promise<KernelFilesystem> {
  const directory = dirname(target)
  try {
    return await openFilesystem(directory, { signal: io.signal })
  } catch (error) {
    if (!(error instanceof BtrfsError)) throw error
    const hint = error.code === 'ENOENT' ? `there is no directory '${directory}'` : error.hint
    throw failed(error.operation, error, target, hint)
  }
}

/** What Node has no name for. */
const UNNAMED: ReadonlyMap<number, readonly [code: string, text: string]> = new Map([
  [-116, ['ESTALE', 'stale file handle']],
  [-117, ['EUCLEAN', 'structure needs cleaning']],
  [-122, ['EDQUOT', 'disk quota exceeded']],
])

/** A failure that names `path`, in the form of the others. */
export function failed(operation: string, error: unknown, path: string, hint?: string): BtrfsError {
  const { code: given = 'EIO', errno = -5 } = error as NodeJS.ErrnoException
  const [code, text] = getSystemErrorMap().get(errno) ?? UNNAMED.get(errno) ?? [given, given]
  return new BtrfsError(operation, { code, errno, text, path, ...(hint === undefined ? {} : { hint }) })
}
