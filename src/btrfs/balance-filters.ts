/** What a balance takes: its options, as the kernel wants them, and which block groups pass them. Pure. */
import * as v from 'valibot'
import { BtrmindError, check } from '../errors.js'
import { stripeBytes } from './chunk-allocator.js'
import type { BlockGroup } from './inspect.js'
import type { ResumeOptions } from './operation.js'
import { callOptions, devidArgument, resumeOptions } from './options.js'
import type { Profile } from './types.js'

/** At least `min` and at most `max`; what is left out has no bound. */
export interface Bounds {
  readonly min?: number | undefined
  readonly max?: number | undefined
}

/** From `startBytes` (default 0) up to and without `endBytes` (default: the end). */
export interface ByteRange {
  readonly startBytes?: number | undefined
  readonly endBytes?: number | undefined
}

/** Which block groups of one type. All that is given must hold. */
export interface BalanceFilters {
  /**
   * Used less than so many percent; with bounds, at least `min` and less than `max`. 0: only the empty. 100, and any
   * bounds, leave out those that are completely full.
   */
  readonly usagePercent?: number | Bounds | undefined
  /** At most so many, from the highest address down; with `min`, none at all unless so many pass. */
  readonly limit?: number | Bounds | undefined
  /** Of one of these profiles. */
  readonly profiles?: readonly Profile[] | undefined
  /** With a stripe on this device. */
  readonly devid?: number | undefined
  /** With a stripe on device `devid` that lies, also in part, in this range of it. */
  readonly drange?: ByteRange | undefined
  /** That lie, also in part, in this range of the volume's own addresses (`BlockGroup.logicalBytes`). */
  readonly vrange?: ByteRange | undefined
  /** Of so many stripes; dup has two. */
  readonly stripes?: number | Bounds | undefined
  /** Write them anew in this profile. Until a conversion is complete the volume has both. */
  readonly convert?: Profile | undefined
  /** With `convert`: leave out those that have the profile already. Default false. */
  readonly soft?: boolean | undefined
}

/** At least one type. `{}` as its filters: all its block groups. */
export interface BalanceSelection {
  readonly data?: BalanceFilters | undefined
  /** Implies `system` with the same filters unless that is given, as btrfs-progs has it. */
  readonly metadata?: BalanceFilters | undefined
  readonly system?: BalanceFilters | undefined
  /** Let a conversion take copies away from metadata or system. Default false. (Of data it always may.) */
  readonly force?: boolean | undefined
}

export interface BalanceOptions extends ResumeOptions, BalanceSelection {}

export interface BalanceProgress {
  readonly expected: number
  readonly considered: number
  readonly completed: number
}

export interface BalanceStatus extends BalanceProgress, BalanceSelection {
  readonly state: 'running' | 'paused'
}

const U32 = 2 ** 32 - 1
const whole = (least: number, most: number) => v.pipe(v.number(), v.integer(), v.minValue(least), v.maxValue(most))
const inOrder = ({ min = 0, max = U32 }: { min?: number | undefined; max?: number | undefined }) => min <= max
const pair = (least: number, most: number) =>
  v.pipe(
    v.strictObject({ min: v.optional(whole(least, most)), max: v.optional(whole(least, most)) }),
    v.check(inOrder, 'min no larger than max'),
  )
const bounds = (least: number, most: number) =>
  v.union(
    [whole(least, most), pair(least, most)],
    `a whole number from ${least} to ${most}, or { min, max } of such with min no larger than max`,
  )
const most = v.pipe(
  whole(1, Number.MAX_SAFE_INTEGER),
  v.transform((limit) => Math.min(limit, U32)),
)
const range = v.pipe(
  v.strictObject({
    startBytes: v.optional(whole(0, Number.MAX_SAFE_INTEGER)),
    endBytes: v.optional(whole(0, Number.MAX_SAFE_INTEGER)),
  }),
  v.check(
    ({ startBytes = 0, endBytes = Number.POSITIVE_INFINITY }) => startBytes < endBytes,
    'startBytes less than endBytes',
  ),
)

/** The kernel's bit of each; of single, which has none in the chunk tree, the one that stands for it. */
const PROFILE_BIT: Readonly<Record<Profile, number>> = {
  raid0: 2 ** 3,
  raid1: 2 ** 4,
  dup: 2 ** 5,
  raid10: 2 ** 6,
  raid5: 2 ** 7,
  raid6: 2 ** 8,
  raid1c3: 2 ** 9,
  raid1c4: 2 ** 10,
  single: 2 ** 48,
}
const PROFILES = Object.keys(PROFILE_BIT) as Profile[]
const profile = v.picklist(PROFILES)

