/** Items of the root tree and the UUID tree. */
import type { ItemKey, Reader } from './reader.js'

export interface RootItem {
  readonly kind: 'root'
  readonly generation: number
  readonly rootDirectory: bigint
  /** Where the tree's top node is. */
  readonly logicalBytes: number
  readonly level: number
  readonly usedBytes: number
  readonly lastSnapshot: number
  /** Bit 0: read-only. */
  readonly flags: bigint
  readonly refs: number
  /** How far a deletion has come. */
  readonly dropProgress: ItemKey
  readonly dropLevel: number
  /** Undefined: written by a kernel before 3.6. */
  readonly details:
    | {
        readonly uuid: string | undefined
        readonly parentUuid: string | undefined
        readonly receivedUuid: string | undefined
        readonly changeGeneration: number
        readonly creationGeneration: number
        readonly sentGeneration: number
        readonly receivedGeneration: number
        readonly changedMs: number
        readonly createdMs: number
        readonly sentMs: number
        readonly receivedMs: number
      }
    | undefined
}
/** ROOT_REF: key's objectid holds offset; ROOT_BACKREF: the other way round. */
export interface RootRefItem {
  readonly kind: 'root-ref' | 'root-backref'
  readonly directory: bigint
  readonly sequence: bigint
  readonly name: Uint8Array
}
/** The UUID is the key: objectid and offset, 8 little-endian bytes each. */
export interface UuidItem {
  readonly kind: 'uuid-subvolume' | 'uuid-received-subvolume'
  readonly uuid: string
  readonly subvolumeIds: readonly number[]
}
/** The key's offset is deleted, and not yet freed: an inode, or in the root tree a subvolume. */
export interface OrphanItem {
  readonly kind: 'orphan'
  readonly id: bigint
}

const INODE_BYTES = 160

export function root(read: Reader): RootItem {
  read.skip(INODE_BYTES)
  const generation = read.u64()
  const rootDirectory = read.raw64()
  const logicalBytes = read.u64()
  read.skip(8) // byte limit, unused
  const [usedBytes, lastSnapshot] = [read.u64(), read.u64()]
  const flags = read.raw64()
  const refs = read.u32()
  const dropProgress = read.key()
  const [dropLevel, level] = [read.u8(), read.u8()]
  const head = { generation, rootDirectory, logicalBytes, level, usedBytes, lastSnapshot, flags, refs }
  return { kind: 'root', ...head, dropProgress, dropLevel, details: details(read, generation) }
}

function details(read: Reader, generation: number): RootItem['details'] {
  // Old kernels leave what stands there, and only the generation says so.
  if (!read.more || read.raw64() !== BigInt(generation)) return undefined
  const [uuid, parentUuid, receivedUuid] = [read.uuid(), read.uuid(), read.uuid()]
  const [changeGeneration, creationGeneration] = [read.u64(), read.u64()]
  const [sentGeneration, receivedGeneration] = [read.u64(), read.u64()]
  const [changedMs, createdMs, sentMs, receivedMs] = [read.timeMs(), read.timeMs(), read.timeMs(), read.timeMs()]
  read.skip(64) // reserved
  const generations = { changeGeneration, creationGeneration, sentGeneration, receivedGeneration }
  return { uuid, parentUuid, receivedUuid, ...generations, changedMs, createdMs, sentMs, receivedMs }
}

export const rootRef =
  (kind: RootRefItem['kind']) =>
  (read: Reader): RootRefItem => {
    const [directory, sequence] = [read.raw64(), read.raw64()]
    return { kind, directory, sequence, name: read.bytes(read.u16()) }
  }

export const uuid =
  (kind: UuidItem['kind']) =>
  (read: Reader, { objectid, offset }: ItemKey): UuidItem => {
    const raw = Buffer.alloc(16)
    raw.writeBigUInt64LE(objectid)
    raw.writeBigUInt64LE(offset, 8)
    const subvolumeIds: number[] = []
    while (read.more) subvolumeIds.push(read.u64())
    const text = raw.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
    return { kind, uuid: text, subvolumeIds }
  }

export const orphan = (_: Reader, { offset }: ItemKey): OrphanItem => ({ kind: 'orphan', id: offset })
