import { randomUUID } from 'node:crypto'
import { dirname, join, relative } from 'node:path'
import { BtrfsError, check } from '../errors.js'
import { native } from '../native.js'
import { batches } from './batch.js'
import { directory } from './directory.js'
import { scanOptions } from './options.js'
import { subvolume as subvolumeOf } from './subvolume-list.js'
import { deleteSubvolume, snapshot } from './subvolumes.js'
import type { Directory, ScanBatch, ScanOptions } from './types.js'
import type { Volume } from './volume.js'
import { checkRoot } from './walk.js'

/**
 * Every inode of a subvolume, read from its tree: several times quicker than a walk, and only what changed where
 * `sinceGeneration` is given. TREE_SEARCH_V2 · CAP_SYS_ADMIN; without it, and where nothing is asked that only the tree
 * knows, a walk of what the caller may read gives the same rows without `generation` · each batch is one quick hop, the
 * next one is read ahead.
 *
 * What lies in nested subvolumes is not among the rows, nor what was deleted and is still open. While others write, a
 * file that stays is there exactly once, one that comes or goes may be missing; deletions are no rows in a
 * `sinceGeneration` scan. `consistent` needs the right to make snapshots in the subvolume and to delete them; abort and
 * close() delete it too, a process that ends meanwhile leaves one behind, named `.btrmind-scan-…`.
 * @throws BtrfsError ENOENT, ENOTDIR, EACCES, EPERM (needs CAP_SYS_ADMIN), EBADF; BtrmindError
 * BTRMIND_ERR_WRONG_VOLUME
 * @example
 * for await (const batch of fs.scan({ subvolume: 'home' }))
 *   for (let i = 0; i < batch.length; i++) if (batch.sizeBytes[i] > 1e9) console.log(batch.path(i))
 */
export async function* scan(volume: Volume, options: ScanOptions = {}): AsyncGenerator<ScanBatch, void, void> {
  const checked = checkScan(options)
  const { signal, consistent, sync } = checked
  const root = await directory(volume, volume.resolve(checked.subvolume), { signal })
  if (!consistent) {
    if (sync) await volume.call('scan', {}, { signal }, (ticket) => native.sync(ticket, volume.handle))
    return yield* read(volume, root, checked)
  }
  const top = await topOf(volume, root)
  const { readonly } = await subvolumeOf(volume, top, { signal })
  if (readonly) return yield* read(volume, root, checked)
  const taken = join(top, `.btrmind-scan-${randomUUID()}`)
  const own = await volume.share('scan')
  // It commits, too: no sync. Without the signal: who does not wait for it does not know whether it is there.
  const making = snapshot(own, top, taken, { readonly: true })
  let removal: Promise<void> | undefined
  const remove = () => {
    removal ??= volume.track(making.then(() => deleteSubvolume(own, taken)))
    return removal
  }
  // Whoever reads may never come back.
  const onClose = () => void remove().catch(() => {})
  volume.closing.addEventListener('abort', onClose)
  try {
    await making
    signal?.throwIfAborted()
    yield* read(volume, await directory(volume, join(taken, relative(top, root.path))), checked)
  } finally {
    try {
      await remove()
    } finally {
      volume.closing.removeEventListener('abort', onClose)
      await own.close()
    }
  }
}

type Checked = ReturnType<typeof checkScan>
const checkScan = (options: ScanOptions) => check('scan', scanOptions, options)

async function* read(volume: Volume, root: Directory, options: Checked): AsyncGenerator<ScanBatch, void, void> {
  const { signal, batchSize, sinceGeneration, extents, sharing } = options
  const from = checkRoot('scan', root)
  const open = async (ticket: number) => {
    try {
      return await native.scanOpen(ticket, volume.handle, ...from, sinceGeneration, extents, sharing)
    } catch (error) {
      const only = sinceGeneration > 0 || extents || sharing
      if (only || (error as { code?: string }).code !== 'EPERM') throw error
      return native.walkOpen(ticket, volume.handle, ...from, true)
    }
  }
  yield* batches(volume, { operation: 'scan', path: root.path, open, batchSize, signal, ahead: true })
}

/** The subvolume's own directory. */
async function topOf(volume: Volume, root: Directory): Promise<string> {
  let at = root
  while (!at.subvolumeTop) {
    const path = dirname(at.path)
    const above = await directory(volume, path)
    if (path === at.path || above.subvolumeId !== root.subvolumeId) {
      const text = 'its subvolume is not mounted as a whole'
      throw new BtrfsError('scan', {
        code: 'EPERM',
        errno: -1,
        text,
        path: root.path,
        hint: 'scan without `consistent`',
      })
    }
    at = above
  }
  return at.path
}
