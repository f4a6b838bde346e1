/**
 * Work that may take hours: an async iterable of progress, with a result beside it. Not a thenable: awaiting the
 * operation itself would lose its progress.
 */
export interface Operation<Progress, Result> extends AsyncIterable<Progress>, AsyncDisposable {
  /** Settles when the work really ended; rejects with ECANCELED (and `progress`) after cancel(). */
  readonly result: Promise<Result>
  /** The counters now; undefined before the kernel has any and after the end. */
  progress(): Promise<Progress | undefined>
  /** Asks it to stop and waits until it has. Idempotent; no error when it already ended. */
  cancel(): Promise<void>
  /** Where the kernel can pause it (balance): pauses, and `result` rejects with ECANCELED. */
  pause?(): Promise<void>
}
