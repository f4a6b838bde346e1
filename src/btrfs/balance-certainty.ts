/**
 * Whether a balance finds room for certain: as the kernel goes about it where it is unlucky. fs/btrfs/block-group.c
 * (btrfs_inc_block_group_ro), relocation.c (prepare_to_relocate), space-info.c, extent-tree.c. Pure.
 */
import { formatBytes, GIB, KIB, MIB } from '../units.js'
import { type DeviceSpace, nextChunk, PROFILE_RULES, stripeBytes } from './chunk-allocator.js'
import type { BlockGroup } from './inspect.js'
import type { BlockGroupType, Profile } from './types.js'

/** The largest extent of data. It is moved in one piece, so it needs a hole of its length. */
const MAX_EXTENT_BYTES = 128 * MIB
/**
 * Beside the global reserve: 256 nodes, which are reserved before a block group is moved, and as much again for what is
 * written on the way. Of nodes of 16 KiB.
 */
const RELOCATION_BYTES = 2 * 256 * 16 * KIB
/** Checksums (4 bytes of 4 KiB, crc32c) and extents of what is moved, old and new. */
const METADATA_RATIO = 1 / 256
/** To note a chunk that comes and one that goes. */
const CHUNK_ITEMS_BYTES = MIB
/** Extents of up to 128 KiB, up to 8 MiB, and larger ones go to block groups of their own while there is room. */
const SIZE_CLASSES = 3

export interface Ground {
  readonly groups: readonly BlockGroup[]
  /** Those that can be written. */
  readonly devices: readonly DeviceSpace[]
  readonly reserveBytes: number
  readonly target: (type: BlockGroupType) => Profile
}

/** Why it cannot be promised that each of these block groups, in this order, finds room; empty: it can. */
export function doubts({ groups, devices, reserveBytes, target }: Ground, taken: readonly BlockGroup[]): string[] {
  /** Of new block groups of data, what is left of each. What is free in others may be in pieces. */
  const fresh: number[] = []
  /** Free in those of the profile that is written. Trees are written in nodes, which fit any hole. */
  const free = new Map<BlockGroupType, number>()
  const add = (type: BlockGroupType, bytes: number) => free.set(type, (free.get(type) ?? 0) + bytes)
  const hold = ({ type, profile, sizeBytes, usedBytes = 0 }: BlockGroup, times: 1 | -1) => {
    if (profile === target(type)) add(type, times * (sizeBytes - usedBytes))
  }
  const metadata = groups.some(({ type }) => type === 'data+metadata') ? 'data+metadata' : 'metadata'
  add(metadata, -reserveBytes)
  for (const group of groups) hold(group, 1)

  const grow = (type: BlockGroupType): boolean => {
    const profile = target(type)
    const next = nextChunk(devices, type, profile)
    if (next === undefined) return false
    for (const device of next.devices) device.take(next.stripeBytes * PROFILE_RULES[profile].devStripes)
    if (type === 'data') fresh.push(next.sizeBytes)
    else add(type, next.sizeBytes)
    return true
  }
  const enough = (type: BlockGroupType, bytes: number): boolean => {
    while ((free.get(type) ?? 0) < bytes) if (!grow(type)) return false
    return true
  }
  const takesData = (bytes: number): boolean => {
    const extent = Math.min(bytes, MAX_EXTENT_BYTES)
    const room = () => fresh.reduce((sum, left) => sum + Math.max(0, left - extent), 0)
    while (Math.max(0, ...fresh) < bytes && room() < bytes) if (!grow('data')) return false
    for (let left = bytes; left > 0; ) {
      const most = fresh.indexOf(Math.max(...fresh))
      const taken = Math.min(left, fresh[most]!)
      fresh[most]! -= taken
      left -= taken
    }
    return true
  }

  /** System chunks are not made on demand: it must seem that there is room beside a chunk of data. */
  const movesSystem = (bytes: number): boolean => {
    if ((free.get('system') ?? 0) >= bytes) return true
    const sum = (of: (device: DeviceSpace) => number) => devices.reduce((sum, device) => sum + of(device), 0)
    const dataChunk = Math.min(sum(({ sizeBytes }) => sizeBytes) / 10, GIB)
    const seeming = sum(({ unallocatedBytes }) => unallocatedBytes) / PROFILE_RULES[target('system')].copies - dataChunk
    return seeming >= bytes && enough('system', bytes)
  }

  const found: string[] = []
  // What a block group leaves can be allocated from the next commit on: there is one once the next one is set aside.
  let left: BlockGroup | undefined
  const giveBack = () => {
    if (left === undefined) return
    const length = stripeBytes(left.profile, left.sizeBytes, left.stripes.length)
    for (const { devid, offsetBytes } of left.stripes)
      devices.find((device) => device.devid === devid)?.give({ offset: offsetBytes, length })
    left = undefined
  }
  const data = groups.filter(({ type }) => type === 'data')
  if (taken.some(({ type }) => type === 'data') && data.every(({ usedBytes = 0 }) => usedBytes === 0)) grow('data')
  let classes = 0
  for (const group of taken) {
    const { type, usedBytes = 0 } = group
    const name = `the ${type} block group at ${group.logicalBytes}`
    const doubt = (bytes: number, why: string) => {
      hold(group, 1)
      found.push(`no room for certain for ${formatBytes(bytes)} of ${name}: ${why}`)
    }
    hold(group, -1)
    const overhead = RELOCATION_BYTES + usedBytes * (type === 'data' ? METADATA_RATIO : 0)
    const own = type === 'data' || type === 'system' ? 0 : usedBytes
    if (!enough(metadata, own + overhead)) {
      doubt(own + overhead, `the ${metadata} block groups lack it beside the global reserve, and no further one fits`)
      continue
    }
    if (type === 'system' && !movesSystem(usedBytes + CHUNK_ITEMS_BYTES)) {
      doubt(usedBytes, 'the kernel makes another one only where more than a data block group’s size stays unallocated')
      continue
    }
    giveBack()
    if (type === 'data' && usedBytes > 0) {
      for (; classes < SIZE_CLASSES - 1; classes++) grow('data')
      if (!takesData(usedBytes)) {
        doubt(usedBytes, 'what is free in other block groups may be in pieces that are too small')
        continue
      }
    }
    if (type !== 'data') add(type, -usedBytes)
    left = group
  }
  return found
}
