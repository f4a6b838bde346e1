/** What a tree comes to: added up while its extents go by, no row leaves the addon. */
import { join, relative } from 'node:path'
import * as v from 'valibot'
import { type BtrfsError, check } from '../errors.js'
import { type NativeNamed, type NativeTally, native } from '../native.js'
import type { Directory } from './directory.js'
import { directoryFor, topOf } from './directory.js'
import { cancelled, LongOperation, type Operation, type ResumeOptions } from './operation.js'
import { pathArgument, resumeOptions } from './options.js'
import { checkScan, isTemporary, type NestedSubvolume, scanTree } from './scan.js'
import { tree } from './subvolume-trees.js'
import type { Volume } from './volume.js'

export interface ReportOptions extends ResumeOptions {
  /** A subvolume, or a directory in one: then only what is below it. Default: the directory that was opened. */
  readonly subvolume?: string | undefined
  /** Also the subvolumes in it. Default false. */
  readonly nested?: boolean | undefined
  /** Of one moment, through a read-only snapshot of each subvolume. Default false. */
  readonly consistent?: boolean | undefined
}
export interface FragmentationOptions extends ReportOptions {
  /** So many of the files that are scattered most, up to 1,000. Default 10. */
  readonly worst?: number | undefined
}
const reportOptions = v.strictObject({
  ...resumeOptions.entries,
  subvolume: v.optional(pathArgument, '.'),
  nested: v.optional(v.boolean(), false),
  consistent: v.optional(v.boolean(), false),
})
const fragmentationOptions = v.strictObject({
  ...reportOptions.entries,
  worst: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(1000)), 10),
})

/** So far. */
export interface ReportProgress {
  /** Read; and left out with `nested`: gone meanwhile. */
  readonly subvolumes: number
  readonly skippedSubvolumes: number
  readonly inodes: number
  readonly files: number
}

const KINDS = ['none', 'zlib', 'lzo', 'zstd', 'preallocated', 'unknown'] as const

/** Bytes of one kind of extent. */
export interface CompressionBytes {
  /** What it takes on disk, once however many refer to it; not per copy of the profile. */
  readonly diskBytes: number
  /** The same before compression. */
  readonly uncompressedBytes: number
  /** What the files refer to, each reference counted. */
  readonly referencedBytes: number
  /** diskBytes / uncompressedBytes; undefined where there is nothing. */
  readonly ratio: number | undefined
}
export interface AlgorithmBytes extends CompressionBytes {
  /** 'preallocated': reserved and not written yet; 'unknown': newer than this library. */
  readonly algorithm: (typeof KINDS)[number]
}
export interface CompressionReport extends CompressionBytes, ReportProgress {
  /** Extents, references of files to them, and files' data that lies beside the inode. */
  readonly extents: number
  readonly references: number
  readonly inlineExtents: number
  /** Those that there are. */
  readonly algorithms: readonly AlgorithmBytes[]
}

/**
 * How well a tree is compressed, to the byte: disk, uncompressed and referenced bytes of each algorithm. Extents that
 * several files or snapshots in it share count once; a file with several names once. TREE_SEARCH_V2 · CAP_SYS_ADMIN ·
 * long: seconds a million files.
 * @returns an operation; its `result` rejects with BtrfsError ENOENT, ENOTDIR, EPERM, EBADF, ECANCELED; BtrmindError
 * BTRMIND_ERR_WRONG_VOLUME
 * @throws BtrmindError BTRMIND_ERR_OPTION
 * @example
 * const { diskBytes, uncompressedBytes } = await fs.compression({ subvolume: 'home' }).result
 */
export function compression(volume: Volume, options: ReportOptions = {}): Operation<ReportProgress, CompressionReport> {
  const { consistent, ...checked } = check('compression', reportOptions, options)
  return report(volume, 'compression', checked, { consistent }, ({ sums, extents, references, inlineExtents }) => {
    const algorithms = KINDS.map((algorithm, kind) => ({ algorithm, ...bytesOf(sums, kind) }))
    const total = { diskBytes: 0, uncompressedBytes: 0, referencedBytes: 0 }
    for (const { diskBytes, uncompressedBytes, referencedBytes } of algorithms) {
      total.diskBytes += diskBytes
      total.uncompressedBytes += uncompressedBytes
      total.referencedBytes += referencedBytes
    }
    return {
      extents,
      references,
      inlineExtents,
      ...total,
      ratio: ratio(total.diskBytes, total.uncompressedBytes),
      algorithms: algorithms.filter(({ referencedBytes, diskBytes }) => referencedBytes > 0 || diskBytes > 0),
    }
  })
}

