/** Time, passed in so that simulation and tests are repeatable. */
export interface Clock {
  /** Milliseconds since 1970. May jump, also backwards. */
  wallMs(): number
  /** Milliseconds since some moment; never goes back. */
  elapsedMs(): number
  /** Resolves when so many milliseconds have passed, or on abort. Default: real ones. */
  sleep?(ms: number, signal: AbortSignal): Promise<void>
}

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  elapsedMs: () => performance.now(),
}
