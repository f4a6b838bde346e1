import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import * as v from 'valibot'
import type { Filesystem } from '../btrfs/interface.js'
import { type Clock, systemClock } from '../clock.js'
import { BtrfsError, BtrmindError, check } from '../errors.js'
import { DAY_MS, HOUR_MS } from '../units.js'
import { History } from './history.js'
import { lockStateDirectory, type StateLock } from './lock.js'
import { Question } from './question.js'
import { fallbackReadingOf, type Reading, readingOf, type Sample, utilisationPercent } from './sample.js'
import { type State, stateOf } from './state.js'
import { SlidingSlope, TREND_POINTS } from './trend.js'

/** The part of a filesystem that is watched. */
export type Watched = Pick<Filesystem, 'path' | 'uuid' | 'measure' | 'statfs'>

export interface MonitorOptions {
  readonly filesystem: Watched
  /** Where the history is kept, for this monitor alone. Default: nowhere; the history is in memory only. */
  readonly stateDir?: string | undefined
  /** Between two samples of watch(). Default 60,000. */
  readonly intervalMs?: number | undefined
  /** For each query. Default 5,000; a sample takes at most (retries + 2) × timeoutMs. */
  readonly timeoutMs?: number | undefined
  /** Queries after the first, when no answer came in time. 0–3, default 1. */
  readonly retries?: number | undefined
  /** Default: the system's. */
  readonly clock?: Clock | undefined
  /**
   * Gets what went wrong and was survived: a damaged history, a full disk, a sample of watch() that failed.
   * Default: process.emitWarning.
   */
  readonly onWarning?: ((warning: Error) => void) | undefined
}

const milliseconds = v.pipe(v.number(), v.minValue(1), v.maxValue(2 ** 31 - 1))
const withFunctions = <T>(what: string, ...names: string[]) =>
  v.custom<T>(
    (value) =>
      typeof value === 'object' &&
      value !== null &&
      names.every((name) => typeof (value as Record<string, unknown>)[name] === 'function'),
    what,
  )
const monitorOptions = v.strictObject({
  filesystem: withFunctions<Watched>('a Filesystem', 'measure', 'statfs'),
  stateDir: v.optional(v.pipe(v.string(), v.nonEmpty('a path'))),
  intervalMs: v.optional(milliseconds, 60_000),
  timeoutMs: v.optional(milliseconds, 5_000),
  retries: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(3)), 1),
  clock: v.optional(withFunctions<Clock>('a Clock', 'wallMs', 'elapsedMs'), systemClock),
  onWarning: v.optional(v.custom<(warning: Error) => void>((value) => typeof value === 'function', 'a function')),
})

/**
 * Watches one volume: samples, history, trends, state. docs/monitor.md has the ladder of fallbacks and the formulas.
 * @throws BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT
 * @example
 * await using fs = await openFilesystem('/mnt/pool')
 * await using monitor = new Monitor({ filesystem: fs, stateDir: '/var/lib/btrmind' })
 * for await (const sample of monitor.watch()) console.log(sample.usedPercent, sample.slopePercentPerHour)
 */
export class Monitor {
  readonly history: History
  readonly #options: v.InferOutput<typeof monitorOptions>
  readonly #stop = new AbortController()
  readonly #measure
  readonly #statfs
  readonly #slope = new SlidingSlope(DAY_MS)
  readonly #freeDelta = new SlidingSlope(HOUR_MS)
  #opened: Promise<void> | undefined
  #lock: StateLock | undefined
  #turn: Promise<unknown> = Promise.resolve()
  #closing: Promise<void> | undefined