const ratio = (part: number, whole: number) => (whole > 0 ? part / whole : undefined)

function bytesOf(sums: Float64Array, kind: number): CompressionBytes {
  const [diskBytes, uncompressedBytes, referencedBytes] = sums.subarray(KINDS_AT + 3 * kind) as unknown as [
    number,
    number,
    number,
  ]
  return { diskBytes, uncompressedBytes, referencedBytes, ratio: ratio(diskBytes, uncompressedBytes) }
}

/** A file, and how often it goes on elsewhere on disk. */
export interface ScatteredFile {
  /** Relative to what the report is of. */
  readonly path: string
  readonly pathBytes: Uint8Array
  readonly inode: number
  readonly sizeBytes: number
  readonly breaks: number
}
export interface FragmentationReport extends ReportProgress {
  /** References to extents, without inline data; how many of them do not follow, on disk, the one before. */
  readonly extents: number
  readonly breaks: number
  /** breaks / extents, 0–1, as docs/fragmentation.md has it; 0 where there is nothing. */
  readonly ratio: number
  readonly scatteredFiles: number
  /** Files with extents by the number of runs on disk that they are in, in classes 1, 2, 3–4, 5–8 …; empty ones left out. */
  readonly runs: readonly { readonly from: number; readonly to: number; readonly files: number }[]
  /** Most breaks first. */
  readonly worst: readonly ScatteredFile[]
}

/**
 * How scattered a tree's files are: every file, not a sample as in `measure()`. TREE_SEARCH_V2 · CAP_SYS_ADMIN · long:
 * seconds a million files.
 * @returns an operation, as `compression()`
 * @throws BtrmindError BTRMIND_ERR_OPTION
 * @example
 * const { ratio, worst } = await fs.fragmentation({ subvolume: 'home', worst: 3 }).result
 */
export function fragmentation(
  volume: Volume,
  options: FragmentationOptions = {},
): Operation<ReportProgress, FragmentationReport> {
  const { worst, consistent, ...checked } = check('fragmentation', fragmentationOptions, options)
  return report(volume, 'fragmentation', checked, { worst, consistent }, ({ sums, names, ...counts }) => {
    const classes = [...sums.subarray(RUNS_AT)].map((files, power) => {
      return { from: power < 2 ? power + 1 : 2 ** (power - 1) + 1, to: 2 ** power, files }
    })
    return {
      extents: counts.references,
      breaks: counts.breaks,
      ratio: ratio(counts.breaks, counts.references) ?? 0,
      scatteredFiles: counts.scatteredFiles,
      runs: classes.filter(({ files }) => files > 0),
      worst: named(names.worst, 3, ([breaks, inode, sizeBytes]) => ({
        inode: inode!,
        sizeBytes: sizeBytes!,
        breaks: breaks!,
      })),
    }
  })
}

export interface DiskUsageOptions extends Omit<ReportOptions, 'consistent'> {
  /** Sums of their own for directories so far down. Default 0: none. */
  readonly depth?: number | undefined
}
const diskUsageOptions = v.strictObject({
  ...reportOptions.entries,
  consistent: v.optional(v.undefined('nothing: every extent would be shared with the snapshot')),
  depth: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_536)), 0),
})
/** Logical bytes: before compression, without holes and inline data. */
export interface UsedBytes {
  readonly files: number
  readonly totalBytes: number
  /** In extents that nothing else refers to: neither a snapshot nor another file, also none of the same tree. */
  readonly exclusiveBytes: number
}
export interface DirectoryUsage extends UsedBytes {
  /** Relative to what the report is of. */
  readonly path: string
  readonly pathBytes: Uint8Array
}
export interface DiskUsage extends UsedBytes, ReportProgress {
  /** Of what is shared, with whatever, each extent once. */
  readonly setSharedBytes: number
  /** With all that is below each; the largest first. */
  readonly directories: readonly DirectoryUsage[]
}

/**
 * What the files of a tree take, and how much of it is theirs alone: the figures of `btrfs filesystem du`, by directory
 * where asked; a file with several names once, at its first. (Of compressed extents that are shared each piece counts with
 * its own length; btrfs-progs merges them by a place on disk that they do not fill.) A deleted subvolume still shares what it
 * had until the kernel has freed it. TREE_SEARCH_V2, FIEMAP of each file
 * with extents · CAP_SYS_ADMIN · long: some 10 s a million files.
 * @returns an operation, as `compression()`
 * @throws BtrmindError BTRMIND_ERR_OPTION
 * @example
 * const { exclusiveBytes, directories } = await fs.du({ subvolume: 'home', depth: 1 }).result
 */
