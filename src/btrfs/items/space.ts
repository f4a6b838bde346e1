/** Items of the trees that say what is where: extent, chunk, device, free space, checksum. */
import type { ItemKey, Reader } from './reader.js'

/** Who uses an extent. */
export type ExtentRef =
  | { readonly type: 'tree-block'; readonly root: bigint }
  | { readonly type: 'shared-block'; readonly parentLogicalBytes: number }
  | {
      readonly type: 'data'
      readonly root: bigint
      readonly objectid: bigint
      /** Where the extent's first byte would be in the file: below 0 it wraps. */
      readonly offset: bigint
      readonly count: number
    }
  | { readonly type: 'shared-data'; readonly parentLogicalBytes: number; readonly count: number }
  | { readonly type: 'owner'; readonly root: bigint }

/** At the key's objectid; of an EXTENT_ITEM as long as its offset, a METADATA_ITEM has its level there. */
export interface ExtentItem {
  readonly kind: 'extent' | 'metadata'
  readonly refs: number
  readonly generation: number
  /** 1 data, 2 tree block, 256 of whole backrefs. */
  readonly flags: bigint
  /** Of a tree block. */
  readonly level: number | undefined
  /** Those that fit into the item; others are items of their own. */
  readonly inlineRefs: readonly ExtentRef[]
}
/** A reference that is an item of its own. */
export interface ExtentRefItem {
  readonly kind: 'extent-ref'
  readonly ref: ExtentRef
}
export interface BlockGroupItem {
  readonly kind: 'block-group'
  readonly usedBytes: number
  readonly chunkObjectid: bigint
  /** Type and profile, as the kernel's bits. */
  readonly flags: bigint
}
export interface ChunkItem {
  readonly kind: 'chunk'
  readonly lengthBytes: number
  readonly owner: bigint
  readonly stripeBytes: number
  readonly flags: bigint
  readonly sectorSizeBytes: number
  readonly subStripes: number
  readonly stripes: readonly {
    readonly devid: number
    readonly offsetBytes: number
    readonly uuid: string | undefined
  }[]
}
export interface DevItem {
  readonly kind: 'dev'
  readonly devid: number
  readonly sizeBytes: number
  readonly allocatedBytes: number
  readonly sectorSizeBytes: number
  readonly generation: number
  readonly uuid: string | undefined
  readonly filesystemUuid: string | undefined
}
export interface DevExtentItem {
  readonly kind: 'dev-extent'
  /** The chunk's logical address. */
  readonly chunkLogicalBytes: number
  readonly lengthBytes: number
}
/** Checksums of what lies from the key's offset on; how long one is, info() says. */
export interface CsumItem {
  readonly kind: 'csum'
  readonly checksums: Uint8Array
}
export interface FreeSpaceInfoItem {
  readonly kind: 'free-space-info'
  readonly extents: number
  /** 1: as bitmaps. */
  readonly flags: number
}
export interface FreeSpaceExtentItem {
  readonly kind: 'free-space-extent'
  readonly startBytes: bigint
  readonly lengthBytes: bigint
}
export interface FreeSpaceBitmapItem {
  readonly kind: 'free-space-bitmap'
  readonly startBytes: bigint
  readonly lengthBytes: bigint
  /** A bit a sector, the lowest first. */
  readonly bitmap: Uint8Array
}

const TREE_BLOCK = 2n
const REFS: Readonly<Record<number, (read: Reader) => ExtentRef>> = {
  172: (read) => ({ type: 'owner', root: read.raw64() }),
  176: (read) => ({ type: 'tree-block', root: read.raw64() }),
  178: (read) => {
    const [root, objectid, offset] = [read.raw64(), read.raw64(), read.raw64()]
    return { type: 'data', root, objectid, offset, count: read.u32() }
  },
  182: (read) => ({ type: 'shared-block', parentLogicalBytes: read.u64() }),
  184: (read) => {
    const parentLogicalBytes = read.u64()
    return { type: 'shared-data', parentLogicalBytes, count: read.u32() }
  },
}

