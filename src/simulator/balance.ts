/** Balance, one block group at a time, newest first as the kernel goes. */
import type { BalanceFilters, BalanceOptions, BalanceProgress, BalanceStatus, BlockGroupType } from '../btrfs/types.js'
import type { BlockGroup } from './blockgroup.js'
import { failure } from './failure.js'
import type { SimulatedVolume } from './volume.js'

export class SimulatedBalance {
  #progress: BalanceProgress
  #state: 'running' | 'paused' | 'ended' = 'running'
  #pausing = false
  /** Some block group had nowhere to go. */
  #full = false
  readonly #volume: SimulatedVolume
  readonly #todo: BlockGroup[]
  readonly #filters: Partial<Record<BlockGroupType, BalanceFilters | undefined>>

  constructor(volume: SimulatedVolume, { data, metadata, system }: BalanceOptions) {
    this.#volume = volume
    this.#filters = { data, metadata, system }
    volume.commit()
    this.#todo = this.#select()
    this.#progress = { expected: this.#todo.length, considered: volume.space.chunks.groups.length, completed: 0 }
  }

  get status(): BalanceStatus | undefined {
    return this.#state === 'ended' ? undefined : { ...this.#progress, state: this.#state }
  }
  pause(): void {
    this.#pausing = this.#state === 'running'
  }
  /** Of a paused one. */
  drop(): void {
    this.#state = 'ended'
  }

  /** Who waits sees it advance: one block group in each turn of the event loop. */
  async run(operation: string, stop: AbortSignal): Promise<BalanceProgress> {
    this.#state = 'running'
    this.#pausing = false
    await turn()
    for (let group = this.#todo.shift(); group !== undefined; group = this.#todo.shift()) {
      if (stop.aborted || this.#pausing) {
        this.#todo.unshift(group)
        this.#state = stop.aborted ? 'ended' : 'paused'
        throw failure('ECANCELED', operation, { progress: this.#progress })
      }
      this.#relocate(group)
      await turn()
    }
    this.#state = 'ended'
    if (this.#full) throw failure('ENOSPC', operation, { progress: this.#progress })
    return this.#progress
  }

  #relocate(group: BlockGroup): void {
    const { space } = this.#volume
    // It may have been emptied and given back, or filled past the filter by what another one held.
    if (!space.chunks.groups.includes(group) || !this.#matches(group)) return
    const { usedBytes } = group
    if (space.relocate(group)) this.#progress = { ...this.#progress, completed: this.#progress.completed + 1 }
    else this.#full = true
    this.#volume.takeTimeFor(usedBytes)
    this.#volume.commit()
  }

  #select(): BlockGroup[] {
    const left = {
      data: Number.POSITIVE_INFINITY,
      metadata: Number.POSITIVE_INFINITY,
      system: Number.POSITIVE_INFINITY,
    }
    return [...this.#volume.space.chunks.groups].reverse().filter((group) => {
      const type = group.type as keyof typeof left
      const { limit = Number.POSITIVE_INFINITY } = this.#filters[type] ?? {}
      left[type] = Math.min(left[type], limit)
      return this.#matches(group) && left[type]-- > 0
    })
  }
  #matches(group: BlockGroup): boolean {
    const filters = this.#filters[group.type]
    if (filters === undefined) return false
    const { usagePercent } = filters
    if (usagePercent === undefined) return true
    if (usagePercent === 0) return group.usedBytes === 0
    return group.usedBytes < (group.sizeBytes * usagePercent) / 100
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
