import { setMaxListeners } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { BtrfsError, isNativeFailure, type NativeFailure } from '../errors.js'
import { native } from '../native.js'

/** What every quick call takes. */
export interface CallOptions {
  /** Rejects with the signal's reason; what the kernel already does may still complete. */
  readonly signal?: AbortSignal | undefined
  /** Rejects with ETIMEDOUT after so many milliseconds; the event loop and the lane stay free. Default: none. */
  readonly timeoutMs?: number | undefined
}

/** For the error message. */
export interface CallContext {
  readonly path?: string
  readonly dest?: string
  /** Where a code means something else to this call than to most. */
  readonly hints?: Readonly<Record<string, string>>
}

let lastTicket = 0

export function nextTicket(): number {
  lastTicket = lastTicket >= 0xffff_ffff ? 1 : lastTicket + 1
  return lastTicket
}

/**
 * The one way from a public call to the addon: ticket, timeout, abort, and the error with the caller's stack.
 * @throws BtrfsError; the signal's reason on abort
 */
export async function call<T>(
  operation: string,
  context: CallContext,
  options: CallOptions | undefined,
  start: (ticket: number) => Promise<T>,
): Promise<T> {
  const { signal, timeoutMs } = options ?? {}
  signal?.throwIfAborted()
  const ticket = signal === undefined && timeoutMs === undefined ? 0 : nextTicket()
  let timedOut = false
  let timer: NodeJS.Timeout | undefined
  const onAbort = signal && (() => native.cancel(ticket))
  try {
    const pending = start(ticket)
    if (signal && onAbort) {
      setMaxListeners(0, signal) // one signal for many calls is no leak
      signal.addEventListener('abort', onAbort, { once: true })
    }
    if (timeoutMs !== undefined) {
      timer = setTimeout(() => {
        timedOut = true
        native.cancel(ticket)
      }, timeoutMs)
    }
    return await pending
  } catch (error) {
    if (!isNativeFailure(error)) throw error
    if (error.code === 'ECANCELED' && timedOut) {
      const text = `no answer within ${timeoutMs} ms`
      throw new BtrfsError(operation, { code: 'ETIMEDOUT', errno: -110, text, progress: error.progress }, context)
    }
    if (error.code === 'ECANCELED' && error.progress === undefined) signal?.throwIfAborted()
    throw new BtrfsError(operation, error, context)
  } finally {
    clearTimeout(timer)
    if (onAbort) signal?.removeEventListener('abort', onAbort)
  }
}

/** A native call whose failure says in its hint what only another look at the volume can tell. */
export async function explained<T>(
  work: Promise<T>,
  explain: (failure: NativeFailure) => Promise<string | undefined>,
): Promise<T> {
  try {
    return await work
  } catch (error) {
    if (!isNativeFailure(error) || error.hint !== undefined) throw error
    const hint = await explain(error).catch(() => undefined)
    throw hint === undefined ? error : { ...error, hint }
  }
}

/**
 * Looks again and again, after pauses that grow, until done() says so. `timeoutMs` counts from `startMs`.
 * @throws what late() makes when the time is over; the signal's reason
 */
export async function poll(
  done: () => Promise<boolean>,
  options: CallOptions & { readonly startMs?: number; readonly late?: (timeoutMs: number) => Error } = {},
): Promise<void> {
  const { signal, timeoutMs = Number.POSITIVE_INFINITY, startMs = performance.now(), late } = options
  for (let pauseMs = 1; !(await done()); pauseMs = Math.min(1.5 * pauseMs, 250)) {
    if (late !== undefined && performance.now() - startMs >= timeoutMs) throw late(timeoutMs)
    await sleep(pauseMs, undefined, { signal }).catch(() => signal?.throwIfAborted())
  }
}