  constructor(options: MonitorOptions) {
    this.#options = check('Monitor', monitorOptions, options)
    const { filesystem, timeoutMs, retries, clock } = this.#options
    const limits = { timeoutMs, elapsedMs: () => clock.elapsedMs(), stop: this.#stop.signal }
    this.#measure = new Question('measure', filesystem.path, (call) => filesystem.measure(call), {
      ...limits,
      attempts: 1 + retries,
    })
    this.#statfs = new Question('statfs', filesystem.path, (call) => filesystem.statfs(call), {
      ...limits,
      attempts: 1,
    })
    this.history = new History({
      clock,
      onReading: (reading) => this.#follow(reading),
      onWarning: (warning) => this.#warn(warning),
    })
  }

  /**
   * Takes the state directory and reads the history; sample() does it if nobody did. Idempotent. Call it before
   * anything else writes to the directory: it holds the lock until close().
   * @throws BtrmindError BTRMIND_ERR_LOCKED, BTRMIND_ERR_STATE, BTRMIND_ERR_WRONG_VOLUME
   */
  async open(): Promise<void> {
    if (this.#stop.signal.aborted) throw this.#closed()
    this.#opened ??= this.#open().catch((error: unknown) => {
      this.#opened = undefined
      throw error
    })
    return this.#opened
  }

  async #open(): Promise<void> {
    const { stateDir, filesystem } = this.#options
    if (stateDir === undefined) return
    const lock = await lockStateDirectory(resolve(stateDir), { uuid: filesystem.uuid })
    try {
      await this.history.open(lock.path)
    } catch (error) {
      lock.release()
      throw error
    }
    this.#lock = lock
  }

  /**
   * One sample, in one query. Without an answer in time it asks again, then falls back to statfs and says so in the
   * sample; while an earlier query is stuck, it goes to statfs at once. It never waits for the state directory's disk.
   * Calls at the same time take turns. No privilege needed, but see `unavailable` · quick.
   * @throws BtrmindError BTRMIND_ERR_SAMPLE (statfs failed too; `cause` has both errors), and those of open();
   * BtrfsError EBADF (closed); the signal's reason on abort
   */
  sample(options: { readonly signal?: AbortSignal | undefined } = {}): Promise<Sample> {
    const { signal } = check('sample', v.strictObject({ signal: v.optional(v.instance(AbortSignal)) }), options)
    const turn = this.#turn.then(() => this.#sample(signal))
    this.#turn = turn.catch(() => undefined)
    return turn
  }

  async #sample(signal: AbortSignal | undefined): Promise<Sample> {
    signal?.throwIfAborted()
    await this.open()
    const reading = await this.#read(signal)
    this.#follow(reading)
    this.history.append(reading)
    const trends = {
      freeDeltaMBPerHour: this.#freeDelta.slope,
      slopePercentPerHour: this.#slope.slope,
    }
    const missing = (['freeDeltaMBPerHour', 'slopePercentPerHour'] as const)
      .filter((field) => trends[field] === undefined)
      .map((field) => ({ field, reason: `needs ${TREND_POINTS} samples in its window` }))
    return { ...reading, ...trends, unavailable: [...reading.unavailable, ...missing] }
  }

  async #read(signal: AbortSignal | undefined): Promise<Reading> {
    const { clock, filesystem } = this.#options
    const startMs = clock.elapsedMs()
    const timing = () => [clock.wallMs(), Math.round((clock.elapsedMs() - startMs) * 1000) / 1000] as const
    let first: BtrfsError
    try {
      return readingOf(await this.#measure.answer(signal), ...timing())
    } catch (error) {
      if (this.#stop.signal.aborted) throw this.#closed()
      if (!(error instanceof BtrfsError) || error.code === 'EBADF') throw error
      first = error
    }
    try {
      return fallbackReadingOf(await this.#statfs.answer(signal), first.message, ...timing())
    } catch (second) {
      if (this.#stop.signal.aborted) throw this.#closed()
      if (!(second instanceof BtrfsError) || second.code === 'EBADF') throw second
      throw new BtrmindError('BTRMIND_ERR_SAMPLE', `no reading of '${filesystem.path}': ${second.message}`, {
        cause: new AggregateError([first, second]),
      })
    }
  }

  /** Utilisation is defined differently by statfs, so that only moves the window on; free bytes are the same. */
  #follow(reading: Reading): void {
    if (reading.source === 'kernel') this.#slope.push(reading.timeMs, utilisationPercent(reading))
    else this.#slope.advance(reading.timeMs)
    this.#freeDelta.push(reading.timeMs, reading.freeBytes / 1e6)
  }

  /** The four features of a sample. */
  state(sample: Sample): State {
    return stateOf(sample)
  }

  /** Queries that the kernel has not answered yet; at most retries + 2. */
  get outstandingQueries(): number {
    return this.#measure.outstanding + this.#statfs.outstanding
  }

  /**
   * A sample at once and then every `intervalMs`, counted from the start, so that it does not drift; what comes too
   * late is left out. A sample that fails is handed to `onWarning`, and the next one is taken in its time.
   * Ends on abort and on close().
   */
  async *watch(options: { readonly signal?: AbortSignal | undefined } = {}): AsyncGenerator<Sample, void> {
    const { intervalMs, clock } = this.#options
    const signal = AbortSignal.any([this.#stop.signal, ...(options.signal === undefined ? [] : [options.signal])])
    await this.open()
    for (let dueMs = clock.elapsedMs(); ; ) {
      try {
        yield await this.sample({ signal })
      } catch (error) {
        if (signal.aborted) return
        if (!(error instanceof BtrmindError && error.code === 'BTRMIND_ERR_SAMPLE')) throw error
        this.#warn(error)
      }
      dueMs += intervalMs * Math.max(1, Math.ceil((clock.elapsedMs() - dueMs) / intervalMs))
      const restMs = dueMs - clock.elapsedMs()
      await (clock.sleep?.(restMs, signal) ?? sleep(restMs, undefined, { signal })).catch(() => undefined)
      if (signal.aborted) return
    }
  }

  #warn(warning: Error): void {
    if (this.#options.onWarning === undefined) process.emitWarning(warning)
    else this.#options.onWarning(warning)
  }

  #closed(): BtrfsError {
    const failure = { code: 'EBADF', errno: -9, text: 'the monitor was closed' }
    return new BtrfsError('sample', failure, { path: this.#options.filesystem.path })
  }

  /**
   * Writes the history out (within `timeoutMs`, else `onWarning` hears of it), gives the state directory back, leaves
   * stuck queries behind. Idempotent.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#stop.abort()
    await this.#opened?.catch(() => undefined)
    await this.#turn
    await this.history.close(this.#options.timeoutMs)
    this.#lock?.release()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
