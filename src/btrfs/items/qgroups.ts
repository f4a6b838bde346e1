/** Items of the quota tree. Groups are `level/id`, out of the key. */
import type { ItemKey, Reader } from './reader.js'

export interface QgroupStatusItem {
  readonly kind: 'qgroup-status'
  readonly version: number
  readonly generation: number
  /** 1 on, 2 rescanning, 4 inconsistent, 8 simple. */
  readonly flags: bigint
  /** How far a rescan has come. */
  readonly rescan: bigint
  /** In simple mode, when that began; not before Linux 6.7. */
  readonly enableGeneration: number | undefined
}
export interface QgroupInfoItem {
  readonly kind: 'qgroup-info'
  readonly qgroup: string
  readonly generation: number
  /** Undefined where the kernel lost count. */
  readonly referencedBytes: number | undefined
  readonly exclusiveBytes: number | undefined
}
export interface QgroupLimitItem {
  readonly kind: 'qgroup-limit'
  readonly qgroup: string
  /** 1 referenced, 2 exclusive: which are set. */
  readonly flags: bigint
  readonly maxReferencedBytes: number | undefined
  readonly maxExclusiveBytes: number | undefined
}
/** Each relation stands there in both directions. */
export interface QgroupRelationItem {
  readonly kind: 'qgroup-relation'
  readonly from: string
  readonly to: string
}

const group = (id: bigint) => `${id >> 48n}/${id & 0xffff_ffff_ffffn}`

export function qgroupStatus(read: Reader): QgroupStatusItem {
  const [version, generation] = [read.u64(), read.u64()]
  const flags = read.raw64()
  const rescan = read.raw64()
  const enableGeneration = read.left === 0 ? undefined : read.u64()
  return { kind: 'qgroup-status', version, generation, flags, rescan, enableGeneration }
}

export function qgroupInfo(read: Reader, { offset }: ItemKey): QgroupInfoItem {
  const generation = read.u64()
  const referencedBytes = read.maybe64()
  read.skip(8)
  const exclusiveBytes = read.maybe64()
  read.skip(8)
  return { kind: 'qgroup-info', qgroup: group(offset), generation, referencedBytes, exclusiveBytes }
}

export function qgroupLimit(read: Reader, { offset }: ItemKey): QgroupLimitItem {
  const flags = read.raw64()
  const [referenced, exclusive] = [read.maybe64(), read.maybe64()]
  read.skip(16)
  return {
    kind: 'qgroup-limit',
    qgroup: group(offset),
    flags,
    maxReferencedBytes: flags & 1n ? referenced : undefined,
    maxExclusiveBytes: flags & 2n ? exclusive : undefined,
  }
}

export const qgroupRelation = (_: Reader, { objectid, offset }: ItemKey): QgroupRelationItem => ({
  kind: 'qgroup-relation',
  from: group(objectid),
  to: group(offset),
})
