/** A writer that fills a simulated volume: temporary churn, documents that age, snapshots on a schedule. */
import * as v from 'valibot'
import { BtrfsError, check } from '../errors.js'
import { createRandom, type Random } from '../random.js'
import { DAY_MS, HOUR_MS, MIB } from '../units.js'
import type { SimulatedFilesystem } from './filesystem.js'
import type { SimulatedVolume } from './volume.js'

const amount = v.pipe(v.number(), v.finite(), v.minValue(0))
const positive = v.pipe(amount, v.gtValue(0))
const ratio = v.pipe(amount, v.maxValue(1))

/** Rates are shares of the volume's size, so that one workload fits every size. */
const workloadOptions = v.strictObject({
  seed: v.optional(v.pipe(v.number(), v.integer()), 1),
  /** Temporary files written an hour, as a share of the volume. */
  tempRatioPerHour: v.optional(amount, 0.02),
  /** Of those so many are never deleted by who made them. */
  tempLeakRatio: v.optional(ratio, 0.6),
  /** The others live so long, on average. */
  tempLifeMs: v.optional(positive, 20 * 60_000),
  /** Documents there at the start, as a share of the volume; their age is drawn from 0 to `documentAgeDays`. */
  documentRatio: v.optional(ratio, 0.35),
  documentAgeDays: v.optional(positive, 365),
  /** Of the documents so many shrink to a quarter; the rest is compressed already. */
  compressibleRatio: v.optional(ratio, 0.6),
  /** New documents an hour, and documents written over, as shares of the volume. */
  growthRatioPerHour: v.optional(amount, 0.002),
  rewriteRatioPerHour: v.optional(amount, 0.004),
  /** Median size of a file; sizes are log-normal, σ = 1. */
  fileBytes: v.optional(v.pipe(positive, v.minValue(4096)), MIB),
  /** A read-only snapshot of the documents so often; 0: never. */
  snapshotEveryMs: v.optional(amount, 2 * HOUR_MS),
})
export type WorkloadOptions = v.InferInput<typeof workloadOptions>

export interface WorkloadStats {
  writtenBytes: number
  deletedBytes: number
  files: number
  snapshots: number
  /** Writes that hit ENOSPC: what the users of the volume would have noticed. */
  failedWrites: number
}

/** Twice as much at three in the afternoon as at three in the morning. */
const DAILY_SWING = 1 / 3
const FILES_IN_A_DIRECTORY = 512
const TEXT_RATIO = 0.25

interface Stream {
  nextMs: number
  run(): void
}

export class Workload {
  /** Directories to hand to the agent as its roots. */
  readonly paths: { readonly temp: string; readonly documents: string; readonly snapshots: string }
  readonly stats: WorkloadStats = { writtenBytes: 0, deletedBytes: 0, files: 0, snapshots: 0, failedWrites: 0 }
  readonly #volume: SimulatedVolume
  readonly #random: Random
  readonly #options: v.InferOutput<typeof workloadOptions>
  readonly #sizeBytes: number
  readonly #streams: Stream[] = []
  readonly #documents: string[] = []
  #made = 0

