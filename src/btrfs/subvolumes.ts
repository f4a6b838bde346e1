import { performance } from 'node:perf_hooks'
import { BtrfsError, BtrmindError, check } from '../errors.js'
import { native } from '../native.js'
import { type CallOptions, poll } from './call.js'
import type { DirectoryRef } from './directory.js'
import {
  createOptions,
  deleteOptions,
  inheritingSnapshotOptions,
  pathArgument,
  qgroupParts,
  subvolumeId,
} from './options.js'
import type { Volume } from './volume.js'
import { seen } from './walk.js'

export interface SnapshotOptions extends CallOptions {
  readonly readonly?: boolean
}

export interface DeleteOptions extends CallOptions {
  /** Resolve only when the cleaner is done and the counters show it. Default false. */
  readonly waitUntilFreed?: boolean
  /** Delete it only if its id is this one. */
  readonly id?: number | undefined
  /** Delete it only if the directory that holds it is this one. */
  readonly parent?: DirectoryRef | undefined
}

export interface InheritOptions {
  /**
   * Quota groups that the new one belongs to from the start, as `level/id` of level 1 or more. An empty subvolume's
   * counters stay right; a snapshot's may need rescanQuota(), which quota() says (`inconsistent`).
   */
  readonly inherit?: readonly string[] | undefined
}

/** Level and id as the kernel has them. */
const groups = (ids: readonly string[]) =>
  BigUint64Array.from(ids, (id) => {
    const [level, number] = qgroupParts(id)!
    return (BigInt(level) << 48n) | BigInt(number)
  })
const hints = { ENOTCONN: 'quota is off; see enableQuota()', EACCES: 'needs write permission on its directory' }
/** Internal. */
export const NO_GROUPS = new BigUint64Array()
/** Where a deletion itself is not permitted, it says so itself. Internal. */
export const mayNotWait = {
  hints: { EPERM: 'to wait until it is freed needs root (CAP_SYS_ADMIN); `waitUntilFreed: false` does not wait' },
}
/** Internal. */
export const snapshotHints = {
  ...hints,
  EPERM: 'needs to be the owner of the source, or root (CAP_FOWNER)',
  EACCES: 'needs write permission on the destination’s directory, and access to the source',
}

/**
 * Makes an empty subvolume. BTRFS_IOC_SUBVOL_CREATE_V2 · write permission on the directory · quick.
 * @param path absolute, or relative to the filesystem's path; its directory must exist
 * @param options.inherit quota groups that it belongs to from the start, as `level/id`, level 1 or more
 * @throws BtrfsError EEXIST, ENOENT (no such directory), ENAMETOOLONG (255 bytes), EACCES, EROFS, ENOSPC, EDQUOT,
 *   ENOTCONN (`inherit`, and quota is off), ENOENT with the group's name (`inherit`, and there is none);
 *   BtrmindError BTRMIND_ERR_WRONG_VOLUME
 * @example
 * await fs.createSubvolume('projects')
 */
export async function createSubvolume(
  volume: Volume,
  path: string,
  options: CallOptions & InheritOptions = {},
): Promise<void> {
  const target = volume.resolve(check('createSubvolume: path', pathArgument, path))
  const { inherit, ...callWith } = check('createSubvolume', createOptions, options)
  await volume.call('createSubvolume', { path: target, hints }, callWith, (ticket) =>
    native.createSubvolume(ticket, volume.handle, target, groups(inherit)),
  )
}

/**
 * Takes a snapshot of a subvolume; subvolumes inside it are left out (empty directories stand for them).
 * BTRFS_IOC_SNAP_CREATE_V2 · owner of the source, or CAP_FOWNER, and write permission on the directory · quick, but it commits a transaction.
 * @param source a subvolume's directory; absolute, or relative to the filesystem's path
 * @param destination must not exist, its directory must
 * @param options.readonly default false
 * @param options.inherit quota groups that it belongs to from the start; as createSubvolume()
 * @throws BtrfsError EEXIST, ENOENT, EINVAL (the source is not a subvolume), ENAMETOOLONG, EPERM, EACCES, EROFS,
 *   ENOSPC, ETXTBSY (an active swap file), ENOTCONN and ENOENT as createSubvolume(); BtrmindError BTRMIND_ERR_WRONG_VOLUME
 * @example
 * await fs.snapshot('projects', `snapshots/${new Date().toISOString()}`, { readonly: true })
 */
export async function snapshot(
  volume: Volume,
  source: string,
  destination: string,
  options: SnapshotOptions & InheritOptions = {},
): Promise<void> {
  const path = volume.resolve(check('snapshot: source', pathArgument, source))
  const dest = volume.resolve(check('snapshot: destination', pathArgument, destination))
  const { readonly, inherit, ...callWith } = check('snapshot', inheritingSnapshotOptions, options)
  await volume.call('snapshot', { path, dest, hints: snapshotHints }, callWith, (ticket) =>
    native.snapshot(ticket, volume.handle, path, dest, readonly, groups(inherit)),
  )
}