const filters = v.pipe(
  v.strictObject({
    usagePercent: v.optional(bounds(0, 100)),
    limit: v.optional(v.union([most, pair(0, U32)], 'a whole number of 1 or more, or { min, max }')),
    profiles: v.optional(v.pipe(v.array(profile), v.nonEmpty('at least one profile'))),
    devid: v.optional(devidArgument),
    drange: v.optional(range),
    vrange: v.optional(range),
    stripes: v.optional(bounds(1, U32)),
    convert: v.optional(profile),
    soft: v.optional(v.boolean()),
  }),
  v.check(({ drange, devid }) => drange === undefined || devid !== undefined, '`devid` beside `drange`'),
  v.check(({ soft, convert }) => !soft || convert !== undefined, '`convert` beside `soft`'),
)
const selection = {
  data: v.optional(filters),
  metadata: v.optional(filters),
  system: v.optional(filters),
  force: v.optional(v.boolean(), false),
}
const balanceOptions = v.strictObject({ ...resumeOptions.entries, ...selection })
const planOptions = v.strictObject({ ...callOptions.entries, ...selection })

/** `metadata` implies `system`, as btrfs-progs has it. */
export const checkBalance = (options: unknown) => implied('balance', check('balance', balanceOptions, options))
export const checkPlan = (options: unknown) => implied('balancePlan', check('balancePlan', planOptions, options))

function implied<T extends BalanceSelection>(operation: string, checked: T) {
  const { data, metadata, system = metadata } = checked
  if (data !== undefined || system !== undefined) return { ...checked, system }
  const message = `${operation}: expected at least one of data, metadata, system; got none`
  throw new BtrmindError('BTRMIND_ERR_ARGUMENT', message)
}

const FLAG = {
  profiles: 1,
  usage: 2,
  devid: 4,
  drange: 8,
  vrange: 16,
  limit: 32,
  limitRange: 64,
  stripes: 128,
  convert: 256,
  soft: 512,
  usageRange: 1024,
} as const

const both = (given: number | Bounds | undefined, least: number, most: number): [number, number] =>
  typeof given === 'number' ? [given, given] : [given?.min ?? least, given?.max ?? most]
const ends = (given: ByteRange | undefined): [number, number] => [
  given?.startBytes ?? 0,
  given?.endBytes ?? Number.POSITIVE_INFINITY,
]
/** A single limit is a most. */
const limits = (given: number | Bounds | undefined) => both(typeof given === 'number' ? { max: given } : given, 0, U32)

/**
 * In the order of native/ops/balance.cpp. A limit always goes as a range: of a single one the kernel takes the rest for
 * a minimum as well (both lie in the same bytes), and moves too few or none where fewer pass than the limit allows.
 */
export function packFilters(given: BalanceFilters | undefined): Float64Array | undefined {
  if (given === undefined) return undefined
  const { usagePercent, limit, profiles, devid, drange, vrange, stripes, convert, soft } = given
  const single = typeof usagePercent === 'number'
  let flags = 0
  if (profiles !== undefined) flags += FLAG.profiles
  if (usagePercent !== undefined) flags += single ? FLAG.usage : FLAG.usageRange
  if (devid !== undefined) flags += FLAG.devid
  if (drange !== undefined) flags += FLAG.drange
  if (vrange !== undefined) flags += FLAG.vrange
  if (limit !== undefined) flags += FLAG.limitRange
  if (stripes !== undefined) flags += FLAG.stripes
  if (convert !== undefined) flags += FLAG.convert
  if (soft) flags += FLAG.soft
  const bits = [...new Set(profiles)].reduce((sum, name) => sum + PROFILE_BIT[name], 0)
  const usage = usagePercent === undefined ? [0, 0] : single ? [usagePercent, 0] : both(usagePercent, 0, 100)
  const absent = [0, 0]
  return Float64Array.from([
    flags,
    bits,
    ...usage,
    devid ?? 0,
    ...(drange === undefined ? absent : ends(drange)),
    ...(vrange === undefined ? absent : ends(vrange)),
    convert === undefined ? 0 : PROFILE_BIT[convert],
    ...(limit === undefined ? absent : limits(limit)),
    ...(stripes === undefined ? absent : both(stripes, 1, U32)),
  ])
}

