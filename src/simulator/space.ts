/** Data and metadata in block groups: what is reserved, settled, waiting for the next commit, and moved by balance. */
import type { BlockGroupType, Profile } from '../btrfs/types.js'
import { MIB } from '../units.js'
import { type BlockGroup, type Extent, type SimulatedDevice, type SizeClass, sizeClassOf } from './blockgroup.js'
import { Chunks, NODE_BYTES, SECTOR_BYTES } from './chunks.js'

/** No extent is longer; a compressed one covers at most 128 KiB. */
const MAX_EXTENT_BYTES = 128 * MIB
export const COMPRESSED_EXTENT_BYTES = 128 * 1024
/** Item sizes in a well-filled leaf, measured on kernel 6.18; checksums are crc32c, 4 bytes a sector. */
const EMPTY_TREES_BYTES = 6.5 * NODE_BYTES
const EXTENT_ITEM_BYTES = 160
const CHECKSUM_RATIO = 4 / SECTOR_BYTES
/** btrfs_calc_insert_metadata_size for 22 items of 16 KiB nodes: what a fresh volume reports. */
const MIN_RESERVE_BYTES = 5.5 * MIB
const MAX_RESERVE_BYTES = 512 * MIB

/** BTRFS_DISCARD_UNUSED_DELAY: with discard=async an empty block group is trimmed first. */
const UNUSED_DELAY_MS = 10_000

export function roundUp(bytes: number, unit: number): number {
  return Math.ceil(bytes / unit) * unit
}

export class Space {
  readonly chunks: Chunks
  /** Written but not flushed: as the kernel's bytes_may_use, uncompressed. */
  #pendingBytes = 0
  /** Metadata that found no room; stands for what a full volume cannot write down any more. */
  #owedMetadataBytes = 0
  /** Of extents and checksums: their trees size the global reserve. */
  #extentTreesBytes = 0

  constructor(devices: readonly SimulatedDevice[], profiles: { data: Profile; metadata: Profile }) {
    this.chunks = new Chunks(devices, profiles)
    const system = this.groups('system')[0]!
    system.usedBytes = NODE_BYTES
    this.growMetadata(EMPTY_TREES_BYTES)
  }

