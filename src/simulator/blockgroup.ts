import { DeviceSpace } from '../btrfs/chunk-allocator.js'
import { Holes, type Range } from '../btrfs/holes.js'
import type { BlockGroupType, Profile } from '../btrfs/types.js'
import { MIB } from '../units.js'

export class SimulatedDevice extends DeviceSpace {
  constructor(
    devid: number,
    readonly uuid: string,
    readonly path: string,
    sizeBytes: number,
  ) {
    super(devid, sizeBytes)
  }
}

/** Extents of one size keep to block groups of their class while there is unallocated space (kernel ≥ 6.3). */
export type SizeClass = 'small' | 'medium' | 'large'
export function sizeClassOf(bytes: number): SizeClass {
  return bytes <= 128 * 1024 ? 'small' : bytes <= 8 * MIB ? 'medium' : 'large'
}

/** Neighbours on disk that were written together. */
export interface Extent {
  bytes: number
  diskBytes: number
  /** On-disk extents that it stands for. */
  count: number
  readonly compressed: boolean
  group: BlockGroup
  /** Logical address. */
  start: number
  /** Files that hold it. */
  refs: number
}

export class BlockGroup {
  /** Settled: what a commit has written down. */
  usedBytes = 0
  sizeClass: SizeClass | undefined
  emptySinceMs: number | undefined
  /** Data only: what lies here, for balance. */
  readonly extents = new Set<Extent>()
  readonly #holes: Holes
  /** Part of usedBytes that the next commit gives back. */
  #freeing: Range[] = []

  constructor(
    readonly type: BlockGroupType,
    readonly profile: Profile,
    /** Logical address. */
    readonly start: number,
    /** Logical. */
    readonly sizeBytes: number,
    readonly stripes: readonly { readonly device: SimulatedDevice; readonly range: Range }[],
  ) {
    this.#holes = new Holes(start, sizeBytes)
  }

  /** The longest extent that still fits, in one piece. */
  get largestHoleBytes(): number {
    return this.#holes.largest.length
  }

  /**
   * btrfs_find_space_for_alloc: at the first hole past the hint that holds it, else at the largest.
   * @param hint the logical address where the file ends on disk
   * @returns the logical address
   */
  take(bytes: number, hint?: number): number {
    const hole = (hint === undefined ? undefined : this.#holes.firstFit(bytes, hint)) ?? this.#holes.largest
    this.usedBytes += bytes
    return this.#holes.take(hole, bytes).offset
  }
  /** Free with the next commit. */
  free({ start, diskBytes }: Extent): void {
    this.#freeing.push({ offset: start, length: diskBytes })
  }
  commit(nowMs: number): void {
    for (const range of this.#freeing) {
      this.#holes.give(range)
      this.usedBytes -= range.length
    }
    this.#freeing = []
    if (this.usedBytes > 0) this.emptySinceMs = undefined
    else this.emptySinceMs ??= nowMs
  }
}
