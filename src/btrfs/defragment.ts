/** Rewriting files so that they lie together, or compressed. */
import * as v from 'valibot'
import { BtrfsError, BtrmindError, check, quote, reason } from '../errors.js'
import type { NativeDefragment, NativeDefragmented, NativeDiskBytes } from '../native/extents.js'
import { native } from '../native.js'
import { cancelled, LongOperation, type Operation, type ResumeOptions } from './operation.js'
import { pathArgument, resumeOptions, whole } from './options.js'
import type { Unavailable } from './types.js'
import type { Volume } from './volume.js'
import { walk } from './walk.js'

export interface DefragmentOptions extends ResumeOptions {
  /** Of each file. Default: all. */
  readonly startBytes?: number | undefined
  readonly lengthBytes?: number | undefined
  /** Extents of so many bytes and more are good as they are. Default: the kernel's own, 256 KiB. */
  readonly extentThresholdBytes?: number | undefined
  /** Rewrite compressed, whatever the property and the mount say. Default: as those say. */
  readonly compress?: 'zlib' | 'lzo' | 'zstd' | undefined
  /** 1–9 of zlib, −15–15 of zstd (Linux 6.15). Default: the algorithm's own, 3. */
  readonly level?: number | undefined
  /** Rewrite uncompressed (Linux 6.17). */
  readonly nocompress?: boolean | undefined
  /** Every file below a directory, in its subvolume and mount. Default false: a directory is refused. */
  readonly recursive?: boolean | undefined
  /** Leave alone what snapshots or clones have too, for rewriting gives the file a copy of its own. Default true. */
  readonly skipShared?: boolean | undefined
  /** Leave alone what is compressed, whatever with. Default true, with `nocompress` false. */
  readonly skipCompressed?: boolean | undefined
  /** Given to the kernel at once, which cannot be stopped in it: a multiple of 128 KiB. Default 32 MiB. */
  readonly sliceBytes?: number | undefined
}

/** What was left alone for one reason. */
export interface DefragmentSkipped {
  /**
   * 'SHARED', 'COMPRESSED' (of these, parts of a file too); not to be compressed: 'NOCOW' (no copy-on-write or no
   * checksums), 'NOCOMPRESS' (forbidden, or given up by the kernel); not gone into: 'SUBVOLUME', 'MOUNT'; 'CHANGED'
   * (moved away meanwhile); or an errno name ('EACCES').
   */
  readonly reason: string
  readonly files: number
  /** Of files, before compression; 0 where it is not known. */
  readonly bytes: number
  /** The first one: as `path`. */
  readonly example: string
}
export interface DefragmentProgress {
  /** Gone through, what was skipped counted. */
  readonly files: number
  readonly bytes: number
  /** Undefined while they are being counted. */
  readonly totalFiles: number | undefined
  readonly totalBytes: number | undefined
  /** Files of which something was given to the kernel, which rewrites what is worth it, and so many bytes, no holes. */
  readonly rewrittenFiles: number
  readonly rewrittenBytes: number
  readonly skipped: readonly DefragmentSkipped[]
  /** The file under way: absolute, or relative to the directory. */
  readonly path: string | undefined
  /** What the files that were looked into took on disk before, and take now; under way some files late. */
  readonly diskBytesBefore: number | undefined
  readonly diskBytesAfter: number | undefined
  readonly unavailable: readonly Unavailable[]
  readonly elapsedMs: number
}

const SLICE = 128 * 1024
const defragmentOptions = v.strictObject({
  ...resumeOptions.entries,
  startBytes: v.optional(whole, 0),
  lengthBytes: v.optional(v.pipe(whole, v.minValue(1))),
  extentThresholdBytes: v.optional(v.pipe(whole, v.minValue(1), v.maxValue(2 ** 32 - 1))),
  compress: v.optional(v.picklist(['zlib', 'lzo', 'zstd'])),
  level: v.optional(v.pipe(v.number(), v.integer())),
  nocompress: v.optional(v.boolean(), false),
  recursive: v.optional(v.boolean(), false),
  skipShared: v.optional(v.boolean(), true),
  skipCompressed: v.optional(v.boolean()),
  sliceBytes: v.optional(v.pipe(whole, v.minValue(SLICE), v.multipleOf(SLICE, 'a multiple of 131072')), 256 * SLICE),
})

