import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { call } from '../btrfs/call.js'
import { BtrfsError, BtrmindError } from '../errors.js'
import { makeDirectory } from '../files.js'
import { type NativeHandle, native } from '../native.js'

/** Long for a local disk; a directory on a network that is gone answers never. */
const LOCK_TIMEOUT_MS = 10_000

/** What holds a state directory; see {@link lockStateDirectory}. */
export interface StateLock extends Disposable {
  /** The state directory. */
  readonly path: string
  /** Gives the directory back. Idempotent. */
  release(): void
}

// Referenced here, so that a lock that its owner forgot is not given back by the garbage collector.
const held = new Set<NativeHandle>()

/**
 * Makes the state directory if need be (mode 0700) and takes it for this process alone, until release() or the
 * process's end. flock(2) on `<path>/lock`: the kernel drops it with the process, also on kill -9, so no lock is ever
 * stale. The file stays; it holds the pid of the last holder. No privilege · quick.
 * @throws BtrmindError BTRMIND_ERR_LOCKED (held by another process, or twice by this one), BTRMIND_ERR_STATE (cannot
 * be made, is no directory, may not be written)
 * @example
 * using lock = await lockStateDirectory('/var/lib/btrmind')
 */
export async function lockStateDirectory(path: string): Promise<StateLock> {
  try {
    await makeDirectory(path)
  } catch (error) {
    throw stateError('make the state directory', path, error)
  }
  const file = join(path, 'lock')
  let handle: NativeHandle
  try {
    handle = await call('lockStateDirectory', { path: file }, { timeoutMs: LOCK_TIMEOUT_MS }, (ticket) =>
      native.lockFile(ticket, file),
    )
  } catch (error) {
    if (!(error instanceof BtrfsError && error.code === 'EAGAIN'))
      throw stateError('lock the state directory', path, error)
    const pid = Number(await readFile(file, 'utf8').catch(() => ''))
    const holder = pid === process.pid ? 'this process already' : pid > 0 ? `process ${pid}` : 'another process'
    throw new BtrmindError('BTRMIND_ERR_LOCKED', `'${path}' is in use by ${holder}`, {
      cause: error,
      hint: 'stop it first, or choose another state directory',
    })
  }
  held.add(handle)
  const release = () => {
    if (held.delete(handle)) native.close(handle)
  }
  return { path, release, [Symbol.dispose]: release }
}

const HINTS: Record<string, string> = {
  EACCES: 'it must belong to the user who runs this, or be made by root first',
  EPERM: 'it must belong to the user who runs this, or be made by root first',
  EROFS: 'it is on a read-only filesystem; choose another state directory',
  ENOSPC: 'its filesystem is full; choose a state directory on another one',
  ENOTDIR: 'a directory is needed',
}

/** BTRMIND_ERR_STATE for what a state directory's filesystem refused, with the path and what to do about it. */
export function stateError(verb: string, path: string, cause: unknown): BtrmindError {
  const { code: thrown, message } = cause as { code?: unknown; message?: unknown }
  const code = typeof thrown === 'string' ? thrown : String(message)
  return new BtrmindError('BTRMIND_ERR_STATE', `cannot ${verb} '${path}': ${code}`, { cause, hint: HINTS[code] })
}
