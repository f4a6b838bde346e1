/**
 * Extents of data of up to 128 KiB, of up to 8 MiB, and larger ones: the kernel keeps them in block groups of their own
 * while it can make new ones. fs/btrfs/block-group.c (btrfs_calc_block_group_size_class), since Linux 6.3.
 */
import { release } from 'node:os'
import { KIB, MIB } from '../units.js'
import type { BlockGroup } from './inspect.js'
import { treeSearch } from './tree-search.js'
import type { Volume } from './volume.js'

/** Bytes of each class, of what is used of a block group. */
export type Classes = readonly [small: number, medium: number, large: number]

const LIMITS = [128 * KIB, 8 * MIB, Number.POSITIVE_INFINITY] as const
/** So many extents stand for the rest of their block group. */
const SAMPLE = 512
const EXTENT_TREE = 2
const EXTENT_ITEM = 168

export const hasSizeClasses = (kernel = release()): boolean => {
  const [major = 0, minor = 0] = kernel.split('.').map((part) => Number.parseInt(part, 10))
  return major > 6 || (major === 6 && minor >= 3)
}

/** Tree search, one page or a few · CAP_SYS_ADMIN. */
export async function readClasses(
  volume: Volume,
  { logicalBytes, sizeBytes, usedBytes = 0 }: BlockGroup,
  signal: AbortSignal,
): Promise<Classes> {
  const found: [number, number, number] = [0, 0, 0]
  let sampled = 0
  const range = {
    min: { objectid: logicalBytes, type: EXTENT_ITEM },
    max: { objectid: logicalBytes + sizeBytes - 1 },
  }
  for await (const { type, offset } of treeSearch(volume, { tree: EXTENT_TREE, ...range, signal })) {
    if (type !== EXTENT_ITEM) continue
    const bytes = Number(offset)
    found[LIMITS.findIndex((limit) => bytes <= limit)]! += bytes
    if (++sampled === SAMPLE) break
  }
  const sum = found[0] + found[1] + found[2]
  return found.map((bytes) => (sum === 0 ? 0 : (bytes / sum) * usedBytes)) as unknown as Classes
}

/** Whether others have room for each class of what is used of a block group. An empty one takes any. Pure. */
export function hasRoom(classes: Classes, others: readonly { classes: Classes; freeBytes: number }[]): boolean {
  return classes.every((bytes, at) => {
    if (bytes === 0) return true
    const room = others.filter(({ classes }) => classes[at]! > 0 || classes.every((of) => of === 0))
    return room.reduce((sum, { freeBytes }) => sum + freeBytes, 0) >= bytes
  })
}
