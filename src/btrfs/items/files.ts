/** Items of a subvolume's tree: inodes, names, extended attributes, file extents. */
import type { ItemKey, Reader } from './reader.js'

export interface InodeItem {
  readonly kind: 'inode'
  readonly generation: number
  /** Of the last change. */
  readonly transid: number
  readonly sizeBytes: number
  /** Before compression. */
  readonly allocatedBytes: number
  readonly links: number
  readonly uid: number
  readonly gid: number
  readonly mode: number
  readonly rdev: bigint
  readonly flags: bigint
  readonly sequence: bigint
  readonly atimeMs: number
  readonly ctimeMs: number
  readonly mtimeMs: number
  readonly createdMs: number
}

export interface ItemName {
  readonly index: bigint
  /** As bytes: Linux names need not be UTF-8. */
  readonly name: Uint8Array
}
/** All names in one directory, which is the key's offset. */
export interface InodeRefItem {
  readonly kind: 'inode-ref'
  readonly names: readonly ItemName[]
}
export interface InodeExtrefItem {
  readonly kind: 'inode-extref'
  readonly names: readonly (ItemName & { readonly parent: bigint })[]
}

/** DIR_ITEM (by the name's hash, several where hashes are alike), DIR_INDEX (in order), and XATTR_ITEM. */
export interface DirItem {
  readonly kind: 'dir' | 'dir-index' | 'xattr'
  readonly entries: readonly {
    /** The inode, or the subvolume's root; of an extended attribute zeros. */
    readonly location: ItemKey
    readonly transid: number
    /** 1 file, 2 directory, 3 and 4 character and block device, 5 FIFO, 6 socket, 7 symlink, 8 extended attribute. */
    readonly type: number
    readonly name: Uint8Array
    /** The value of an extended attribute. */
    readonly data: Uint8Array
  }[]
}

export type FileExtentItem = {
  readonly kind: 'file-extent'
  readonly generation: number
  /** Uncompressed. */
  readonly ramBytes: number
  readonly compression: 'none' | 'zlib' | 'lzo' | 'zstd' | number
} & (
  | { readonly layout: 'inline'; readonly data: Uint8Array }
  | {
      readonly layout: 'regular' | 'preallocated'
      /** Where the extent begins in the volume's address space; 0: a hole. */
      readonly diskLogicalBytes: number
      readonly diskBytes: number
      /** Which part of the extent, uncompressed, the file uses. */
      readonly offsetBytes: number
      readonly lengthBytes: number
    }
)

export function inode(read: Reader): InodeItem {
  const generation = read.u64()
  const transid = read.u64()
  const sizeBytes = read.u64()
  const allocatedBytes = read.u64()
  read.skip(8) // block group, unused
  const [links, uid, gid, mode] = [read.u32(), read.u32(), read.u32(), read.u32()]
  const [rdev, flags, sequence] = [read.raw64(), read.raw64(), read.raw64()]
  read.skip(32)
  const [atimeMs, ctimeMs, mtimeMs, createdMs] = [read.timeMs(), read.timeMs(), read.timeMs(), read.timeMs()]
  const times = { atimeMs, ctimeMs, mtimeMs, createdMs }
  const head = { generation, transid, sizeBytes, allocatedBytes, links, uid, gid, mode }
  return { kind: 'inode', ...head, rdev, flags, sequence, ...times }
}

export function inodeRef(read: Reader): InodeRefItem {
  const names: ItemName[] = []
  while (read.more) {
    const index = read.raw64()
    names.push({ index, name: read.bytes(read.u16()) })
  }
  return { kind: 'inode-ref', names }
}

export function inodeExtref(read: Reader): InodeExtrefItem {
  const names: (ItemName & { parent: bigint })[] = []
  while (read.more) {
    const parent = read.raw64()
    const index = read.raw64()
    names.push({ parent, index, name: read.bytes(read.u16()) })
  }
  return { kind: 'inode-extref', names }
}

export const dir =
  (kind: DirItem['kind']) =>
  (read: Reader): DirItem => {
    const entries = []
    while (read.more) {
      const location = read.key()
      const transid = read.u64()
      const dataLength = read.u16()
      const nameLength = read.u16()
      const type = read.u8()
      const name = read.bytes(nameLength)
      entries.push({ location, transid, type, name, data: read.bytes(dataLength) })
    }
    return { kind, entries }
  }

const COMPRESSION = ['none', 'zlib', 'lzo', 'zstd'] as const
const LAYOUTS = ['inline', 'regular', 'preallocated'] as const

export function fileExtent(read: Reader): FileExtentItem | undefined {
  const generation = read.u64()
  const ramBytes = read.u64()
  const algorithm = read.u8()
  read.skip(3) // encryption and other encoding, unused
  const layout = LAYOUTS[read.u8()]
  const head = { kind: 'file-extent', generation, ramBytes, compression: COMPRESSION[algorithm] ?? algorithm } as const
  if (layout === undefined) return undefined
  if (layout === 'inline') return { ...head, layout, data: read.bytes(read.left) }
  const [diskLogicalBytes, diskBytes, offsetBytes, lengthBytes] = [read.u64(), read.u64(), read.u64(), read.u64()]
  return { ...head, layout, diskLogicalBytes, diskBytes, offsetBytes, lengthBytes }
}
