/**
 * Looks for candidate files between steps, so that a step finds them ready. Each look is bounded and goes on where the
 * one before stopped; a pass is over when it has seen all roots.
 */

import { type FileBatch, type FileRef, fileRef } from '../btrfs/batch.js'
import type { Directory } from '../btrfs/directory.js'
import type { Filesystem } from '../btrfs/interface.js'
import type { Clock } from '../clock.js'
import { DAY_MS } from '../units.js'

export interface Candidate {
  readonly root: Directory
  readonly file: FileRef
  /** Youngest of atime, mtime, ctime. */
  readonly touchedMs: number
  readonly diskBytes: number
  readonly links: number
  /** What the action found out about it: what it means is the action's. */
  finding: number | undefined
}

export interface ScanOptions {
  readonly filesystem: Filesystem
  readonly clock: Clock
  readonly roots: readonly Directory[]
  /** So many are kept, those of the lowest rank. */
  readonly capacity: number
  /** Bounds of one look. */
  readonly maxFiles: number
  readonly maxMs: number
  /** Findings of one pass hold in the next while the file is the same. */
  readonly keepFindings: boolean
  /** Lower is taken first; undefined: no candidate. */
  rank(batch: FileBatch, index: number): number | undefined
}

/** After a pass it rests so many times as long as the pass took: looking costs at most a tenth of a core. */
const REST_FACTOR = 9
/** Rejections are forgotten when so many are kept of one root, and once a day: a snapshot may be gone by then. */
const REJECTED_KEPT = 100_000

export function touchedMs(batch: FileBatch, index: number): number {
  return Math.max(batch.atimeMs[index]!, batch.mtimeMs[index]!, batch.ctimeMs[index]!)
}

/** What a candidate was seen as: another file in its place has another key. Too slow for a step. */
function keyOf({ root, file }: Pick<Candidate, 'root' | 'file'>): string {
  return `${root.path}\0${file.inode}\0${file.sizeBytes}\0${file.mtimeMs}\0${file.ctimeMs}`
}

export class FileScan {
  readonly #options: ScanOptions
  #ready: Candidate[] = []
  #best: Best
  #pass: AsyncGenerator<number, void> | undefined
  #looking: Promise<void> | undefined
  #taken = new Set<string>()
  /** By root: inode → ctime of what was rejected. */
  readonly #rejected = new Map<Directory, Map<number, number>>()
  #rejectedSinceMs = Number.NEGATIVE_INFINITY
  #passMs = 0
  #restUntilMs = Number.NEGATIVE_INFINITY
  readonly #closing = new AbortController()
  /** Complete passes so far. */
  passes = 0
  /** Files seen by the pass under way, or by the last one. */
  seen = 0
  /** What the pass could not look at: root or directory → why. */
  readonly problems = new Map<string, string>()

  constructor(options: ScanOptions) {
    this.#options = options
    this.#best = new Best(options.capacity)
  }

  /** Lowest rank first. */
  get candidates(): readonly Candidate[] {
    return this.#ready
  }

  /** What could not be looked at, one sentence each; a few of them. */
  get complaints(): string[] {
    return [...this.problems].slice(0, 5).map(([path, why]) => `'${path}': ${why}`)
  }

  /** Is it known whether there are any? */
  get looked(): boolean {
    return this.passes > 0 || this.#ready.length > 0
  }