/** The kernel's numbers. */
const ALGORITHMS = { zlib: 1, lzo: 2, zstd: 3 } as const
const COMPRESS = 1
const LEVEL = 4
const NOCOMPRESS = 8
const LEVELS = { zlib: [1, 9], lzo: undefined, zstd: [-15, 15] } as const
/** Of these the next file would fail too. */
const FATAL = new Set(['ENOSPC', 'EDQUOT', 'EROFS', 'EOPNOTSUPP', 'EINVAL', 'EBADF', 'ECANCELED', 'ENOMEM'])
const hints = { EISDIR: 'a directory needs `recursive`', EPERM: 'needs write permission on the file, or root' }

function prepare(options: unknown) {
  const checked = check('defragment', defragmentOptions, options)
  const { compress, level, nocompress, skipCompressed = !nocompress } = checked
  const refuse = (what: string): never => {
    throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `defragment: ${what}`)
  }
  if (nocompress && compress !== undefined) refuse(`option 'nocompress' does not go with 'compress'`)
  if (nocompress && skipCompressed) refuse(`option 'nocompress' does not go with 'skipCompressed'`)
  if (level !== undefined) {
    if (compress === undefined) return refuse(`option 'level' needs 'compress', got ${quote(level)}`)
    const [least, most] = LEVELS[compress] ?? refuse(`option 'level': ${compress} has none, got ${level}`)
    if (level < least || level > most)
      refuse(`option 'level': expected ${least} to ${most} of ${compress}, got ${level}`)
  }
  return { ...checked, skipCompressed }
}

/**
 * Rewrites files whose data lies in many small extents, so that it lies in few; or compressed, or no longer so. Content,
 * size and times stay. BTRFS_IOC_DEFRAG_RANGE · write permission on the files or CAP_SYS_ADMIN; bytes on disk:
 * CAP_SYS_ADMIN · long, on a thread of its own, a slice at a time.
 *
 * **Rewriting un-shares**: what a snapshot or clone has too would then take its space twice. So shared extents are left
 * alone, looked up again before each slice, unless `skipShared: false`. Compressed ones are too, for a rewrite gives
 * what the mount's options and the file's property say, and costs as much again where they are compressed well.
 * cancel(), an aborted signal and close() stop it between two slices; what was rewritten stays so, and nothing is ever
 * half done. The old extents are freed by the next commit. The trees of metadata are not touched.
 * @param path of a regular file, or with `recursive` a directory; absolute or relative to the filesystem's path. A
 * symlink in its last place is not followed, nor is any below a directory
 * @returns an operation; its `result` rejects with BtrfsError ENOENT, EACCES, ELOOP (a symlink), EISDIR (no
 * `recursive`), ENOTDIR (`recursive`), EPERM, EROFS, ENOSPC, ETXTBSY (a swap file), EOPNOTSUPP (the kernel is too old
 * for an option: see the hint), EBADF, ECANCELED, each with what was done in `progress`; BtrmindError
 * BTRMIND_ERR_WRONG_VOLUME. Below a directory what fails of a file (EACCES …) is in `skipped`
 * @throws BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT
 * @example
 * await using work = fs.defragment('logs', { recursive: true, compress: 'zstd' })
 * for await (const { bytes, totalBytes, path } of work) console.log(bytes, totalBytes, path)
 * const { diskBytesBefore, diskBytesAfter, skipped } = await work.result
 */
