/** Action 1: deletes the oldest files of the temporary directories. */
import type { Directory, FileOutcome } from '../btrfs/types.js'
import { BtrfsError } from '../errors.js'
import { utilisationPercent } from '../monitor/sample.js'
import { formatBytes, HOUR_MS } from '../units.js'
import {
  type Actor,
  type ActorContext,
  count,
  type Draft,
  type FactsRequest,
  formatAge,
  type PlanRequest,
  pathOf,
  SHOWN,
  unseen,
} from './actor.js'
import type { Run } from './plan.js'
import { type Candidate, FileScan, touchedMs } from './scan.js'

/** Small, so that the first file goes at once and a journal line stays short; then larger. */
const FIRST_CHUNK = 64
const CHUNK = 1_024
/** Files up to this size live in the metadata (max_inline), whose allocation a deletion does not shrink. */
const INLINE_BYTES = 2_048
/** Of the largest candidates so many are asked, in one look, whether a snapshot holds their bytes. */
const ASKED_EACH_LOOK = 256
/** A file that others can be told to keep: systemd-tmpfiles leaves sticky files alone too. */
const STICKY = 0o1000

export class TempActor implements Actor {
  readonly #context: ActorContext
  /** Findings: the part of a file's bytes that nothing else holds, 0–1. */
  readonly #scan: FileScan

