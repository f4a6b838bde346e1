import { join } from 'node:path'
import { call } from '../btrfs/call.js'
import { BtrfsError, BtrmindError } from '../errors.js'
import { makeDirectory, readRegular, replaceFile } from '../files.js'
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
 * @param options.uuid the volume that the state is about; written to `volume.json` the first time
 * @throws BtrmindError BTRMIND_ERR_LOCKED (held by another process, or twice by this one), BTRMIND_ERR_STATE (cannot
 * be made, is no directory, may not be written), BTRMIND_ERR_WRONG_VOLUME (holds another volume's state)
 * @example
 * using lock = await lockStateDirectory('/var/lib/btrmind')
 */
export async function lockStateDirectory(
  path: string,
  options: { readonly uuid?: string | undefined } = {},
): Promise<StateLock> {
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
    const pid = Number(await readRegular(file).catch(() => ''))
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
  try {
    if (options.uuid !== undefined) await claimFor(options.uuid, path)
  } catch (error) {
    release()
    throw error
  }
  return { path, release, [Symbol.dispose]: release }
}

/** What was learnt about one volume must not steer another. */
async function claimFor(uuid: string, path: string): Promise<void> {
  const file = join(path, 'volume.json')
  let text: string
  try {
    text = (await readRegular(file)).toString()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw stateError('read', file, error)
    await replaceFile(file, `${JSON.stringify({ uuid })}\n`).catch((cause: NodeJS.ErrnoException) => {
      // A full volume may be the very one that is to be freed; the next start writes it.
      // Node has no name for EDQUOT.
      if (cause.code === 'ENOSPC' || cause.errno === -122) return
      throw stateError('write', file, cause)
    })
    return
  }
  const known = /"uuid": ?"([0-9a-f-]{36})"/.exec(text)?.[1]
  if (known === undefined) {
    throw new BtrmindError('BTRMIND_ERR_STATE_CORRUPT', `'${file}' does not name a volume`, {
      hint: `remove it if '${path}' belongs to volume ${uuid}`,
    })
  }
  if (known !== uuid) {
    throw new BtrmindError('BTRMIND_ERR_WRONG_VOLUME', `'${path}' is the state of volume ${known}, not ${uuid}`, {
      hint: 'give each volume a state directory of its own',
    })
  }
}

const HINTS: Record<string, string> = {
  EACCES: 'it must belong to the user who runs this, or be made by root first',
  EPERM: 'it must belong to the user who runs this, or be made by root first',
  ENOENT: 'nothing can be made there; choose another state directory',
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