/**
 * Deletes a subvolume and what is in it; its space is freed by the kernel afterwards.
 * BTRFS_IOC_SNAP_DESTROY(_V2) · CAP_SYS_ADMIN, or the mount option user_subvol_rm_allowed · quick.
 *
 * A subvolume that is mounted, or has a mount inside, is refused (EBUSY): the kernel would detach it without a word. Only
 * mounts in this process's mount namespace are seen, not those of containers and of services with a view of their own.
 * @param subvolume its path, absolute or relative to the filesystem's; or its id, wherever it is, also outside of what
 *   is mounted (CAP_SYS_ADMIN, Linux 5.7)
 * @param options.waitUntilFreed resolve when the kernel's cleaner is done and the counters of usage() show it
 *   (CAP_SYS_ADMIN). Files of it that somebody has open keep it from being freed; `signal` and `timeoutMs` bound the
 *   waiting, not the deletion. Default false.
 * @param options.id compared as it is deleted, and deleted by it, not by name, where kernel (5.7) and privilege
 *   (CAP_SYS_ADMIN) allow. Left is a moment inside the kernel, and else one of microseconds, in which another subvolume
 *   can be renamed into its place. No symlink on the way to it is followed.
 * @param options.parent what `directory()` gave for the directory that holds it: found to be the same still
 * @throws BtrfsError ENOENT, EINVAL (not a subvolume), ENOTEMPTY (has subvolumes inside), EBUSY (mounted), EPERM (not
 *   permitted, or the default subvolume), EROFS, ELOOP and ESTALE (not `id`, or not in `parent`); BtrmindError BTRMIND_ERR_WRONG_VOLUME
 * @example
 * await fs.deleteSubvolume('snapshots/2024-01-01', { waitUntilFreed: true })
 */
export async function deleteSubvolume(
  volume: Volume,
  subvolume: string | number,
  options: DeleteOptions = {},
): Promise<void> {
  if (Object.hasOwn(options, 'recursive'))
    throw new BtrmindError('BTRMIND_ERR_OPTION', "deleteSubvolume: unknown option 'recursive'", {
      hint: 'deleteSubvolumes() deletes those inside too',
    })
  const { waitUntilFreed, id, parent, ...callWith } = check('deleteSubvolume', deleteOptions, options)
  const waiting = waitUntilFreed ? mayNotWait : {}
  if (typeof subvolume === 'number') {
    const wanted = check('deleteSubvolume: id', subvolumeId, subvolume)
    if (id !== undefined || parent !== undefined)
      throw new BtrmindError(
        'BTRMIND_ERR_OPTION',
        'deleteSubvolume: `id` and `parent` are for a path; got an id already',
      )
    const startMs = performance.now()
    const context = { path: `subvolume ${wanted}`, ...waiting }
    await volume.call('deleteSubvolume', context, callWith, (ticket) =>
      native.deleteSubvolumeById(ticket, volume.handle, wanted, waitUntilFreed),
    )
    if (waitUntilFreed) await volume.track(freed(volume, wanted, context.path, startMs, callWith))
    return
  }
  const target = volume.resolve(check('deleteSubvolume: path', pathArgument, subvolume))
  const holder = parent === undefined ? undefined : seen(parent)
  const start = performance.now()
  const deleted = await volume.call('deleteSubvolume', { path: target, ...waiting }, callWith, (ticket) =>
    native.deleteSubvolume(ticket, volume.handle, target, waitUntilFreed, id, holder),
  )
  if (waitUntilFreed) await volume.track(freed(volume, deleted, target, start, callWith))
}

/**
 * Internal. Waits a moment for a small one that was just deleted; not at all where others are before it.
 */
export async function freedSoon(volume: Volume, id: number, options: CallOptions): Promise<void> {
  const call = <T>(run: (ticket: number) => Promise<T>) => volume.call('deleteSubvolume', {}, options, run)
  await call((ticket) => native.sync(ticket, volume.handle)) // wakes the cleaner
  const left = await call((ticket) => native.deletedSubvolumes(ticket, volume.handle))
  if (left.every((other) => other === id))
    await freed(volume, id, volume.path, performance.now(), { ...options, timeoutMs: MOMENT_MS })
}
const MOMENT_MS = 2000

/**
 * Polls until the cleaner is done, then commits once more: only then have the counters moved. (SUBVOL_SYNC_WAIT
 * answers when the cleaner has merely begun.) No lane thread sleeps meanwhile.
 */
async function freed(volume: Volume, id: number, path: string, start: number, options: CallOptions): Promise<void> {
  const { signal, timeoutMs } = options
  const left = () => (timeoutMs === undefined ? undefined : Math.max(1, timeoutMs - (performance.now() - start)))
  const call = <T>(run: (ticket: number) => Promise<T>) =>
    volume.call('deleteSubvolume', { path }, { signal, timeoutMs: left() }, run)
  const late = () => {
    const text = `deleted, but its space was not freed within ${timeoutMs} ms`
    const hint = 'large, or files of it are still open'
    return new BtrfsError('deleteSubvolume', { code: 'ETIMEDOUT', errno: -110, text, path, hint })
  }
  const gone = async () => !(await call((ticket) => native.deletedSubvolumes(ticket, volume.handle))).includes(id)
  await poll(gone, { signal, timeoutMs, startMs: start, late })
  await call((ticket) => native.sync(ticket, volume.handle))
}
