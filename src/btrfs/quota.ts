import { performance } from 'node:perf_hooks'
import * as v from 'valibot'
import { BtrfsError, check } from '../errors.js'
import { native } from '../native.js'
import { type CallOptions, poll } from './call.js'
import { callOptions, qgroupArgument, qgroupParts } from './options.js'
import { subvolumes } from './subvolume-list.js'
import type { Volume } from './volume.js'

export interface QgroupLimits {
  readonly referencedBytes: number | undefined
  readonly exclusiveBytes: number | undefined
}
/** A quota group. Bytes are logical, after compression. */
export interface Qgroup {
  /** `level/id`. */
  readonly id: string
  /** Of level 0: the subvolume that it counts; its path is undefined once that is deleted. */
  readonly subvolumeId: number | undefined
  readonly path: string | undefined
  /** All that its subvolumes can reach. This and the next: undefined where the kernel lost count. */
  readonly referencedBytes: number | undefined
  /** What would be free without them. */
  readonly exclusiveBytes: number | undefined
  readonly limits: QgroupLimits
  /** Groups that it belongs to, and that belong to it. */
  readonly parents: readonly string[]
  readonly children: readonly string[]
}
export interface Quota {
  readonly mode: 'classic' | 'simple'
  /** The counters are wrong: rescanQuota() is needed. */
  readonly inconsistent: boolean
  readonly rescanning: boolean
  readonly qgroups: readonly Qgroup[]
}
export interface EnableQuotaOptions extends CallOptions {
  readonly simple?: boolean
}
/** null takes a limit away, undefined leaves it as it is. */
export interface LimitQgroupOptions extends CallOptions {
  readonly referencedBytes?: number | null | undefined
  readonly exclusiveBytes?: number | null | undefined
}
export interface RescanOptions extends CallOptions {
  readonly wait?: boolean
}

const INCONSISTENT = 4
const SIMPLE = 8

const modeOf = (flags: number) => (flags & SIMPLE ? 'simple' : 'classic')

const bytes = v.pipe(v.number(), v.safeInteger('a whole number of bytes'), v.minValue(0))
const limitOptions = v.strictObject({
  ...callOptions.entries,
  referencedBytes: v.optional(v.nullable(bytes)),
  exclusiveBytes: v.optional(v.nullable(bytes)),
})
const enableOptions = v.strictObject({ ...callOptions.entries, simple: v.optional(v.boolean(), false) })
const rescanOptions = v.strictObject({ ...callOptions.entries, wait: v.optional(v.boolean(), true) })

/** What the codes mean here; the path in the message is the volume's. */
const hints = (more: Readonly<Record<string, string>>) => ({
  hints: { ENOTCONN: 'quota is off; see enableQuota()', ...more },
})
const noGroup = (id: string) => ({ ENOENT: `there is no quota group ${id}` })
const checkId = (operation: string, id: string) => qgroupParts(check(`${operation}: qgroup`, qgroupArgument, id))!

/**
 * All quota groups with what they count and who belongs to whom; undefined when quota is off. Tree search of the quota
 * tree · CAP_SYS_ADMIN · quick. Counters are of the last commit: sync() first for those of now. While `inconsistent`
 * or `rescanning` they are wrong.
 * @throws BtrfsError EPERM, EBADF
 * @example
 * for (const { id, path, exclusiveBytes } of (await fs.quota())?.qgroups ?? []) console.log(id, path, exclusiveBytes)
 */
export async function quota(volume: Volume, options: CallOptions = {}): Promise<Quota | undefined> {
  const callWith = check('quota', callOptions, options)
  const raw = await volume.call('quota', {}, callWith, (t) => native.quota(t, volume.handle))
  if (raw === undefined) return undefined
  const paths = new Map<number, string>([[5, '']])
  for await (const { id, path } of subvolumes(volume, callWith)) paths.set(id, path)
  const groups = new Map<string, Qgroup & { limits: QgroupLimits; parents: string[]; children: string[] }>()
  const rows = (values: Float64Array, width: number) =>
    Array.from({ length: values.length / width }, (_, row) => values.subarray(row * width, (row + 1) * width))
  for (const [level, id, referencedBytes, , exclusiveBytes] of rows(raw.infos, 6)) {
    const subvolumeId = level === 0 ? id : undefined
    groups.set(`${level}/${id}`, {
      id: `${level}/${id}`,
      subvolumeId,
      path: subvolumeId === undefined ? undefined : paths.get(subvolumeId),
      referencedBytes: Number.isNaN(referencedBytes) ? undefined : referencedBytes,
      exclusiveBytes: Number.isNaN(exclusiveBytes) ? undefined : exclusiveBytes,
      limits: { referencedBytes: undefined, exclusiveBytes: undefined },
      parents: [],
      children: [],
    })
  }
  const orNone = (bytes: number | undefined) => (bytes === -1 ? undefined : bytes)
  for (const [level, id, referenced, exclusive] of rows(raw.limits, 4)) {
    const group = groups.get(`${level}/${id}`)
    if (group) group.limits = { referencedBytes: orNone(referenced), exclusiveBytes: orNone(exclusive) }
  }
  for (const [level, id, parentLevel, parentId] of rows(raw.relations, 4)) {
    groups.get(`${level}/${id}`)?.parents.push(`${parentLevel}/${parentId}`)
    groups.get(`${parentLevel}/${parentId}`)?.children.push(`${level}/${id}`)
  }
  return {
    mode: modeOf(raw.flags),
    inconsistent: (raw.flags & INCONSISTENT) !== 0,
    // The item in the tree says it of the last commit.
    rescanning: await rescanning(volume, callWith),
    qgroups: [...groups.values()],
  }
}

