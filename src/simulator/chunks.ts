/** The chunks of a volume that is not there; for a new one, of the sizes that mkfs.btrfs 6.2 makes. */
import { metadataChunkBytes, nextChunk, PROFILE_RULES } from '../btrfs/chunk-allocator.js'
import type { BlockGroupType, Profile } from '../btrfs/types.js'
import { MIB } from '../units.js'
import { BlockGroup, type SimulatedDevice } from './blockgroup.js'

export const SECTOR_BYTES = 4096
export const NODE_BYTES = 16_384

export class Chunks {
  readonly groups: BlockGroup[] = []
  /** Logical addresses are never used again. */
  #nextLogical = 0
  constructor(
    readonly devices: readonly SimulatedDevice[],
    readonly profiles: { readonly data: Profile; readonly metadata: Profile },
  ) {
    const totalBytes = devices.reduce((sum, device) => sum + device.sizeBytes, 0)
    const most = metadataChunkBytes(totalBytes)
    const limit = Math.min(most, totalBytes / 10)
    const metadata = most > limit ? limit / PROFILE_RULES[profiles.metadata].devStripes : limit
    this.#create('system', profiles.metadata, 8 * MIB)
    this.#create('metadata', profiles.metadata, Math.max(32 * MIB, metadata))
    this.#create('data', profiles.data, 8 * MIB)
    if (this.groups.length < 3) throw new RangeError('the devices are too few or too small for these profiles')
  }

  get unallocatedBytes(): number {
    return this.devices.reduce((sum, device) => sum + device.unallocatedBytes, 0)
  }

  /** One more block group as the kernel would size it; undefined when there is no room. */
  allocate(type: 'data' | 'metadata' | 'system'): BlockGroup | undefined {
    return this.#create(type, this.profiles[type === 'data' ? 'data' : 'metadata'])
  }

  canAllocate(type: 'data' | 'metadata'): boolean {
    return nextChunk(this.devices, type, this.profiles[type]) !== undefined
  }

  remove(group: BlockGroup): void {
    for (const { device, range } of group.stripes) device.give(range)
    this.groups.splice(this.groups.indexOf(group), 1)
  }

  #create(type: BlockGroupType, profile: Profile, stripeBytes?: number): BlockGroup | undefined {
    const next = nextChunk(this.devices, type, profile, stripeBytes)
    if (next === undefined) return undefined
    const length = next.stripeBytes * PROFILE_RULES[profile].devStripes
    const stripes = next.devices.map((device) => ({ device, range: device.take(length) }))
    const group = new BlockGroup(type, profile, this.#nextLogical, next.sizeBytes, stripes)
    this.#nextLogical += next.sizeBytes
    this.groups.push(group)
    return group
  }
}