export function defragment(
  volume: Volume,
  path: string,
  options: DefragmentOptions = {},
): Operation<DefragmentProgress, DefragmentProgress> {
  const target = volume.resolve(check('defragment: path', pathArgument, path))
  const { signal, intervalMs, recursive, ...request } = prepare(options)
  const prepared = native.defragmentPrepare(
    (request.compress === undefined ? 0 : COMPRESS) |
      (request.level === undefined ? 0 : LEVEL) |
      (request.nocompress ? NOCOMPRESS : 0),
    request.extentThresholdBytes ?? 0,
    request.compress === undefined ? 0 : ALGORITHMS[request.compress],
    request.level ?? 0,
    request.startBytes,
    request.lengthBytes,
    request.sliceBytes,
    request.skipShared,
    request.skipCompressed,
  )
  const end = request.startBytes + (request.lengthBytes ?? Number.POSITIVE_INFINITY)
  const job = new Job(prepared, target, (size) => Math.max(0, Math.min(size, end) - request.startBytes))
  /** On a descriptor of its own, so that after close() too it ends in order. */
  const begin = async (stop: AbortSignal) => {
    const own = await volume.share('defragment')
    try {
      return await job.run(own, stop, recursive)
    } finally {
      await own.close()
    }
  }
  return new LongOperation({
    operation: 'defragment',
    path: target,
    start: (stop) => volume.track(begin(AbortSignal.any([stop, volume.closing]))),
    progress: async () => job.now(),
    last: () => job.now(),
    signal,
    intervalMs,
  })
}

interface Found {
  /** Relative to the root. */
  readonly inner: Uint8Array
  readonly path: string
  readonly bytes: number
}

class Job {
  readonly #prepared: NativeDefragment
  readonly #target: string
  /** How much of a file of so many bytes is in the range that was asked for. */
  readonly #inRange: (sizeBytes: number) => number
  readonly #startMs = performance.now()
  readonly #sums = { files: 0, bytes: 0, rewrittenFiles: 0, rewrittenBytes: 0, before: 0, after: 0 }
  readonly #skipped = new Map<string, { reason: string; files: number; bytes: number; example: string }>()
  #total: { files: number; bytes: number | undefined } | undefined
  #path: string | undefined
  #unread = false

  constructor(prepared: NativeDefragment, target: string, inRange: (sizeBytes: number) => number) {
    this.#prepared = prepared
    this.#target = target
    this.#inRange = inRange
  }

  now(): DefragmentProgress {
    const { before, after, bytes, ...sums } = this.#sums
    const underWay = this.#path === undefined ? undefined : native.defragmentDone(this.#prepared)
    const why = reason('EPERM')
    return {
      ...sums,
      bytes: bytes + (underWay?.doneBytes ?? 0),
      totalFiles: this.#total?.files,
      totalBytes: this.#total?.bytes ?? underWay?.totalBytes,
      skipped: [...this.#skipped.values()].map((skip) => ({ ...skip })),
      path: this.#path,
      diskBytesBefore: this.#unread ? undefined : before,
      diskBytesAfter: this.#unread ? undefined : after,
      unavailable: this.#unread ? ['diskBytesBefore', 'diskBytesAfter'].map((field) => ({ field, reason: why })) : [],
      elapsedMs: performance.now() - this.#startMs,
    }
  }

  async run(volume: Volume, stop: AbortSignal, recursive: boolean): Promise<DefragmentProgress> {
    try {
      if (recursive) await this.#tree(volume, stop)
      else await this.#single(volume, stop)
    } catch (error) {
      await this.#settle(volume)
      if (error instanceof BtrfsError) throw Object.assign(error, { progress: this.now() })
      if (!stop.aborted) throw error
      throw cancelled('defragment', this.#target, this.now())
    }
    await this.#settle(volume)
    return this.now()
  }

  async #settle(volume: Volume): Promise<void> {
    const prepared = this.#prepared
    this.#count(await volume.call('defragment', {}, {}, (t) => native.defragmentSettle(t, volume.handle, prepared)))
  }

  async #single(volume: Volume, stop: AbortSignal): Promise<void> {
    this.#total = { files: 1, bytes: undefined }
    await this.#one(volume, undefined, this.#target, undefined, stop)
    this.#total = { files: 1, bytes: this.#sums.bytes }
  }

