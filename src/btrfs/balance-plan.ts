/** What a balance would take, move and give back, and whether it fits: out of the chunk tree, before anything is done. */

import { native } from '../native.js'
import { formatBytes } from '../units.js'
import { doubts } from './balance-certainty.js'
import { type BalanceSelection, checkPlan, chosen, packFilters } from './balance-filters.js'
import type { CallOptions } from './call.js'
import { DeviceSpace, nextChunk, PROFILE_RULES, stripeBytes } from './chunk-allocator.js'
import { type BlockGroup, readBlockGroups } from './inspect.js'
import { type Reading, unpack } from './space.js'
import type { BlockGroupType, Profile } from './types.js'
import type { Volume } from './volume.js'

export interface BalancePlanOptions extends CallOptions, BalanceSelection {}

export interface BalancePlan {
  /** In the order in which the kernel takes them. */
  readonly blockGroups: readonly BlockGroup[]
  /** Logical: what is used of them, which must be written anew. Twice what is moved on into another of them. */
  readonly moveBytes: number
  /** Raw, of all devices that are there: now. */
  readonly unallocatedBytes: number
  /**
   * Raw: afterwards, at best: where all that is free in other block groups of the same type and profile can be used.
   * Holes that are too small cannot.
   */
  readonly unallocatedAfterBytes: number
  /**
   * Raw: afterwards, at worst: where nothing of it can be used, and everything goes into new block groups. Of data there
   * may be three begun at a time: extents of up to 128 KiB, of up to 8 MiB, and larger ones are kept apart while there
   * is room (Linux 6.3). It may be less than now. What others write meanwhile is not counted.
   */
  readonly unallocatedAfterMinBytes: number
  /** Metadata block groups less what is used of them and the global reserve; undefined where they hold data too. */
  readonly metadataSlackBytes: number | undefined
  readonly metadataSlackAfterBytes: number | undefined
  /**
   * The kernel would begin, and find room for each block group, for certain: in new block groups for data, which is moved
   * an extent at a time, and what is free elsewhere may be in pieces that are too small; beside the global reserve for
   * metadata. What others write meanwhile is not counted.
   */
  readonly fits: boolean
  /** False: it does not fit even if nothing is in pieces, or the kernel would not begin. */
  readonly possible: boolean
  /** Why it does not fit for certain, or not at all. */
  readonly reasons: readonly string[]
}

/**
 * What `balance()` with these options would do, without doing it: which block groups it takes, what it moves, what
 * becomes unallocated, and whether it fits. Tree search, SPACE_INFO, DEV_INFO · CAP_SYS_ADMIN · quick.
 *
 * The block groups are exactly those that the kernel counts as `expected`, as of the last commit (`sync()` first).
 * While it runs the kernel looks again: one that was filled past `usagePercent` meanwhile, with what another one held,
 * stays. The room is worked out block group by block group: what is used of each goes to where the type and target
 * profile have room, and else into new block groups, which are laid out by the kernel's rules for the profile on what
 * is unallocated of each device; then its own stripes become unallocated.
 * `fits` is a promise: of what may or may not succeed it is false, and `possible` true. On small volumes metadata has
 * little beside the global reserve, and a block group of system is moved only where much is unallocated.
 * @param options as of `balance`, and `signal` and `timeoutMs`
 * @throws BtrfsError EPERM, EBADF; BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT
 * @example
 * const plan = await fs.balancePlan({ data: { usagePercent: 30 } })
 * console.log(plan.blockGroups.length, plan.moveBytes, plan.fits ? 'fits' : plan.reasons)
 */
export async function balancePlan(volume: Volume, options: BalancePlanOptions): Promise<BalancePlan> {
  const { signal, timeoutMs, ...selection } = checkPlan(options)
  return planOf(await layout(volume, 'balancePlan', { signal, timeoutMs }), selection)
}

/** What the kernel would refuse to begin with (EINVAL), and why. */
export async function refusals(volume: Volume, selection: BalanceSelection): Promise<string[]> {
  return refusalsOf(await layout(volume, 'balance', {}), selection)
}

export interface Layout {
  readonly groups: readonly BlockGroup[]
  readonly reading: Pick<Reading, 'devices' | 'spaces' | 'reserveBytes' | 'readOnly'>
}