  groups(type: BlockGroupType): BlockGroup[] {
    return this.chunks.groups.filter((group) => group.type === type)
  }
  used(type: BlockGroupType): number {
    return this.#sum(type, (group) => (type === 'metadata' ? nodes(group.usedBytes) : group.usedBytes))
  }
  allocated(type: BlockGroupType): number {
    return this.#sum(type, (group) => group.sizeBytes)
  }
  get pendingBytes() {
    return this.#pendingBytes
  }
  get globalReserveBytes() {
    const wanted = roundUp(this.#extentTreesBytes, NODE_BYTES)
    return Math.min(MAX_RESERVE_BYTES, Math.max(MIN_RESERVE_BYTES, wanted))
  }

  /** Sets room aside for a write, as much of it as there is; with new block groups where needed. */
  reserve(bytes: number): number {
    const wanted = roundUp(bytes, SECTOR_BYTES)
    let room = this.#dataRoom()
    while (room < wanted && this.chunks.allocate('data') !== undefined) room = this.#dataRoom()
    const got = Math.min(wanted, Math.floor(room / SECTOR_BYTES) * SECTOR_BYTES)
    this.#pendingBytes += got
    return got
  }
  unreserve(bytes: number): void {
    this.#pendingBytes -= roundUp(bytes, SECTOR_BYTES)
  }

  /**
   * Finds a place for data that was reserved. `ratio` < 1: compressed to that, in extents of 128 KiB.
   * @param after what it goes on from, in the file
   */
  place(bytes: number, ratio = 1, after?: Extent): Extent[] {
    this.unreserve(bytes)
    const extents: Extent[] = []
    const before = () => extents.at(-1) ?? after
    for (let left = bytes; left > 0; ) {
      const extent = this.#placeOne(left, ratio, before())
      const last = extents.at(-1)
      if (last !== undefined && follows(last, extent)) {
        last.bytes += extent.bytes
        last.diskBytes += extent.diskBytes
        last.count += extent.count
      } else extents.push(extent)
      left -= extent.bytes
    }
    for (const extent of extents) this.#track(extent)
    return extents
  }

  /** The last reference to it is gone; the bytes come back with the next commit. */
  free(extent: Extent): void {
    extent.group.free(extent)
    extent.group.extents.delete(extent)
    this.#account(-extent.count, -extent.diskBytes)
  }

  /** False when metadata is full and no block group can be added. */
  growMetadata(bytes: number): boolean {
    let left = bytes
    while (this.#metadataRoom() < left) {
      if (this.chunks.allocate('metadata') !== undefined) continue
      this.#owedMetadataBytes += left
      return false
    }
    for (const group of this.groups('metadata')) {
      const part = Math.min(left, group.sizeBytes - group.usedBytes)
      group.usedBytes += part
      left -= part
    }
    return true
  }
  /** Freed nodes lie anywhere: every block group gives its share. */
  shrinkMetadata(bytes: number): void {
    const owed = Math.min(bytes, this.#owedMetadataBytes)
    this.#owedMetadataBytes -= owed
    const total = this.#sum('metadata', (group) => group.usedBytes)
    for (const group of this.groups('metadata')) group.usedBytes -= ((bytes - owed) * group.usedBytes) / total
  }
  /** May a file or directory still be made? The global reserve is not for that: past it the kernel says ENOSPC. */
  canCreate(): boolean {
    return (
      this.#metadataRoom() - this.globalReserveBytes >= 16 * NODE_BYTES ||
      this.chunks.allocate('metadata') !== undefined
    )
  }

  /**
   * End of a transaction: freed bytes are free. Block groups that have been empty for a while go back to unallocated,
   * but for the last of a type.
   */
  commit(nowMs: number): void {
    for (const group of this.chunks.groups) group.commit(nowMs)
    for (const type of ['data', 'metadata'] as const) {
      const reserved = type === 'data' ? this.#pendingBytes : this.globalReserveBytes
      for (const group of this.groups(type)) {
        if (!(nowMs - group.emptySinceMs! >= UNUSED_DELAY_MS) || this.groups(type).length === 1) continue
        if (this.allocated(type) - group.sizeBytes < this.used(type) + reserved) continue
        this.chunks.remove(group)
      }
    }
  }

  /**
   * Balance of one block group: moves its content to others, to a new one where those are full, and gives it back.
   * False when there is no room (the kernel's ENOSPC for this block group).
   */
  relocate(group: BlockGroup): boolean {
    if (group.type === 'data') return this.#relocateData(group)
    if (group.type === 'system') return this.#relocateSystem(group)
    const needed = group.usedBytes
    let room = this.#metadataRoom() - (group.sizeBytes - group.usedBytes)
    while (room - this.globalReserveBytes < needed) {
      const more = this.chunks.allocate('metadata')
      if (more === undefined) break
      room += more.sizeBytes
    }
    if (room < needed) return false
    let left = needed
    for (const other of this.groups('metadata')) {
      if (other === group) continue
      const part = Math.min(left, other.sizeBytes - other.usedBytes)
      other.usedBytes += part
      left -= part
    }
    this.chunks.remove(group)
    return true
  }

  /** 16 KiB of it is used, so what is left is a fresh block group of the kernel's size: larger than mkfs made it. */
  #relocateSystem(group: BlockGroup): boolean {
    const fresh = this.chunks.allocate('system')
    if (fresh === undefined) return false
    fresh.usedBytes = group.usedBytes
    this.chunks.remove(group)
    return true
  }

  #relocateData(group: BlockGroup): boolean {
    const room = () => this.#dataRoom() - (group.sizeBytes - group.usedBytes)
    while (room() < group.usedBytes) if (this.chunks.allocate('data') === undefined) return false
    for (const extent of [...group.extents].sort((a, b) => a.start - b.start)) {
      const sizeClass = extent.compressed ? 'small' : sizeClassOf(extent.diskBytes / extent.count)
      const target = this.#findGroup(extent.diskBytes, sizeClass, group)
      // An extent that fits nowhere whole would be split; the model moves it whole or not at all.
      if (target === undefined) return false
      group.extents.delete(extent)
      group.free(extent)
      extent.start = target.take(extent.diskBytes)
      extent.group = target
      target.extents.add(extent)
    }
    this.chunks.remove(group)
    return true
  }

