/** Action 3: gives metadata block groups back that are less than half full. Whether it may is the guard's matter. */
import type { Usage } from '../btrfs/usage.js'
import { BtrfsError } from '../errors.js'
import { formatBytes } from '../units.js'
import { type Actor, type ActorContext, count, type Draft, type PlanRequest } from './actor.js'
import { balanceLimit, metadataBlockGroupBytes } from './guard.js'
import type { Run } from './plan.js'

const USAGE_PERCENT = 50
/** In one step: each may take seconds, during which snapshots and deletions wait. */
const MOST_BLOCK_GROUPS = 4

export class BalanceActor implements Actor {
  readonly #context: ActorContext
  /** Logical bytes of the metadata, and what one of them takes on the devices. */
  #metadata: { readonly allocatedBytes: number; readonly usedBytes: number; readonly ratio: number } | undefined

  constructor(context: ActorContext) {
    this.#context = context
  }

  facts() {
    return { items: 1, nothing: '' }
  }

  get metadataRatio(): number | undefined {
    return this.#metadata?.ratio
  }

  async refresh(_signal: AbortSignal, usage: Usage | undefined): Promise<string[]> {
    const groups = usage?.blockGroups.filter(({ type }) => type === 'metadata') ?? []
    const sum = (of: 'sizeBytes' | 'usedBytes') => groups.reduce((total, group) => total + group[of], 0)
    const ratio = usage?.metadataRatio
    this.#metadata =
      ratio === undefined ? undefined : { allocatedBytes: sum('sizeBytes'), usedBytes: sum('usedBytes'), ratio }
    return []
  }

  /**
   * Logical bytes that may come free: what stays is half full or more, and at least one block group. Undefined: nobody
   * knows.
   */
  gainBytes(deviceSizeBytes: number): number | undefined {
    if (this.#metadata === undefined) return undefined
    const { allocatedBytes, usedBytes } = this.#metadata
    return Math.max(0, allocatedBytes - Math.max(2 * usedBytes, metadataBlockGroupBytes(deviceSizeBytes)))
  }

  plan({ facts, sample }: PlanRequest): Draft {
    const limit = Math.min(balanceLimit(facts), MOST_BLOCK_GROUPS)
    const filter = `metadata block groups less than ${USAGE_PERCENT} % full`
    const gainBytes = this.gainBytes(sample.sizeBytes)
    const mostBytes = limit * metadataBlockGroupBytes(sample.sizeBytes)
    const predictedBytes =
      gainBytes === undefined || this.#metadata === undefined
        ? undefined
        : Math.round(Math.min(mostBytes, gainBytes) * this.#metadata.ratio)
    const expected =
      predictedBytes === undefined
        ? 'how many is unknown'
        : `expected to give back about ${formatBytes(predictedBytes)}`
    const perform = (run: Run) => this.#balance(limit, run)
    return { items: limit, predictedBytes, explanation: `${filter}; ${expected}`, touches: [], perform }
  }

  async close(): Promise<void> {}

  async #balance(limit: number, run: Run): Promise<void> {
    await run.intend([])
    run.acting()
    const metadata = { usagePercent: USAGE_PERCENT, limit }
    // Without it system block groups would be moved as well, for nothing: none of them is ever empty.
    const system = { usagePercent: 0 }
    await using operation = this.#context.filesystem.balance({ metadata, system, signal: run.signal })
    const timer = setTimeout(() => void operation.cancel(), run.leftMs)
    try {
      const { completed } = await operation.result
      run.done(completed)
    } catch (error) {
      if (!(error instanceof BtrfsError) || error.code !== 'ECANCELED') throw error
      const { completed } = (error.progress ?? {}) as { completed?: number }
      run.done(completed ?? 0)
      run.signal?.throwIfAborted()
      run.note(`stopped when the step's time was over, after ${count(completed ?? 0, 'block group')}`)
    } finally {
      clearTimeout(timer)
    }
  }
}