export async function layout(volume: Volume, operation: string, options: CallOptions): Promise<Layout> {
  const groups = await readBlockGroups(volume, operation, options)
  const raw = await volume.call(operation, {}, options, (t) => native.space(t, volume.handle, 0))
  return { groups, reading: unpack(raw) }
}

const holds = (type: BlockGroupType, kind: 'data' | 'metadata' | 'system') => type.split('+').includes(kind)
const redundant = (profile: Profile) => PROFILE_RULES[profile].copies > 1 || PROFILE_RULES[profile].tolerated > 0
const writable = ({ devices }: Layout['reading']) => devices.filter(({ missing }) => !missing)

function refusalsOf({ groups, reading }: Layout, selection: BalanceSelection): string[] {
  const reasons: string[] = []
  const { data, metadata, force } = selection
  const mixed = groups.some(({ type }) => type === 'data+metadata')
  // The kernel compares them byte for byte.
  if (mixed && String(packFilters(data)) !== String(packFilters(metadata)))
    reasons.push('data and metadata share block groups here: give both, with the same filters')
  const count = writable(reading).length
  for (const kind of ['data', 'metadata', 'system'] as const) {
    const target = selection[kind]?.convert
    if (target === undefined) continue
    const { devsMin } = PROFILE_RULES[target]
    if (count < devsMin) reasons.push(`${kind} as ${target} needs ${devsMin} devices, and ${count} can be written`)
    const now = groups.find(({ type, profile }) => holds(type, kind) && redundant(profile))
    if (kind !== 'data' && now !== undefined && !redundant(target) && !force)
      reasons.push(`${kind} would lose its redundancy (${now.profile} to ${target}): \`force\` allows it`)
  }
  return reasons
}

/** From the most redundant on: of several profiles the kernel takes the first that is there for what is written anew. */
const PREFERRED: readonly Profile[] = [
  'raid1c4',
  'raid6',
  'raid1c3',
  'raid5',
  'raid10',
  'raid1',
  'dup',
  'raid0',
  'single',
]

/** What is free in the block groups of one type and profile, while the plan is worked out. */
interface Pool {
  groups: number
  /** In those there are. Less than 0: a block group that was taken held what another one had before. */
  freeBytes: number
  /** In those made meanwhile. */
  madeBytes: number
}

/** Pure. Internal: exported for the reclaim, which asks of one block group at a time. */
export function planOf(now: Layout, selection: BalanceSelection): BalancePlan {
  const { groups, reading } = now
  const taken = chosen(groups, selection)
  const moveBytes = taken.reduce((sum, { usedBytes = 0 }) => sum + usedBytes, 0)
  const best = walkThrough(now, taken, selection, true)
  const worst = walkThrough(now, taken, selection, false)
  const impossible = [...refusalsOf(now, selection), ...best.stuck]
  if (reading.readOnly) impossible.push('the volume is mounted read-only')
  const { all: devices, target } = ground(now, selection)
  const reasons =
    impossible.length > 0 ? impossible : doubts({ groups, devices, target, reserveBytes: reading.reserveBytes }, taken)
  const slack = metadataSlack(groups, reading)
  return {
    blockGroups: taken,
    moveBytes,
    unallocatedBytes: writable(reading).reduce(
      (sum, { sizeBytes, allocatedBytes }) => sum + sizeBytes - allocatedBytes,
      0,
    ),
    unallocatedAfterBytes: best.unallocatedBytes,
    unallocatedAfterMinBytes: Math.min(best.unallocatedBytes, worst.unallocatedBytes),
    metadataSlackBytes: slack,
    metadataSlackAfterBytes: slack === undefined ? undefined : slack + best.metadataGrownBytes,
    fits: reasons.length === 0,
    possible: impossible.length === 0,
    reasons,
  }
}

function metadataSlack(groups: readonly BlockGroup[], { reserveBytes }: Layout['reading']): number | undefined {
  const own = groups.filter(({ type }) => type === 'metadata')
  if (own.length === 0) return undefined
  return own.reduce((sum, { sizeBytes, usedBytes = 0 }) => sum + sizeBytes - usedBytes, -reserveBytes)
}

