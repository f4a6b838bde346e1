import { dirname, join, resolve } from 'node:path'
import {
  type BalanceOptions,
  type BalanceProgress,
  type BalanceStatus,
  checkBalance,
  countersOf,
} from '../btrfs/balance-filters.js'
import type { FileBatch, FileRef } from '../btrfs/batch.js'
import type { CallOptions } from '../btrfs/call.js'
import { type Device, deviceOf } from '../btrfs/devices.js'
import type { Directory, Root } from '../btrfs/directory.js'
import type { ExclusiveOperation } from '../btrfs/exclusive.js'
import type { Compressed, CompressOptions, FileExtentsOutcome, FileOutcome, RatioOutcome } from '../btrfs/files.js'
import type { FilesystemInfo } from '../btrfs/info.js'
import type { Filesystem } from '../btrfs/interface.js'
import { type Measurement, measurementOf } from '../btrfs/measure.js'
import { LongOperation, type Operation, type ResumeOptions } from '../btrfs/operation.js'
import {
  callOptions,
  compressOptions,
  deleteOptions,
  fileRefs,
  listOptions,
  pathArgument,
  resumeOptions,
  rootArgument,
  snapshotOptions,
  walkOptions,
} from '../btrfs/options.js'
import type { Statfs } from '../btrfs/statfs.js'
import type { Subvolume, SubvolumeListOptions } from '../btrfs/subvolume-list.js'
import type { DeleteOptions, SnapshotOptions } from '../btrfs/subvolumes.js'
import { type Usage, usageOf } from '../btrfs/usage.js'
import type { WalkOptions } from '../btrfs/walk.js'
import { check } from '../errors.js'
import { SimulatedBalance } from './balance.js'
import { NODE_BYTES, SECTOR_BYTES } from './chunks.js'
import { failure } from './failure.js'
import { readingOf } from './figures.js'
import { compress, estimateRatio, extentsOf, removeFile, walkFiles } from './files.js'
import type { VolumeOptions } from './options.js'
import { asDirectory, findDirectory, findRoot, pathOf } from './paths.js'
import type { SubvolumeRecord } from './tree.js'
import { SimulatedVolume } from './volume.js'

/** How far the clock goes between two looks at the cleaner. */
const CLEANER_STEP_MS = 5

/**
 * A volume that is not there, behind the interface of the one that is. Nothing of it takes real time: it lives by the
 * clock that it was given, and calls that wait (a cleaner, a balance, a compression) move that clock on.
 * `timeoutMs` is therefore accepted and without effect.
 * @example
 * const clock = new SimulatedClock()
 * await using fs = new SimulatedFilesystem({ clock, seed: 7, devicesBytes: [4 * GIB] })
 * fs.volume.writeFile('/simulated/report.txt', 5 * MIB, { compressibleRatio: 0.25 })
 * await fs.sync()
 */
export class SimulatedFilesystem implements Filesystem {
  /** Where a workload writes: files are no part of the interface. */
  readonly volume: SimulatedVolume
  #balance: SimulatedBalance | undefined
  #running: Promise<BalanceProgress> | undefined
  readonly #closing = new AbortController()

  constructor(options: VolumeOptions) {
    this.volume = new SimulatedVolume(options)
  }

  get path() {
    return this.volume.mountPath
  }
  get uuid() {
    return this.volume.uuid
  }

