import { randomUUID } from 'node:crypto'
import { basename, join, relative } from 'node:path'
import { BtrfsError, BtrmindError, check } from '../errors.js'
import { type NativeFileCursor, type NativeRoot, type NativeTally, native } from '../native.js'
import { batches, type ScanBatch } from './batch.js'
import { type Directory, directoryFor, TOP_INODE, topOf } from './directory.js'
import { volumeIsReadOnly } from './mounts.js'
import { scanOptions } from './options.js'
import { ranges } from './ranges.js'
import { subvolume as subvolumeOf } from './subvolume-list.js'
import { deleteSubvolume, freedSoon, NO_GROUPS, snapshotHints } from './subvolumes.js'
import type { Volume } from './volume.js'
import { checkRoot, seen } from './walk.js'

export interface ScanOptions {
  readonly signal?: AbortSignal | undefined
  /** Rows in a batch, about. Default 2,048: larger ones hold the event loop up for longer. */
  readonly batchSize?: number | undefined
  /** A subvolume, or a directory in one: then only what is below it. Default: the directory that was opened. */
  readonly subvolume?: string | undefined
  /** Only inodes changed in this transaction or later: after a snapshot, its `originGeneration` + 1. At most the volume's + 1. Default 0: all. */
  readonly sinceGeneration?: number | undefined
  /** Count extents and compressed bytes. Default false. */
  readonly extents?: boolean | undefined
  /** Also what of them is shared: an open and a FIEMAP for each file. Implies `extents`. Default false. */
  readonly sharing?: boolean | undefined
  /**
   * One moment's view: of a read-only snapshot that is made before and deleted after. Not with `sharing`: everything would
   * be shared with the snapshot. On a volume that is read-only as a whole none is needed, nor made. Default false.
   */
  readonly consistent?: boolean | undefined
  /** Sync the volume first: what is not committed is not in its trees. Default true. */
  readonly sync?: boolean | undefined
}

/**
 * Every inode of a subvolume, read from its tree: several times quicker than a walk, and only what changed where
 * `sinceGeneration` is given. TREE_SEARCH_V2 · CAP_SYS_ADMIN; without it, and where nothing is asked that only the tree
 * knows, a walk of what the caller may read gives the same rows without `generation` · each batch is one quick hop, the
 * next one is read ahead.
 *
 * What lies in nested subvolumes is not among the rows, nor what was deleted and is still open. While others write, a
 * file that stays is there exactly once, one that comes or goes may be missing; deletions are no rows in a
 * `sinceGeneration` scan. A file that is being renamed has the names that its directories have. `consistent` needs the
 * right to make snapshots in the subvolume and to delete them; abort and
 * close() delete it too, a process that ends meanwhile leaves one behind, named `.btrmind-scan-…`.
 * @throws BtrfsError ENOENT, ENOTDIR, EACCES, EPERM (needs CAP_SYS_ADMIN), EBADF; BtrmindError
 * BTRMIND_ERR_WRONG_VOLUME, BTRMIND_ERR_ARGUMENT (`sinceGeneration` beyond the next one of the volume)
 * @example
 * for await (const batch of fs.scan({ subvolume: 'home' }))
 *   for (let i = 0; i < batch.length; i++) if (batch.sizeBytes[i] > 1e9) console.log(batch.path(i))
 */
export function scan(volume: Volume, options: ScanOptions = {}): AsyncGenerator<ScanBatch, void, void> {
  return scanTree(volume, checkScan(options), 'scan')
}

/** A scan that adds up instead of giving rows: for whom, what to, and what stands before the paths that are kept. */
export interface Into {
  readonly tally: NativeTally
  readonly prefix: string
}
type Checked = ReturnType<typeof checkScan>
export function checkScan(options: ScanOptions) {
  const checked = check('scan', scanOptions, options)
  if (checked.consistent && checked.sharing) {
    const why = 'nothing with `sharing`: every extent would be shared with the snapshot'
    throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `scan: option 'consistent': expected ${why}, got true`)
  }
  return checked
}

/** What is read: a directory, or a subvolume by its id, since something else may be mounted at its path. */
type Source = Directory | NestedSubvolume
export interface NestedSubvolume {
  readonly id: number
  readonly readonly: boolean
  /** For messages. */
  readonly path: string
  /** The top of the subvolume that it is in, at whatever depth: snapshots of it are made there. */
  readonly holder: string
}
const asRoot = (source: Source): NativeRoot =>
  'holder' in source ? ['', seen({ inode: TOP_INODE, subvolumeId: source.id })] : checkRoot('scan', source)