  async #tree(volume: Volume, stop: AbortSignal): Promise<void> {
    const total = { files: 0, bytes: 0 }
    for await (const found of this.#files(volume, stop)) {
      total.files++
      total.bytes += found.bytes
    }
    this.#total = total
    for await (const { inner, path, bytes } of this.#files(volume, stop, true)) {
      const before = this.#sums.bytes
      try {
        await this.#one(volume, inner, path, bytes, stop)
      } catch (error) {
        if (!(error instanceof BtrfsError) || FATAL.has(error.code)) throw error
        this.#skip(error.code, path, 1, bytes)
        this.#sums.files++
        this.#sums.bytes = before + bytes
      }
    }
  }

  /** Each once, whatever the number of its names. */
  async *#files(volume: Volume, stop: AbortSignal, note = false): AsyncGenerator<Found, void, void> {
    const linked = new Set<number>()
    for await (const batch of walk(volume, this.#target, { signal: stop })) {
      if (note) for (const { reason, count, example } of batch.skipped) this.#skip(reason, text(example), count, 0)
      for (let i = 0; i < batch.length; i++) {
        const inode = batch.inode[i]!
        if (batch.links[i]! > 1) {
          if (linked.has(inode)) continue
          linked.add(inode)
        }
        yield { inner: batch.pathBytes(i), path: batch.path(i), bytes: this.#inRange(batch.sizeBytes[i]!) }
      }
    }
  }

  async #one(
    volume: Volume,
    inner: Uint8Array | undefined,
    path: string,
    bytes: number | undefined,
    stop: AbortSignal,
  ): Promise<void> {
    stop.throwIfAborted()
    this.#path = path
    let figures: NativeDefragmented
    try {
      figures = await volume.callLong('defragment', { path: this.#target, hints }, { signal: stop }, (t) =>
        native.defragmentFile(t, volume.handle, this.#prepared, this.#target, undefined, inner),
      )
    } catch (error) {
      // Stopped, or failed, in its middle.
      const { progress } = error as { progress?: NativeDefragmented }
      if (progress !== undefined) {
        const { doneBytes, totalBytes } = native.defragmentDone(this.#prepared)
        this.#look({ ...progress, code: '' }, path, 0)
        this.#sums.bytes += doneBytes
        if (bytes === undefined) this.#total = { files: 1, bytes: totalBytes }
      }
      this.#path = undefined
      throw error
    }
    const size = bytes ?? native.defragmentDone(this.#prepared).totalBytes
    this.#look(figures, path, size)
    this.#sums.files++
    this.#sums.bytes += size
    this.#path = undefined
  }

  #look(figures: NativeDefragmented, path: string, bytes: number): void {
    const { code, givenBytes, sharedBytes, compressedBytes } = figures
    if (givenBytes > 0) this.#sums.rewrittenFiles++
    this.#sums.rewrittenBytes += givenBytes
    if (sharedBytes > 0) this.#skip('SHARED', path, 1, sharedBytes)
    if (compressedBytes > 0) this.#skip('COMPRESSED', path, 1, compressedBytes)
    if (code !== '') this.#skip(code, path, 1, bytes)
    this.#count(figures)
  }

  #count({ diskBytesBefore, diskBytesAfter, unread }: NativeDiskBytes): void {
    this.#sums.before += diskBytesBefore
    this.#sums.after += diskBytesAfter
    this.#unread ||= unread
  }

  #skip(reason: string, example: string, files: number, bytes: number): void {
    const known = this.#skipped.get(reason) ?? { reason, files: 0, bytes: 0, example }
    this.#skipped.set(reason, { ...known, files: known.files + files, bytes: known.bytes + bytes })
  }
}

const text = (path: Uint8Array) => Buffer.from(path).toString()