/**
 * Turns quota on; the classic mode begins to count what is there, and until that ends its counters are wrong.
 * BTRFS_IOC_QUOTA_CTL · CAP_SYS_ADMIN · waits for commits. Classic accounting costs time on every commit and deletion,
 * more with many snapshots.
 * @param options.simple count each extent for the subvolume that wrote it (Linux 6.7): cheap, but nothing is known of
 *   what was there before
 * @throws BtrfsError EEXIST (it is on in the other mode), EPERM, EROFS, EINVAL (a mode that this kernel lacks), EBADF
 * @example
 * await fs.enableQuota()
 * await fs.rescanQuota() // waits for the first count
 */
export async function enableQuota(volume: Volume, options: EnableQuotaOptions = {}): Promise<void> {
  const { simple, ...callWith } = check('enableQuota', enableOptions, options)
  await volume.call('enableQuota', {}, callWith, (t) => native.quotaControl(t, volume.handle, simple ? 4 : 1))
  // The kernel says nothing where quota is on, in whichever mode.
  const now = await volume.call('enableQuota', {}, callWith, (t) => native.quota(t, volume.handle))
  if (now === undefined || ((now.flags & SIMPLE) !== 0) === simple) return
  const text = `quota is on in ${modeOf(now.flags)} mode, and stays so`
  const hint = 'disableQuota() first; it forgets all groups and limits'
  throw new BtrfsError('enableQuota', { code: 'EEXIST', errno: -17, text, hint }, { path: volume.path })
}

/**
 * Turns quota off and forgets all groups and limits. BTRFS_IOC_QUOTA_CTL · CAP_SYS_ADMIN. No error when it is off.
 * @throws BtrfsError EPERM, EROFS, EBADF
 * @example
 * await fs.disableQuota()
 */
export async function disableQuota(volume: Volume, options: CallOptions = {}): Promise<void> {
  const callWith = check('disableQuota', callOptions, options)
  await volume.call('disableQuota', {}, callWith, (t) => native.quotaControl(t, volume.handle, 2))
}

/**
 * Counts everything anew, or waits for the count that is under way. BTRFS_IOC_QUOTA_RESCAN · CAP_SYS_ADMIN · in the
 * background of the kernel, minutes on large volumes; `signal` and `timeoutMs` end the waiting, not the counting.
 * @param options.wait resolve when it is done. Default true.
 * @throws BtrfsError EPERM, ENOTCONN (quota is off), EINVAL (simple mode never counts), ETIMEDOUT, EBADF
 * @example
 * await fs.rescanQuota({ timeoutMs: 60_000 })
 */
export async function rescanQuota(volume: Volume, options: RescanOptions = {}): Promise<void> {
  const { wait, ...callWith } = check('rescanQuota', rescanOptions, options)
  const { signal, timeoutMs } = callWith
  const start = performance.now()
  try {
    const simple = hints({ EINVAL: 'simple mode never counts anew' })
    await volume.call('rescanQuota', simple, callWith, (t) => native.quotaRescan(t, volume.handle))
  } catch (error) {
    if ((error as BtrfsError).code !== 'EINPROGRESS') throw error
  }
  if (!wait) return
  const late = () => {
    const text = `not counted within ${timeoutMs} ms; it goes on`
    return new BtrfsError('rescanQuota', { code: 'ETIMEDOUT', errno: -110, text }, { path: volume.path })
  }
  await poll(async () => !(await rescanning(volume, { signal })), { signal, timeoutMs, startMs: start, late })
}

const rescanning = (volume: Volume, options: CallOptions) =>
  volume.call('rescanQuota', {}, options, (t) => native.quotaRescanning(t, volume.handle))

/**
 * Makes an empty quota group, for others to belong to. BTRFS_IOC_QGROUP_CREATE · CAP_SYS_ADMIN · quick.
 * @param id `level/id`; those of level 0 belong to subvolumes and come and go with them
 * @throws BtrfsError EEXIST, ENOTCONN (quota is off), EPERM, EBADF; BtrmindError BTRMIND_ERR_ARGUMENT
 * @example
 * await fs.createQgroup('1/100')
 */
