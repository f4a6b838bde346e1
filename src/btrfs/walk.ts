import { check } from '../errors.js'
import { type NativeRoot, type NativeWalkBatch, native } from '../native.js'
import { rootArgument, walkOptions } from './options.js'
import type { FileBatch, FileRef, Root, Skipped, WalkOptions } from './types.js'
import type { Volume } from './volume.js'

/** A root as the addon takes it. Internal. */
export function checkRoot(operation: string, root: Root): NativeRoot {
  const checked = check(`${operation}: root`, rootArgument, root)
  if (typeof checked === 'string') return [checked, undefined]
  return [checked.path, Float64Array.of(checked.inode, checked.subvolumeId)]
}

/**
 * Every regular file below a directory, depth first, in batches of columns; pull-based, so a slow reader holds it up
 * and memory stays flat. openat2, getdents64, statx · what the caller may read · each batch is one quick hop.
 *
 * Symlinks are never followed; mount points and nested subvolumes are never entered. What could not be read is counted
 * in the batch's `skipped`, and is no error; what vanishes under way is passed over. A batch may be empty when only
 * `skipped` has news. Breaking off the iteration closes the walk.
 * @param root absolute path of a directory on this volume, whose last component may not be a symlink; or what
 * `directory()` gave, which is then found to be the same still, with no symlink in its whole path, as it is opened
 * @throws BtrfsError ENOENT, ENOTDIR, ELOOP (a symlink), ESTALE (no longer the same directory), EACCES, EBADF;
 * BtrmindError BTRMIND_ERR_WRONG_VOLUME
 * @example
 * for await (const batch of fs.walk('/mnt/pool/tmp'))
 *   for (let i = 0; i < batch.length; i++) console.log(batch.path(i), batch.sizeBytes[i])
 */
export function walk(volume: Volume, root: Root, options: WalkOptions = {}): AsyncGenerator<FileBatch, void, void> {
  const { signal, batchSize } = check('walk', walkOptions, options)
  return batches(volume, checkRoot('walk', root), batchSize, { signal })
}

async function* batches(
  volume: Volume,
  root: NativeRoot,
  batchSize: number,
  options: { signal: AbortSignal | undefined },
): AsyncGenerator<FileBatch, void, void> {
  const context = { path: root[0] }
  const cursor = await volume.call('walk', context, options, (t) => native.walkOpen(t, volume.handle, ...root))
  try {
    for (;;) {
      const raw = await volume.call('walk', context, options, (t) =>
        native.walkNext(t, volume.handle, cursor, batchSize),
      )
      if (raw.ends.length > 0 || raw.skipped.length > 0) yield new Batch(raw)
      if (raw.done) return
    }
  } finally {
    native.walkClose(cursor)
  }
}

/** File `index` of a batch, as the functions that act on files take it. */
export function fileRef(batch: FileBatch, index: number): FileRef {
  if (!(index >= 0 && index < batch.length)) throw new RangeError(`no file ${index} in a batch of ${batch.length}`)
  return {
    path: batch.pathBytes(index),
    inode: batch.inode[index]!,
    sizeBytes: batch.sizeBytes[index]!,
    mtimeMs: batch.mtimeMs[index]!,
    ctimeMs: batch.ctimeMs[index]!,
  }
}

class Batch implements FileBatch {
  readonly length: number
  readonly inode: Float64Array
  readonly sizeBytes: Float64Array
  readonly diskBytes: Float64Array
  readonly atimeMs: Float64Array
  readonly mtimeMs: Float64Array
  readonly ctimeMs: Float64Array
  readonly mode: Float64Array
  readonly links: Float64Array
  readonly skipped: readonly Skipped[]
  readonly #paths: Uint8Array
  readonly #text: Buffer
  readonly #ends: Uint32Array

  constructor(raw: NativeWalkBatch) {
    const rows = raw.ends.length
    const column = (index: number) => raw.columns.subarray(index * rows, (index + 1) * rows)
    this.length = rows
    this.inode = column(0)
    this.sizeBytes = column(1)
    this.diskBytes = column(2)
    this.atimeMs = column(3)
    this.mtimeMs = column(4)
    this.ctimeMs = column(5)
    this.mode = column(6)
    this.links = column(7)
    this.skipped = raw.skipped
    this.#paths = raw.paths
    this.#text = Buffer.from(raw.paths.buffer)
    this.#ends = raw.ends
  }

  path(index: number): string {
    return this.#text.toString('utf8', ...this.#span(index))
  }

  pathBytes(index: number): Uint8Array {
    // A copy: a view would keep the whole batch's paths alive.
    return this.#paths.slice(...this.#span(index))
  }

  #span(index: number): [number, number] {
    const end = this.#ends[index]
    if (end === undefined) throw new RangeError(`no file ${index} in a batch of ${this.length}`)
    return [index === 0 ? 0 : this.#ends[index - 1]!, end]
  }
}
