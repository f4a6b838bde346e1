import { resolve } from 'node:path'
import * as v from 'valibot'
import { BtrmindError, check } from '../errors.js'
import { native } from '../native.js'
import { balance, balanceStatus, cancelBalance, pauseBalance, resumeBalance } from './balance.js'
import type { BalanceOptions } from './balance-filters.js'
import { type BalancePlanOptions, balancePlan } from './balance-plan.js'
import { type ReclaimOptions, reclaimDataBlockGroups } from './balance-reclaim.js'
import type { FileRef } from './batch.js'
import { type CallOptions, call } from './call.js'
import { type DefragmentOptions, defragment } from './defragment.js'
import {
  type AddDeviceOptions,
  addDevice,
  devices,
  type ReplaceOptions,
  removeDevice,
  replaceDevice,
  replaceStatus,
  resetDeviceErrors,
} from './devices.js'
import { directory, type Root } from './directory.js'
import { type ReadEncodedOptions, readEncoded, type WriteEncodedOptions, writeEncoded } from './encoded.js'
import { exclusiveOperation } from './exclusive.js'
import { type ExtentsOptions, extents } from './extents.js'
import { type CompressOptions, compressFile, estimateCompressedRatio, fileExtents, removeFiles } from './files.js'
import {
  type ChangedOptions,
  changed,
  type InactiveOptions,
  inactive,
  type LargestOptions,
  largest,
} from './finders.js'
import { info } from './info.js'
import { blockGroups, inodePaths, type LogicalFilesOptions, logicalFiles } from './inspect.js'
import type { Filesystem } from './interface.js'
import { measure } from './measure.js'
import type { ResumeOptions } from './operation.js'
import { callOptions } from './options.js'
import {
  type AttributeChanges,
  attributes,
  type Compression,
  compressionProperty,
  setAttributes,
  setCompressionProperty,
} from './properties.js'
import {
  assignQgroup,
  createQgroup,
  destroyQgroup,
  disableQuota,
  type EnableQuotaOptions,
  enableQuota,
  type LimitQgroupOptions,
  limitQgroup,
  quota,
  type RescanOptions,
  rescanQuota,
  unassignQgroup,
} from './quota.js'
import { type ReclaimChanges, reclaimSettings, setReclaimSettings } from './reclaim.js'
import { redundancy } from './redundancy.js'
import {
  compression,
  type DiskUsageOptions,
  du,
  type FragmentationOptions,
  fragmentation,
  type ReportOptions,
} from './reports.js'
import { resizeDevice } from './resize.js'
import { type ScanOptions, scan } from './scan.js'
import { cancelScrub, type ScrubOptions, scrub, scrubStatus } from './scrub.js'
import {
  defaultSubvolume,
  type FeatureChanges,
  features,
  setDefaultSubvolume,
  setFeatures,
  setLabel,
  startSync,
  waitSync,
} from './settings.js'
import { type CloneOptions, clone, type DedupeDestination, type DedupeRange, deduplicate } from './sharing.js'
import { statfs } from './statfs.js'
import { resetCommitStatistics, statistics } from './statistics.js'
import { type DeleteManyOptions, deleteSubvolumes } from './subvolume-deletion.js'
import { type SubvolumeListOptions, subvolume, subvolumes } from './subvolume-list.js'
import { type SetReadonlyOptions, setReadonly, snapshotTree } from './subvolume-trees.js'
import {
  createSubvolume,
  type DeleteOptions,
  deleteSubvolume,
  type InheritOptions,
  type SnapshotOptions,
  snapshot,
} from './subvolumes.js'
import { type TreeSearchOptions, treeSearch } from './tree-search.js'
import { type TrimOptions, trim } from './trim.js'
import { usage } from './usage.js'
import { Volume } from './volume.js'
import { type WalkOptions, walk } from './walk.js'

export interface OpenOptions extends CallOptions {
  /** Refuse any other volume than this one. */
  readonly uuid?: string | undefined
}

const UUID = v.pipe(v.string(), v.regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i, 'a UUID'), v.toLowerCase())
const openOptions = v.strictObject({ ...callOptions.entries, uuid: v.optional(UUID) })

/**
 * Opens the btrfs volume that holds a directory.
 * @param path any directory on the volume
 * @throws BtrfsError ENOTTY (not btrfs), ENOENT, ENOTDIR, EACCES; BtrmindError BTRMIND_ERR_WRONG_VOLUME
 * @example
 * await using fs = await openFilesystem('/mnt/pool')
 * console.log((await fs.usage()).freeEstimatedBytes)
 */
export async function openFilesystem(path: string, options: OpenOptions = {}): Promise<KernelFilesystem> {
  const absolute = resolve(check('openFilesystem: path', v.pipe(v.string(), v.nonEmpty('a path')), path))
  const { uuid, ...callWith } = check('openFilesystem', openOptions, options)
  const opened = await call('openFilesystem', { path: absolute }, callWith, (ticket) => native.open(ticket, absolute))
  if (uuid !== undefined && uuid !== opened.uuid) {
    native.close(opened.handle)
    throw new BtrmindError('BTRMIND_ERR_WRONG_VOLUME', `'${absolute}' is on volume ${opened.uuid}, not ${uuid}`)
  }
  return new KernelFilesystem(new Volume(opened.handle, absolute, opened.uuid))
}

