import type { Skipped } from '../btrfs/batch.js'
import { reason } from '../errors.js'
import { type Io, printable, warn } from './output.js'

/** Adds up what a walk could not read, and says it at the end: what was printed is not all. */
export class Unread {
  readonly #seen = new Map<string, { count: number; first: string }>()

  readonly note = (skipped: readonly Skipped[]): void => {
    for (const { reason, count, example } of skipped) {
      // A scan leaves these out anyway.
      if (reason === 'SUBVOLUME' || reason === 'MOUNT') continue
      const { count: before, first } = this.#seen.get(reason) ?? { count: 0, first: Buffer.from(example).toString() }
      this.#seen.set(reason, { count: before + count, first })
    }
  }

  tell(io: Io): void {
    for (const [code, { count, first }] of this.#seen) {
      const what = count === 1 ? 'directory or file was' : 'directories or files were'
      const why = code === 'CHANGED' ? 'moved away meanwhile' : reason(code)
      warn(io, `not all: ${count} ${what} not read, the first '${printable(first) || '.'}' (${why})`)
    }
  }
}