export function du(volume: Volume, options: DiskUsageOptions = {}): Operation<ReportProgress, DiskUsage> {
  const { depth, ...checked } = check('du', diskUsageOptions, options)
  return report(volume, 'du', checked, { depth, sharing: true }, ({ names, ...bytes }) => ({
    totalBytes: bytes.totalBytes,
    exclusiveBytes: bytes.exclusiveBytes,
    setSharedBytes: bytes.setSharedBytes,
    directories: named(names.directories, 3, ([files, totalBytes, exclusiveBytes]) => ({
      files: files!,
      totalBytes: totalBytes!,
      exclusiveBytes: exclusiveBytes!,
    })).sort((a, b) => b.totalBytes - a.totalBytes),
  }))
}

function named<Row>({ numbers, paths, ends }: NativeNamed, width: number, row: (numbers: Float64Array) => Row) {
  return Array.from(ends, (end, i) => {
    const pathBytes = paths.slice(i === 0 ? 0 : ends[i - 1]!, end)
    const path = Buffer.from(pathBytes).toString()
    return { path, pathBytes, ...row(numbers.subarray(width * i, width * (i + 1))) }
  })
}

/** In what tallySums() gives. */
const COUNTS = [
  'inodes',
  'files',
  'extents',
  'references',
  'inlineExtents',
  'breaks',
  'scatteredFiles',
  'totalBytes',
  'exclusiveBytes',
  'setSharedBytes',
] as const
const KINDS_AT = COUNTS.length
const RUNS_AT = KINDS_AT + 3 * KINDS.length

function figures(tally: NativeTally) {
  const sums = native.tallySums(tally)
  const counts = Object.fromEntries(COUNTS.map((name, i) => [name, sums[i]!])) as Record<
    (typeof COUNTS)[number],
    number
  >
  return { ...counts, sums }
}

function report<Report>(
  volume: Volume,
  operation: string,
  options: Omit<v.InferOutput<typeof reportOptions>, 'consistent'>,
  what: {
    readonly worst?: number
    readonly depth?: number
    readonly sharing?: boolean
    readonly consistent?: boolean
  },
  result: (all: ReturnType<typeof figures> & { readonly names: ReturnType<typeof native.tallyNames> }) => Report,
): Operation<ReportProgress, Report & ReportProgress> {
  const { subvolume, nested, signal, intervalMs } = options
  const { worst = 0, depth = 0, sharing, consistent } = what
  const tally = native.tallyOpen(worst, depth)
  let subvolumes = 0
  let skippedSubvolumes = 0
  const now = (): ReportProgress => {
    const { inodes, files } = figures(tally)
    return { subvolumes, skippedSubvolumes, inodes, files }
  }
  const work = async (stop: AbortSignal) => {
    const top = await directoryFor(operation, volume, volume.resolve(subvolume), { signal: stop })
    const scan = async (found: Directory | NestedSubvolume) => {
      const prefix = found === top ? '' : `${relative(top.path, found.path)}/`
      const checked = checkScan({ consistent, sharing, signal: stop })
      await scanTree(volume, checked, operation, { tally, prefix }, found).next() // there are no batches
      stop.throwIfAborted()
      subvolumes++
    }
    await scan(top)
    if (!nested) return
    const holder = top.subvolumeTop ? top.path : await topOf(volume, top, operation)
    for (const { subvolume, path } of (await tree(volume, holder, { signal: stop })).slice(1)) {
      if (!path.startsWith(join(top.path, '/')) || isTemporary(path)) continue
      try {
        await scan({ id: subvolume.id, readonly: subvolume.readonly, path, holder })
      } catch (error) {
        // Gone meanwhile.
        if (!['ENOENT', 'ESTALE'].includes((error as BtrfsError).code)) throw error
        skippedSubvolumes++
      }
    }
  }
  return new LongOperation({
    operation,
    path: volume.path,
    start: async (stop) => {
      try {
        await volume.track(work(stop))
      } catch (error) {
        if (!stop.aborted) throw error
        throw cancelled(operation, volume.path, now())
      }
      return { ...now(), ...result({ ...figures(tally), names: native.tallyNames(tally) }) }
    },
    progress: async () => now(),
    last: () => now(),
    signal,
    intervalMs,
  })
}