  /**
   * Looks on within the bounds. Begins a new pass only when the last one has rested.
   * @param options.now begin without rest: an emergency
   */
  look(options: { readonly signal?: AbortSignal | undefined; readonly now?: boolean } = {}): Promise<void> {
    this.#looking ??= this.#look(options.signal, options.now ?? false).finally(() => {
      this.#looking = undefined
    })
    return this.#looking
  }

  async #look(signal: AbortSignal | undefined, now: boolean): Promise<void> {
    const { clock, maxFiles, maxMs } = this.#options
    const startMs = clock.elapsedMs()
    if (this.#pass === undefined) {
      if (!now && startMs < this.#restUntilMs) return
      this.#pass = this.#walkAll()
      this.#passMs = 0
      if (startMs - this.#rejectedSinceMs > DAY_MS) {
        this.#rejected.clear()
        this.#rejectedSinceMs = startMs
      }
    }
    let over = false
    for (let files = 0; files < maxFiles && clock.elapsedMs() - startMs < maxMs; ) {
      if (signal?.aborted) break
      const { done, value } = await this.#pass.next()
      over = done === true
      if (over) break
      files += value ?? 0
    }
    this.#passMs += clock.elapsedMs() - startMs
    if (over) {
      this.#show()
      this.#best = new Best(this.#options.capacity)
      this.#taken.clear()
      this.#pass = undefined
      this.passes++
      this.#restUntilMs = clock.elapsedMs() + this.#passMs * REST_FACTOR
    } else if (this.#ready.length === 0) this.#show() // A tree too large for one look.
  }

  #show(): void {
    const seen = this.#best.sorted().filter((candidate) => !this.#taken.has(keyOf(candidate)))
    if (this.#options.keepFindings) {
      const findings = new Map(this.#ready.map((candidate) => [keyOf(candidate), candidate.finding]))
      for (const candidate of seen) candidate.finding = findings.get(keyOf(candidate))
    }
    this.#ready = seen
  }

  async *#walkAll(): AsyncGenerator<number, void> {
    this.seen = 0
    this.problems.clear()
    for (const root of this.#options.roots) {
      try {
        for await (const batch of this.#options.filesystem.walk(root, { signal: this.#closing.signal })) {
          this.#sift(root, batch)
          yield batch.length
        }
      } catch (error) {
        if (this.#closing.signal.aborted) return
        this.problems.set(root.path, (error as Error).message)
      }
    }
  }

  #sift(root: Directory, batch: FileBatch): void {
    this.seen += batch.length
    const rejected = this.#rejected.get(root)
    for (let index = 0; index < batch.length; index++) {
      if (rejected?.get(batch.inode[index]!) === batch.ctimeMs[index]!) continue
      const rank = this.#options.rank(batch, index)
      if (rank !== undefined && this.#best.wants(rank)) this.#best.add(rank, candidate(root, batch, index))
    }
    for (const { reason, count, example } of batch.skipped) {
      if (reason === 'SUBVOLUME' || reason === 'MOUNT') continue // Left out on purpose.
      this.problems.set(
        `${root.path}/${Buffer.from(example).toString()}`,
        count > 1 ? `${reason} (${count} like it)` : reason,
      )
    }
  }

  /** Forgets what was dealt with, done or not: it comes back only as another pass sees it. */
  drop(dealtWith: readonly Candidate[]): void {
    const gone = new Set(dealtWith)
    this.#ready = this.#ready.filter((candidate) => !gone.has(candidate))
    // The pass under way may have seen it already.
    if (this.#pass !== undefined) for (const candidate of dealtWith) this.#taken.add(keyOf(candidate))
  }

  /** Forgets what is of no use until it changes, so that it takes no other's place. */
  reject(candidate: Candidate): void {
    let rejected = this.#rejected.get(candidate.root)
    if (rejected === undefined || rejected.size >= REJECTED_KEPT) {
      rejected = new Map()
      this.#rejected.set(candidate.root, rejected)
    }
    rejected.set(candidate.file.inode, candidate.file.ctimeMs)
    this.drop([candidate])
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#looking?.catch(() => undefined)
    await this.#pass?.return()
  }
}

function candidate(root: Directory, batch: FileBatch, index: number): Candidate {
  return {
    root,
    file: fileRef(batch, index),
    touchedMs: touchedMs(batch, index),
    diskBytes: batch.diskBytes[index]!,
    links: batch.links[index]!,
    finding: undefined,
  }
}

/** The `capacity` lowest ranks of a stream, in O(log capacity) each and at most twice the room. */
class Best {
  #rows: { readonly rank: number; readonly candidate: Candidate }[] = []
  #limit = Number.POSITIVE_INFINITY
  constructor(readonly capacity: number) {}

  wants(rank: number): boolean {
    return rank < this.#limit
  }
  add(rank: number, candidate: Candidate): void {
    this.#rows.push({ rank, candidate })
    if (this.#rows.length >= 2 * this.capacity) this.#cut()
  }
  sorted(): Candidate[] {
    this.#cut()
    return this.#rows.map(({ candidate }) => candidate)
  }
  #cut(): void {
    this.#rows.sort((a, b) => a.rank - b.rank)
    if (this.#rows.length > this.capacity) {
      this.#rows.length = this.capacity
      this.#limit = this.#rows.at(-1)!.rank
    }
  }
}
