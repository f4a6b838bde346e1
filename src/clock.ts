/** Time, passed in so that simulation and tests are repeatable. */
export interface Clock {
  /** Milliseconds since 1970. May jump, also backwards. */
  wallMs(): number
  /** Milliseconds since some moment; never goes back. */
  elapsedMs(): number
}

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  elapsedMs: () => performance.now(),
}
