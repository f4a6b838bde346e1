import type { Clock } from '../clock.js'
import { BtrmindError } from '../errors.js'
import type { Concluded, PlanRecord } from './journal.js'
import type { FailedItem, Plan, Run } from './plan.js'

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

  constructor(
    readonly plan: Plan,
    readonly record: PlanRecord,
    readonly clock: Clock,
    readonly endMs: number,
    readonly signal: AbortSignal | undefined,
  ) {}

  get leftMs(): number {
    return Math.max(0, this.endMs - this.clock.elapsedMs())
  }
  get expired(): boolean {
    return this.signal?.aborted === true || this.leftMs <= 0
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

  async conclude(result: Pick<Concluded, 'freedBytes' | 'fruitless' | 'error'>): Promise<void> {
    const { predictedBytes } = this.plan
    const outcome = { done: this.doneItems, failed: this.failedItems, predictedBytes, ...result }
    try {
      await this.record.conclude(outcome)
    } catch (cause) {
      this.#warn(cause)
    }
    for (const error of this.record.late) this.#warn(error)
  }

  #warn(error: unknown): void {
    const sentence = `the journal could not be written: ${error instanceof BtrmindError ? error.message : String(error)}`
    if (!this.warnings.includes(sentence)) this.warnings.push(sentence)
  }
}
