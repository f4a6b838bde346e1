/** A scan, range of inodes by range: several at a time, which on a cold disk is several times quicker, in order. */
import { availableParallelism } from 'node:os'
import { setImmediate } from 'node:timers/promises'
import { type NativeFileBatch, type NativeFileCursor, native } from '../native.js'
import { type ScanBatch, toBatch } from './batch.js'
import { Cursors } from './cursors.js'
import type { Volume } from './volume.js'

const FIRST_INODE = 256
/**
 * Ranges at once: one for each processor, and more only while they wait for the disk, or whoever reads the rows would
 * wait for a processor. Half of a volume's lane stays free.
 */
const MOST = 8
const AT_ONCE = Math.min(MOST, availableParallelism())
/** In one batch. */
const MANY_WAITS = 4

interface Range {
  readonly cursor: Promise<NativeFileCursor>
  coming: Promise<NativeFileBatch>
}

/** @param from.open gives another cursor of the same tree, of which `first` is the first */
export async function* ranges(
  volume: Volume,
  from: {
    readonly operation: string
    readonly path: string
    readonly first: NativeFileCursor
    readonly open: (ticket: number) => Promise<NativeFileCursor>
    readonly batchSize: number
    /** In a range. */
    readonly inodes: number
    readonly signal: AbortSignal | undefined
  },
): AsyncGenerator<ScanBatch, void, void> {
  const { operation, path, first, open, batchSize, inodes, signal } = from
  const call = <T>(run: (ticket: number) => Promise<T>) => volume.call(operation, { path }, { signal }, run)
  const next = (cursor: NativeFileCursor, inRange?: readonly [number, number]) =>
    call((ticket) => {
      if (inRange !== undefined) native.scanRange(cursor, ...inRange)
      return native.filesNext(ticket, volume.handle, cursor, batchSize)
    })
  const cursors = new Cursors(volume)
  const idle = [cursors.add(Promise.resolve(first))]
  const under: Range[] = []
  let position = FIRST_INODE
  // A small tree is read before a second cursor is worth its opening; a cold disk is known before much of it is read.
  let length = Math.ceil(inodes / 16)
  let atOnce = 1
  const begin = () => {
    while (under.length < atOnce && position < Number.POSITIVE_INFINITY) {
      const inRange = [position, position + length - 1] as const
      position += length
      length = Math.min(2 * length, inodes)
      const cursor = idle.shift() ?? cursors.add(call(open))
      const coming = cursor.then((cursor) => next(cursor, inRange))
      coming.catch(() => {}) // heard of when it is awaited
      under.push({ cursor, coming })
    }
  }
  try {
    begin()
    for (let range = under[0]; range !== undefined; range = under[0]) {
      const raw = await range.coming
      if (raw.done) {
        under.shift()
        idle.push(range.cursor)
        position = Math.max(position, raw.next!)
        atOnce = raw.waits < MANY_WAITS ? Math.min(AT_ONCE, atOnce + 1) : MOST
      } else {
        range.coming = range.cursor.then((cursor) => next(cursor))
        range.coming.catch(() => {})
      }
      begin()
      if (raw.ends.length === 0) continue
      // Several batches may be there already: the event loop gets its turn between them.
      await setImmediate()
      yield toBatch(raw)
    }
  } finally {
    await Promise.allSettled(under.map(({ coming }) => coming))
    await cursors.close()
  }
}
