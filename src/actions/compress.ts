/** Action 2: compresses inactive files that nothing shares. */
import { BtrfsError } from '../errors.js'
import { DAY_MS, formatBytes } from '../units.js'
import {
  type Actor,
  type ActorContext,
  count,
  type Draft,
  type FactsRequest,
  type PlanRequest,
  pathOf,
  SHOWN,
  unseen,
} from './actor.js'
import { COMPRESS_ROOM_BYTES } from './guard.js'
import type { Run } from './plan.js'
import { type Candidate, FileScan, touchedMs } from './scan.js'

const CAPACITY = 2_048
/** Of the largest candidates so many are looked into, in one look. */
const ASKED_EACH_LOOK = 64
/** Of those that are worthwhile so many are ready to be rewritten: known, since the last look, to be private still. */
const READY = 512
/** A rewrite that gains less is not worth its writes; the kernel gives a file up too when it gains too little. */
const WORTHWHILE_RATIO = 0.8
/** A rewrite that was broken off goes on while less than half is compressed. */
const MOSTLY_PLAIN_RATIO = 0.5

export class CompressActor implements Actor {
  readonly #context: ActorContext
  /** Findings: the logical bytes to gain. Rejected: shared, compressed, not compressible, tried already. */
  readonly #scan: FileScan
  /** The largest first; what a snapshot has come to hold since it was asked is not among them. */
  #worthwhile: Candidate[] = []