  /** find_free_extent: a block group of its size class, an unclaimed one, a new one, and only then another class's. */
  #findGroup(bytes: number, sizeClass: SizeClass, except?: BlockGroup): BlockGroup | undefined {
    const fits = (group: BlockGroup) => group !== except && group.largestHoleBytes >= bytes
    const groups = this.groups('data').filter(fits)
    let group = groups.find((other) => other.sizeClass === sizeClass) ?? groups.find((other) => !other.sizeClass)
    if (group === undefined) {
      const more = this.chunks.allocate('data')
      group = more !== undefined && fits(more) ? more : groups[0]
    }
    if (group !== undefined) group.sizeClass ??= sizeClass
    return group
  }

  /** As much of it as finds a place in one piece: btrfs_reserve_extent halves what it asks for until it does. */
  #placeOne(wanted: number, ratio: number, after: Extent | undefined): Extent {
    const compressed = ratio < 1
    const unit = compressed ? COMPRESSED_EXTENT_BYTES : SECTOR_BYTES
    for (let bytes = compressed ? wanted : Math.min(wanted, MAX_EXTENT_BYTES); ; ) {
      const diskBytes = compressed ? compressedBytes(bytes, ratio) : roundUp(bytes, SECTOR_BYTES)
      const group = this.#findGroup(diskBytes, compressed ? 'small' : sizeClassOf(diskBytes))
      if (group !== undefined) {
        const start = group.take(diskBytes, after?.group === group ? after.start + after.diskBytes : undefined)
        const count = compressed ? Math.ceil(bytes / COMPRESSED_EXTENT_BYTES) : 1
        return { bytes, diskBytes, count, compressed, group, start, refs: 0 }
      }
      // Of what cannot be placed compressed the rest stays as it is.
      if (bytes <= unit) return this.#placeOne(Math.min(wanted, unit), 1, after)
      bytes = roundUp(bytes / 2, unit)
    }
  }

  #track(extent: Extent): void {
    extent.group.extents.add(extent)
    this.#account(extent.count, extent.diskBytes)
  }
  #account(extents: number, diskBytes: number): void {
    const bytes = extents * EXTENT_ITEM_BYTES + diskBytes * CHECKSUM_RATIO
    this.#extentTreesBytes += bytes
    // Committing data must not fail for want of metadata: the kernel takes it from the global reserve.
    if (bytes > 0) this.growMetadata(bytes)
    else this.shrinkMetadata(-bytes)
  }

  #dataRoom(): number {
    return this.allocated('data') - this.used('data') - this.#pendingBytes
  }
  #metadataRoom(): number {
    return this.#sum('metadata', (group) => group.sizeBytes - group.usedBytes)
  }
  #sum(type: BlockGroupType, of: (group: BlockGroup) => number): number {
    let sum = 0
    for (const group of this.chunks.groups) if (group.type === type) sum += of(group)
    return sum
  }
}

/** Does it go on on disk where the other one ends, and in the same way? */
export function follows(before: Extent, extent: Extent): boolean {
  return before.start + before.diskBytes === extent.start && before.compressed === extent.compressed
}

/** Metadata is handed out in nodes. */
export function nodes(bytes: number): number {
  return roundUp(bytes, NODE_BYTES)
}

/** Each 128 KiB is compressed by itself and rounded up to sectors. */
export function compressedBytes(bytes: number, ratio: number): number {
  const whole = Math.floor(bytes / COMPRESSED_EXTENT_BYTES)
  const rest = bytes - whole * COMPRESSED_EXTENT_BYTES
  return (
    whole * roundUp(COMPRESSED_EXTENT_BYTES * ratio, SECTOR_BYTES) +
    (rest > 0 ? Math.min(roundUp(rest * ratio, SECTOR_BYTES), roundUp(rest, SECTOR_BYTES)) : 0)
  )
}