  constructor(context: ActorContext) {
    this.#context = context
    const { filesystem, clock, options, roots } = context
    this.#scan = new FileScan({
      filesystem,
      clock,
      roots: roots.temp,
      capacity: 2 * options.stepFiles,
      maxFiles: options.scanFiles,
      maxMs: options.scanMs,
      keepFindings: false, // A new snapshot shares the file, and does not touch it.
      // Whatever its age: an emergency has another limit, and files grow old between two looks.
      rank: (batch, index) => ((batch.mode[index]! & STICKY) !== 0 ? undefined : touchedMs(batch, index)),
    })
  }

  facts({ emergency }: FactsRequest) {
    if (!this.#scan.looked) return undefined
    if (this.#old(emergency, 1).length > 0) return { items: 1, nothing: '' }
    const age = formatAge(this.#ageMs(emergency))
    const nothing = `none of ${count(this.#scan.seen, 'temporary file')} is older than ${age}`
    return { items: 0, nothing: nothing + unseen(this.#scan) }
  }

  async refresh(signal: AbortSignal): Promise<string[]> {
    await this.#scan.look({ signal })
    await this.#ask(signal)
    return this.#scan.complaints
  }

  /** For an emergency: without rest, until there is something to delete or the pass is over. */
  async lookNow(signal: AbortSignal, untilMs: number): Promise<void> {
    const { clock } = this.#context
    const { passes } = this.#scan
    const inTime = () => !signal.aborted && clock.elapsedMs() < untilMs
    while (this.#scan.passes === passes && !this.#old(true, 1).length && inTime()) {
      await this.#scan.look({ signal, now: true })
    }
  }

  next(): readonly string[] {
    return this.#scan.candidates.slice(0, FIRST_CHUNK).map(pathOf)
  }

  plan({ emergency, sample }: PlanRequest): Draft {
    const files = this.#old(emergency, this.#context.options.stepFiles)
    const predictedBytes = this.#privateBytes(files)?.reduce((sum, bytes) => sum + bytes, 0)
    const oldest = files[0]
    const age =
      oldest === undefined
        ? ''
        : `, the oldest not touched for ${formatAge(this.#context.clock.wallMs() - oldest.touchedMs)}`
    const links = files.filter((candidate) => candidate.links > 1).length
    const explanation = [
      `${count(files.length, 'temporary file')}${age}`,
      predictedBytes === undefined ? 'what they free is not known' : `expected to free ${formatBytes(predictedBytes)}`,
      ...(links > 0 ? [`${links} with other hard links free nothing`] : []),
    ].join('; ')
    const limitPercent = this.#context.options.emergencyTargetPercent
    return {
      items: files.length,
      predictedBytes,
      explanation: emergency ? `${explanation}; stops below ${limitPercent} %` : explanation,
      touches: files.slice(0, SHOWN).map(pathOf),
      perform: (run) =>
        emergency
          ? this.#untilBelow(limitPercent, utilisationPercent(sample), sample.sizeBytes, run)
          : this.#remove(files, run),
    }
  }

  close(): Promise<void> {
    return this.#scan.close()
  }

  /** Files touched later than this stay. */
  #ageMs(emergency: boolean): number {
    const { tempAgeHours, emergencyAgeMinutes } = this.#context.options
    return emergency ? Math.min(tempAgeHours * HOUR_MS, emergencyAgeMinutes * 60_000) : tempAgeHours * HOUR_MS
  }

  /** Oldest first. */
  #old(emergency: boolean, limit: number): Candidate[] {
    const before = this.#context.clock.wallMs() - this.#ageMs(emergency)
    const old: Candidate[] = []
    for (const candidate of this.#scan.candidates) {
      if (candidate.touchedMs > before || old.length >= limit) break
      // What a snapshot holds too would be lost for nothing.
      if (!emergency || candidate.finding !== 0) old.push(candidate)
    }
    return old
  }

  /** Raw bytes of each; what was not asked is taken to be as private as what was. Undefined: profile unknown. */
  #privateBytes(files: readonly Candidate[]): number[] | undefined {
    const raw = this.#context.dataRatio()
    if (raw === undefined) return undefined
    let askedBytes = 0
    let privateBytes = 0
    for (const { finding, diskBytes } of files) {
      askedBytes += finding === undefined ? 0 : diskBytes
      privateBytes += (finding ?? 0) * diskBytes
    }
    const average = askedBytes === 0 ? 1 : privateBytes / askedBytes
    return files.map(({ links, file, diskBytes, finding }) =>
      links > 1 || file.sizeBytes <= INLINE_BYTES ? 0 : Math.round(diskBytes * (finding ?? average) * raw),
    )
  }

  /** FIEMAP of the largest of those that are next, so that a prediction does not count what snapshots hold. */
  async #ask(signal: AbortSignal): Promise<void> {
    const { clock, filesystem, options } = this.#context
    const endMs = clock.elapsedMs() + options.scanMs
    const next = this.#scan.candidates
      .slice(0, options.stepFiles)
      .filter(({ finding, links, file }) => finding === undefined && links === 1 && file.sizeBytes > INLINE_BYTES)
      .sort((a, b) => b.diskBytes - a.diskBytes)
      .slice(0, ASKED_EACH_LOOK)
    for (const candidate of next) {
      if (signal.aborted || clock.elapsedMs() >= endMs) return
      const extents = await filesystem.fileExtents(candidate.root, candidate.file, { signal })
      if (extents.ok) candidate.finding = extents.bytes === 0 ? 0 : 1 - extents.sharedBytes / extents.bytes
    }
  }

  /** In chunks of one root each, journalled before. */
  async #remove(files: readonly Candidate[], run: Run): Promise<void> {
    for (let start = 0; start < files.length && !run.expired; ) {
      const root = files[start]!.root
      const most = start === 0 ? FIRST_CHUNK : CHUNK
      let end = start
      while (end < files.length && end - start < most && files[end]!.root === root) end++
      const chunk = files.slice(start, end)
      await run.intend(chunk.map(pathOf))
      run.acting()
      await this.#removeChunk(root, chunk, run)
      start = end
    }
  }

  async #removeChunk(root: Directory, chunk: readonly Candidate[], run: Run): Promise<void> {
    const report = (outcomes: readonly FileOutcome[]) => {
      for (const [index, outcome] of outcomes.entries()) {
        if (outcome.ok) run.done()
        else run.failed(pathOf(chunk[index]!), outcome.code)
      }
      this.#scan.drop(chunk.slice(0, outcomes.length))
    }
    const refs = chunk.map(({ file }) => file)
    try {
      const { signal, leftMs } = run
      report(await this.#context.filesystem.removeFiles(root, refs, { signal, timeoutMs: Math.max(1, leftMs) }))
    } catch (error) {
      if (!(error instanceof BtrfsError)) throw error
      if (Array.isArray(error.progress)) report(error.progress as FileOutcome[])
      if (error.code !== 'ETIMEDOUT') throw error // The step's time is over: the rest waits for the next one.
    }
  }

  /** Emergency: as many as it takes, with a look at the volume after each portion. */
  async #untilBelow(targetPercent: number, usedPercent: number, sizeBytes: number, run: Run): Promise<void> {
    const { filesystem, options } = this.#context
    let lookedAgain = false
    let fewest = 1
    while (usedPercent >= targetPercent && !run.expired) {
      const files = this.#old(true, options.stepFiles)
      if (files.length === 0) {
        if (lookedAgain) return run.note(`nothing more to delete at ${usedPercent.toFixed(1)} %`)
        await this.#lookThrough(run)
        lookedAgain = true
        continue
      }
      let wantedBytes = ((usedPercent - targetPercent) / 100) * sizeBytes
      const bytes = this.#privateBytes(files) ?? []
      let portion = 0
      while (portion < files.length && wantedBytes > 0) wantedBytes -= bytes[portion++] ?? 0
      await this.#remove(files.slice(0, Math.max(portion, fewest)), run)
      await filesystem.sync({ signal: run.signal })
      const measured = await filesystem.measure({ signal: run.signal })
      const nowPercent = measured.liveUsedPercent ?? measured.usedPercent
      // Less came free than was expected (open files, a writer that is faster): larger portions.
      if (nowPercent >= usedPercent) fewest *= 8
      usedPercent = nowPercent
    }
  }

  /** A whole pass, as far as the time goes. */
  async #lookThrough(run: Run): Promise<void> {
    const { passes } = this.#scan
    while (this.#scan.passes === passes && !run.expired) await this.#scan.look({ signal: run.signal, now: true })
  }
}
