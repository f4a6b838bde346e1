/** btrfs for Node: every operation of the kernel's interface, typed. Needs nothing of the mind. */
export { BtrfsError, BtrmindError, ERRORS, type ErrorCode } from '../errors.js'
export { formatBytes } from '../units.js'
export type {
  BalanceFilters,
  BalanceOptions,
  BalanceProgress,
  BalanceSelection,
  BalanceStatus,
  Bounds,
  ByteRange,
} from './balance-filters.js'
export type { BalancePlan, BalancePlanOptions } from './balance-plan.js'
export type { ReclaimOptions, ReclaimProgress, ReclaimResult } from './balance-reclaim.js'
export { type FileBatch, type FileRef, type FileRow, fileRef, rows, type ScanBatch, type Skipped } from './batch.js'
export type { CallOptions } from './call.js'
export type { DefragmentOptions, DefragmentProgress, DefragmentSkipped } from './defragment.js'
export {
  type AddDeviceOptions,
  type Device,
  devicesReady,
  forgetDevice,
  type ReplaceOptions,
  type ReplaceStatus,
  scanDevice,
} from './devices.js'
export type { Directory, DirectoryRef, Root } from './directory.js'
export type { EncodedData, Encoding, ReadEncodedOptions, WriteEncodedOptions } from './encoded.js'
export type { ExclusiveOperation } from './exclusive.js'
export type { ExtentsOptions, FileExtent } from './extents.js'
export type {
  Compressed,
  CompressOptions,
  FileExtents,
  FileExtentsOutcome,
  FileFailure,
  FileOutcome,
  RatioOutcome,
} from './files.js'
export { KernelFilesystem, type OpenOptions, openFilesystem } from './filesystem.js'
export type { ChangedOptions, InactiveOptions, LargestOptions } from './finders.js'
export type { FilesystemInfo } from './info.js'
export type { BlockGroup, LogicalFile, LogicalFilesOptions } from './inspect.js'
export type { Filesystem } from './interface.js'
export type * from './items/files.js'
export type * from './items/qgroups.js'
export type { ItemKey } from './items/reader.js'
export type * from './items/roots.js'
export type * from './items/space.js'
export type { DecodedItem } from './items/types.js'
export type { Measurement } from './measure.js'
export type { Operation, ResumeOptions } from './operation.js'
export type { AttributeChanges, Attributes, Compression } from './properties.js'
export type { EnableQuotaOptions, LimitQgroupOptions, Qgroup, QgroupLimits, Quota, RescanOptions } from './quota.js'
export type { Reclaim, ReclaimChange, ReclaimChanges, ReclaimSettings } from './reclaim.js'
export type { ProfileRedundancy, Redundancy } from './redundancy.js'
export type {
  AlgorithmBytes,
  CompressionBytes,
  CompressionReport,
  DirectoryUsage,
  DiskUsage,
  DiskUsageOptions,
  FragmentationOptions,
  FragmentationReport,
  ReportOptions,
  ReportProgress,
  ScatteredFile,
  UsedBytes,
} from './reports.js'
export type { ScanOptions } from './scan.js'
export type { ScrubOptions } from './scrub.js'
export type { ScrubCounters, ScrubDevice, ScrubDeviceStatus, ScrubProgress, ScrubStatus } from './scrub-progress.js'
export type { Feature, FeatureChanges, Features } from './settings.js'
export type {
  CloneOptions,
  DedupeDestination,
  DedupeRange,
  Deduplicated,
  DeduplicateProgress,
  DeduplicateStopped,
} from './sharing.js'
export type { Statfs } from './statfs.js'
export type { CommitStatistics, DiscardStatistics, Statistics } from './statistics.js'
export type { DeleteManyOptions, DeleteProgress } from './subvolume-deletion.js'
export type { Subvolume, SubvolumeListOptions } from './subvolume-list.js'
export type { SetReadonlyOptions } from './subvolume-trees.js'
export type { DeleteOptions, InheritOptions, SnapshotOptions } from './subvolumes.js'
export type { TreeItem, TreeKey, TreeName, TreeSearchOptions } from './tree-search.js'
export type { TrimOptions, TrimProgress } from './trim.js'
export type * from './types.js'
export type { BlockGroupUsage, DeviceBytes, Usage } from './usage.js'
export type { WalkOptions } from './walk.js'
