import { type Clock, MAX_TIMER_MS } from '../clock.js'
import { BtrmindError } from '../errors.js'
import type { PlanRecord } from './journal.js'
import type { FailedItem, Outcome, Plan, Run } from './plan.js'

const SHOWN_FAILURES = 20

/** One plan under way: its counts, its clock, its lines in the journal. */
export class Execution implements Run {
  readonly failures: FailedItem[] = []
  readonly notes: string[] = []
  readonly warnings: string[] = []
  doneItems = 0
  failedItems = 0
  journalMs = 0
  firstActMs: number | undefined
  freedBytes: number | undefined
  utilisation: Outcome['utilisation']
  error: Error | undefined
  /** When the plan was carried out, and when its space was free; elapsedMs(). */
  actedMs: number | undefined
  settledMs: number | undefined
  readonly #startMs: number
  #abandoned = false

  constructor(
    readonly plan: Plan,
    readonly record: PlanRecord,
    readonly clock: Clock,
    readonly stepMs: number,
    readonly signal: AbortSignal | undefined,
  ) {
    this.#startMs = clock.elapsedMs()
  }

  get leftMs(): number {
    return Math.min(MAX_TIMER_MS, Math.max(0, this.#startMs + this.stepMs - this.clock.elapsedMs()))
  }
  get expired(): boolean {
    return this.#abandoned || this.signal?.aborted === true || this.leftMs <= 0
  }

  /** Its outcome was given already: whatever it is stuck in, nothing more is begun once that comes back. */
  abandon(): void {
    this.#abandoned = true
  }

  async intend(paths: readonly string[]): Promise<void> {
    const { action, emergency } = this.plan
    const startMs = this.clock.elapsedMs()
    try {
      const durable = action === 'temp' || action === 'snapshots'
      await this.record.intend(paths, durable)
    } catch (error) {
      // What is not on record is not done. But on a volume that is full the journal's disk is probably that very one.
      if (!(emergency && action === 'temp')) throw error
      this.#warn(error)
    }
    this.journalMs += this.clock.elapsedMs() - startMs
  }

  acting(): void {
    this.signal?.throwIfAborted()
    if (this.expired) {
      throw new BtrmindError('BTRMIND_ERR_LATE', `'${this.plan.action}' was held up until its time was over`, {
        hint: 'what had not begun by then was not begun',
      })
    }
    this.firstActMs ??= this.clock.elapsedMs()
  }
  done(items = 1): void {
    this.doneItems += items
  }
  failed(path: string, code: string): void {
    this.failedItems++
    if (this.failures.length < SHOWN_FAILURES) this.failures.push({ path, code })
  }
  note(sentence: string): void {
    this.notes.push(sentence)
  }

  /** It tried, and would achieve nothing a minute later. */
  get fruitless(): boolean {
    return this.doneItems === 0 && (this.failedItems > 0 || this.error !== undefined) && this.signal?.aborted !== true
  }

  async conclude(): Promise<void> {
    const { plan, doneItems: done, failedItems: failed, freedBytes, fruitless, error } = this
    const { predictedBytes } = plan
    const outcome = { done, failed, predictedBytes, freedBytes, fruitless, error: error?.message }
    try {
      await this.record.conclude(outcome)
    } catch (cause) {
      this.#warn(cause)
    }
    for (const error of this.record.late) this.#warn(error)
  }

  /** As things stand. @param error what ended it early, where it is not known to itself */
  outcome(error = this.error): Outcome {
    const { action, emergency, predictedBytes, explanation, touches, items } = this.plan
    const { doneItems: done, failedItems: failed, failures, freedBytes, utilisation, warnings, firstActMs } = this
    const endMs = this.clock.elapsedMs()
    const actedMs = this.actedMs ?? endMs
    const settledMs = this.settledMs ?? endMs
    return {
      ...{ action, emergency, predictedBytes, touches, dryRun: false },
      explanation: [explanation, ...this.notes].join('; '),
      ...{ freedBytes, utilisation, error, firstActMs },
      items: { planned: Math.max(items, done + failed), done, failed, failures: [...failures] },
      warnings: [...warnings],
      durationMs: endMs - this.#startMs,
      stagesMs: {
        journal: this.journalMs + (endMs - settledMs),
        act: actedMs - this.#startMs - this.journalMs,
        settle: settledMs - actedMs,
      },
    }
  }

  #warn(error: unknown): void {
    const sentence = `the journal could not be written: ${error instanceof BtrmindError ? error.message : String(error)}`
    if (!this.warnings.includes(sentence)) this.warnings.push(sentence)
  }
}
