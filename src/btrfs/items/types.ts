/** Every type of item by its number: its name as `btrfs inspect-internal dump-tree` prints it, and what reads it. */
import * as files from './files.js'
import * as qgroups from './qgroups.js'
import { type ItemKey, Reader } from './reader.js'
import * as roots from './roots.js'
import * as space from './space.js'

export type DecodedItem =
  | files.InodeItem
  | files.InodeRefItem
  | files.InodeExtrefItem
  | files.DirItem
  | files.FileExtentItem
  | roots.RootItem
  | roots.RootRefItem
  | roots.UuidItem
  | roots.OrphanItem
  | space.ExtentItem
  | space.ExtentRefItem
  | space.BlockGroupItem
  | space.ChunkItem
  | space.DevItem
  | space.DevExtentItem
  | space.CsumItem
  | space.FreeSpaceInfoItem
  | space.FreeSpaceExtentItem
  | space.FreeSpaceBitmapItem
  | qgroups.QgroupStatusItem
  | qgroups.QgroupInfoItem
  | qgroups.QgroupLimitItem
  | qgroups.QgroupRelationItem

type Decoder = (read: Reader, key: ItemKey) => DecodedItem | undefined
const TYPES = new Map<number, readonly [name: string, decode?: Decoder]>([
  [0, ['UNTYPED']],
  [1, ['INODE_ITEM', files.inode]],
  [12, ['INODE_REF', files.inodeRef]],
  [13, ['INODE_EXTREF', files.inodeExtref]],
  [24, ['XATTR_ITEM', files.dir('xattr')]],
  [36, ['VERITY_DESC_ITEM']],
  [37, ['VERITY_MERKLE_ITEM']],
  [48, ['ORPHAN_ITEM', roots.orphan]],
  [60, ['DIR_LOG_ITEM']],
  [72, ['DIR_LOG_INDEX']],
  [84, ['DIR_ITEM', files.dir('dir')]],
  [96, ['DIR_INDEX', files.dir('dir-index')]],
  [108, ['EXTENT_DATA', files.fileExtent]],
  [128, ['EXTENT_CSUM', space.csum]],
  [132, ['ROOT_ITEM', roots.root]],
  [144, ['ROOT_BACKREF', roots.rootRef('root-backref')]],
  [156, ['ROOT_REF', roots.rootRef('root-ref')]],
  [168, ['EXTENT_ITEM', space.extent('extent')]],
  [169, ['METADATA_ITEM', space.extent('metadata')]],
  [172, ['EXTENT_OWNER_REF']],
  [176, ['TREE_BLOCK_REF', space.treeBlockRef]],
  [178, ['EXTENT_DATA_REF', space.dataRef]],
  [182, ['SHARED_BLOCK_REF', space.sharedBlockRef]],
  [184, ['SHARED_DATA_REF', space.sharedDataRef]],
  [192, ['BLOCK_GROUP_ITEM', space.blockGroup]],
  [198, ['FREE_SPACE_INFO', space.freeSpaceInfo]],
  [199, ['FREE_SPACE_EXTENT', space.freeSpaceExtent]],
  [200, ['FREE_SPACE_BITMAP', space.freeSpaceBitmap]],
  [204, ['DEV_EXTENT', space.devExtent]],
  [216, ['DEV_ITEM', space.dev]],
  [228, ['CHUNK_ITEM', space.chunk]],
  [230, ['RAID_STRIPE']],
  [240, ['QGROUP_STATUS', qgroups.qgroupStatus]],
  [242, ['QGROUP_INFO', qgroups.qgroupInfo]],
  [244, ['QGROUP_LIMIT', qgroups.qgroupLimit]],
  [246, ['QGROUP_RELATION', qgroups.qgroupRelation]],
  [248, ['TEMPORARY_ITEM']],
  [249, ['PERSISTENT_ITEM']],
  [250, ['DEV_REPLACE']],
  [251, ['UUID_KEY_SUBVOL', roots.uuid('uuid-subvolume')]],
  [252, ['UUID_KEY_RECEIVED_SUBVOL', roots.uuid('uuid-received-subvolume')]],
  [253, ['STRING_ITEM']],
])

/** 'INODE_ITEM'; 'TYPE_42' for one that is not known. */
export const typeName = (type: number): string => TYPES.get(type)?.[0] ?? `TYPE_${type}`

/**
 * @returns undefined for a type that has no decoder, or a variant of it that is not known
 * @throws BtrfsError EUCLEAN (shorter than its type), ERANGE
 */
export function decode(key: ItemKey, data: Uint8Array): DecodedItem | undefined {
  const type = TYPES.get(key.type)
  return type?.[1]?.(new Reader(data, type[0]), key)
}