  constructor(filesystem: SimulatedFilesystem, options: WorkloadOptions) {
    this.#options = check('createWorkload', workloadOptions, options)
    this.#volume = filesystem.volume
    this.#random = createRandom(this.#options.seed)
    this.#sizeBytes = this.#volume.space.chunks.devices.reduce((sum, device) => sum + device.sizeBytes, 0)
    const root = filesystem.path
    this.paths = { temp: `${root}/tmp`, documents: `${root}/documents`, snapshots: `${root}/snapshots` }
    this.#volume.createSubvolume(this.paths.documents)
    this.#volume.makeDirectory(this.paths.temp)
    this.#volume.makeDirectory(this.paths.snapshots)
    this.#fill()
    const { tempRatioPerHour, growthRatioPerHour, rewriteRatioPerHour, snapshotEveryMs } = this.#options
    this.#writes(tempRatioPerHour, () => this.#writeTemporary())
    this.#writes(growthRatioPerHour, () => this.#writeDocument(0))
    this.#writes(rewriteRatioPerHour, () => this.#rewriteDocument())
    if (snapshotEveryMs > 0)
      this.#every(
        () => snapshotEveryMs,
        () => this.#snapshot(),
      )
  }

  /**
   * Lets so much time pass and does what falls due in it, each thing at its moment; also what fell due while other
   * calls moved the clock. However a span is cut into ticks, the same is written.
   * @param ms simulated milliseconds
   */
  tick(ms: number): void {
    const { clock } = this.#volume
    const endMs = clock.elapsedMs() + ms
    for (;;) {
      const next = this.#streams.reduce((a, b) => (b.nextMs < a.nextMs ? b : a))
      if (next.nextMs > endMs) break
      clock.advance(Math.max(0, next.nextMs - clock.elapsedMs()))
      next.run()
    }
    clock.advance(Math.max(0, endMs - clock.elapsedMs()))
    this.#volume.catchUp()
  }

  #fill(): void {
    const { documentRatio, documentAgeDays } = this.#options
    const wanted = documentRatio * this.#sizeBytes
    while (this.stats.writtenBytes < wanted && this.stats.failedWrites === 0) {
      this.#writeDocument(this.#random.next() * documentAgeDays * DAY_MS)
    }
    this.#volume.commit()
  }

  #writeTemporary(): void {
    const { tempLeakRatio, tempLifeMs } = this.#options
    const path = this.#write(this.paths.temp, 1, 0)
    const stays = this.#random.next() < tempLeakRatio
    const lifeMs = -Math.log(1 - this.#random.next()) * tempLifeMs
    if (path === undefined || stays) return
    const stream: Stream = {
      nextMs: this.#volume.clock.elapsedMs() + lifeMs,
      run: () => {
        this.#streams.splice(this.#streams.indexOf(stream), 1)
        this.#remove(path)
      },
    }
    this.#streams.push(stream)
  }
  #writeDocument(ageMs: number): void {
    const ratio = this.#random.next() < this.#options.compressibleRatio ? TEXT_RATIO : 1
    const path = this.#write(this.paths.documents, ratio, ageMs)
    if (path !== undefined) this.#documents.push(path)
  }
  #rewriteDocument(): void {
    const path = this.#documents[this.#random.integer(Math.max(1, this.#documents.length))]
    if (path !== undefined) this.#attempt(path, this.#size(), TEXT_RATIO, 0)
  }
  #snapshot(): void {
    const name = new Date(this.#volume.clock.wallMs()).toISOString().replace(/[:.]/g, '-')
    this.#volume.snapshot(this.paths.documents, `${this.paths.snapshots}/${name}`, true)
    this.stats.snapshots++
  }

  #write(directory: string, ratio: number, ageMs: number): string | undefined {
    const bytes = this.#size()
    const within = `${directory}/${Math.floor(this.#made / FILES_IN_A_DIRECTORY)}`
    const path = `${within}/f${this.#made++}`
    try {
      if (this.#volume.find(within, 'workload').node === undefined) this.#volume.makeDirectory(within)
    } catch (error) {
      if (!this.#isFull(error)) throw error
      return undefined
    }
    return this.#attempt(path, bytes, ratio, ageMs) ? path : undefined
  }
  #attempt(path: string, bytes: number, compressibleRatio: number, ageMs: number): boolean {
    const thenMs = this.#volume.clock.wallMs() - ageMs
    const times = { atimeMs: thenMs, mtimeMs: thenMs, ctimeMs: thenMs }
    try {
      this.#volume.writeFile(path, bytes, { ...times, compressibleRatio })
    } catch (error) {
      if (!this.#isFull(error)) throw error
      return false
    }
    this.stats.writtenBytes += bytes
    this.stats.files++
    return true
  }
  /** Somebody else may have been faster. */
  #remove(path: string): void {
    const { node } = this.#volume.find(path, 'workload')
    if (node?.kind !== 'file') return
    this.stats.deletedBytes += node.sizeBytes
    this.#volume.unlink(path)
  }
  #isFull(error: unknown): boolean {
    if (!(error instanceof BtrfsError) || error.code !== 'ENOSPC') return false
    this.stats.failedWrites++
    return true
  }

  #size(): number {
    // Box and Muller.
    const normal = Math.sqrt(-2 * Math.log(1 - this.#random.next())) * Math.cos(2 * Math.PI * this.#random.next())
    return Math.round(this.#options.fileBytes * Math.exp(normal))
  }

  /** Writes that come by chance, on average so many bytes an hour; more by day. */
  #writes(ratioPerHour: number, run: () => void): void {
    if (ratioPerHour === 0) return
    const meanBytes = this.#options.fileBytes * Math.exp(0.5)
    const meanMs = (HOUR_MS * meanBytes) / (ratioPerHour * this.#sizeBytes)
    this.#every(() => {
      const hour = (this.#volume.clock.wallMs() % DAY_MS) / HOUR_MS
      const busy = 1 + DAILY_SWING * Math.cos(((hour - 15) / 12) * Math.PI)
      return (-Math.log(1 - this.#random.next()) * meanMs) / busy
    }, run)
  }
  #every(intervalMs: () => number, run: () => void): void {
    const stream: Stream = {
      nextMs: this.#volume.clock.elapsedMs() + intervalMs(),
      run: () => {
        stream.nextMs += intervalMs()
        run()
      },
    }
    this.#streams.push(stream)
  }
}

/**
 * Fills a fresh simulated volume with documents and returns what goes on writing to it.
 * @param filesystem used by nobody else yet; its clock is the workload's
 * @example
 * const workload = createWorkload(fs, { seed: 7, tempRatioPerHour: 0.05 })
 * workload.tick(60_000)
 * const { liveUsedPercent } = await fs.measure()
 */
export function createWorkload(filesystem: SimulatedFilesystem, options: WorkloadOptions = {}): Workload {
  return new Workload(filesystem, options)
}