/** What is unallocated of each device, and the profile that is written of each type. */
function ground({ groups, reading }: Layout, selection: BalanceSelection) {
  const devices = new Map(
    writable(reading).map(({ devid, sizeBytes }) => {
      const extents = groups.flatMap(({ profile, sizeBytes: length, stripes }) =>
        stripes
          .filter((stripe) => stripe.devid === devid)
          .map(({ offsetBytes }) => ({ offset: offsetBytes, length: stripeBytes(profile, length, stripes.length) })),
      )
      return [devid, new DeviceSpace(devid, sizeBytes, extents)]
    }),
  )
  const all = [...devices.values()]
  const able = PREFERRED.filter((profile) => PROFILE_RULES[profile].devsMin <= all.length)
  const there = new Set(groups.map(({ type, profile }) => `${type} ${profile}`))
  const target = (type: BlockGroupType, has = (profile: Profile) => there.has(`${type} ${profile}`)): Profile =>
    selection[type === 'data+metadata' ? 'data' : type]?.convert ?? able.find(has) ?? 'single'
  return { devices, all, target }
}

/** Whether another block group of a type can be made. Internal, as planOf(). */
export function growable(now: Layout, type: BlockGroupType): boolean {
  const { all, target } = ground(now, {})
  return nextChunk(all, type, target(type)) !== undefined
}

function walkThrough(now: Layout, taken: readonly BlockGroup[], selection: BalanceSelection, useFree: boolean) {
  const { groups } = now
  const { devices, all, target: written } = ground(now, selection)
  const pools = new Map<string, Pool>()
  const pool = (type: BlockGroupType, profile: Profile): Pool => {
    const key = `${type} ${profile}`
    const known = pools.get(key) ?? { groups: 0, freeBytes: 0, madeBytes: 0 }
    pools.set(key, known)
    return known
  }
  const addTo = (into: Pool, group: BlockGroup, times: 1 | -1) => {
    into.groups += times
    into.freeBytes += times * (group.sizeBytes - (group.usedBytes ?? 0))
  }
  for (const group of groups) addTo(pool(group.type, group.profile), group, 1)
  const target = (type: BlockGroupType) => written(type, (profile) => pool(type, profile).groups > 0)
  let metadataGrownBytes = 0
  const grow = (type: BlockGroupType, profile: Profile): boolean => {
    const next = nextChunk(all, type, profile)
    if (next === undefined) return false
    for (const device of next.devices) device.take(next.stripeBytes * PROFILE_RULES[profile].devStripes)
    const into = pool(type, profile)
    into.groups++
    into.madeBytes += next.sizeBytes
    if (type === 'metadata') metadataGrownBytes += next.sizeBytes
    return true
  }

  const stuck: string[] = []
  const data = groups.filter(({ type }) => type === 'data')
  // The last data block group must not take the profile with it: the kernel makes an empty one first.
  if (taken.some(({ type }) => type === 'data') && data.every(({ usedBytes = 0 }) => usedBytes === 0))
    grow('data', target('data'))
  for (const group of taken) {
    const { type, usedBytes = 0 } = group
    const profile = target(type)
    const from = pool(type, group.profile)
    const to = pool(type, profile)
    addTo(from, group, -1)
    const room = () => (useFree ? to.freeBytes : 0) + to.madeBytes
    while (room() < usedBytes && grow(type, profile)) {}
    const missing = usedBytes - to.freeBytes - to.madeBytes
    if (missing > 0) {
      addTo(from, group, 1)
      const what = `${formatBytes(missing)} of the ${type} block group at ${group.logicalBytes}`
      stuck.push(`no room for ${what}: too little is unallocated for another one as ${profile}`)
      continue
    }
    const made = Math.min(usedBytes, to.madeBytes)
    to.madeBytes -= made
    to.freeBytes -= usedBytes - made
    const length = stripeBytes(group.profile, group.sizeBytes, group.stripes.length)
    for (const { devid, offsetBytes } of group.stripes) devices.get(devid)?.give({ offset: offsetBytes, length })
    if (type === 'metadata') metadataGrownBytes -= group.sizeBytes
  }
  // Extents of other sizes (to 128 KiB, to 8 MiB, larger) go to other block groups while there is room for those.
  if (!useFree && taken.some(({ type, usedBytes = 0 }) => type.startsWith('data') && usedBytes > 0))
    for (let size = 1; size < 3; size++) grow('data', target('data'))
  const unallocatedBytes = all.reduce((sum, device) => sum + device.unallocatedBytes, 0)
  return { stuck, unallocatedBytes, metadataGrownBytes }
}
