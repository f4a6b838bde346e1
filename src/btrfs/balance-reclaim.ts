/** Data block groups given back, the least used first. */
import * as v from 'valibot'
import { BtrfsError, BtrmindError, check } from '../errors.js'
import { native } from '../native.js'
import { type BalanceProgress, type BalanceSelection, packFilters } from './balance-filters.js'
import { growable, type Layout, layout, planOf } from './balance-plan.js'
import { type CallOptions, explained } from './call.js'
import { whoHolds } from './exclusive.js'
import type { BlockGroup } from './inspect.js'
import { cancelled, LongOperation, type Operation, type ResumeOptions } from './operation.js'
import { resumeOptions } from './options.js'
import { type Classes, hasRoom, hasSizeClasses, readClasses } from './size-classes.js'
import type { Volume } from './volume.js'

export interface ReclaimOptions extends ResumeOptions {
  /** Until so much (raw, of all devices) is in no block group. */
  readonly targetUnallocatedBytes?: number | undefined
  /** Until so many were moved. */
  readonly maxBlockGroups?: number | undefined
  /** Only those that are used less than so many percent. Default 100: all that are not full. */
  readonly maxUsagePercent?: number | undefined
}
export interface ReclaimProgress {
  /** Moved, and so given back. */
  readonly blockGroups: number
  /** Logical: what was used of them. */
  readonly movedBytes: number
  /** Raw, of all devices that are there: now. */
  readonly unallocatedBytes: number
  /** More than at the beginning; less than 0 where others took more meanwhile. */
  readonly gainedBytes: number
  /** What is being moved. */
  readonly current:
    | { readonly logicalBytes: number; readonly sizeBytes: number; readonly usedBytes: number }
    | undefined
}
export interface ReclaimResult extends ReclaimProgress {
  /**
   * Why it is over: `targetUnallocatedBytes` is reached; `maxBlockGroups` are moved; no further one passes
   * `maxUsagePercent`; what is used of the next one fits nowhere; those left would only change their places, or three in
   * a row did; the kernel left one where it was (a swap file is in it).
   */
  readonly stopped: 'target' | 'limit' | 'none left' | 'no room' | 'no gain' | 'stuck'
}

const whole = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(Number.MAX_SAFE_INTEGER))
const reclaimOptions = v.strictObject({
  ...resumeOptions.entries,
  targetUnallocatedBytes: v.optional(whole),
  maxBlockGroups: v.optional(whole),
  maxUsagePercent: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(100))),
})

/**
 * Gives thinly used data block groups back, the least used first: one balance after the other, each of a single block
 * group, with a look at the chunk map between. BTRFS_IOC_BALANCE_V2, tree search · CAP_SYS_ADMIN · long: seconds to
 * minutes for each block group, during which snapshots and deletions wait.
 *
 * It ends by itself as soon as it would gain nothing. cancel(), an aborted signal, close() and the end of the process
 * stop it after the block group that it is at; no balance is left running or paused. What was moved stays moved.
 * @param options at least one of `targetUnallocatedBytes`, `maxBlockGroups`, `maxUsagePercent`
 * @returns an operation; its `result` rejects with BtrfsError as `balance`, with what was done so far in `progress`
 * @throws BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT
 * @example
 * const reclaim = fs.reclaimDataBlockGroups({ targetUnallocatedBytes: 10 * 1024 ** 3, maxUsagePercent: 50 })
 * const { blockGroups, gainedBytes, stopped } = await reclaim.result
 */
export function reclaimDataBlockGroups(
  volume: Volume,
  options: ReclaimOptions,
): Operation<ReclaimProgress, ReclaimResult> {
  const { signal, intervalMs, ...limits } = check('reclaimDataBlockGroups', reclaimOptions, options)
  if (Object.values(limits).every((limit) => limit === undefined)) {
    const wanted = 'at least one of targetUnallocatedBytes, maxBlockGroups, maxUsagePercent'
    throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `reclaimDataBlockGroups: expected ${wanted}; got none`)
  }
  let progress: ReclaimProgress | undefined
  return new LongOperation({
    operation: OPERATION,
    path: volume.path,
    start: (stop) =>
      volume.track(
        reclaim(volume, limits, stop, (now) => {
          progress = now
        }),
      ),
    progress: async () => progress,
    last: () => progress,
    signal,
    intervalMs,
  })
}

type Limits = Omit<ReclaimOptions, keyof ResumeOptions>
type State = { -readonly [Key in keyof ReclaimProgress]: ReclaimProgress[Key] }

const OPERATION = 'reclaimDataBlockGroups'