export const extent =
  (kind: ExtentItem['kind']) =>
  (read: Reader, { offset }: ItemKey): ExtentItem | undefined => {
    const [refs, generation] = [read.u64(), read.u64()]
    const flags = read.raw64()
    let level = kind === 'metadata' ? read.exact(offset) : undefined
    if (kind === 'extent' && flags & TREE_BLOCK) {
      read.key()
      level = read.u8()
    }
    const inlineRefs: ExtentRef[] = []
    while (read.more) {
      const ref = REFS[read.u8()]
      if (ref === undefined) return undefined
      inlineRefs.push(ref(read))
    }
    return { kind, refs, generation, flags, level, inlineRefs }
  }

export const dataRef = (read: Reader): ExtentRefItem => ({ kind: 'extent-ref', ref: REFS[178]!(read) })
export const treeBlockRef = (_: Reader, { offset }: ItemKey): ExtentRefItem => ({
  kind: 'extent-ref',
  ref: { type: 'tree-block', root: offset },
})
export const sharedBlockRef = (read: Reader, { offset }: ItemKey): ExtentRefItem => ({
  kind: 'extent-ref',
  ref: { type: 'shared-block', parentLogicalBytes: read.exact(offset) },
})
export const sharedDataRef = (read: Reader, { offset }: ItemKey): ExtentRefItem => ({
  kind: 'extent-ref',
  ref: { type: 'shared-data', parentLogicalBytes: read.exact(offset), count: read.u32() },
})

export function blockGroup(read: Reader): BlockGroupItem {
  const usedBytes = read.u64()
  const chunkObjectid = read.raw64()
  return { kind: 'block-group', usedBytes, chunkObjectid, flags: read.raw64() }
}

export function chunk(read: Reader): ChunkItem {
  const lengthBytes = read.u64()
  const owner = read.raw64()
  const stripeBytes = read.u64()
  const flags = read.raw64()
  read.skip(8) // I/O alignment and width
  const sectorSizeBytes = read.u32()
  const [count, subStripes] = [read.u16(), read.u16()]
  const stripes = Array.from({ length: count }, () => {
    const [devid, offsetBytes] = [read.u64(), read.u64()]
    return { devid, offsetBytes, uuid: read.uuid() }
  })
  return { kind: 'chunk', lengthBytes, owner, stripeBytes, flags, sectorSizeBytes, subStripes, stripes }
}

export function dev(read: Reader): DevItem {
  const [devid, sizeBytes, allocatedBytes] = [read.u64(), read.u64(), read.u64()]
  read.skip(8)
  const sectorSizeBytes = read.u32()
  read.skip(8) // type
  const generation = read.u64()
  read.skip(8 + 4 + 1 + 1) // start, group, speeds: unused
  const [uuid, filesystemUuid] = [read.uuid(), read.uuid()]
  return { kind: 'dev', devid, sizeBytes, allocatedBytes, sectorSizeBytes, generation, uuid, filesystemUuid }
}

export function devExtent(read: Reader): DevExtentItem {
  read.skip(16) // chunk tree and objectid
  const [chunkLogicalBytes, lengthBytes] = [read.u64(), read.u64()]
  read.skip(16)
  return { kind: 'dev-extent', chunkLogicalBytes, lengthBytes }
}

export const csum = (read: Reader): CsumItem => ({ kind: 'csum', checksums: read.bytes(read.left) })
export function freeSpaceInfo(read: Reader): FreeSpaceInfoItem {
  const extents = read.u32()
  return { kind: 'free-space-info', extents, flags: read.u32() }
}
export const freeSpaceExtent = (_: Reader, key: ItemKey): FreeSpaceExtentItem => ({
  kind: 'free-space-extent',
  startBytes: key.objectid,
  lengthBytes: key.offset,
})
export const freeSpaceBitmap = (read: Reader, key: ItemKey): FreeSpaceBitmapItem => ({
  kind: 'free-space-bitmap',
  startBytes: key.objectid,
  lengthBytes: key.offset,
  bitmap: read.bytes(read.left),
})