/** The other way round, of whoever's balance. */
export function unpackFilters(fields: Float64Array | undefined): BalanceFilters | undefined {
  if (fields === undefined) return undefined
  const [flags = 0, bits = 0, usageMin = 0, usageMax = 0, devid = 0, ...rest] = fields
  const [pstart = 0, pend = 0, vstart = 0, vend = 0, target = 0, limitMin = 0, limitMax = 0, ...more] = rest
  const [stripesMin = 0, stripesMax = 0] = more
  const has = (flag: number) => Math.trunc(flags / flag) % 2 === 1
  const out: { -readonly [Key in keyof BalanceFilters]: BalanceFilters[Key] } = {}
  // More than 100 is no bound but "not full" to the kernel; btrfs-progs gives such for each of its ranges.
  if (has(FLAG.usage)) out.usagePercent = Math.min(100, usageMax * 2 ** 32 + usageMin)
  else if (has(FLAG.usageRange)) out.usagePercent = { min: usageMin, max: usageMax }
  if (has(FLAG.limit)) out.limit = limitMax * 2 ** 32 + limitMin
  else if (has(FLAG.limitRange)) out.limit = limitMin === 0 ? limitMax : { min: limitMin, max: limitMax }
  const named = (mask: number) => PROFILES.filter((name) => Math.trunc(mask / PROFILE_BIT[name]) % 2 === 1)
  if (has(FLAG.profiles)) out.profiles = named(bits)
  if (has(FLAG.devid)) out.devid = devid
  if (has(FLAG.drange)) out.drange = toRange(pstart, pend)
  if (has(FLAG.vrange)) out.vrange = toRange(vstart, vend)
  if (has(FLAG.stripes)) out.stripes = stripesMin === stripesMax ? stripesMin : { min: stripesMin, max: stripesMax }
  if (has(FLAG.convert)) out.convert = named(target)[0]
  if (has(FLAG.soft)) out.soft = true
  return out
}
const toRange = (startBytes: number, endBytes: number): ByteRange =>
  endBytes === Number.POSITIVE_INFINITY ? { startBytes } : { startBytes, endBytes }

/** As the kernel's should_balance_chunk() has it, without the limit. */
export function passes(given: BalanceFilters, group: BlockGroup): boolean {
  const { usagePercent, profiles, devid, drange, vrange, stripes, convert, soft } = given
  const { sizeBytes, usedBytes = 0, logicalBytes } = group
  if (profiles !== undefined && !profiles.includes(group.profile)) return false
  if (usagePercent !== undefined) {
    const [min, max] = typeof usagePercent === 'number' ? [0, usagePercent] : both(usagePercent, 0, 100)
    const below = max === 0 ? 1 : Math.floor((sizeBytes * max) / 100)
    if (usedBytes < Math.floor((sizeBytes * min) / 100) || usedBytes >= below) return false
  }
  if (devid !== undefined) {
    const [start, end] = ends(drange)
    const length = stripeBytes(group.profile, sizeBytes, group.stripes.length)
    const there = (stripe: { devid: number; offsetBytes: number }) =>
      stripe.devid === devid && stripe.offsetBytes < end && stripe.offsetBytes + length > start
    if (!group.stripes.some(there)) return false
  }
  if (vrange !== undefined) {
    const [start, end] = ends(vrange)
    if (logicalBytes >= end || logicalBytes + sizeBytes <= start) return false
  }
  if (stripes !== undefined) {
    const [min, max] = both(stripes, 1, U32)
    if (group.stripes.length < min || group.stripes.length > max) return false
  }
  return !(soft && convert === group.profile)
}

/** Those that a balance takes, in its order: from the highest address down. */
export function chosen<Group extends BlockGroup>(groups: readonly Group[], selection: BalanceSelection): Group[] {
  const of = (group: BlockGroup) => (group.type === 'data+metadata' ? 'data' : group.type)
  const taken: Group[] = []
  for (const type of ['data', 'metadata', 'system'] as const) {
    const given = selection[type]
    if (given === undefined) continue
    const [min, max] = limits(given.limit)
    const passing = groups.filter((group) => of(group) === type && passes(given, group))
    // Of mixed block groups the kernel holds the count of metadata, which stays 0, against the minimum too.
    if (passing.length < min || (min > 0 && passing.some((group) => group.type !== type))) continue
    passing.sort((a, b) => b.logicalBytes - a.logicalBytes)
    taken.push(...passing.slice(0, max))
  }
  return taken.sort((a, b) => b.logicalBytes - a.logicalBytes)
}

export const countersOf = ({ expected, considered, completed }: BalanceProgress): BalanceProgress => ({
  expected,
  considered,
  completed,
})