  constructor(context: ActorContext) {
    this.#context = context
    const { filesystem, clock, options, roots } = context
    this.#scan = new FileScan({
      filesystem,
      clock,
      roots: roots.compress,
      capacity: CAPACITY,
      maxFiles: options.scanFiles,
      maxMs: options.scanMs,
      keepFindings: true,
      rank: (batch, index) => {
        const sizeBytes = batch.sizeBytes[index]!
        if (sizeBytes < options.compressMinBytes || sizeBytes > options.compressMaxBytes) return undefined
        if (touchedMs(batch, index) > clock.wallMs() - options.inactiveDays * DAY_MS) return undefined
        return -batch.diskBytes[index]!
      },
    })
  }

  facts({ sample }: FactsRequest) {
    if (!this.#scan.looked) return undefined
    const some = this.#worthwhile.some((candidate) => fits(candidate, sample.freeBytes))
    return some ? { items: 1, nothing: '' } : { items: 0, nothing: this.#nothing() + unseen(this.#scan) }
  }

  #nothing(): string {
    const { candidates, seen } = this.#scan
    const days = this.#context.options.inactiveDays
    if (candidates.length === 0)
      return `none of ${count(seen, 'file')} is large, untouched for ${days} days, private and compressible`
    if (this.#worthwhile.length > 0)
      return `${count(this.#worthwhile.length, 'file')} would not fit, compressed, into half of the free space`
    return `${count(candidates.length, 'inactive file')} not looked into yet`
  }

  async refresh(signal: AbortSignal): Promise<string[]> {
    await this.#scan.look({ signal })
    const enough = this.#bound(signal)
    const next = this.#scan.candidates.filter(({ finding }) => finding === undefined)
    for (const candidate of next.slice(0, ASKED_EACH_LOOK)) {
      if (enough()) break
      const gainBytes = await this.#ask(candidate, signal)
      if (gainBytes > 0) candidate.finding = gainBytes
      else this.#scan.reject(candidate)
    }
    this.#worthwhile = await this.#stillPrivate(signal)
    return this.#scan.complaints
  }

  /** Of one round of questions. */
  #bound(signal: AbortSignal): () => boolean {
    const { clock, options } = this.#context
    const endMs = clock.elapsedMs() + options.scanMs
    return () => signal.aborted || clock.elapsedMs() >= endMs
  }

  plan({ sample }: PlanRequest): Draft {
    const files = this.#portion(sample.freeBytes)
    const raw = this.#context.dataRatio()
    const gainBytes = files.reduce((sum, { finding }) => sum + (finding ?? 0), 0)
    const predictedBytes = raw === undefined ? undefined : Math.round(gainBytes * raw)
    const rewrittenBytes = files.reduce((sum, file) => sum + file.diskBytes, 0)
    return {
      items: files.length,
      predictedBytes,
      explanation: `${count(files.length, 'inactive file')}, ${formatBytes(rewrittenBytes)} to rewrite with ${this.#context.options.compression}; expected to free ${formatBytes(predictedBytes ?? gainBytes)} by a sample of their data`,
      touches: files.slice(0, SHOWN).map(pathOf),
      perform: (run) => this.#compress(files, run),
    }
  }

  close(): Promise<void> {
    return this.#scan.close()
  }

  /** The first, and more until enough is to be rewritten. */
  #portion(freeBytes: number): Candidate[] {
    const { stepFiles, stepCompressBytes } = this.#context.options
    let left = stepCompressBytes
    const portion: Candidate[] = []
    for (const candidate of this.#worthwhile) {
      if (left <= 0 || portion.length >= stepFiles) break
      if (!fits(candidate, freeBytes)) continue
      left -= candidate.diskBytes
      portion.push(candidate)
    }
    return portion
  }

  /** A snapshot shares a file without touching it: what was found out in a look before may no longer hold. */
  async #stillPrivate(signal: AbortSignal): Promise<Candidate[]> {
    const enough = this.#bound(signal)
    const found: Candidate[] = []
    for (const candidate of this.#scan.candidates.filter(({ finding }) => finding !== undefined)) {
      if (found.length >= READY || enough()) break
      if ((await this.#plainRatio(candidate, signal)) > 0) found.push(candidate)
      else this.#scan.reject(candidate)
    }
    return found
  }

  /** The part that is not compressed; 0 where a rewrite would cost space, or was done. */
  async #plainRatio({ root, file }: Candidate, signal: AbortSignal): Promise<number> {
    const extents = await this.#context.filesystem.fileExtents(root, file, { signal })
    if (!extents.ok || extents.sharedBytes > 0 || extents.bytes === 0) return 0
    const plainRatio = 1 - extents.compressedBytes / extents.bytes
    return plainRatio < MOSTLY_PLAIN_RATIO ? 0 : plainRatio
  }

  async #ask(candidate: Candidate, signal: AbortSignal): Promise<number> {
    const { root, file, diskBytes } = candidate
    const plainRatio = await this.#plainRatio(candidate, signal)
    if (plainRatio === 0) return 0
    const estimate = await this.#context.filesystem.estimateCompressedRatio(root, file, { signal })
    if (!estimate.ok || estimate.ratio > WORTHWHILE_RATIO) return 0
    return diskBytes * plainRatio * (1 - estimate.ratio)
  }

  async #compress(files: readonly Candidate[], run: Run): Promise<void> {
    const { filesystem, options } = this.#context
    await run.intend(files.map(pathOf))
    let uncommittedBytes = 0
    for (const candidate of files) {
      if (run.expired) return run.note('the rest waits for the next step')
      run.acting()
      this.#worthwhile = this.#worthwhile.filter((other) => other !== candidate)
      const { signal, leftMs } = run
      const { root, file } = candidate
      try {
        const how = { signal, timeoutMs: Math.max(1, leftMs), algorithm: options.compression }
        const outcome = await filesystem.compressFile(root, file, how)
        this.#scan.reject(candidate) // Once is enough, whatever came of it.
        if (outcome.ok) run.done()
        else run.failed(pathOf(candidate), outcome.code)
      } catch (error) {
        if (!(error instanceof BtrfsError) || error.code !== 'ETIMEDOUT') {
          this.#scan.reject(candidate)
          throw error
        }
        this.#scan.drop([candidate]) // The next pass sees how far it came.
        run.note(`'${pathOf(candidate)}' took longer than a step, and is compressed in part`)
      }
      // Old extents are free only after a commit.
      uncommittedBytes += candidate.diskBytes
      if (uncommittedBytes >= COMPRESS_ROOM_BYTES) {
        await filesystem.sync({ signal: run.signal })
        uncommittedBytes = 0
      }
    }
  }
}

/** Until the next commit the volume holds a file twice: as it was, and compressed. */
function fits({ diskBytes, finding }: Candidate, freeBytes: number): boolean {
  return diskBytes - (finding ?? 0) < freeBytes / 2
}