async function reclaim(
  volume: Volume,
  { targetUnallocatedBytes, maxBlockGroups, maxUsagePercent = 100 }: Limits,
  stop: AbortSignal,
  tell: (progress: ReclaimProgress) => void,
): Promise<ReclaimResult> {
  const state: State = { blockGroups: 0, movedBytes: 0, unallocatedBytes: 0, gainedBytes: 0, current: undefined }
  /** What would only change their places. */
  const inVain = new Set<string>()
  const known = new Map<string, Classes>()
  const classesOf = async (group: BlockGroup): Promise<Classes> => {
    const name = `${key(group)} ${group.usedBytes}`
    const classes = known.get(name) ?? (await readClasses(volume, group, stop))
    known.set(name, classes)
    return classes
  }
  /** Whether what is used of it goes into block groups that there are: while others can be made, only by its class. */
  const fills = async (group: BlockGroup, { groups, reading }: Layout): Promise<boolean> => {
    if (group.type !== 'data' || !group.usedBytes || !hasSizeClasses()) return true
    if (!growable({ groups, reading }, group.type)) return true
    const others = groups.filter((other) => other.type === 'data' && key(other) !== key(group))
    const rooms: { classes: Classes; freeBytes: number }[] = []
    for (const other of others) {
      const freeBytes = other.sizeBytes - (other.usedBytes ?? 0)
      if (freeBytes > 0) rooms.push({ classes: await classesOf(other), freeBytes })
    }
    return hasRoom(await classesOf(group), rooms)
  }
  /** Made meanwhile: not to be moved once more. */
  let made: Set<string> | undefined
  const look = async (options: CallOptions = {}) => {
    const now = await layout(volume, OPERATION, options)
    const present = now.reading.devices.filter(({ missing }) => !missing)
    return { ...now, unallocatedBytes: present.reduce((sum, d) => sum + d.sizeBytes - d.allocatedBytes, 0) }
  }
  try {
    // What is used of a block group is told as of the last commit.
    await volume.call(OPERATION, {}, { signal: stop }, (t) => native.sync(t, volume.handle))
    let now = await look({ signal: stop })
    const beforeBytes = now.unallocatedBytes
    made = new Set()
    let fruitless = 0
    for (;;) {
      Object.assign(state, {
        unallocatedBytes: now.unallocatedBytes,
        gainedBytes: now.unallocatedBytes - beforeBytes,
        current: undefined,
      })
      tell({ ...state })
      const end = (stopped: ReclaimResult['stopped']): ReclaimResult => ({ ...state, stopped })
      if (targetUnallocatedBytes !== undefined && now.unallocatedBytes >= targetUnallocatedBytes) return end('target')
      if (maxBlockGroups !== undefined && state.blockGroups >= maxBlockGroups) return end('limit')
      stop.throwIfAborted()
      const next = leastUsed(now.groups, maxUsagePercent, made, inVain)
      if (next === undefined) return end(inVain.size > 0 ? 'no gain' : 'none left')
      const selection = only(next)
      const plan = planOf(now, selection)
      if (!plan.possible) return end('no room')
      if (fruitless === SIZE_CLASSES) return end('no gain')
      if (plan.unallocatedAfterBytes <= plan.unallocatedBytes || !(await fills(next, now))) {
        inVain.add(key(next))
        continue
      }
      const { logicalBytes, sizeBytes, usedBytes = 0 } = next
      state.current = { logicalBytes, sizeBytes, usedBytes }
      tell({ ...state })
      const done = await moved(volume, selection, stop)
      if (done === undefined) return end('no room')
      const after = await look()
      if (done.completed === 0 && after.groups.some((group) => key(group) === key(next))) return end('stuck')
      const before = new Set(now.groups.map(key))
      before.delete(key(next)) // its place may have been taken again
      for (const group of after.groups) if (!before.has(key(group))) made.add(key(group))
      state.blockGroups++
      state.movedBytes += usedBytes
      fruitless = after.unallocatedBytes > now.unallocatedBytes ? 0 : fruitless + 1
      inVain.clear()
      now = after
    }
  } catch (error) {
    const at = { ...state, current: undefined }
    if (made === undefined) throw error // nothing had begun
    const closed = volume.closing.aborted && (error as BtrfsError).code === 'EBADF'
    if (closed || (stop.aborted && error === stop.reason)) {
      throw cancelled(OPERATION, volume.path, at)
    }
    throw error instanceof BtrfsError ? Object.assign(error, { progress: at }) : error
  }
}

/** Extents of each are kept in block groups of their own: the first one moved of each may only change its place. */
const SIZE_CLASSES = 3

/** A block group's address is used again once it is the highest. */
const key = ({ logicalBytes, stripes }: BlockGroup) =>
  [logicalBytes, ...stripes.map(({ devid, offsetBytes }) => `${devid}:${offsetBytes}`)].join(' ')

/** Data only; of mixed block groups, whatever is in them. */
function leastUsed(
  groups: readonly BlockGroup[],
  maxPercent: number,
  ...without: ReadonlySet<string>[]
): BlockGroup | undefined {
  const share = ({ usedBytes = 0, sizeBytes }: BlockGroup) => usedBytes / sizeBytes
  return groups
    .filter((group) => group.type.startsWith('data') && !without.some((set) => set.has(key(group))))
    .filter((group) => group.usedBytes !== undefined && 100 * share(group) < maxPercent)
    .sort((a, b) => share(a) - share(b) || b.logicalBytes - a.logicalBytes)[0]
}

/** The filters that exactly this one passes. */
function only({ type, logicalBytes, sizeBytes }: BlockGroup): BalanceSelection {
  const filters = { vrange: { startBytes: logicalBytes, endBytes: logicalBytes + sizeBytes }, limit: 1 }
  return type === 'data' ? { data: filters } : { data: filters, metadata: filters }
}

/** Undefined: there was no room for it. */
async function moved(
  volume: Volume,
  { data, metadata }: BalanceSelection,
  stop: AbortSignal,
): Promise<BalanceProgress | undefined> {
  const prepared = native.balancePrepare(false, packFilters(data), packFilters(metadata))
  const begin = (ticket: number) =>
    explained(native.balance(ticket, volume.handle, prepared), (failure) => whoHolds(volume, failure))
  try {
    return await volume.callLong(OPERATION, {}, { signal: stop }, begin)
  } catch (error) {
    if ((error as BtrfsError).code === 'ENOSPC') return undefined
    throw error
  }
}
