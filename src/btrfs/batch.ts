/** Files in batches of columns, from a walk or a scan. */
import { inspect } from 'node:util'
import { BtrmindError, quote } from '../errors.js'
import { type NativeFileBatch, type NativeFileCursor, native } from '../native.js'
import { Cursors } from './cursors.js'
import { requireIndex } from './options.js'
import { Rows } from './rows.js'
import type { Volume } from './volume.js'

/** Directories and files that a walk left out for one reason. */
export interface Skipped {
  /** 'SUBVOLUME', 'MOUNT', 'CHANGED' (moved away under way), or an errno name ('EACCES'). */
  readonly reason: string
  readonly count: number
  /** The first of them, relative to the root. */
  readonly example: Uint8Array
}

/** One batch of files, as columns. Index i of each is the same file. */
export interface FileBatch {
  readonly length: number
  readonly inode: Float64Array
  readonly sizeBytes: Float64Array
  /** st_blocks × 512: without holes, but before compression (btrfs counts so); FileExtents has what is on disk. */
  readonly diskBytes: Float64Array
  readonly atimeMs: Float64Array
  readonly mtimeMs: Float64Array
  readonly ctimeMs: Float64Array
  /** st_mode. */
  readonly mode: Float64Array
  readonly links: Float64Array
  /** What the walk passed by since the batch before; usually empty. */
  readonly skipped: readonly Skipped[]
  /** Relative to the root, decoded as UTF-8 (bad bytes become U+FFFD). */
  path(index: number): string
  /** Relative to the root, as the bytes that the kernel has. */
  pathBytes(index: number): Uint8Array
}

/**
 * A batch of a scan: directories, symlinks and special files too, told apart by `mode`. One row a name: those of a hard
 * link have one inode and follow one another. In the order of inodes. Paths are relative to what was scanned, which is
 * '' itself.
 */
export interface ScanBatch extends FileBatch {
  /** The transaction that last changed the inode. This and the next columns: undefined where not asked or permitted. */
  readonly generation: Float64Array | undefined
  /** As FIEMAP counts: what goes on where the one before ends, in the file and on disk, belongs to it. */
  readonly extentCount: Float64Array | undefined
  /** Logical bytes in compressed extents. */
  readonly compressedBytes: Float64Array | undefined
  /** In extents that a snapshot or a reflink holds too; NaN: it went away under way. */
  readonly sharedBytes: Float64Array | undefined
}

/** One file of a batch. */
export interface FileRow {
  readonly path: string
  readonly pathBytes: Uint8Array
  readonly inode: number
  readonly sizeBytes: number
  readonly diskBytes: number
  readonly atimeMs: number
  readonly mtimeMs: number
  readonly ctimeMs: number
  readonly mode: number
  readonly links: number
  readonly generation: number | undefined
  readonly extentCount: number | undefined
  readonly compressedBytes: number | undefined
  readonly sharedBytes: number | undefined
}

/** A file as it was seen; acted upon only if it still is the same. */
export interface FileRef {
  /** Bytes, relative to the root. */
  readonly path: Uint8Array
  readonly inode: number
  readonly sizeBytes: number
  readonly mtimeMs: number
  readonly ctimeMs: number
  /** Given, a file that was read since is another too. (Nothing shows on a volume mounted `noatime`.) */
  readonly atimeMs?: number | undefined
}

/** @param from.open gives the cursor; it is called when the first batch is asked for */
export async function* batches(
  volume: Volume,
  from: {
    readonly operation: string
    readonly path: string
    readonly open: (ticket: number) => Promise<NativeFileCursor>
    readonly batchSize: number
    readonly signal: AbortSignal | undefined
  },
): AsyncGenerator<ScanBatch, void, void> {
  const { operation, path, open, batchSize, signal } = from
  const call = <T>(run: (ticket: number) => Promise<T>) => volume.call(operation, { path }, { signal }, run)
  const cursors = new Cursors(volume)
  try {
    const cursor = await cursors.add(call(open))
    for (let done = false; !done; ) {
      const raw = await call((ticket) => native.filesNext(ticket, volume.handle, cursor, batchSize))
      done = raw.done
      if (raw.ends.length > 0 || raw.skipped.length > 0) yield toBatch(raw)
    }
  } finally {
    await cursors.close()
  }
}

export function toBatch(raw: NativeFileBatch): ScanBatch {
  return new Batch(raw)
}

/**
 * File `index` of a batch, as the functions that act on files take it.
 * @throws BtrmindError BTRMIND_ERR_ARGUMENT
 */
export function fileRef(batch: FileBatch, index: number): FileRef {
  requireBatch('fileRef', batch)
  requireIndex('fileRef', batch, index)
  return {
    path: batch.pathBytes(index),
    inode: batch.inode[index]!,
    sizeBytes: batch.sizeBytes[index]!,
    mtimeMs: batch.mtimeMs[index]!,
    ctimeMs: batch.ctimeMs[index]!,
    atimeMs: batch.atimeMs[index]!,
  }
}

/**
 * The files of all batches, one by one. An object is made for each: columns are several times quicker.
 * @throws BtrmindError BTRMIND_ERR_ARGUMENT
 * @example
 * for await (const file of rows(fs.scan())) if (file.sizeBytes > 1e9) console.log(file.path)
 */
