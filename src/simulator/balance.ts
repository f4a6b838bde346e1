/** Balance, one block group at a time, newest first as the kernel goes. */

import {
  type BalanceProgress,
  type BalanceSelection,
  type BalanceStatus,
  chosen,
  passes,
} from '../btrfs/balance-filters.js'
import { PROFILE_RULES } from '../btrfs/chunk-allocator.js'
import type { BlockGroupType } from '../btrfs/types.js'
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
  readonly #selection: BalanceSelection

  constructor(volume: SimulatedVolume, selection: BalanceSelection) {
    this.#volume = volume
    this.#selection = selection
    volume.commit()
    const { groups } = volume.space.chunks
    this.#todo = chosen(groups.map(asFiltered), selection).map(({ group }) => group)
    this.#progress = { expected: this.#todo.length, considered: volume.space.chunks.groups.length, completed: 0 }
  }

  get status(): BalanceStatus | undefined {
    return this.#state === 'ended' ? undefined : { ...this.#progress, ...this.#selection, state: this.#state }
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
    if (!space.chunks.groups.includes(group) || !this.#passes(group)) return
    const { usedBytes } = group
    if (space.relocate(group)) this.#progress = { ...this.#progress, completed: this.#progress.completed + 1 }
    else this.#full = true
    this.#volume.takeTimeFor(usedBytes)
    this.#volume.commit()
  }

  #passes(group: BlockGroup): boolean {
    const filters = this.#selection[group.type as Exclude<BlockGroupType, 'data+metadata'>]
    return filters !== undefined && passes(filters, asFiltered(group))
  }
}

function asFiltered(group: BlockGroup) {
  const { type, profile, start, sizeBytes, usedBytes } = group
  const { devStripes } = PROFILE_RULES[profile]
  const stripes = group.stripes.flatMap(({ device, range: { offset, length } }) =>
    Array.from({ length: devStripes }, (_, index) => ({
      devid: device.devid,
      offsetBytes: offset + (index * length) / devStripes,
    })),
  )
  return { group, type, profile, logicalBytes: start, sizeBytes, usedBytes, stripes }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
