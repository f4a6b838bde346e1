/** Balance, one block group at a time, newest first as the kernel goes. */

import type { Operation } from '../btrfs/operation.js'
import type { BalanceFilters, BalanceOptions, BalanceProgress, BalanceStatus, BlockGroupType } from '../btrfs/types.js'
import type { BlockGroup } from './chunks.js'
import { failure } from './failure.js'
import type { SimulatedVolume } from './volume.js'

export class SimulatedBalance implements Operation<BalanceProgress, BalanceProgress> {
  readonly result: Promise<BalanceProgress>
  #progress: BalanceProgress
  #state: 'running' | 'paused' | 'ended' = 'running'
  #asked: 'pause' | 'cancel' | undefined
  readonly #volume: SimulatedVolume
  readonly #todo: BlockGroup[]
  readonly #filters: ReadonlyMap<BlockGroupType, BalanceFilters>

  constructor(volume: SimulatedVolume, options: BalanceOptions) {
    this.#volume = volume
    const system = options.system ?? options.metadata
    const given = { data: options.data, metadata: options.metadata, system }
    this.#filters = new Map(
      (['data', 'metadata', 'system'] as const).flatMap((type) => (given[type] ? [[type, given[type]]] : [])),
    )
    volume.commit()
    this.#todo = this.#select()
    this.#progress = { expected: this.#todo.length, considered: volume.space.chunks.groups.length, completed: 0 }
    options.signal?.addEventListener('abort', () => void this.cancel(), { once: true })
    this.result = this.#run()
    // Whoever only iterates hears of a failure there.
    this.result.catch(() => {})
  }

  get status(): BalanceStatus | undefined {
    return this.#state === 'ended' ? undefined : { ...this.#progress, state: this.#state }
  }
  async progress(): Promise<BalanceProgress | undefined> {
    return this.#state === 'ended' ? undefined : this.#progress
  }
  async cancel(): Promise<void> {
    if (this.#state === 'paused') this.#state = 'ended'
    this.#asked ??= 'cancel'
    await this.result.catch(() => {})
  }
  async pause(): Promise<void> {
    this.#asked ??= 'pause'
    await this.result.catch(() => {})
  }
  async *[Symbol.asyncIterator](): AsyncGenerator<BalanceProgress> {
    while (this.#state === 'running') {
      yield this.#progress
      await turn()
    }
    await this.result
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.cancel()
  }

  /** Who waits sees it advance: one block group in each turn of the event loop. */
  async #run(): Promise<BalanceProgress> {
    await turn()
    let full = false
    for (const group of this.#todo) {
      if (this.#asked !== undefined) {
        this.#state = this.#asked === 'pause' ? 'paused' : 'ended'
        throw failure('ECANCELED', 'balance', { progress: this.#progress })
      }
      // An earlier block group's content may have filled this one past the filter, or it was empty and is gone.
      if (!this.#volume.space.chunks.groups.includes(group) || !this.#matches(group)) continue
      const { usedBytes } = group
      if (!this.#volume.space.relocate(group)) full = true
      else this.#progress = { ...this.#progress, completed: this.#progress.completed + 1 }
      this.#volume.takeTimeFor(usedBytes)
      this.#volume.commit()
      await turn()
    }
    this.#state = 'ended'
    if (full) throw failure('ENOSPC', 'balance', { progress: this.#progress })
    return this.#progress
  }

  #select(): BlockGroup[] {
    const limits = new Map([...this.#filters].map(([type, { limit }]) => [type, limit ?? Number.POSITIVE_INFINITY]))
    return [...this.#volume.space.chunks.groups].reverse().filter((group) => {
      const left = limits.get(group.type) ?? 0
      if (left === 0 || !this.#matches(group)) return false
      limits.set(group.type, left - 1)
      return true
    })
  }
  #matches(group: BlockGroup): boolean {
    const usage = this.#filters.get(group.type)?.usagePercent
    return (
      usage === undefined || group.usedBytes < (group.sizeBytes * usage) / 100 || (usage === 0 && group.usedBytes === 0)
    )
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
