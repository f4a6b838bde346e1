import type { CallOptions } from '../btrfs/call.js'
import { BtrfsError } from '../errors.js'

/**
 * A question to the kernel that may never be answered. It is asked again when no answer comes in time, but while one
 * is out from an earlier turn, none is added: at most `attempts` are ever stuck.
 */
export class Question<T> {
  #out = 0
  #sinceMs = 0

  constructor(
    readonly operation: string,
    private readonly path: string,
    private readonly ask: (options: CallOptions) => Promise<T>,
    private readonly limits: {
      readonly timeoutMs: number
      readonly attempts: number
      readonly elapsedMs: () => number
      /** Gives up on what is out, so that the event loop may end. */
      readonly stop: AbortSignal
    },
  ) {}

  /** Questions that the kernel has not answered yet. */
  get outstanding(): number {
    return this.#out
  }

  /**
   * The first answer (or error) to any of the attempts; a late one counts while the turn lasts.
   * @throws BtrfsError ETIMEDOUT: none came, or an earlier turn's question is still out; what ask() throws
   */
  async answer(signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted()
    const { timeoutMs, attempts, elapsedMs, stop } = this.limits
    if (this.#out > 0) {
      const seconds = Math.round((elapsedMs() - this.#sinceMs) / 1000)
      throw this.#timeout(`the last query has been stuck in the kernel for ${seconds} s`)
    }
    this.#sinceMs = elapsedMs()
    return new Promise<T>((resolve, reject) => {
      let left = attempts
      let timer: NodeJS.Timeout | undefined
      const onAbort = () => finish(() => reject((stop.aborted ? stop : signal)?.reason))
      const finish = (settle: () => void) => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', onAbort)
        stop.removeEventListener('abort', onAbort)
        settle()
      }
      const attempt = () => {
        if (left-- === 0) {
          const tries = attempts === 1 ? '' : ` to any of ${attempts} queries`
          finish(() => reject(this.#timeout(`no answer${tries} within ${timeoutMs * attempts} ms`)))
          return
        }
        timer = setTimeout(attempt, timeoutMs)
        this.#out++
        // The caller's signal is left out: the kernel would go on unseen, and the next turn would add another.
        this.ask({ signal: stop })
          .finally(() => this.#out--)
          .then(
            (value) => finish(() => resolve(value)),
            (error: unknown) => finish(() => reject(error)),
          )
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      stop.addEventListener('abort', onAbort, { once: true })
      attempt()
    })
  }

  #timeout(text: string): BtrfsError {
    return new BtrfsError(this.operation, { code: 'ETIMEDOUT', errno: -110, text }, { path: this.path })
  }
}
