import { join } from 'node:path'
import type { Clock } from '../clock.js'
import { BtrmindError } from '../errors.js'
import { type JsonLines, openJsonLines, readJsonLines } from '../jsonl.js'
import type { Reading } from './sample.js'

/** Kept in memory: two weeks at one a minute. */
const CAPACITY = 20_160
/** Each of two files; a line is about 0.5 KB, so one file alone holds more than 7 days at one a minute. */
const MAX_BYTES = 8 * 1024 ** 2
/** At most so much is lost in a power cut. What was written at all survives the process's death. */
const SYNC_MS = 30_000
/** Lines that wait for a disk that is full or stuck: a day at one a minute. Beyond, the oldest stay in memory only. */
const MAX_UNSAVED = 1_440

const COLUMNS = [
  'timeMs',
  'usedPercent',
  'liveUsedPercent',
  'sizeBytes',
  'freeBytes',
  'unallocatedBytes',
  'metadataOverheadRatio',
  'metadataSlackBytes',
  'fragmentationRatio',
] as const
export type HistoryColumn = (typeof COLUMNS)[number]

export interface HistoryOptions {
  readonly clock: Clock
  /** Gets each reading that was on disk, oldest first. */
  readonly onReading: (reading: Reading) => void
  /** Gets what went wrong and was survived: a damaged file, a full disk. */
  readonly onWarning: (warning: BtrmindError) => void
}

/**
 * The readings so far: the last 20,160 as columns of numbers in memory, all of them as JSON lines with checksums in
 * `<stateDir>/history.jsonl` and `.1` (docs/monitor.md).
 */
export class History {
  readonly #columns = new Map<HistoryColumn, Float64Array>(COLUMNS.map((name) => [name, new Float64Array(64)]))
  #count = 0
  #file: JsonLines<Reading> | undefined
  #unsaved: Reading[] = []
  #dropped = 0
  #writing: Promise<void> | undefined
  #writeError: BtrmindError | undefined
  #syncedMs = Number.NEGATIVE_INFINITY
  readonly #options: HistoryOptions

  constructor(options: HistoryOptions) {
    this.#options = options
  }

  /**
   * Reads what is on disk and appends to it from now on. Who calls it holds the directory's lock.
   * @throws BtrmindError BTRMIND_ERR_STATE
   */
  async open(stateDir: string): Promise<void> {
    const { file, problems } = await openJsonLines(join(stateDir, 'history.jsonl'), {
      isRecord: isReading,
      maxBytes: MAX_BYTES,
      onRecord: (record) => {
        const reading = { ...record, unavailable: [] }
        this.#remember(reading)
        this.#options.onReading(reading)
      },
    })
    this.#file = file
    for (const problem of problems) this.#options.onWarning(new BtrmindError('BTRMIND_ERR_STATE_CORRUPT', problem))
  }

  /** Readings in memory. */
  get length(): number {
    return Math.min(this.#count, CAPACITY)
  }

  /** Readings that are not on disk (yet). 0 without a state directory. */
  get unsaved(): number {
    return this.#unsaved.length + this.#dropped
  }

  /** Why the last write failed; undefined when it did not. It is tried again with each reading. */
  get writeError(): BtrmindError | undefined {
    return this.#writeError
  }

  /**
   * One field of all readings in memory, oldest first, as a copy; NaN where it was not known. `timeMs` steps back
   * where the clock did.
   * @returns Float64Array, [length]
   */
  column(name: HistoryColumn): Float64Array {
    const ring = this.#columns.get(name)!
    const start = this.#count - this.length
    return Float64Array.from({ length: this.length }, (_, i) => ring[(start + i) % ring.length]!)
  }

  /** Never waits for the disk, and never throws on its account. */
  append(reading: Reading): void {
    this.#remember(reading)
    if (this.#file === undefined) return
    this.#unsaved.push(reading)
    if (this.#unsaved.length > MAX_UNSAVED) {
      // Not the first: it may be under way.
      this.#unsaved.splice(1, 1)
      this.#dropped++
    }
    this.#writing ??= this.#write(this.#file).finally(() => {
      this.#writing = undefined
    })
  }

  #remember(reading: Reading): void {
    for (const [name, ring] of this.#columns) {
      const fits = this.#count < ring.length || ring.length === CAPACITY
      const column = fits ? ring : new Float64Array(Math.min(CAPACITY, ring.length * 2))
      if (!fits) {
        column.set(ring)
        this.#columns.set(name, column)
      }
      column[this.#count % column.length] = reading[name] ?? Number.NaN
    }
    this.#count++
  }

  /** One line after the other: while the disk is stuck, a single call waits for it. */
  async #write(file: JsonLines<Reading>): Promise<void> {
    for (let next = this.#unsaved[0]; next !== undefined; next = this.#unsaved[0]) {
      const { unavailable: _, ...record } = next
      const nowMs = this.#options.clock.elapsedMs()
      const sync = nowMs - this.#syncedMs >= SYNC_MS
      try {
        await file.append(record as Reading, { sync })
      } catch (error) {
        const first = this.#writeError === undefined
        this.#writeError = error as BtrmindError
        if (first) this.#options.onWarning(this.#writeError)
        return
      }
      if (sync) this.#syncedMs = nowMs
      this.#writeError = undefined
      this.#unsaved.shift()
    }
  }

  /** Waits until all is on disk, but no longer than that. */
  async close(timeoutMs: number): Promise<void> {
    const file = this.#file
    if (file === undefined) return
    this.#file = undefined
    let timer: NodeJS.Timeout | undefined
    const patience = new Promise<'late'>((resolve) => {
      timer = setTimeout(resolve, timeoutMs, 'late')
    })
    const writeOut = async () => {
      await this.#writing
      await this.#write(file)
      await file.close()
    }
    const ended = await Promise.race([writeOut(), patience])
    clearTimeout(timer)
    if (ended !== 'late' && this.unsaved === 0) return
    const why = ended === 'late' ? `the disk does not answer within ${timeoutMs} ms` : this.#writeError?.message
    this.#options.onWarning(
      new BtrmindError('BTRMIND_ERR_STATE', `${this.unsaved} readings were not saved to '${file.path}': ${why}`, {
        cause: this.#writeError,
      }),
    )
  }
}

/**
 * The readings in a state directory, oldest first, also while a monitor writes there. Nothing is changed.
 * @returns how many lines were damaged or torn, and passed by
 * @throws BtrmindError BTRMIND_ERR_STATE
 * @example
 * await readHistory('/var/lib/btrmind', (reading) => console.log(reading.timeMs, reading.usedPercent))
 */
export async function readHistory(
  stateDir: string,
  onReading: (reading: Reading) => void,
): Promise<{ readonly skippedLines: number }> {
  return readJsonLines(join(stateDir, 'history.jsonl'), {
    isRecord: isReading,
    onRecord: (record) => onReading({ ...record, unavailable: [] }),
  })
}

function isReading(value: unknown): value is Reading {
  if (typeof value !== 'object' || value === null) return false
  const { timeMs, source, usedPercent, sizeBytes, freeBytes, durationMs } = value as Record<string, unknown>
  return (
    (source === 'kernel' || source === 'statfs') &&
    [timeMs, usedPercent, sizeBytes, freeBytes, durationMs].every(Number.isFinite)
  )
}