  info(options?: CallOptions): Promise<FilesystemInfo> {
    return this.#quick('info', options, ({ uuid, label, generation, space }) => {
      const devices = space.chunks.devices.length
      const sizes = { nodeSizeBytes: NODE_BYTES, sectorSizeBytes: SECTOR_BYTES, cloneAlignmentBytes: SECTOR_BYTES }
      const state = { generation, checksum: 'crc32c' as const, label }
      return { uuid, metadataUuid: uuid, devices, maxDeviceId: devices, ...sizes, ...state }
    })
  }
  usage(options?: CallOptions): Promise<Usage> {
    return this.#quick('usage', options, ({ nodes }) => usageOf(readingOf(nodes)))
  }
  devices(options?: CallOptions): Promise<Device[]> {
    return this.#quick('devices', options, ({ nodes }) => {
      const { devices } = nodes.space.chunks
      return readingOf(nodes).devices.map((device, index) => deviceOf(device, devices[index]!.uuid))
    })
  }
  sync(options?: CallOptions): Promise<void> {
    return this.#quick('sync', options, (volume) => volume.commit())
  }
  measure(options?: CallOptions): Promise<Measurement> {
    return this.#quick('measure', options, ({ nodes }) => measurementOf(readingOf(nodes), this.#exclusive(), this.path))
  }
  statfs(options?: CallOptions): Promise<Statfs> {
    return this.#quick('statfs', options, ({ nodes }) => {
      const { statfsSizeBytes: sizeBytes, statfsFreeBytes: freeBytes } = readingOf(nodes)
      return { sizeBytes, freeBytes, usedPercent: (100 * (sizeBytes - freeBytes)) / sizeBytes }
    })
  }

  async directory(path: string, options?: CallOptions): Promise<Directory> {
    const absolute = resolve(check('directory: path', pathArgument, path))
    return this.#quick('directory', options, (volume) => {
      const found = findDirectory(volume, absolute, 'directory')
      const { inode } = found.node
      const subvolume = { subvolumeId: found.subvolume.id, subvolumeTop: found.trail.length === 0 }
      return { path: pathOf(volume, found), inode, ...subvolume }
    })
  }

  async *subvolumes(options: SubvolumeListOptions = {}): AsyncGenerator<Subvolume> {
    const { below, ...callWith } = check('subvolumes', listOptions, options)
    const rows = await this.#quick('subvolumes', callWith, (volume) => {
      const inside =
        below === undefined ? this.path : pathOf(volume, findDirectory(volume, resolve(this.path, below), 'subvolumes'))
      const prefix = inside === this.path ? '' : `${inside.slice(this.path.length + 1)}/`
      return [...volume.subvolumes.values()]
        .map((record) => describe(record, this.path))
        .filter(({ path }) => path !== '' && path.startsWith(prefix))
    })
    yield* rows
  }
  async subvolume(path = '.', options?: CallOptions): Promise<Subvolume> {
    const absolute = this.#resolve('subvolume: path', path)
    return this.#quick('subvolume', options, (volume) => {
      const found = volume.find(absolute, 'subvolume')
      if (found.node === undefined) throw failure('ENOENT', 'subvolume', { path: absolute })
      return describe((asDirectory(volume, found) ?? found).subvolume, this.path)
    })
  }
  async createSubvolume(path: string, options?: CallOptions): Promise<void> {
    const target = this.#resolve('createSubvolume: path', path)
    return this.#quick('createSubvolume', options, (volume) => volume.createSubvolume(target))
  }
  async snapshot(source: string, destination: string, options: SnapshotOptions = {}): Promise<void> {
    const path = this.#resolve('snapshot: source', source)
    const dest = this.#resolve('snapshot: destination', destination)
    const { readonly, ...callWith } = check('snapshot', snapshotOptions, options)
    return this.#quick('snapshot', callWith, (volume) => volume.snapshot(path, dest, readonly))
  }
  async deleteSubvolume(path: string, options: DeleteOptions = {}): Promise<void> {
    const target = this.#resolve('deleteSubvolume: path', path)
    const { waitUntilFreed, id, parent, ...callWith } = check('deleteSubvolume', deleteOptions, options)
    return this.#quick('deleteSubvolume', callWith, (volume) => {
      if (parent !== undefined) findRoot(volume, { ...parent, path: dirname(target) }, 'deleteSubvolume')
      const deleted = volume.deleteSubvolume(target, id)
      if (!waitUntilFreed) return
      volume.commit()
      while (!volume.isCleaned(deleted)) {
        volume.clock.advance(CLEANER_STEP_MS)
        volume.catchUp()
      }
      volume.commit()
    })
  }

  walk(root: Root, options: WalkOptions = {}): AsyncGenerator<FileBatch> {
    const { signal, batchSize } = check('walk', walkOptions, options)
    return this.#batches(check('walk: root', rootArgument, root), batchSize, signal)
  }
  async *#batches(root: Root, batchSize: number, signal: AbortSignal | undefined): AsyncGenerator<FileBatch> {
    const batches = await this.#quick('walk', { signal }, (volume) => walkFiles(volume, root, batchSize))
    for (;;) {
      const next = await this.#quick('walk', { signal }, () => batches.next())
      if (next.done) return
      yield next.value
    }
  }
  async removeFiles(root: Root, files: readonly FileRef[], options?: CallOptions): Promise<FileOutcome[]> {
    const refs = check('removeFiles: files', fileRefs, files)
    return this.#beneath('removeFiles', root, options, (volume) => refs.map((file) => removeFile(volume, root, file)))
  }
  fileExtents(root: Root, file: FileRef, options?: CallOptions): Promise<FileExtentsOutcome> {
    return this.#beneath('fileExtents', root, options, (volume) => extentsOf(volume, root, file))
  }
  async compressFile(root: Root, file: FileRef, options: CompressOptions = {}): Promise<Compressed> {
    const { algorithm, ...callWith } = check('compressFile', compressOptions, options)
    return this.#beneath('compressFile', root, callWith, (volume) => compress(volume, root, file, algorithm))
  }
  estimateCompressedRatio(root: Root, file: FileRef, options?: CallOptions): Promise<RatioOutcome> {
    return this.#beneath('estimateCompressedRatio', root, options, (volume) => estimateRatio(volume, root, file))
  }

  balance(options: BalanceOptions): Operation<BalanceProgress, BalanceProgress> {
    const { signal, intervalMs, ...selection } = checkBalance(options)
    return this.#long('balance', signal, intervalMs, (volume) => {
      const { data, metadata, system } = selection
      // Its volumes keep the profiles that they were made with.
      if ([data, metadata, system].some((filters) => filters?.convert !== undefined))
        throw failure('EOPNOTSUPP', 'balance', { path: this.path })
      if (this.#balance?.status !== undefined) throw failure('EINPROGRESS', 'balance', { path: this.path })
      return new SimulatedBalance(volume, selection)
    })
  }
  resumeBalance(options: ResumeOptions = {}): Operation<BalanceProgress, BalanceProgress> {
    const { signal, intervalMs } = check('resumeBalance', resumeOptions, options)
    return this.#long('resumeBalance', signal, intervalMs, () => this.#paused('resumeBalance'))
  }
  cancelBalance(options?: CallOptions): Promise<void> {
    return this.#quick('cancelBalance', options, () => this.#paused('cancelBalance').drop())
  }
  balanceStatus(options?: CallOptions): Promise<BalanceStatus | undefined> {
    return this.#quick('balanceStatus', options, () => this.#balance?.status)
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#running?.catch(() => {})
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #long(
    operation: string,
    signal: AbortSignal | undefined,
    intervalMs: number,
    begin: (volume: SimulatedVolume) => SimulatedBalance,
  ): Operation<BalanceProgress, BalanceProgress> {
    return new LongOperation({
      operation: 'balance',
      path: this.path,
      start: async (stop) => {
        this.#balance = begin(this.#ready(operation, signal))
        this.#running = this.#balance.run(operation, AbortSignal.any([stop, this.#closing.signal]))
        return this.#running
      },
      last: (result) => result,
      progress: async () => {
        return this.#balance?.status === undefined ? undefined : countersOf(this.#balance.status)
      },
      pause: async () => this.#balance?.pause(),
      signal,
      intervalMs,
    })
  }
  #paused(operation: string): SimulatedBalance {
    if (this.#balance?.status?.state !== 'paused') throw failure('ENOTCONN', operation, { path: this.path })
    return this.#balance
  }
  async #quick<T>(
    operation: string,
    options: CallOptions | undefined,
    act: (volume: SimulatedVolume) => T,
  ): Promise<T> {
    return act(this.#ready(operation, check(operation, callOptions, options ?? {}).signal))
  }
  #ready(operation: string, signal: AbortSignal | undefined): SimulatedVolume {
    signal?.throwIfAborted()
    if (this.#closing.signal.aborted) throw failure('EBADF', operation, { path: this.path })
    this.volume.catchUp()
    return this.volume
  }
  async #beneath<T>(
    operation: string,
    root: Root,
    options: CallOptions | undefined,
    act: (volume: SimulatedVolume) => T,
  ): Promise<T> {
    check(`${operation}: root`, rootArgument, root)
    return this.#quick(operation, options, act)
  }
  #resolve(what: string, path: string): string {
    return resolve(this.path, check(what, pathArgument, path))
  }
  #exclusive(): ExclusiveOperation {
    const state = this.#balance?.status?.state
    return state === undefined ? 'none' : state === 'running' ? 'balance' : 'balance paused'
  }
}

const NOT_RECEIVED = {
  receivedUuid: undefined,
  sentGeneration: undefined,
  receivedGeneration: undefined,
  sentAt: undefined,
  receivedAt: undefined,
}

function describe(record: SubvolumeRecord, mountPath: string): Subvolume {
  const { id, trail, parentId, directoryInode, uuid, parentUuid, generation, originGeneration, readonly } = record
  const path = trail.map((name) => Buffer.from(name, 'latin1').toString()).join('/')
  const times = { createdAt: new Date(record.createdAtMs), changedAt: new Date(record.changedAtMs) }
  const state = { generation, originGeneration, changedGeneration: generation, readonly, ...times }
  const absolutePath = join(mountPath, path)
  return { id, path, absolutePath, parentId, directoryInode, uuid, parentUuid, ...state, ...NOT_RECEIVED }
}
