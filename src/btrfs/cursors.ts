import { type NativeFileCursor, native } from '../native.js'
import type { Volume } from './volume.js'

/**
 * The cursors that one reader of a tree has open. They are closed when it ends, and by close() of the volume: whoever
 * reads may never come back, and a cursor keeps the volume from being unmounted.
 */
export class Cursors {
  readonly #volume: Volume
  readonly #opened: Promise<NativeFileCursor>[] = []
  readonly #onClose = () => void this.#volume.track(this.#release())

  constructor(volume: Volume) {
    this.#volume = volume
    volume.closing.addEventListener('abort', this.#onClose)
  }

  add(cursor: Promise<NativeFileCursor>): Promise<NativeFileCursor> {
    this.#opened.push(cursor)
    return cursor
  }

  /** Batches that are under way are read first. */
  async close(): Promise<void> {
    this.#volume.closing.removeEventListener('abort', this.#onClose)
    await this.#release()
  }

  async #release(): Promise<void> {
    for (const opened of await Promise.allSettled(this.#opened))
      if (opened.status === 'fulfilled') native.filesClose(opened.value)
  }
}