export async function createQgroup(volume: Volume, id: string, options: CallOptions = {}): Promise<void> {
  const group = checkId('createQgroup', id)
  const callWith = check('createQgroup', callOptions, options)
  await volume.call('createQgroup', hints({ EEXIST: `there is a quota group ${id}` }), callWith, (t) =>
    native.qgroupCreate(t, volume.handle, ...group, true),
  )
}

/**
 * Takes a quota group away. BTRFS_IOC_QGROUP_CREATE · CAP_SYS_ADMIN · quick.
 * @throws BtrfsError ENOENT, EBUSY (others belong to it, or its subvolume is there), ENOTCONN, EPERM, EBADF;
 * BtrmindError BTRMIND_ERR_ARGUMENT
 * @example
 * await fs.destroyQgroup('1/100')
 */
export async function destroyQgroup(volume: Volume, id: string, options: CallOptions = {}): Promise<void> {
  const group = checkId('destroyQgroup', id)
  const callWith = check('destroyQgroup', callOptions, options)
  const busy = `quota group ${id} has others in it (unassignQgroup() them first), or its subvolume is there`
  await volume.call('destroyQgroup', hints({ ...noGroup(id), EBUSY: busy }), callWith, (t) =>
    native.qgroupCreate(t, volume.handle, ...group, false),
  )
}

/**
 * Lets a quota group belong to another one of a higher level. BTRFS_IOC_QGROUP_ASSIGN · CAP_SYS_ADMIN · quick.
 * @returns whether the kernel could not work the counters out: then they are wrong until `rescanQuota()`
 * @throws BtrfsError EINVAL (the levels do not ascend), ENOENT, EEXIST, ENOTCONN, EPERM, EBADF; BtrmindError
 * BTRMIND_ERR_ARGUMENT
 * @example
 * if (await fs.assignQgroup('0/257', '1/100')) await fs.rescanQuota()
 */
export async function assignQgroup(
  volume: Volume,
  child: string,
  parent: string,
  options: CallOptions = {},
): Promise<boolean> {
  return relate(volume, 'assignQgroup', child, parent, true, options)
}

/**
 * Takes a quota group out of another one. BTRFS_IOC_QGROUP_ASSIGN · CAP_SYS_ADMIN · quick.
 * @returns as `assignQgroup`
 * @throws BtrfsError ENOENT, ENOTCONN, EPERM, EBADF; BtrmindError BTRMIND_ERR_ARGUMENT
 * @example
 * await fs.unassignQgroup('0/257', '1/100')
 */
export async function unassignQgroup(
  volume: Volume,
  child: string,
  parent: string,
  options: CallOptions = {},
): Promise<boolean> {
  return relate(volume, 'unassignQgroup', child, parent, false, options)
}

async function relate(
  volume: Volume,
  operation: string,
  child: string,
  parent: string,
  assign: boolean,
  options: CallOptions,
): Promise<boolean> {
  const from = checkId(operation, child)
  const to = checkId(operation, parent)
  const callWith = check(operation, callOptions, options)
  return volume.call(
    operation,
    hints({
      ENOENT: `${child}, ${parent}: no such quota groups, or the one is not in the other`,
      EINVAL: `${child} cannot be in ${parent}: that has to be of a higher level, and both have to be there`,
      EEXIST: `${child} is in ${parent} already`,
    }),
    callWith,
    (t) => native.qgroupAssign(t, volume.handle, ...from, ...to, assign),
  )
}

/**
 * Sets how much a quota group may count; writing beyond it fails with EDQUOT. BTRFS_IOC_QGROUP_LIMIT · CAP_SYS_ADMIN ·
 * quick.
 * @param limits bytes; null takes a limit away, undefined leaves it as it is
 * @throws BtrfsError ENOENT, ENOTCONN (quota is off), EPERM, EBADF; BtrmindError BTRMIND_ERR_ARGUMENT
 * @example
 * await fs.limitQgroup('0/257', { referencedBytes: 10 * 1024 ** 3 })
 */
export async function limitQgroup(volume: Volume, id: string, limits: LimitQgroupOptions): Promise<void> {
  const group = checkId('limitQgroup', id)
  const { referencedBytes, exclusiveBytes, ...callWith } = check('limitQgroup', limitOptions, limits)
  const limit = (bytes: number | null | undefined) => (bytes === null ? -1 : bytes)
  await volume.call('limitQgroup', hints(noGroup(id)), callWith, (t) =>
    native.qgroupLimit(t, volume.handle, ...group, limit(referencedBytes), limit(exclusiveBytes)),
  )
}
