/**
 * Devices, block groups and the kernel's chunk allocator: sizes are those of fs/btrfs/volumes.c
 * (init_alloc_chunk_ctl_policy_regular, gather_device_info, decide_stripe_size_regular) and, for a new volume, of
 * mkfs.btrfs 6.2.
 */
import type { BlockGroupType, Profile } from '../btrfs/types.js'
import { GIB, MIB } from '../units.js'
import type { Extent } from './tree.js'

export const SECTOR_BYTES = 4096
export const NODE_BYTES = 16_384
export const STRIPE_BYTES = 65_536
/** The kernel leaves the first MiB of every device to boot loaders and the superblock. */
const RESERVED_BYTES = MIB

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

interface Range {
  readonly offset: number
  readonly length: number
}

/** Extents of one size keep to block groups of their class while there is unallocated space (kernel ≥ 6.3). */
export type SizeClass = 'small' | 'medium' | 'large'
export function sizeClassOf(bytes: number): SizeClass {
  return bytes <= 128 * 1024 ? 'small' : bytes <= 8 * MIB ? 'medium' : 'large'
}

export interface BlockGroup {
  readonly type: BlockGroupType
  readonly profile: Profile
  /** Logical. */
  readonly sizeBytes: number
  readonly rawBytes: number
  readonly stripes: readonly { readonly device: SimulatedDevice; readonly range: Range }[]
  /** Settled: what a commit has written down. */
  usedBytes: number
  /** Part of usedBytes that the next commit gives back. */
  freeingBytes: number
  sizeClass: SizeClass | undefined
  emptySinceMs: number | undefined
  /** Data only: what lies here, for balance. */
  readonly extents: Set<Extent>
}

export class SimulatedDevice {
  /** Sorted by offset. */
  #ranges: Range[] = []
  #allocatedBytes = 0
  constructor(
    readonly devid: number,
    readonly uuid: string,
    readonly path: string,
    readonly sizeBytes: number,
  ) {}

  get allocatedBytes() {
    return this.#allocatedBytes
  }
  get unallocatedBytes() {
    return this.sizeBytes - this.#allocatedBytes
  }

  /** The first hole of at least `wanted` bytes, else the largest there is. */
  hole(wanted: number): Range {
    let best: Range = { offset: RESERVED_BYTES, length: 0 }
    let start = RESERVED_BYTES
    for (const range of [...this.#ranges, { offset: this.sizeBytes, length: 0 }]) {
      const length = range.offset - start
      if (length >= wanted) return { offset: start, length: wanted }
      if (length > best.length) best = { offset: start, length }
      start = range.offset + range.length
    }
    return best
  }
  take(length: number): Range {
    const range = { offset: this.hole(length).offset, length }
    this.#ranges.push(range)
    this.#ranges.sort((a, b) => a.offset - b.offset)
    this.#allocatedBytes += length
    return range
  }
  give(range: Range): void {
    this.#ranges = this.#ranges.filter((other) => other !== range)
    this.#allocatedBytes -= range.length
  }
}

export class Chunks {
  readonly groups: BlockGroup[] = []
  readonly #totalBytes: number
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
    const group: BlockGroup = {
      type,
      profile,
      sizeBytes: plan.logicalBytes,
      rawBytes: stripe * devStripes * chosen.length,
      stripes: chosen.map((device) => ({ device, range: device.take(stripe * devStripes) })),
      usedBytes: 0,
      freeingBytes: 0,
      sizeClass: undefined,
      emptySinceMs: undefined,
      extents: new Set(),
    }
    this.groups.push(group)
    return group
  }

  #plan(type: BlockGroupType, profile: Profile, stripeBytes?: number) {
    const { devStripes, devsMax, devsMin, devsIncrement, copies, parity } = REDUNDANCY[profile]
    const chunkLimit = type === 'data' ? 10 * GIB : type === 'metadata' ? this.#metadataChunkBytes : 32 * MIB
    const stripeLimit = stripeBytes ?? Math.min(chunkLimit, GIB)
    const maxChunk = Math.min(Math.floor(this.#totalBytes / 10), chunkLimit)
    const able = this.devices
      .map((device) => ({ device, available: device.hole(stripeLimit * devStripes).length }))
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
