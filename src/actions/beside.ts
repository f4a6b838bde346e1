import { within } from '../clock.js'

/**
 * Work on a volume whose disk may hang. What is stuck in the kernel cannot be taken back, so at most one is under way:
 * it is awaited for as long as the part that it is at may take, and then goes on beside those who waited.
 */
export class Beside {
  #work: Promise<void> | undefined
  #what = ''
  #sinceMs = 0
  #partSinceMs = 0
  #patienceMs = 0

  /** Only when none is under way. @param work does not reject; says with part() what it is at */
  start(work: () => Promise<void>): void {
    this.#sinceMs = performance.now()
    this.part('', 0)
    this.#work = work().finally(() => {
      this.#work = undefined
    })
  }

  /** @param patienceMs how long it may take before it counts as hanging; real time */
  part(what: string, patienceMs: number): void {
    this.#what = what
    this.#patienceMs = patienceMs
    this.#partSinceMs = performance.now()
  }

  get busy(): boolean {
    return this.#work !== undefined
  }

  get hangs(): boolean {
    return this.busy && this.#leftMs() <= 0
  }

  /** "for 12 s (sync)". */
  get since(): string {
    return `for ${Math.round((performance.now() - this.#sinceMs) / 1000)} s (${this.#what})`
  }

  /** Until it has ended, hangs, or the signal comes; then at once. */
  async wait(signal?: AbortSignal): Promise<void> {
    while (this.#work !== undefined && signal?.aborted !== true) {
      const leftMs = this.#leftMs()
      if (leftMs <= 0) return
      await within(this.#work, leftMs, signal)
    }
  }

  /** Until it has ended, whatever it is at, but no longer than that. */
  async end(ms: number): Promise<void> {
    if (this.#work !== undefined) await within(this.#work, ms)
  }

  #leftMs(): number {
    return this.#partSinceMs + this.#patienceMs - performance.now()
  }
}
