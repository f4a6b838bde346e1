/** Files that survive a power cut. */
import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, rename, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * Replaces a file as a whole: after a crash or a power cut at any moment the path holds either the old content or the
 * new one, never a mixture and never nothing. Written beside it as `<path>.tmp`, fsynced, renamed, directory fsynced.
 * One writer at a time (the temporary name is fixed, so a leftover never piles up).
 * @param data one piece, or several that are written one after the other
 * @throws the errno error of node:fs; the old file is then untouched
 * @example
 * await replaceFile('/var/lib/btrmind/model.json', JSON.stringify(model))
 */
export async function replaceFile(
  path: string,
  data: string | Uint8Array | readonly (string | Uint8Array)[],
): Promise<void> {
  const temporary = `${path}.tmp`
  try {
    const { O_WRONLY, O_CREAT, O_TRUNC } = constants
    await using file = await openRegular(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    for (const piece of typeof data === 'string' || data instanceof Uint8Array ? [data] : data) {
      await file.writeFile(piece)
    }
    await file.sync()
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {})
    throw error
  }
  await syncDirectory(dirname(path))
}

/**
 * As `open`, of regular files only: a FIFO in their place would be waited for without end.
 * @param flags of node:fs.constants
 * @throws the errno error of node:fs; EISDIR, EINVAL where something else stands in its place
 */
export async function openRegular(path: string, flags: number, mode?: number): Promise<FileHandle> {
  const file = await open(path, flags | constants.O_NONBLOCK, mode)
  try {
    const found = await file.stat()
    if (found.isFile()) return file
    const [code, errno] = found.isDirectory() ? ['EISDIR', -21] : ['EINVAL', -22]
    throw Object.assign(new Error(`${code}: not a regular file, open '${path}'`), { code, errno, path })
  } catch (error) {
    await file.close()
    throw error
  }
}

/** All of a regular file. @throws as openRegular() */
export async function readRegular(path: string): Promise<Buffer> {
  await using file = await openRegular(path, constants.O_RDONLY)
  return await file.readFile()
}

/**
 * A directory and what is missing above it. Not mkdir's own `recursive`, which never returns in /proc (Node 20).
 * @throws the errno error of node:fs; ENOTDIR where something else stands in its place
 */
export async function makeDirectory(path: string, mode = 0o700): Promise<void> {
  try {
    await mkdir(path, mode)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') {
      if ((await stat(path)).isDirectory()) return
      throw Object.assign(error as Error, { code: 'ENOTDIR' })
    }
    const parent = dirname(path)
    if (code !== 'ENOENT' || parent === path || (await exists(parent))) throw error
    await makeDirectory(parent, mode)
    await makeDirectory(path, mode)
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

/** Makes what was created, renamed or removed in a directory survive a power cut. */
export async function syncDirectory(path: string): Promise<void> {
  await using directory = await open(path, 'r')
  await directory.sync()
}
