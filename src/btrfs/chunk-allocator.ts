/**
 * Where the kernel would put the next chunk, and how large it would be: fs/btrfs/volumes.c
 * (init_alloc_chunk_ctl_policy_regular, gather_device_info, decide_stripe_size_regular). Pure. Not for zoned devices.
 */
import { GIB, MIB } from '../units.js'
import { Holes, type Range } from './holes.js'
import type { BlockGroupType, Profile } from './types.js'

export const STRIPE_BYTES = 65_536
/** The kernel leaves the first MiB of every device to boot loaders and the superblock. */
const RESERVED_BYTES = MIB

export interface ProfileRules {
  readonly devStripes: number
  /** 0: as many as there are. */
  readonly devsMax: number
  readonly devsMin: number
  readonly devsIncrement: number
  readonly copies: number
  readonly parity: number
  /** Devices that may be gone with nothing lost. */
  readonly tolerated: number
}

const row = (
  devStripes: number,
  devsMax: number,
  devsMin: number,
  devsIncrement: number,
  copies: number,
  parity: number,
  tolerated: number,
): ProfileRules => ({ devStripes, devsMax, devsMin, devsIncrement, copies, parity, tolerated })

/** btrfs_raid_array. */
export const PROFILE_RULES: Readonly<Record<Profile, ProfileRules>> = {
  single: row(1, 1, 1, 1, 1, 0, 0),
  dup: row(2, 1, 1, 1, 2, 0, 0),
  raid0: row(1, 0, 1, 1, 1, 0, 0),
  raid1: row(1, 2, 2, 2, 2, 0, 1),
  raid1c3: row(1, 3, 3, 3, 3, 0, 2),
  raid1c4: row(1, 4, 4, 4, 4, 0, 3),
  raid10: row(1, 0, 2, 2, 2, 0, 1),
  raid5: row(1, 0, 2, 1, 1, 1, 1),
  raid6: row(1, 0, 3, 1, 1, 2, 2),
}

/** What a stripe of a chunk takes of its device. */
export function stripeBytes(profile: Profile, sizeBytes: number, stripes: number): number {
  const { copies, parity } = PROFILE_RULES[profile]
  return Math.trunc(sizeBytes / Math.max(1, Math.trunc((stripes - parity) / copies)))
}

/** What of a device is in no chunk. */
export class DeviceSpace {
  readonly #holes: Holes
  #unallocatedBytes: number
  constructor(
    readonly devid: number,
    readonly sizeBytes: number,
    /** What of it is allocated already. */
    extents: readonly Range[] = [],
  ) {
    this.#holes = new Holes(0, 0)
    this.#unallocatedBytes = sizeBytes - extents.reduce((sum, { length }) => sum + length, 0)
    let at = RESERVED_BYTES
    for (const { offset, length } of [...extents].sort((a, b) => a.offset - b.offset)) {
      if (offset > at) this.#holes.give({ offset: at, length: offset - at })
      at = Math.max(at, offset + length)
    }
    if (sizeBytes > at) this.#holes.give({ offset: at, length: sizeBytes - at })
  }

  get allocatedBytes(): number {
    return this.sizeBytes - this.#unallocatedBytes
  }
  get unallocatedBytes(): number {
    return this.#unallocatedBytes
  }

  /** Of the first hole of at least `wanted` bytes, else of the largest there is. */
  available(wanted: number): number {
    return Math.min(wanted, this.#hole(wanted).length)
  }
  take(length: number): Range {
    const range = this.#holes.take(this.#hole(length), length)
    this.#unallocatedBytes -= length
    return range
  }
  give(range: Range): void {
    this.#holes.give(range)
    this.#unallocatedBytes += range.length
  }
  #hole(wanted: number): Range {
    return this.#holes.firstFit(wanted) ?? this.#holes.largest
  }
}

export interface NextChunk<Device> {
  readonly devices: readonly Device[]
  /** On each device so many bytes for each of its stripes. */
  readonly stripeBytes: number
  /** Logical. */
  readonly sizeBytes: number
}

export const metadataChunkBytes = (totalBytes: number) => (totalBytes > 50 * GIB ? GIB : 256 * MIB)

/**
 * Undefined when there is no room for one.
 * @param devices those that can be written
 * @param fixedStripeBytes of a new volume's first chunks, which mkfs makes
 */
export function nextChunk<Device extends DeviceSpace>(
  devices: readonly Device[],
  type: BlockGroupType,
  profile: Profile,
  fixedStripeBytes?: number,
): NextChunk<Device> | undefined {
  const { devStripes, devsMax, devsMin, devsIncrement, copies, parity } = PROFILE_RULES[profile]
  const totalBytes = devices.reduce((sum, device) => sum + device.sizeBytes, 0)
  const chunkLimit = type === 'metadata' ? metadataChunkBytes(totalBytes) : type === 'system' ? 32 * MIB : 10 * GIB
  const stripeLimit = fixedStripeBytes ?? Math.min(chunkLimit, GIB)
  const maxChunk = Math.min(Math.floor(totalBytes / 10), chunkLimit)
  const able = devices
    .map((device) => ({ device, available: device.available(stripeLimit * devStripes) }))
    .filter(({ available }) => available >= STRIPE_BYTES * devStripes)
    .sort((a, b) => b.available - a.available || b.device.unallocatedBytes - a.device.unallocatedBytes)
  let count = able.length - (able.length % devsIncrement)
  if (count < devsMin) return undefined
  if (devsMax > 0) count = Math.min(count, devsMax)
  const dataStripes = (count * devStripes - parity) / copies
  let stripe = able[count - 1]!.available / devStripes
  if (fixedStripeBytes === undefined && stripe * dataStripes > maxChunk) {
    stripe = Math.min(Math.ceil(maxChunk / dataStripes / (16 * MIB)) * 16 * MIB, stripe)
  }
  stripe = Math.floor(Math.min(stripe, stripeLimit) / STRIPE_BYTES) * STRIPE_BYTES
  const chosen = able.slice(0, count).map(({ device }) => device)
  return { devices: chosen, stripeBytes: stripe, sizeBytes: stripe * dataStripes }
}
