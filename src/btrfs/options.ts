/** What the calls of a Filesystem take, checked the same way by the kernel's side and by the simulator's. */
import { isAbsolute } from 'node:path'
import * as v from 'valibot'
import { BtrmindError, quote } from '../errors.js'

/** `signal` and `timeoutMs`, as every quick call takes them. Spread `.entries` into a larger strictObject. */
export const callOptions = v.strictObject({
  signal: v.optional(v.instance(AbortSignal)),
  timeoutMs: v.optional(v.pipe(v.number(), v.minValue(1), v.maxValue(2 ** 31 - 1))),
})

/** Absolute, or relative to what the function says. */
export const pathArgument = v.pipe(v.string(), v.nonEmpty('a path'))
/** A root that an operator named: absolute, so that it never depends on the working directory. */
const rootPath = v.pipe(
  v.string(),
  v.check((path) => isAbsolute(path) && !path.includes('\0'), 'an absolute path'),
)
export const whole = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER))
/** What `directory()` gave. */
export const directoryArgument = v.object({ path: rootPath, inode: whole, subvolumeId: whole })
export const rootArgument = v.union([rootPath, directoryArgument], 'an absolute path, or what directory() gave')

export const subvolumeId = v.pipe(v.number(), v.safeInteger('a subvolume id'), v.minValue(5, 'a subvolume id'))
export const listOptions = v.strictObject({ ...callOptions.entries, below: v.optional(pathArgument) })
export const snapshotOptions = v.strictObject({ ...callOptions.entries, readonly: v.optional(v.boolean(), false) })
export const deleteOptions = v.strictObject({
  ...callOptions.entries,
  waitUntilFreed: v.optional(v.boolean(), false),
  id: v.optional(whole),
  parent: v.optional(directoryArgument),
})

/** Of `level/id`; undefined for what is none. */
export function qgroupParts(id: string): [level: number, id: number] | undefined {
  const [, level, number] = (/^(\d{1,5})\/(\d{1,15})$/.exec(id) ?? []).map(Number)
  if (level === undefined || number === undefined || level >= 2 ** 16 || number >= 2 ** 48) return undefined
  return [level, number]
}
export const qgroupArgument = v.pipe(
  v.string(),
  v.check((id) => qgroupParts(id) !== undefined, "a quota group as level/id, like '0/257' or '1/100'"),
)
/** A subvolume's own group is of level 0: it can only belong to those above. */
const inherit = v.optional(
  v.array(
    v.pipe(
      v.string(),
      v.check((id) => (qgroupParts(id)?.[0] ?? 0) > 0, "a quota group of level 1 or more, like '1/100'"),
    ),
  ),
  [],
)
export const createOptions = v.strictObject({ ...callOptions.entries, inherit })
export const inheritingSnapshotOptions = v.strictObject({ ...snapshotOptions.entries, inherit })

export const walkOptions = v.strictObject({
  signal: v.optional(v.instance(AbortSignal)),
  batchSize: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_536)), 1_024),
})

export const scanOptions = v.strictObject({
  signal: v.optional(v.instance(AbortSignal)),
  batchSize: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_536)), 2_048),
  subvolume: v.optional(pathArgument, '.'),
  sinceGeneration: v.optional(whole, 0),
  extents: v.optional(v.boolean(), false),
  sharing: v.optional(v.boolean(), false),
  consistent: v.optional(v.boolean(), false),
  sync: v.optional(v.boolean(), true),
})
const time = v.pipe(v.number(), v.finite())
const bytes = v.custom<Uint8Array>(
  (path) => path instanceof Uint8Array && path.length > 0 && !path.includes(0),
  'a path as bytes without NUL (Uint8Array)',
)
export const fileRefs = v.array(
  v.object({ path: bytes, inode: whole, sizeBytes: whole, mtimeMs: time, ctimeMs: time, atimeMs: v.optional(time) }),
)
export const compressOptions = v.strictObject({
  ...callOptions.entries,
  algorithm: v.optional(v.picklist(['zlib', 'lzo', 'zstd']), 'lzo'),
})

export const resumeOptions = v.strictObject({
  signal: v.optional(v.instance(AbortSignal)),
  intervalMs: v.optional(v.pipe(v.number(), v.minValue(1), v.maxValue(2 ** 31 - 1)), 1_000),
})
export const devidArgument = v.pipe(v.number(), v.safeInteger('a device id'), v.minValue(1, 'a device id of 1 or more'))
export const scrubOptions = v.strictObject({
  ...resumeOptions.entries,
  devid: v.optional(devidArgument),
  readonly: v.optional(v.boolean(), false),
  start: v.optional(v.union([whole, v.record(v.string(), whole)], 'a position, or one for each device id')),
  end: v.optional(whole),
  bytesPerSecond: v.optional(v.pipe(whole, v.minValue(1))),
})

/** Of a file in a batch; called for each of many, so without a schema. */
export function requireIndex(what: string, { length }: { readonly length: number }, index: number): void {
  if (Number.isInteger(index) && index >= 0 && index < length) return
  const text = `${what}: expected the index of a file in a batch of ${length}, got ${quote(index)}`
  throw new BtrmindError('BTRMIND_ERR_ARGUMENT', text)
}
