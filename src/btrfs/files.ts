import * as v from 'valibot'
import { check, isNativeFailure } from '../errors.js'
import { type NativeFiles, type NativeOutcomes, native } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions } from './options.js'
import type { FileOutcome, FileRef } from './types.js'
import type { Volume } from './volume.js'
import { checkRoot, onVolume } from './walk.js'

const whole = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER))
const time = v.pipe(v.number(), v.finite())
const fileRefs = v.array(
  v.object({ path: v.instance(Uint8Array), inode: whole, sizeBytes: whole, mtimeMs: time, ctimeMs: time }),
)

function columns(operation: string, files: readonly FileRef[]): NativeFiles {
  const checked = check(`${operation}: files`, fileRefs, files)
  const ends = new Uint32Array(checked.length)
  const identity = new Float64Array(checked.length * 4)
  let end = 0
  for (const [index, file] of checked.entries()) {
    end += file.path.length
    ends[index] = end
    identity.set([file.inode, file.sizeBytes, file.mtimeMs, file.ctimeMs], index * 4)
  }
  const paths = new Uint8Array(end)
  for (const [index, file] of checked.entries()) paths.set(file.path, index === 0 ? 0 : ends[index - 1])
  return [paths, ends, identity]
}

function outcomes({ codes, names }: NativeOutcomes): FileOutcome[] {
  return Array.from(codes, (code) => (code === 0 ? { ok: true } : { ok: false, code: names[code] ?? `${code}` }))
}

/**
 * Unlinks files that still are what a walk saw: same inode, size, mtime and ctime, a regular file, on the same
 * subvolume. Each is opened beneath `root` anew, never through a symlink, across a mount or through '..'.
 * openat2, unlinkat · write permission on the directories · long for many files: pass a few thousand at a time.
 *
 * Between the last look and the unlink there is a microsecond in which another process can put another file in the
 * same place of the same directory; then that one is removed. Nothing else can be: the directory is pinned, and unlink
 * neither follows symlinks nor removes directories.
 *
 * The space is free after `sync()`, unless a process still has the file open, or it has other links or a snapshot.
 * @returns one outcome a file, in order; failures are values, so that one file does not stop the others
 * @throws BtrfsError ENOENT, ENOTDIR, ELOOP, EBADF (the root); ECANCELED after an abort, ETIMEDOUT, both with the
 * outcomes so far in `progress`; BtrmindError BTRMIND_ERR_WRONG_VOLUME, BTRMIND_ERR_ARGUMENT
 * @example
 * for await (const batch of fs.walk(root)) await fs.removeFiles(root, [fileRef(batch, 0)])
 */
export async function removeFiles(
  volume: Volume,
  root: string,
  files: readonly FileRef[],
  options: CallOptions = {},
): Promise<FileOutcome[]> {
  const path = checkRoot('removeFiles', root)
  const packed = columns('removeFiles', files)
  const work = volume.call('removeFiles', { path }, check('removeFiles', callOptions, options), async (t) => {
    try {
      return outcomes(await native.removeFiles(t, volume.handle, path, ...packed))
    } catch (error) {
      if (!isNativeFailure(error) || error.progress === undefined) throw error
      throw { ...error, progress: outcomes(error.progress as NativeOutcomes) }
    }
  })
  return onVolume(volume, path, work)
}
