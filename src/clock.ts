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

/** The longest that a timer takes. */
export const MAX_TIMER_MS = 2 ** 31 - 1

/**
 * Waits for work that may never end: undefined when it takes longer (real time), or the signal comes first; it then goes
 * on, and what comes of it is lost unless somebody else looks.
 */
export async function within<T>(
  work: Promise<T>,
  ms: number,
  signal?: AbortSignal,
): Promise<{ readonly value: T } | undefined> {
  if (signal?.aborted) ms = 0
  let enough = () => {}
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => {
    enough = () => resolve(undefined)
    timer = setTimeout(enough, Math.min(ms, MAX_TIMER_MS))
  })
  signal?.addEventListener('abort', enough, { once: true })
  try {
    return await Promise.race([work.then((value) => ({ value })), late])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', enough)
  }
}