export function rows(batches: AsyncIterable<FileBatch>): AsyncIterableIterator<FileRow, undefined, void> {
  if (typeof batches?.[Symbol.asyncIterator] !== 'function')
    throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `rows: expected what walk() or scan() gave, got ${quote(batches)}`)
  const iterator = batches[Symbol.asyncIterator]()
  return new Rows(
    async () => {
      const { done, value } = await iterator.next()
      return done ? undefined : rows.of(value)
    },
    async () => iterator.return?.(),
  )
}
/** The files of one batch. */
rows.of = function* of(batch: FileBatch): Generator<FileRow, void, void> {
  requireBatch('rows', batch)
  for (let index = 0; index < batch.length; index++) yield new Row(batch, index)
}

function requireBatch(what: string, batch: FileBatch): void {
  if (typeof batch?.pathBytes === 'function' && batch.length >= 0) return
  const hint = 'walk() and scan() give batches'
  throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `${what}: expected a batch of files, got ${quote(batch)}`, { hint })
}

/** File `index` of a batch, which it keeps. Internal. */
export function rowAt(batch: FileBatch, index: number): FileRow {
  return new Row(batch, index)
}
/** A row that keeps nothing else. Internal. */
export function copyOf(row: FileRow): FileRow {
  const columns = Object.fromEntries(COLUMNS.map((name) => [name, row[name]])) as Record<Column, number>
  return { ...columns, path: row.path, pathBytes: row.pathBytes }
}

/** Reads its columns when asked. */
class Row implements FileRow {
  readonly #batch: ScanBatch
  readonly #index: number
  constructor(batch: FileBatch, index: number) {
    this.#batch = batch as ScanBatch
    this.#index = index
  }
  get path() {
    return this.#batch.path(this.#index)
  }
  get pathBytes() {
    return this.#batch.pathBytes(this.#index)
  }
  get inode() {
    return this.#batch.inode[this.#index]!
  }
  get sizeBytes() {
    return this.#batch.sizeBytes[this.#index]!
  }
  get diskBytes() {
    return this.#batch.diskBytes[this.#index]!
  }
  get atimeMs() {
    return this.#batch.atimeMs[this.#index]!
  }
  get mtimeMs() {
    return this.#batch.mtimeMs[this.#index]!
  }
  get ctimeMs() {
    return this.#batch.ctimeMs[this.#index]!
  }
  get mode() {
    return this.#batch.mode[this.#index]!
  }
  get links() {
    return this.#batch.links[this.#index]!
  }
  get generation() {
    return this.#batch.generation?.[this.#index]
  }
  get extentCount() {
    return this.#batch.extentCount?.[this.#index]
  }
  get compressedBytes() {
    return this.#batch.compressedBytes?.[this.#index]
  }
  get sharedBytes() {
    return this.#batch.sharedBytes?.[this.#index]
  }
  /** console.log() would see none of the getters. */
  [inspect.custom]() {
    return this.toJSON()
  }
  toJSON() {
    const { path } = this
    // A name that is no UTF-8 can still be found by its bytes.
    const bytes = path.includes('\uFFFD') ? { pathBase64: Buffer.from(this.pathBytes).toString('base64') } : {}
    return { ...Object.fromEntries(COLUMNS.map((name) => [name, this[name]])), path, ...bytes }
  }
}

/** As the addon gives them. */
const COLUMNS = [
  'inode',
  'sizeBytes',
  'diskBytes',
  'atimeMs',
  'mtimeMs',
  'ctimeMs',
  'mode',
  'links',
  'generation',
  'extentCount',
  'compressedBytes',
  'sharedBytes',
] as const
type Column = (typeof COLUMNS)[number]

class Batch implements ScanBatch {
  readonly length: number
  readonly inode: Float64Array
  readonly sizeBytes: Float64Array
  readonly diskBytes: Float64Array
  readonly atimeMs: Float64Array
  readonly mtimeMs: Float64Array
  readonly ctimeMs: Float64Array
  readonly mode: Float64Array
  readonly links: Float64Array
  readonly generation: Float64Array | undefined
  readonly extentCount: Float64Array | undefined
  readonly compressedBytes: Float64Array | undefined
  readonly sharedBytes: Float64Array | undefined
  readonly skipped: readonly Skipped[]
  readonly #paths: Uint8Array
  readonly #text: Buffer
  readonly #ends: Uint32Array

  constructor(raw: NativeFileBatch) {
    const rows = raw.ends.length
    const column = (name: Column) => {
      const index = COLUMNS.indexOf(name)
      const given = raw.columns.subarray(index * rows, (index + 1) * rows)
      return rows > 0 && given.length === 0 ? undefined : given
    }
    this.length = rows
    this.inode = column('inode')!
    this.sizeBytes = column('sizeBytes')!
    this.diskBytes = column('diskBytes')!
    this.atimeMs = column('atimeMs')!
    this.mtimeMs = column('mtimeMs')!
    this.ctimeMs = column('ctimeMs')!
    this.mode = column('mode')!
    this.links = column('links')!
    this.generation = column('generation')
    this.extentCount = column('extentCount')
    this.compressedBytes = column('compressedBytes')
    this.sharedBytes = column('sharedBytes')
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
    requireIndex('path', this, index)
    return [index === 0 ? 0 : this.#ends[index - 1]!, this.#ends[index]!]
  }
}
