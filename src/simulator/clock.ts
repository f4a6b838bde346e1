import type { Clock } from '../clock.js'

/** A clock that moves only when it is told to. Calls of the simulated volume that wait move it themselves. */
export class SimulatedClock implements Clock {
  #elapsedMs = 0
  /** @param startMs milliseconds since 1970 at the beginning; default 2026-01-01 UTC */
  constructor(readonly startMs: number = Date.UTC(2026, 0, 1)) {}

  wallMs(): number {
    return this.startMs + this.#elapsedMs
  }
  elapsedMs(): number {
    return this.#elapsedMs
  }
  /** @param ms how far, ≥ 0 */
  advance(ms: number): void {
    if (!(ms >= 0 && Number.isFinite(ms))) throw new RangeError(`advance: expected milliseconds ≥ 0, got ${ms}`)
    this.#elapsedMs += ms
  }
  /** Does not wait: it moves the clock. */
  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve))
    if (!signal.aborted) this.advance(ms)
  }
}
