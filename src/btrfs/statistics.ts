/** Figures that the kernel keeps of a mounted volume. */
import { check } from '../errors.js'
import { native } from '../native.js'
import type { CallOptions } from './call.js'
import type { ExclusiveOperation } from './exclusive.js'
import { callOptions } from './options.js'
import { Attributes, wholeNumber } from './sysfs.js'
import type { Unavailable } from './types.js'
import type { Volume } from './volume.js'

/** Commits of transactions since the mount. */
export interface CommitStatistics {
  readonly count: number
  /** Of the one that is under way; 0 when none is. */
  readonly currentMs: number
  readonly lastMs: number
  /** Of the longest since the mount, or since resetCommitStatistics(). */
  readonly maxMs: number
  readonly totalMs: number
}
/** Of `discard=async`; without it, zeros and what is set. */
export interface DiscardStatistics {
  /** Free, and not discarded yet. */
  readonly discardableBytes: number | undefined
  readonly discardableExtents: number | undefined
  /** Discarded since the mount: as whole extents, as parts of bitmaps; and what was used again before. */
  readonly extentBytes: number | undefined
  readonly bitmapBytes: number | undefined
  readonly savedBytes: number | undefined
  /** 0: none. */
  readonly limitBytesPerSecond: number | undefined
  readonly limitPerSecond: number | undefined
  /** Of one request. */
  readonly maxRequestBytes: number | undefined
}
/** Undefined: not in this kernel; `unavailable` says so. */
export interface Statistics {
  readonly generation: number | undefined
  readonly commits: CommitStatistics | undefined
  readonly discard: DiscardStatistics | undefined
  /** 'crc32c', and which code works it out: 'crc32c-intel', 'crc32c-lib'. */
  readonly checksum: { readonly algorithm: string; readonly implementation: string | undefined } | undefined
  /** Which copy is read, where there are several. */
  readonly readPolicy: { readonly active: string; readonly supported: readonly string[] } | undefined
  readonly exclusiveOperation: ExclusiveOperation | undefined
  /** Mounted beside another one of the same UUID, under one that is made up. */
  readonly temporaryUuid: boolean | undefined
  readonly unavailable: readonly Unavailable[]
}

const FILES = {
  generation: 'generation',
  commits: 'commit_stats',
  checksum: 'checksum',
  readPolicy: 'read_policy',
  exclusiveOperation: 'exclusive_operation',
  temporaryUuid: 'temp_fsid',
} as const
const DISCARD = {
  discardableBytes: 'discard/discardable_bytes',
  discardableExtents: 'discard/discardable_extents',
  extentBytes: 'discard/discard_extent_bytes',
  bitmapBytes: 'discard/discard_bitmap_bytes',
  savedBytes: 'discard/discard_bytes_saved',
  limitBytesPerSecond: 'discard/kbps_limit',
  limitPerSecond: 'discard/iops_limit',
  maxRequestBytes: 'discard/max_discard_size',
} as const

/**
 * What the kernel counts of a mounted volume: commits and how long they took, discards, which code makes checksums,
 * what holds the volume exclusively. sysfs · no privilege · quick, one hop.
 * @throws BtrfsError EBADF
 * @example
 * const { commits } = await fs.statistics()
 * if (commits) console.log(`${commits.count} commits, the longest ${commits.maxMs} ms`)
 */
export async function statistics(volume: Volume, options: CallOptions = {}): Promise<Statistics> {
  const names = [...Object.values(FILES), ...Object.values(DISCARD)]
  const read = await Attributes.read(volume, 'statistics', names, check('statistics', callOptions, options))
  const figures = Object.entries(DISCARD).map(([field, name]) => [field, read.number(name)] as const)
  const discard = Object.fromEntries(figures) as unknown as DiscardStatistics
  const anyDiscard = figures.some(([, value]) => value !== undefined)
  const temporary = read.number(FILES.temporaryUuid)
  const fields = [...Object.entries(FILES), ...Object.entries(DISCARD).map(([f, name]) => [`discard.${f}`, name])]
  return {
    generation: read.number(FILES.generation),
    commits: parseCommits(read.text(FILES.commits)),
    discard: anyDiscard ? { ...discard, limitBytesPerSecond: kibibytes(discard.limitBytesPerSecond) } : undefined,
    checksum: parseChecksum(read.text(FILES.checksum)),
    readPolicy: parsePolicy(read.text(FILES.readPolicy)),
    exclusiveOperation: read.text(FILES.exclusiveOperation) as ExclusiveOperation | undefined,
    temporaryUuid: temporary === undefined ? undefined : temporary !== 0,
    unavailable: fields.map(([field, name]) => read.why(field!, name!)).filter((row) => row !== undefined),
  }
}

/**
 * Sets the longest commit of `statistics()` back to 0; the rest counts on. sysfs · root, with
 * CAP_SYS_RESOURCE, which some containers take away · quick.
 * @throws BtrfsError EACCES (not root), EPERM (no CAP_SYS_RESOURCE), ENOENT (not in this kernel), EBADF
 * @example
 * await fs.resetCommitStatistics()
 */
export async function resetCommitStatistics(volume: Volume, options: CallOptions = {}): Promise<void> {
  const hints = {
    EACCES: 'needs root',
    EPERM: 'needs CAP_SYS_RESOURCE',
    ENOENT: 'this kernel does not count commits (Linux 6.1)',
  }
  const callWith = check('resetCommitStatistics', callOptions, options)
  await volume.call('resetCommitStatistics', { hints }, callWith, (ticket) =>
    native.sysfsWrite(ticket, volume.handle, FILES.commits, '0'),
  )
}

const kibibytes = (count: number | undefined) => (count === undefined ? undefined : count * 1024)

/** "commits 3\ncur_commit_ms 0\n…" */
export function parseCommits(text: string | undefined): CommitStatistics | undefined {
  const lines = new Map((text ?? '').split('\n').map((line) => line.split(' ') as [string, string]))
  const number = (name: string) => wholeNumber(lines.get(name))
  const [count, currentMs, lastMs] = [number('commits'), number('cur_commit_ms'), number('last_commit_ms')]
  const [maxMs, totalMs] = [number('max_commit_ms'), number('total_commit_ms')]
  if (count === undefined || currentMs === undefined || lastMs === undefined) return undefined
  if (maxMs === undefined || totalMs === undefined) return undefined
  return { count, currentMs, lastMs, maxMs, totalMs }
}

/** "crc32c (crc32c-lib)" */
export function parseChecksum(text: string | undefined): Statistics['checksum'] {
  const [, algorithm, implementation] = /^(\S+)(?: \((\S+)\))?$/.exec(text ?? '') ?? []
  return algorithm === undefined ? undefined : { algorithm, implementation }
}

/** "[pid] round-robin:262144 devid:1" */
export function parsePolicy(text: string | undefined): Statistics['readPolicy'] {
  const words = (text ?? '').split(' ').filter((word) => word !== '')
  const active = words.find((word) => word.startsWith('['))?.slice(1, -1)
  const supported = words.map((word) => word.replace(/^\[(.*)\]$/, '$1'))
  return active === undefined ? undefined : { active, supported }
}
