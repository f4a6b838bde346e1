/** Action 1: deletes the oldest files of the temporary directories. */
import type { Directory } from '../btrfs/directory.js'
import type { FileOutcome } from '../btrfs/files.js'
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
    const held = emergency && this.#scan.candidates.some(({ finding }) => finding === 0) ? ' and in no snapshot' : ''
    const nothing = `none of ${count(this.#scan.seen, 'temporary file')} is older than ${age}${held}`
    return { items: 0, nothing: nothing + unseen(this.#scan) }
  }

  async refresh(signal: AbortSignal): Promise<string[]> {
    await this.#scan.look({ signal })
    await this.#ask(signal)
    return this.#scan.complaints
  }

  /** For an emergency: without rest, until there is something to delete or the pass is over. */
  async lookNow(signal: AbortSignal, untilMs: number): Promise<string[]> {
    const { clock } = this.#context
    const { passes } = this.#scan
    const inTime = () => !signal.aborted && clock.elapsedMs() < untilMs
    while (this.#scan.passes === passes && !this.#old(true, 1).length && inTime()) {
      await this.#scan.look({ signal, now: true })
    }
    await this.#ask(signal)
    return this.#scan.complaints
  }

  next(): readonly string[] {
    // None that is too young also for an emergency.
    const before = this.#context.clock.wallMs() - this.#ageMs(true)
    return this.#scan.candidates
      .slice(0, FIRST_CHUNK)
      .filter(({ touchedMs }) => touchedMs <= before)
      .map(pathOf)
  }

  plan({ emergency, sample }: PlanRequest): Draft {
    const { emergencyTargetPercent: limitPercent, stepFiles } = this.#context.options
    const usedPercent = utilisationPercent(sample)
    const excessBytes = ((usedPercent - limitPercent) / 100) * sample.sizeBytes
    const files = emergency ? this.#portion(excessBytes) : this.#old(false, stepFiles)
    const raw = this.#context.dataRatio()
    const predictedBytes =
      raw === undefined ? undefined : this.#privateBytes(files, raw).reduce((sum, bytes) => sum + bytes, 0)
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
    return {
      items: files.length,
      predictedBytes,
      explanation: emergency ? `${explanation}; stops below ${limitPercent} %` : explanation,
      touches: files.slice(0, SHOWN).map(pathOf),
      perform: (run) =>
        emergency ? this.#untilBelow(limitPercent, usedPercent, sample.sizeBytes, run) : this.#remove(files, run),
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
  #old(emergency: boolean, limit: number, wanted = (_: Candidate) => true): Candidate[] {
    const before = this.#context.clock.wallMs() - this.#ageMs(emergency)
    const old: Candidate[] = []
    for (const candidate of this.#scan.candidates) {
      if (candidate.touchedMs > before || old.length >= limit) break
      // What a snapshot holds too would be lost for nothing.
      if ((!emergency || candidate.finding !== 0) && wanted(candidate)) old.push(candidate)
    }
    return old
  }

  /**
   * What an emergency takes next: the oldest of those that free something, until that is enough. When none is left,
   * those that free metadata at best.
   */
  #portion(wantedBytes: number, fewest = 1): Candidate[] {
    const { stepFiles } = this.#context.options
    const files = this.#old(true, stepFiles, freesData)
    if (files.length === 0) return this.#old(true, stepFiles)
    // Too few rather than too many: the volume is looked at after each portion.
    const bytes = this.#privateBytes(files, this.#context.dataRatio() ?? 1)
    let portion = 0
    while (portion < files.length && (wantedBytes > 0 || portion < fewest)) wantedBytes -= bytes[portion++]!
    return files.slice(0, portion)
  }

  /** The same, without what a snapshot holds: each file was asked, as far as the time of a look goes. */
  async #surePortion(wantedBytes: number, fewest: number, run: Run): Promise<Candidate[]> {
    const { clock, options } = this.#context
    for (let endMs = clock.elapsedMs() + options.scanMs; ; endMs += options.scanMs) {
      const portion = this.#portion(wantedBytes, fewest)
      const unsure = portion.filter((candidate) => freesData(candidate) && candidate.finding === undefined)
      if (unsure.length === 0) return portion
      await this.#askOf(unsure, run.signal, endMs)
      const sure = portion.filter(({ finding }) => (finding ?? 0) > 0)
      if (run.expired || (sure.length > 0 && clock.elapsedMs() >= endMs)) return sure
    }
  }

  /** Raw bytes of each; what was not asked is taken to be as private as what was. */
  #privateBytes(files: readonly Candidate[], raw: number): number[] {
    let askedBytes = 0
    let privateBytes = 0
    for (const { finding, diskBytes } of files) {
      askedBytes += finding === undefined ? 0 : diskBytes
      privateBytes += (finding ?? 0) * diskBytes
    }
    const average = askedBytes === 0 ? 1 : privateBytes / askedBytes
    return files.map((file) => (freesData(file) ? Math.round(file.diskBytes * (file.finding ?? average) * raw) : 0))
  }

  /** Of the largest of those that are next, so that a prediction does not count what snapshots hold. */
  async #ask(signal: AbortSignal): Promise<void> {
    const { clock, options } = this.#context
    const next = this.#scan.candidates
      .slice(0, options.stepFiles)
      .filter((candidate) => freesData(candidate) && candidate.finding === undefined)
      .sort((a, b) => b.diskBytes - a.diskBytes)
      .slice(0, ASKED_EACH_LOOK)
    await this.#askOf(next, signal, clock.elapsedMs() + options.scanMs)
  }

  /** FIEMAP. */
  async #askOf(files: readonly Candidate[], signal: AbortSignal | undefined, endMs: number): Promise<void> {
    const { clock, filesystem } = this.#context
    for (const candidate of files) {
      if (signal?.aborted || clock.elapsedMs() >= endMs) return
      const extents = await filesystem.fileExtents(candidate.root, candidate.file, { signal })
      // Who may not be asked may still be deleted; who is another by now will not be.
      if (!extents.ok) candidate.finding = 1
      else candidate.finding = extents.bytes === 0 ? 0 : 1 - extents.sharedBytes / extents.bytes
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
    const { filesystem } = this.#context
    let lookedAgain = false
    let fewest = 1
    while (usedPercent >= targetPercent && !run.expired) {
      const files = await this.#surePortion(((usedPercent - targetPercent) / 100) * sizeBytes, fewest, run)
      if (!files.some(freesData) && !lookedAgain) {
        await this.#lookThrough(run)
        lookedAgain = true
        continue
      }
      if (files.length === 0) return run.note(`nothing more to delete at ${usedPercent.toFixed(1)} %`)
      await this.#remove(files, run)
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

/** Not what has other names, or lives in the metadata; what a snapshot holds is a finding. */
function freesData({ links, file, finding }: Candidate): boolean {
  return links === 1 && file.sizeBytes > INLINE_BYTES && finding !== 0
}
