/**
 * The kernel's chunk allocator: sizes are those of fs/btrfs/volumes.c
 * (init_alloc_chunk_ctl_policy_regular, gather_device_info, decide_stripe_size_regular) and, for a new volume, of
 * mkfs.btrfs 6.2.
 */
import type { BlockGroupType, Profile } from '../btrfs/types.js'
import { GIB, MIB } from '../units.js'
import { BlockGroup, type SimulatedDevice } from './blockgroup.js'

export const SECTOR_BYTES = 4096
export const NODE_BYTES = 16_384
export const STRIPE_BYTES = 65_536

export interface Redundancy {
  readonly devStripes: number
  /** 0: as many as there are. */
  readonly devsMax: number
  readonly devsMin: number
  readonly devsIncrement: number
  readonly copies: number
  readonly parity: number
}

const row = (
  devStripes: number,
  devsMax: number,
  devsMin: number,
  devsIncrement: number,
  copies: number,
  parity: number,
) => ({ devStripes, devsMax, devsMin, devsIncrement, copies, parity })

/** btrfs_raid_array. */
export const REDUNDANCY: Readonly<Record<Profile, Redundancy>> = {
  single: row(1, 1, 1, 1, 1, 0),
  dup: row(2, 1, 1, 1, 2, 0),
  raid0: row(1, 0, 1, 1, 1, 0),
  raid1: row(1, 2, 2, 2, 2, 0),
  raid1c3: row(1, 3, 3, 3, 3, 0),
  raid1c4: row(1, 4, 4, 4, 4, 0),
  raid10: row(1, 0, 2, 2, 2, 0),
  raid5: row(1, 0, 2, 1, 1, 1),
  raid6: row(1, 0, 3, 1, 1, 2),
}

export class Chunks {
  readonly groups: BlockGroup[] = []
  readonly #totalBytes: number
  /** Logical addresses are never used again. */
  #nextLogical = 0
  constructor(
    readonly devices: readonly SimulatedDevice[],
    readonly profiles: { readonly data: Profile; readonly metadata: Profile },
  ) {
    this.#totalBytes = devices.reduce((sum, device) => sum + device.sizeBytes, 0)
    const stripes = REDUNDANCY[profiles.metadata].devStripes
    const limit = Math.min(this.#metadataChunkBytes, this.#totalBytes / 10)
    const metadata = this.#metadataChunkBytes > limit ? limit / stripes : limit
    this.#create('system', profiles.metadata, 8 * MIB)
    this.#create('metadata', profiles.metadata, Math.max(32 * MIB, metadata))
    this.#create('data', profiles.data, 8 * MIB)
    if (this.groups.length < 3) throw new RangeError('the devices are too few or too small for these profiles')
  }

  get #metadataChunkBytes() {
    return this.#totalBytes > 50 * GIB ? GIB : 256 * MIB
  }

  get unallocatedBytes(): number {
    return this.devices.reduce((sum, device) => sum + device.unallocatedBytes, 0)
  }

  /** One more block group as the kernel would size it; undefined when there is no room. */
  allocate(type: 'data' | 'metadata' | 'system'): BlockGroup | undefined {
    return this.#create(type, this.profiles[type === 'data' ? 'data' : 'metadata'])
  }

  canAllocate(type: 'data' | 'metadata'): boolean {
    return this.#plan(type, this.profiles[type]) !== undefined
  }

  remove(group: BlockGroup): void {
    for (const { device, range } of group.stripes) device.give(range)
    this.groups.splice(this.groups.indexOf(group), 1)
  }

  #create(type: BlockGroupType, profile: Profile, stripeBytes?: number): BlockGroup | undefined {
    const plan = this.#plan(type, profile, stripeBytes)
    if (plan === undefined) return undefined
    const { chosen, stripe } = plan
    const { devStripes } = REDUNDANCY[profile]
    const stripes = chosen.map((device) => ({ device, range: device.take(stripe * devStripes) }))
    const group = new BlockGroup(type, profile, this.#nextLogical, plan.logicalBytes, stripes)
    this.#nextLogical += plan.logicalBytes
    this.groups.push(group)
    return group
  }

  #plan(type: BlockGroupType, profile: Profile, stripeBytes?: number) {
    const { devStripes, devsMax, devsMin, devsIncrement, copies, parity } = REDUNDANCY[profile]
    const chunkLimit = type === 'data' ? 10 * GIB : type === 'metadata' ? this.#metadataChunkBytes : 32 * MIB
    const stripeLimit = stripeBytes ?? Math.min(chunkLimit, GIB)
    const maxChunk = Math.min(Math.floor(this.#totalBytes / 10), chunkLimit)
    const able = this.devices
      .map((device) => ({ device, available: device.available(stripeLimit * devStripes) }))
      .filter(({ available }) => available >= STRIPE_BYTES * devStripes)
      .sort((a, b) => b.available - a.available || b.device.unallocatedBytes - a.device.unallocatedBytes)
    let count = able.length - (able.length % devsIncrement)
    if (count < devsMin) return undefined
    if (devsMax > 0) count = Math.min(count, devsMax)
    const chosen = able.slice(0, count)
    const dataStripes = (count * devStripes - parity) / copies
    let stripe = chosen.at(-1)!.available / devStripes
    if (stripeBytes === undefined && stripe * dataStripes > maxChunk) {
      stripe = Math.min(Math.ceil(maxChunk / dataStripes / (16 * MIB)) * 16 * MIB, stripe)
    }
    stripe = Math.floor(Math.min(stripe, stripeLimit) / STRIPE_BYTES) * STRIPE_BYTES
    return { chosen: chosen.map(({ device }) => device), stripe, logicalBytes: stripe * dataStripes }
  }
}
