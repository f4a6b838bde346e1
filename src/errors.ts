import { closest, distance } from 'fastest-levenshtein'
import * as v from 'valibot'

/** What the addon rejects with: data only; {@link BtrfsError} adds the public call and the caller's stack. */
export interface NativeFailure {
  readonly failure: true
  readonly code: string
  readonly errno: number
  readonly text: string
  readonly ioctl?: string
  readonly step?: string
  readonly path?: string
  readonly dest?: string
  readonly progress?: unknown
  /** What this failure says beyond its code; else {@link HINTS} has the common cause. */
  readonly hint?: string
}

export function isNativeFailure(error: unknown): error is NativeFailure {
  return typeof error === 'object' && error !== null && (error as { failure?: unknown }).failure === true
}

/** Common causes, in the words of somebody who has to act on them. */
export const HINTS: Readonly<Record<string, string>> = {
  ENOTTY: 'not a btrfs filesystem',
  EPERM: 'needs root (CAP_SYS_ADMIN)',
  EACCES: 'the files’ permissions do not allow it',
  EBADF: 'the filesystem was closed',
  EINPROGRESS: 'another exclusive operation (balance, device, resize) is running or paused',
  BTRFS_ERROR_DEV_EXCL_RUN_IN_PROGRESS: 'another exclusive operation (balance, device, resize) is running or paused',
  BTRFS_ERROR_DEV_RAID1_MIN_NOT_MET:
    'too few devices would be left for raid1; add one first, or balance to another profile',
  BTRFS_ERROR_DEV_RAID10_MIN_NOT_MET:
    'too few devices would be left for raid10; add one first, or balance to another profile',
  BTRFS_ERROR_DEV_RAID5_MIN_NOT_MET:
    'too few devices would be left for raid5; add one first, or balance to another profile',
  BTRFS_ERROR_DEV_RAID6_MIN_NOT_MET:
    'too few devices would be left for raid6; add one first, or balance to another profile',
  BTRFS_ERROR_DEV_RAID1C3_MIN_NOT_MET:
    'too few devices would be left for raid1c3; add one first, or balance to another profile',
  BTRFS_ERROR_DEV_RAID1C4_MIN_NOT_MET:
    'too few devices would be left for raid1c4; add one first, or balance to another profile',
  BTRFS_ERROR_DEV_ONLY_WRITABLE: 'it is the only device that can be written to; add another one first',
  BTRFS_ERROR_DEV_MISSING_NOT_FOUND: 'no device is missing; see devices()',
  BTRFS_ERROR_DEV_TGT_REPLACE: 'it is the target of a replacement that runs; cancel that, or wait for its end',
  ENOTCONN: 'none is running or paused',
  ENOENT: 'nothing has that name; check the path',
  EEXIST: 'something has that name already; choose another one, or take that away first',
  EROFS: 'read-only: the mount, the subvolume, or a volume that went read-only after an error',
  ENOSPC: 'no unallocated space or metadata space left; see usage()',
  EDQUOT: 'a quota group is at its limit; see quota()',
  ETIMEDOUT: 'the kernel did not answer in time; the call may still complete',
  ENOTEMPTY: 'it has subvolumes inside; delete those first',
  ENOTDIR: 'a directory is needed',
  EISDIR: 'a regular file is needed',
  ENODEV: 'the volume has no such device',
  ESTALE: 'it is no longer what was named; name it anew if it is the right one',
  EFBIG: 'larger than the device itself',
}

/** "EPERM: needs root (CAP_SYS_ADMIN)": why something could not be had. */
export function reason(code: string): string {
  const hint = HINTS[code]
  return hint === undefined ? code : `${code}: ${hint}`
}

/** The kernel said no. Every failure of the addon becomes one of these. */
export class BtrfsError extends Error {
  override readonly name = 'BtrfsError'
  /** errno name ('ENOSPC'), or BTRFS_ERROR_DEV_* where an ioctl refused with a positive return. */
  readonly code: string
  /** Negative errno; positive for BTRFS_ERROR_DEV_*. */
  readonly errno: number
  /** The public call: 'snapshot'. */
  readonly operation: string
  declare readonly ioctl?: string
  /** What was being done inside the call. */
  declare readonly step?: string
  declare readonly path?: string
  declare readonly dest?: string
  declare readonly hint?: string
  /** What the kernel reported before it stopped (a cancelled balance's counters). */
  declare readonly progress?: unknown

  constructor(
    operation: string,
    failure: Omit<NativeFailure, 'failure'>,
    context: { path?: string; dest?: string; hints?: Readonly<Record<string, string>> } = {},
  ) {
    const path = failure.path ?? context.path
    const dest = failure.dest ?? context.dest
    const hint = failure.hint ?? context.hints?.[failure.code] ?? HINTS[failure.code]
    const where = path === undefined ? '' : dest === undefined ? ` '${path}'` : ` '${path}' -> '${dest}'`
    const ioctl = failure.ioctl === undefined ? '' : ` (${failure.ioctl})`
    const step = failure.step === undefined || failure.step === operation ? '' : `: could not ${failure.step}`
    const text = failure.text.charAt(0).toLowerCase() + failure.text.slice(1)
    super(`${failure.code}: ${text}, ${operation}${where}${ioctl}${step}${hint === undefined ? '' : `; ${hint}`}`)
    this.code = failure.code
    this.errno = failure.errno
    this.operation = operation
    if (failure.ioctl !== undefined) this.ioctl = failure.ioctl
    if (failure.step !== undefined) this.step = failure.step
    if (path !== undefined) this.path = path
    if (dest !== undefined) this.dest = dest
    if (hint !== undefined) this.hint = hint
    if (failure.progress !== undefined) this.progress = failure.progress
  }

