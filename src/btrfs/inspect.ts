/** What lies where on a volume. */
import * as v from 'valibot'
import { check } from '../errors.js'
import { native } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions, subvolumeId } from './options.js'
import { blockGroupKind } from './space.js'
import type { BlockGroupType, Profile } from './types.js'
import type { Volume } from './volume.js'

export interface BlockGroup {
  /** Where it begins, in the volume's own addresses. */
  readonly logicalBytes: number
  readonly type: BlockGroupType
  readonly profile: Profile
  readonly sizeBytes: number
  /** Undefined: it was given back while it was looked at. */
  readonly usedBytes: number | undefined
  readonly stripes: readonly { readonly devid: number; readonly offsetBytes: number }[]
}

/**
 * Every block group with what is used of it and where its stripes lie, by logical address: the chunk map. Tree search ·
 * CAP_SYS_ADMIN · quick, a few microseconds a block group. What is used is of the last commit.
 * @throws BtrfsError EPERM, EBADF
 * @example
 * const groups = await fs.blockGroups()
 * const thin = groups.filter(({ type, usedBytes = 0, sizeBytes }) => type === 'data' && usedBytes < 0.3 * sizeBytes)
 */
export async function blockGroups(volume: Volume, options: CallOptions = {}): Promise<BlockGroup[]> {
  return readBlockGroups(volume, 'blockGroups', check('blockGroups', callOptions, options))
}

/** For a call of another name, which its errors are to have. */
export async function readBlockGroups(volume: Volume, operation: string, options: CallOptions): Promise<BlockGroup[]> {
  const raw = await volume.call(operation, {}, options, (t) => native.blockGroups(t, volume.handle))
  let stripe = 0
  return Array.from(raw.flags, (flags, row) => {
    const [logicalBytes, sizeBytes, used, count] = [0, 1, 2, 3].map((column) => raw.groups[4 * row + column]!)
    const stripes = Array.from({ length: count! }, () => {
      const at = 2 * stripe++
      return { devid: raw.stripes[at]!, offsetBytes: raw.stripes[at + 1]! }
    })
    const usedBytes = used === -1 ? undefined : used
    return { logicalBytes: logicalBytes!, ...blockGroupKind(flags), sizeBytes: sizeBytes!, usedBytes, stripes }
  })
}

const inodeArgument = v.pipe(v.number(), v.safeInteger('an inode number'), v.minValue(1, 'an inode number'))

/**
 * Every name of an inode, from its subvolume's top. Tree search · CAP_SYS_ADMIN · quick.
 * @param subvolume its id
 * @returns none where the inode is not there, or was deleted and is still open
 * @throws BtrfsError ENOENT (no such subvolume), EPERM, EBADF; BtrmindError BTRMIND_ERR_ARGUMENT
 * @example
 * console.log(await fs.inodePaths(5, 257))
 */
export async function inodePaths(
  volume: Volume,
  subvolume: number,
  inode: number,
  options: CallOptions = {},
): Promise<string[]> {
  const tree = check('inodePaths: subvolume', subvolumeId, subvolume)
  const which = check('inodePaths: inode', inodeArgument, inode)
  const callWith = check('inodePaths', callOptions, options)
  const paths = await volume.call('inodePaths', {}, callWith, (t) => native.inodePaths(t, volume.handle, tree, which))
  if (paths.length === 0) {
    const context = { path: `subvolume ${tree}` }
    await volume.call('inodePaths', context, callWith, (t) => native.subvolumeById(t, volume.handle, tree))
  }
  return paths.map((path) => Buffer.from(path).toString())
}

/** A place in a file. */
export interface LogicalFile {
  readonly subvolumeId: number
  readonly inode: number
  /** In the file. */
  readonly offsetBytes: number
  /** Every name of it, from its subvolume's top. */
  readonly paths: readonly string[]
}
export interface LogicalFilesOptions extends CallOptions {
  /** Whoever uses any part of the extent that the address is in. Default false: just that block. */
  readonly wholeExtent?: boolean
}
const logicalOptions = v.strictObject({ ...callOptions.entries, wholeExtent: v.optional(v.boolean(), false) })
const address = v.pipe(v.number(), v.safeInteger('a logical address in bytes'), v.minValue(0))

/**
 * Which files have their data at a logical address, as the kernel's log names it when a checksum fails; in snapshots
 * too. BTRFS_IOC_LOGICAL_INO_V2, tree search · CAP_SYS_ADMIN · quick; longer with many snapshots.
 * @returns none where nothing is there
 * @throws BtrfsError EINVAL (metadata is there), EPERM, EBADF; BtrmindError BTRMIND_ERR_ARGUMENT
 * @example
 * for (const { subvolumeId, paths } of await fs.logicalFiles(1_234_567_168)) console.log(subvolumeId, paths)
 */
export async function logicalFiles(
  volume: Volume,
  logicalBytes: number,
  options: LogicalFilesOptions = {},
): Promise<LogicalFile[]> {
  const at = check('logicalFiles: logicalBytes', address, logicalBytes)
  const { wholeExtent, ...callWith } = check('logicalFiles', logicalOptions, options)
  const rows = await volume.call('logicalFiles', {}, callWith, (t) =>
    native.logicalFiles(t, volume.handle, at, wholeExtent),
  )
  return rows.map(({ inode, offset, subvolume, paths }) => ({
    subvolumeId: subvolume,
    inode,
    offsetBytes: offset,
    paths: paths.map((path) => Buffer.from(path).toString()),
  }))
}