/** Each method is one family function with the volume filled in. */
export class KernelFilesystem implements Filesystem {
  readonly #volume: Volume
  constructor(volume: Volume) {
    this.#volume = volume
  }
  get path() {
    return this.#volume.path
  }
  get uuid() {
    return this.#volume.uuid
  }
  info(options?: CallOptions) {
    return info(this.#volume, options)
  }
  usage(options?: CallOptions) {
    return usage(this.#volume, options)
  }
  devices(options?: CallOptions) {
    return devices(this.#volume, options)
  }
  measure(options?: CallOptions) {
    return measure(this.#volume, options)
  }
  statfs(options?: CallOptions) {
    return statfs(this.#volume, options)
  }
  directory(path: string, options?: CallOptions) {
    return directory(this.#volume, path, options)
  }
  sync(options?: CallOptions) {
    return this.#volume.call('sync', {}, check('sync', callOptions, options ?? {}), (t) =>
      native.sync(t, this.#volume.handle),
    )
  }
  walk(root: Root, options?: WalkOptions) {
    return walk(this.#volume, root, options)
  }
  scan(options?: ScanOptions) {
    return scan(this.#volume, options)
  }
  largest(count: number, options?: LargestOptions) {
    return largest(this.#volume, count, options)
  }
  inactive(ageMs: number, options?: InactiveOptions) {
    return inactive(this.#volume, ageMs, options)
  }
  changed(since: number | string, options?: ChangedOptions) {
    return changed(this.#volume, since, options)
  }
  compression(options?: ReportOptions) {
    return compression(this.#volume, options)
  }
  du(options?: DiskUsageOptions) {
    return du(this.#volume, options)
  }
  fragmentation(options?: FragmentationOptions) {
    return fragmentation(this.#volume, options)
  }
  removeFiles(root: Root, files: readonly FileRef[], options?: CallOptions) {
    return removeFiles(this.#volume, root, files, options)
  }
  subvolumes(options?: SubvolumeListOptions) {
    return subvolumes(this.#volume, options)
  }
  subvolume(path?: string | number, options?: CallOptions) {
    return subvolume(this.#volume, path, options)
  }
  createSubvolume(path: string, options?: CallOptions & InheritOptions) {
    return createSubvolume(this.#volume, path, options)
  }
  snapshot(source: string, destination: string, options?: SnapshotOptions & InheritOptions) {
    return snapshot(this.#volume, source, destination, options)
  }
  deleteSubvolume(subvolume: string | number, options?: DeleteOptions) {
    return deleteSubvolume(this.#volume, subvolume, options)
  }
  setReadonly(path: string, readonly: boolean, options?: SetReadonlyOptions) {
    return setReadonly(this.#volume, path, readonly, options)
  }
  snapshotTree(source: string, destination: string, options?: SnapshotOptions) {
    return snapshotTree(this.#volume, source, destination, options)
  }
  deleteSubvolumes(which: readonly (string | number)[], options?: DeleteManyOptions) {
    return deleteSubvolumes(this.#volume, which, options)
  }
  fileExtents(root: Root, file: FileRef, options?: CallOptions) {
    return fileExtents(this.#volume, root, file, options)
  }
  compressFile(root: Root, file: FileRef, options?: CompressOptions) {
    return compressFile(this.#volume, root, file, options)
  }
  estimateCompressedRatio(root: Root, file: FileRef, options?: CallOptions) {
    return estimateCompressedRatio(this.#volume, root, file, options)
  }
  addDevice(path: string, options?: AddDeviceOptions) {
    return addDevice(this.#volume, path, options)
  }
  removeDevice(devid: number | 'missing', options?: CallOptions) {
    return removeDevice(this.#volume, devid, options)
  }
  replaceDevice(devid: number, target: string, options?: ReplaceOptions) {
    return replaceDevice(this.#volume, devid, target, options)
  }
  replaceStatus(options?: CallOptions) {
    return replaceStatus(this.#volume, options)
  }
  resetDeviceErrors(devid: number, options?: CallOptions) {
    return resetDeviceErrors(this.#volume, devid, options)
  }
  resizeDevice(devid: number, sizeBytes: number, options?: CallOptions) {
    return resizeDevice(this.#volume, devid, sizeBytes, options)
  }
  balance(options: BalanceOptions) {
    return balance(this.#volume, options)
  }
  resumeBalance(options?: ResumeOptions) {
    return resumeBalance(this.#volume, options)
  }
  cancelBalance(options?: CallOptions) {
    return cancelBalance(this.#volume, options)
  }
  balanceStatus(options?: CallOptions) {
    return balanceStatus(this.#volume, options)
  }
  pauseBalance(options?: CallOptions) {
    return pauseBalance(this.#volume, options)
  }
  balancePlan(options: BalancePlanOptions) {
    return balancePlan(this.#volume, options)
  }
  reclaimDataBlockGroups(options: ReclaimOptions) {
    return reclaimDataBlockGroups(this.#volume, options)
  }
  exclusiveOperation(options?: CallOptions) {
    return exclusiveOperation(this.#volume, options)
  }
  redundancy(options?: CallOptions) {
    return redundancy(this.#volume, options)
  }
  scrub(options?: ScrubOptions) {
    return scrub(this.#volume, options)
  }
  scrubStatus(options?: CallOptions) {
    return scrubStatus(this.#volume, options)
  }
  cancelScrub(options?: CallOptions) {
    return cancelScrub(this.#volume, options)
  }
  blockGroups(options?: CallOptions) {
    return blockGroups(this.#volume, options)
  }
  inodePaths(subvolume: number, inode: number, options?: CallOptions) {
    return inodePaths(this.#volume, subvolume, inode, options)
  }
  logicalFiles(logicalBytes: number, options?: LogicalFilesOptions) {
    return logicalFiles(this.#volume, logicalBytes, options)
  }
  treeSearch(options: TreeSearchOptions) {
    return treeSearch(this.#volume, options)
  }
  quota(options?: CallOptions) {
    return quota(this.#volume, options)
  }
  enableQuota(options?: EnableQuotaOptions) {
    return enableQuota(this.#volume, options)
  }
  disableQuota(options?: CallOptions) {
    return disableQuota(this.#volume, options)
  }
  rescanQuota(options?: RescanOptions) {
    return rescanQuota(this.#volume, options)
  }
  createQgroup(id: string, options?: CallOptions) {
    return createQgroup(this.#volume, id, options)
  }
  destroyQgroup(id: string, options?: CallOptions) {
    return destroyQgroup(this.#volume, id, options)
  }
  assignQgroup(child: string, parent: string, options?: CallOptions) {
    return assignQgroup(this.#volume, child, parent, options)
  }
  unassignQgroup(child: string, parent: string, options?: CallOptions) {
    return unassignQgroup(this.#volume, child, parent, options)
  }
  limitQgroup(id: string, limits: LimitQgroupOptions) {
    return limitQgroup(this.#volume, id, limits)
  }
  setLabel(label: string, options?: CallOptions) {
    return setLabel(this.#volume, label, options)
  }
  features(options?: CallOptions) {
    return features(this.#volume, options)
  }
  setFeatures(wanted: FeatureChanges, options?: CallOptions) {
    return setFeatures(this.#volume, wanted, options)
  }
  startSync(options?: CallOptions) {
    return startSync(this.#volume, options)
  }
  waitSync(transaction?: number, options?: CallOptions) {
    return waitSync(this.#volume, transaction, options)
  }
  extents(path: string, options?: ExtentsOptions) {
    return extents(this.#volume, path, options)
  }
  defragment(path: string, options?: DefragmentOptions) {
    return defragment(this.#volume, path, options)
  }
  deduplicate(source: string, range: DedupeRange, destinations: readonly DedupeDestination[], options?: ResumeOptions) {
    return deduplicate(this.#volume, source, range, destinations, options)
  }
  clone(source: string, destination: string, options?: CloneOptions) {
    return clone(this.#volume, source, destination, options)
  }
  compressionProperty(path: string, options?: CallOptions) {
    return compressionProperty(this.#volume, path, options)
  }
  setCompressionProperty(path: string, value: Compression | undefined, options?: CallOptions) {
    return setCompressionProperty(this.#volume, path, value, options)
  }
  attributes(path: string, options?: CallOptions) {
    return attributes(this.#volume, path, options)
  }
  setAttributes(path: string, wanted: AttributeChanges, options?: CallOptions) {
    return setAttributes(this.#volume, path, wanted, options)
  }
  readEncoded(path: string, options?: ReadEncodedOptions) {
    return readEncoded(this.#volume, path, options)
  }
  writeEncoded(path: string, options: WriteEncodedOptions) {
    return writeEncoded(this.#volume, path, options)
  }
  statistics(options?: CallOptions) {
    return statistics(this.#volume, options)
  }
  resetCommitStatistics(options?: CallOptions) {
    return resetCommitStatistics(this.#volume, options)
  }
  reclaimSettings(options?: CallOptions) {
    return reclaimSettings(this.#volume, options)
  }
  setReclaimSettings(wanted: ReclaimChanges) {
    return setReclaimSettings(this.#volume, wanted)
  }
  trim(options?: TrimOptions) {
    return trim(this.#volume, options)
  }
  defaultSubvolume(options?: CallOptions) {
    return defaultSubvolume(this.#volume, options)
  }
  setDefaultSubvolume(id: number, options?: CallOptions) {
    return setDefaultSubvolume(this.#volume, id, options)
  }
  close() {
    return this.#volume.close()
  }
  [Symbol.asyncDispose]() {
    return this.close()
  }
}