  /** Whole in logs: an Error's own JSON has no message. */
  toJSON() {
    const { name, message, code, errno, operation, ioctl, step, path, dest, hint, progress } = this
    return { name, message, code, errno, operation, ioctl, step, path, dest, hint, progress }
  }
}

/** Everything that is ours to refuse. docs/errors.md repeats this table; a test holds the two together. */
export const ERRORS = {
  BTRMIND_ERR_ARGUMENT: 'An argument or option has the wrong type or a value out of range; the message quotes it.',
  BTRMIND_ERR_OPTION: 'An option is unknown; the message names the nearest one.',
  BTRMIND_ERR_ADDON: 'The native addon could not be loaded for this platform.',
  BTRMIND_ERR_WRONG_VOLUME: 'The path is on another volume than the one asked for or opened.',
  BTRMIND_ERR_STATE: 'The state directory cannot be read or written.',
  BTRMIND_ERR_STATE_CORRUPT:
    'A state file is damaged; it was set aside, and the last good one is used if there is one.',
  BTRMIND_ERR_UNFINISHED: 'An earlier run was ended in the middle of an action; the message says which.',
  BTRMIND_ERR_LOCKED: 'Another process uses this state directory.',
  BTRMIND_ERR_SAMPLE: 'The volume answered neither the full query nor statfs.',
  BTRMIND_ERR_ROOT: 'A directory was named that the action must not be let loose on; the message says why.',
  BTRMIND_ERR_GUARD: 'The safety guard refused the action.',
  BTRMIND_ERR_UNDER_WAY:
    'The kernel has not let go of an action or a look for candidates; until it does, none follows.',
  BTRMIND_ERR_LATE: 'An action was held up (a disk that hangs) until its time was over, and was not begun.',
  BTRMIND_ERR_MODEL: 'The model gave no usable answer (wrong shape, not a number).',
} as const
export type ErrorCode = keyof typeof ERRORS

/** A failure that is not the kernel's. */
export class BtrmindError extends Error {
  override readonly name = 'BtrmindError'
  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: { cause?: unknown; hint?: string },
  ) {
    super(`${code}: ${message}${options?.hint === undefined ? '' : `; ${options.hint}`}`, { cause: options?.cause })
    if (options?.hint !== undefined) this.hint = options.hint
  }
  declare readonly hint?: string

  /** Whole in logs: an Error's own JSON has no message. */
  toJSON() {
    const { name, message, code, hint } = this
    return { name, message, code, hint }
  }
}

/** The bad value, short enough for one line. */
export function quote(value: unknown): string {
  if (typeof value === 'string') return `'${value.length > 80 ? `${value.slice(0, 77)}…` : value}'`
  if (typeof value === 'bigint') return `${value}n`
  if (Array.isArray(value)) return `[${value.slice(0, 3).map(quote).join(', ')}${value.length > 3 ? ', …' : ''}]`
  if (typeof value === 'object' && value !== null) return value.constructor?.name ?? 'object'
  if (typeof value === 'function') return 'a function'
  return String(value)
}

/** "did you mean 'readonly'?" for the nearest of `valid`, or the list when none is near. */
export function nearest(given: string, valid: readonly string[]): string {
  if (valid.length === 0) return 'it takes no options'
  const best = closest(given, valid as string[])
  return distance(given, best) <= Math.max(2, given.length / 2)
    ? `did you mean '${best}'?`
    : `valid: ${valid.join(', ')}`
}

/** The options that a schema has at a place in it: { data: { usagePercent } } at ['data']. */
function optionsAt(schema: Nested | undefined, [key, ...rest]: readonly string[]): string[] {
  let inner = schema
  while (inner?.wrapped !== undefined) inner = inner.wrapped // optional, nullable
  if (key === undefined) return Object.keys(inner?.entries ?? {})
  return optionsAt(inner?.entries?.[key] ?? inner?.item ?? inner?.value, rest)
}
interface Nested {
  readonly entries?: Readonly<Record<string, Nested>>
  readonly wrapped?: Nested
  readonly item?: Nested
  readonly value?: Nested
}

/**
 * Checks an argument or an options record against a valibot schema and gives it back with its defaults.
 * Use `v.strictObject` for options, so that unknown keys throw.
 * @throws BtrmindError BTRMIND_ERR_OPTION (unknown key), BTRMIND_ERR_ARGUMENT (wrong value, quoted)
 */
export function check<const S extends v.GenericSchema>(what: string, schema: S, value: unknown): v.InferOutput<S> {
  const parsed = v.safeParse(schema, value, { abortEarly: true })
  if (parsed.success) return parsed.output
  const issue = parsed.issues[0]
  const keys = issue.path?.map((item) => String(item.key)) ?? []
  const name = keys.length === 0 ? what : `${what}: option '${keys.join('.')}'`
  if (issue.type === 'strict_object' && issue.expected === 'never') {
    throw new BtrmindError('BTRMIND_ERR_OPTION', `${what}: unknown option ${quote(keys.join('.'))}`, {
      hint: nearest(keys.at(-1) ?? '', optionsAt(schema as Nested, keys.slice(0, -1))),
    })
  }
  const named = optionsAt(schema as Nested, keys)
  const isShape = issue.expected === 'Object' && named.length > 0
  const wanted = isShape
    ? `an object like { ${named.join(', ')} }`
    : issue.message.startsWith('Invalid')
      ? (issue.expected ?? issue.message)
      : issue.message
  throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `${name}: expected ${wanted}, got ${quote(issue.input)}`)
}
