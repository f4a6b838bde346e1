import { BtrfsError } from '../errors.js'

export interface ResumeOptions {
  /** Cancels, as `cancel()` does. */
  readonly signal?: AbortSignal | undefined
  /** Between two readings of the progress when iterated. Default 1,000. */
  readonly intervalMs?: number | undefined
}

/**
 * Work that may take hours: an async iterable of progress, with a result beside it. Not a thenable: awaiting the
 * operation itself would lose its progress. Breaking off the iteration stops the watching only; `await using` stops
 * the work at the end of its scope.
 */
export interface Operation<Progress, Result> extends AsyncIterable<Progress>, AsyncDisposable {
  /**
   * Settles when the work really ended; rejects with ECANCELED (and `progress`) after cancel(), and where nothing had
   * begun with the reason of the caller's signal: always where that was aborted already. A rejection that nobody looks at is not reported as unhandled. Whoever
   * iterates to the end gets it thrown there too.
   */
  readonly result: Promise<Result>
  /** The counters now; undefined before the kernel has any and after the end. */
  progress(): Promise<Progress | undefined>
  /** Asks it to stop and waits until it has. Idempotent; no error when it already ended. */
  cancel(): Promise<void>
  /** Where the kernel can pause it (balance): pauses, and `result` rejects with ECANCELED. */
  pause?(): Promise<void>
}

export interface Work<Progress, Result> {
  /** The public call, and what of: for the error of one that was stopped before it had begun. */
  readonly operation: string
  readonly path: string
  /** Begins it; `signal` asks it to stop, and it settles only when it has. */
  start(signal: AbortSignal): Promise<Result>
  progress(): Promise<Progress | undefined>
  /** The progress at the end, which whoever iterates gets last. */
  last(result: Result): Progress | undefined
  pause?(): Promise<void>
  /** The caller's; cancels it. */
  readonly signal?: AbortSignal | undefined
  /** Between two readings of the progress. */
  readonly intervalMs: number
}

/** What the result of stopped work rejects with. Internal. */
export function cancelled(operation: string, path: string, progress: unknown): BtrfsError {
  return new BtrfsError(operation, { code: 'ECANCELED', errno: -125, text: 'cancelled', progress }, { path })
}

/** Until the kernel has counters, which takes it a moment. */
const FIRST_INTERVAL_MS = 20

/** An operation of work that a signal can stop. Internal. */
export class LongOperation<Progress, Result> implements Operation<Progress, Result> {
  readonly result: Promise<Result>
  readonly pause?: () => Promise<void>
  readonly #work: Work<Progress, Result>
  readonly #stop = new AbortController()
  readonly #ended: Promise<void>
  /** Those that iterate and wait; undefined after the end. */
  #sleepers: Set<() => void> | undefined = new Set()

  constructor(work: Work<Progress, Result>) {
    this.#work = work
    const { signal, pause } = work
    const stop = () => this.#stop.abort(signal?.reason)
    if (signal?.aborted) stop()
    signal?.addEventListener('abort', stop, { once: true })
    const started = signal?.aborted ? Promise.reject(signal.reason) : work.start(this.#stop.signal)
    this.result = started.catch((error: unknown) => {
      // Stopped before it had begun: the caller's signal has a reason of its own, cancel() has none.
      const stopped = this.#stop.signal.aborted && error === this.#stop.signal.reason
      throw stopped && !signal?.aborted ? cancelled(work.operation, work.path, undefined) : error
    })
    const end = () => {
      signal?.removeEventListener('abort', stop)
      for (const wake of this.#sleepers ?? []) wake()
      this.#sleepers = undefined
    }
    this.#ended = this.result.then(end, end)
    if (pause !== undefined) {
      this.pause = async () => {
        if (this.#sleepers !== undefined) await pause.call(work)
        await this.#ended
      }
    }
  }

  async progress(): Promise<Progress | undefined> {
    if (this.#sleepers === undefined) return undefined
    const progress = await this.#work.progress()
    return this.#sleepers === undefined ? undefined : progress
  }

  async cancel(): Promise<void> {
    this.#stop.abort()
    await this.#ended
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Progress, void, void> {
    while (this.#sleepers !== undefined) {
      const progress = await this.progress()
      if (progress !== undefined) yield progress
      await this.#sleep(progress === undefined ? FIRST_INTERVAL_MS : this.#work.intervalMs)
    }
    const last = this.#work.last(await this.result)
    if (last !== undefined) yield last
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.cancel()
  }

  /** Until then, or the end. */
  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const sleepers = this.#sleepers
      if (sleepers === undefined) return resolve()
      const wake = () => {
        clearTimeout(timer)
        sleepers.delete(wake)
        resolve()
      }
      const timer = setTimeout(wake, ms)
      sleepers.add(wake)
    })
  }
}
