/** Action 2: compresses inactive files that nothing shares. */
import { DAY_MS, formatBytes } from '../units.js'
import { type Actor, type ActorContext, count, type Draft, pathOf, SHOWN, unseen } from './actor.js'
import type { Run } from './plan.js'
import { type Candidate, FileScan, keyOf, touchedMs } from './scan.js'

const CAPACITY = 2_048
/** Of the largest candidates so many are looked into, in one look. */
const ASKED_EACH_LOOK = 64
const ASKED_KEPT = 16_384
/** A rewrite that gains less is not worth its writes; the kernel gives a file up too when it gains too little. */
const WORTHWHILE_RATIO = 0.8

interface Suitable extends Candidate {
  /** Logical bytes. */
  readonly gainBytes: number
}

export class CompressActor implements Actor {
  readonly #context: ActorContext
  readonly #scan: FileScan
  /** By key: what compressing would gain, in logical bytes; 0: shared, compressed, not compressible, or tried. */
  readonly #gain = new Map<string, number>()

  constructor(context: ActorContext) {
    this.#context = context
    const { filesystem, clock, options, roots } = context
    this.#scan = new FileScan({
      filesystem,
      clock,
      roots: roots.compress.map(({ path }) => path),
      capacity: CAPACITY,
      maxFiles: options.scanFiles,
      maxMs: options.scanMs,
      rank: (batch, index) => {
        const sizeBytes = batch.sizeBytes[index]!
        if (sizeBytes < options.compressMinBytes || sizeBytes > options.compressMaxBytes) return undefined
        if (touchedMs(batch, index) > clock.wallMs() - options.inactiveDays * DAY_MS) return undefined
        return -batch.diskBytes[index]!
      },
    })
  }

  facts() {
    if (!this.#scan.looked) return undefined
    const asked = this.#scan.candidates.filter((candidate) => this.#gain.has(keyOf(candidate))).length
    const nothing =
      this.#scan.candidates.length === 0
        ? `none of ${count(this.#scan.seen, 'file')} is large enough and untouched for ${this.#context.options.inactiveDays} days`
        : `of ${count(this.#scan.candidates.length, 'inactive file')}, ${asked} were looked into: shared, compressed already, or not worth it`
    return { items: this.#suitable(1).length, nothing: nothing + unseen(this.#scan) }
  }

  async refresh(signal: AbortSignal | undefined): Promise<void> {
    await this.#scan.look({ signal })
    if (this.#gain.size > ASKED_KEPT) this.#gain.clear()
    const next = this.#scan.candidates.filter((candidate) => !this.#gain.has(keyOf(candidate)))
    for (const candidate of next.slice(0, ASKED_EACH_LOOK)) {
      if (signal?.aborted) return
      this.#gain.set(keyOf(candidate), await this.#ask(candidate))
    }
  }

  plan(): Draft {
    const files = this.#suitable(this.#context.options.stepCompressBytes)
    const raw = this.#context.dataRatio()
    const gainBytes = files.reduce((sum, file) => sum + file.gainBytes, 0)
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

  /** The largest that are worth it: the first, and more until `bytes` are to be rewritten. */
  #suitable(bytes: number): Suitable[] {
    const files: Suitable[] = []
    let left = bytes
    for (const candidate of this.#scan.candidates) {
      const gainBytes = this.#gain.get(keyOf(candidate)) ?? 0
      if (gainBytes === 0) continue
      if (left <= 0 || files.length >= this.#context.options.stepFiles) break
      left -= candidate.diskBytes
      files.push({ ...candidate, gainBytes })
    }
    return files
  }

  async #ask({ root, file, diskBytes }: Candidate): Promise<number> {
    const { filesystem } = this.#context
    const extents = await filesystem.fileExtents(root, file)
    if (!extents.ok || extents.sharedBytes > 0 || extents.compressedBytes > 0) return 0
    const estimate = await filesystem.estimateCompressedRatio(root, file)
    if (!estimate.ok || estimate.ratio > WORTHWHILE_RATIO) return 0
    return diskBytes * (1 - estimate.ratio)
  }

  async #compress(files: readonly Candidate[], run: Run): Promise<void> {
    const { filesystem, options } = this.#context
    await run.intend(files.map(pathOf))
    for (const candidate of files) {
      if (run.expired) return run.note('the rest waits for the next step')
      run.acting()
      this.#gain.set(keyOf(candidate), 0) // Once is enough, whatever comes of it.
      const outcome = await filesystem.compressFile(candidate.root, candidate.file, {
        signal: run.signal,
        algorithm: options.compression,
      })
      this.#scan.drop([candidate])
      if (outcome.ok) run.done()
      else run.failed(pathOf(candidate), outcome.code)
    }
  }
}
