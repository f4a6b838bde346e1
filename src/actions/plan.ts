/** What passes between the guard, the executor and the loop. Predicted and freed bytes are raw: copies counted. */
import type { BalanceFilters, FileRef } from '../btrfs/types.js'
import type { Refusal } from './guard.js'
import type { ActionName } from './table.js'

/** Files below one root, in the order in which they are taken. */
export interface FileGroup {
  readonly root: string
  readonly files: readonly FileRef[]
}

/** A snapshot as it was seen; deleted only if it still is the same. */
export interface SnapshotRef {
  /** Absolute. */
  readonly path: string
  readonly id: number
  readonly uuid: string | undefined
  readonly createdMs: number
}

export type Work =
  | { readonly kind: 'none' }
  | { readonly kind: 'files'; readonly groups: readonly FileGroup[] }
  | { readonly kind: 'balance'; readonly metadata: BalanceFilters }
  | { readonly kind: 'snapshots'; readonly snapshots: readonly SnapshotRef[] }

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
  readonly work: Work
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
   * undefined in a dry run, after a refusal, and when they could not be read.
   */
  readonly freedBytes: number | undefined
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
  /** What went wrong beside it: a journal on a full disk. */
  readonly warnings: readonly string[]
  /** The clock's elapsedMs() just before the first call that changes the volume; undefined when there was none. */
  readonly firstActMs: number | undefined
  readonly durationMs: number
  readonly stagesMs: { readonly journal: number; readonly act: number; readonly settle: number }
}