/** Internal; with `into` the batches have no rows; with `found` it is known what is read. */
export async function* scanTree(
  volume: Volume,
  checked: Checked,
  operation: string,
  into?: Into,
  found?: Source,
): AsyncGenerator<ScanBatch, void, void> {
  const { signal, consistent, sync, sinceGeneration } = checked
  if (sinceGeneration > 0) await requireReached(volume, operation, sinceGeneration, signal)
  const root = found ?? (await directoryFor(operation, volume, volume.resolve(checked.subvolume), { signal }))
  if (!consistent) {
    if (sync) await volume.call(operation, {}, { signal }, (ticket) => native.sync(ticket, volume.handle))
    return yield* read(volume, root, checked, operation, into)
  }
  // Who may not read the tree could not delete the snapshot again, either.
  await probe(volume, root, operation, signal)
  const { id, readonly, holder, inner } = await subvolumeOfSource(volume, root, operation, signal)
  if (readonly || (await volumeIsReadOnly(holder))) return yield* read(volume, root, checked, operation, into)
  const taken = join(holder, `${TEMPORARY}${randomUUID()}`)
  const own = await volume.share(operation)
  if (volume.closing.aborted) {
    await own.close()
    throw closed(operation, root.path)
  }
  // It commits, too: no sync. Without the signal: who does not wait for it does not know whether it is there.
  const making = own.call(operation, { path: root.path, dest: taken, hints: snapshotHints }, {}, (ticket) =>
    native.snapshot(ticket, own.handle, root.path, taken, true, NO_GROUPS, id),
  )
  let takenId: number | undefined
  let removal: Promise<void> | undefined
  const remove = () => {
    removal ??= volume.track(making.then(() => deleteSubvolume(own, taken)).finally(() => own.close()))
    return removal
  }
  // Whoever reads may never come back.
  const onClose = () => void remove().catch(() => {})
  volume.closing.addEventListener('abort', onClose)
  try {
    await making
    signal?.throwIfAborted()
    const there = await directoryFor(operation, volume, join(taken, inner))
    takenId = there.subvolumeId
    yield* read(volume, there, checked, operation, into)
  } catch (error) {
    // close() took the snapshot away under whoever was about to open it.
    const taken = volume.closing.aborted && ['ENOENT', 'ESTALE'].includes((error as BtrfsError).code)
    throw taken ? closed(operation, root.path) : error
  } finally {
    volume.closing.removeEventListener('abort', onClose)
    await remove()
    // Until then du() would find everything shared with it.
    if (takenId !== undefined) await freedSoon(volume, takenId, { signal }).catch(() => {})
  }
}

/**
 * Of a generation that is not there yet nothing would be found, and a backup would save nothing. The next one is: what
 * comes after a snapshot that the newest transaction took.
 */
async function requireReached(
  volume: Volume,
  operation: string,
  since: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { generation } = await volume.call(operation, {}, { signal }, (ticket) => native.info(ticket, volume.handle))
  if (generation === undefined || since <= generation + 1) return
  const name = operation === 'changed' ? 'changed: since' : `${operation}: option 'sinceGeneration'`
  throw new BtrmindError(
    'BTRMIND_ERR_ARGUMENT',
    `${name}: expected a generation of at most ${generation + 1}, the volume being at ${generation}; got ${since}`,
    { hint: 'a subvolume’s id is no generation; subvolume() has its `generation` and `originGeneration`' },
  )
}

function closed(operation: string, path: string): BtrfsError {
  return new BtrfsError(operation, { code: 'EBADF', errno: -9, text: 'the filesystem was closed', path })
}

const TEMPORARY = '.btrmind-scan-'
/** A snapshot that some consistent scan has made for itself. */
export const isTemporary = (path: string) => /^\.btrmind-scan-[0-9a-f-]{36}$/.test(basename(path))

async function subvolumeOfSource(
  volume: Volume,
  source: Source,
  operation: string,
  signal: AbortSignal | undefined,
): Promise<Pick<NestedSubvolume, 'id' | 'readonly' | 'holder'> & { readonly inner: string }> {
  if ('holder' in source) return { ...source, inner: '' }
  const holder = await topOf(volume, source, operation)
  const { id, readonly } = await subvolumeOf(volume, holder, { signal })
  return { id, readonly, holder, inner: relative(holder, source.path) }
}

async function probe(volume: Volume, root: Source, operation: string, signal: AbortSignal | undefined) {
  const given = asRoot(root)
  const hints = { EPERM: '`consistent` needs root (CAP_SYS_ADMIN)' }
  const cursor = await volume.call(operation, { path: root.path, hints }, { signal }, (ticket) =>
    native.scanOpen(ticket, volume.handle, ...given, 0, false, false),
  )
  native.filesClose(cursor)
}

async function* read(
  volume: Volume,
  root: Source,
  options: Checked,
  operation: string,
  into: Into | undefined,
): AsyncGenerator<ScanBatch, void, void> {
  const { signal, batchSize, sinceGeneration, extents, sharing } = options
  const given = asRoot(root)
  const context = { operation, path: root.path, batchSize, signal }
  const open = (ticket: number) =>
    native.scanOpen(ticket, volume.handle, ...given, sinceGeneration, extents, sharing, into?.tally, into?.prefix)
  let first: NativeFileCursor
  try {
    first = await volume.call(operation, { path: root.path }, { signal }, open)
  } catch (error) {
    const only = sinceGeneration > 0 || extents || sharing || into !== undefined
    if (only || (error as { code?: string }).code !== 'EPERM') throw error
    const walk = (ticket: number) => native.walkOpen(ticket, volume.handle, ...given, true)
    return yield* batches(volume, { ...context, open: walk })
  }
  // Where few of the inodes are rows, ranges are longer.
  const inodes = sinceGeneration > 0 || into !== undefined ? SPARSE_RANGE : batchSize
  yield* ranges(volume, { ...context, first, open, inodes })
}

/** Inodes. */
const SPARSE_RANGE = 8192
