/** What passes between the guard, the executor and the loop. Predicted and freed bytes are raw: copies counted. */
import type { Refusal } from './guard.js'
import type { ActionName } from './table.js'

/** A plan under way, as the action sees it. Internal. */
export interface Run {
  readonly signal: AbortSignal | undefined
  /** The step’s time is over, or it was aborted: begin nothing more. */
  readonly expired: boolean
  readonly leftMs: number
  /** Journals what is about to be touched; where it cannot be undone it is on disk before this resolves. */
  intend(paths: readonly string[]): Promise<void>
  /**
   * To be called just before each call that changes the volume.
   * @throws BtrmindError BTRMIND_ERR_LATE (held up past its time: it must not begin), the signal's reason
   */
  acting(): void
  done(items?: number): void
  failed(path: string, code: string): void
  /** A sentence more for the explanation. */
  note(sentence: string): void
}

/** What the guard allows, worked out to the last file. Only `Executor.plan` makes one. */
export interface Plan {
  readonly allowed: true
  readonly action: ActionName
  readonly emergency: boolean
  readonly items: number
  /** Undefined when nobody can know; the explanation says so. */
  readonly predictedBytes: number | undefined
  /** One sentence for people. */
  readonly explanation: string
  /** The first of what it touches, absolute. */
  readonly touches: readonly string[]
  /** Internal: `Executor.execute` calls it. */
  perform(run: Run): Promise<void>
}

export interface FailedItem {
  readonly path: string
  /** errno name, 'CHANGED', 'SHARED' … */
  readonly code: string
}

/** What came of a plan. What was done before an error is counted. */
export interface Outcome {
  readonly action: ActionName
  readonly dryRun: boolean
  readonly emergency: boolean
  readonly predictedBytes: number | undefined
  /**
   * How far the live used bytes fell, measured when they are really free; negative when writers took more meanwhile;
   * undefined in a dry run, after a refusal, and when they could not be read before or after.
   */
  readonly freedBytes: number | undefined
  /** Before and after, 0–100, by one definition (docs/monitor.md); undefined with `freedBytes`. */
  readonly utilisation?: { readonly beforePercent: number; readonly afterPercent: number } | undefined
  readonly items: {
    readonly planned: number
    /** Really done. */
    readonly done: number
    readonly failed: number
    /** The first of those that failed. */
    readonly failures: readonly FailedItem[]
  }
  readonly explanation: string
  readonly touches: readonly string[]
  readonly refusal?: Refusal | undefined
  /** What ended it early. */
  readonly error?: Error | undefined
  /** What went wrong beside it: an outcome that the journal could not take, an emergency off the record. */
  readonly warnings: readonly string[]
  /** The clock's elapsedMs() just before the first call that changes the volume; undefined when there was none. */
  readonly firstActMs: number | undefined
  readonly durationMs: number
  readonly stagesMs: { readonly journal: number; readonly act: number; readonly settle: number }
}
