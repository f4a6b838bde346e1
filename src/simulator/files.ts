/** What of the interface is about files: walking, and acting on those that still are what was seen. */

import type { FileBatch, FileRef, Skipped } from '../btrfs/batch.js'
import type { Root } from '../btrfs/directory.js'
import type { Compressed, FileExtentsOutcome, FileFailure, FileOutcome, RatioOutcome } from '../btrfs/files.js'
import { requireIndex } from '../btrfs/options.js'
import { BtrfsError } from '../errors.js'
import { SECTOR_BYTES } from './chunks.js'
import { type Found, findRoot, isShared } from './paths.js'
import { compressedBytes, roundUp } from './space.js'
import { type DirectoryNode, type FileNode, key } from './tree.js'
import type { SimulatedVolume } from './volume.js'

const REGULAR_FILE = 0o100_644

/** Compressed size / size by algorithm, from what zstd reaches. */
export const ALGORITHMS = {
  zstd: (ratio: number) => ratio,
  zlib: (ratio: number) => Math.min(1, ratio * 1.05),
  lzo: (ratio: number) => Math.min(1, ratio * 1.5),
} as const
export type Algorithm = keyof typeof ALGORITHMS

interface Row {
  readonly path: string
  readonly file: FileNode
}

/** Regular files below a directory, in the order of their names' creation. */
export function* walkFiles(volume: SimulatedVolume, root: Root, batchSize: number): Generator<FileBatch> {
  const start = findRoot(volume, root, 'walk')
  let rows: Row[] = []
  let subvolumes: string[] = []
  const flush = () => {
    const full = batch(rows, subvolumes)
    rows = []
    subvolumes = []
    return full
  }
  const waiting: { prefix: string; node: DirectoryNode }[] = [{ prefix: '', node: start.node }]
  while (waiting.length > 0) {
    const { prefix, node } = waiting.pop()!
    for (const [name, child] of [...node.entries]) {
      const path = `${prefix}${name}`
      if (child.kind === 'directory') waiting.push({ prefix: `${path}/`, node: child })
      else if (child.kind === 'subvolume' && child.withinId === start.subvolume.id) subvolumes.push(path)
      else if (child.kind === 'file') {
        rows.push({ path, file: child })
        if (rows.length === batchSize) yield flush()
      }
    }
  }
  if (rows.length > 0 || subvolumes.length > 0) yield flush()
}

function batch(rows: readonly Row[], subvolumes: readonly string[]): FileBatch {
  const column = (of: (file: FileNode) => number) => Float64Array.from(rows, ({ file }) => of(file))
  const skipped: Skipped[] = []
  if (subvolumes.length > 0) {
    const example = Buffer.from(subvolumes[0]!, 'latin1')
    skipped.push({ reason: 'SUBVOLUME', count: subvolumes.length, example })
  }
  const pathBytes = (index: number) => {
    requireIndex('path', rows, index)
    return new Uint8Array(Buffer.from(rows[index]!.path, 'latin1'))
  }
  return {
    length: rows.length,
    inode: column((file) => file.inode),
    sizeBytes: column((file) => file.sizeBytes),
    diskBytes: column(diskBytes),
    atimeMs: column((file) => file.atimeMs),
    mtimeMs: column((file) => file.mtimeMs),
    ctimeMs: column((file) => file.ctimeMs),
    mode: column(() => REGULAR_FILE),
    links: column(() => 1),
    skipped,
    pathBytes,
    path: (index) => Buffer.from(pathBytes(index)).toString(),
  }
}

/** st_blocks × 512: btrfs counts a compressed extent as long as what it covers. */
function diskBytes(file: FileNode): number {
  return roundUp(file.sizeBytes, SECTOR_BYTES)
}

/** After compression; on one copy. */
function takenBytes(file: FileNode): number {
  return file.extents.reduce((sum, extent) => sum + extent.diskBytes, file.inlineBytes)
}

/** The file beneath `root`, if it still is the one that was seen; else why not. */
function same(volume: SimulatedVolume, root: Root, file: FileRef, operation: string): Found | FileFailure {
  let at: Found = findRoot(volume, root, operation)
  const { id } = at.subvolume
  const path = key(file.path).split('/').filter(Boolean)
  for (const [index, name] of path.entries()) {
    if (name === '..') return refuse('EXDEV')
    if (at.node?.kind !== 'directory') return refuse('ENOTDIR')
    const node = at.node.entries.get(name)
    if (node === undefined) return refuse('ENOENT')
    if (node.kind === 'subvolume' && node.withinId === id) return refuse('EXDEV')
    const last = index === path.length - 1
    at = { ...at, trail: [...at.trail, name], directories: [...at.directories, at.node], node }
    if (node.kind === 'symlink') return refuse(last ? 'CHANGED' : 'ELOOP')
  }
  const { node } = at
  if (node?.kind !== 'file') return refuse('CHANGED')
  const is = [node.inode, node.sizeBytes, node.mtimeMs, node.ctimeMs]
  const was = [file.inode, file.sizeBytes, file.mtimeMs, file.ctimeMs]
  const unread = file.atimeMs === undefined || node.atimeMs <= file.atimeMs
  return unread && is.every((value, index) => value === was[index]) ? at : refuse('CHANGED')
}

function refuse(code: string): FileFailure {
  return { ok: false, code }
}

/** A refusal of the kernel becomes the outcome of this one file. */
function outcome<T>(act: () => T): T | FileFailure {
  try {
    return act()
  } catch (error) {
    if (error instanceof BtrfsError) return refuse(error.code)
    throw error
  }
}

export function removeFile(volume: SimulatedVolume, root: Root, file: FileRef): FileOutcome {
  const found = same(volume, root, file, 'removeFiles')
  if (!('subvolume' in found)) return found
  return outcome(() => {
    volume.unlinkFound(found, 'removeFiles')
    return { ok: true }
  })
}

export function extentsOf(volume: SimulatedVolume, root: Root, file: FileRef): FileExtentsOutcome {
  const found = same(volume, root, file, 'fileExtents')
  if (!('subvolume' in found)) return found
  const node = found.node as FileNode
  // FIEMAP with FLAG_SYNC writes out what is pending.
  volume.flush(node)
  const result = {
    ok: true as const,
    extents: 0,
    sharedBytes: 0,
    compressedBytes: 0,
    bytes: node.inlineBytes,
    diskBytes: takenBytes(node),
  }
  if (node.inlineBytes > 0) result.extents = 1
  const whole = isShared(found)
  for (const { bytes, count, compressed, refs } of node.extents) {
    result.extents += count
    result.bytes += roundUp(bytes, SECTOR_BYTES)
    if (compressed) result.compressedBytes += roundUp(bytes, SECTOR_BYTES)
    if (whole || refs > 1) result.sharedBytes += roundUp(bytes, SECTOR_BYTES)
  }
  return result
}

export function compress(volume: SimulatedVolume, root: Root, file: FileRef, algorithm: Algorithm): Compressed {
  const found = same(volume, root, file, 'compressFile')
  if (!('subvolume' in found)) return found
  const node = found.node as FileNode
  if (isShared(found) || node.extents.some(({ refs }) => refs > 1)) return refuse('SHARED')
  volume.flush(node)
  const diskBytesBefore = takenBytes(node)
  const nothing = { diskBytesBefore, diskBytesAfter: diskBytesBefore }
  if (node.noCompress) return { ...refuse('NOCOMPRESS'), ...nothing }
  if (node.extents.length === 0) return { ok: true, ...nothing }
  if (node.extents.every(({ compressed }) => compressed)) return { ...refuse('COMPRESSED'), ...nothing }
  return outcome(() => {
    volume.compress(found, ALGORITHMS[algorithm](node.ratio), 'compressFile')
    return { ok: true, diskBytesBefore, diskBytesAfter: takenBytes(node) }
  })
}

export function estimateRatio(volume: SimulatedVolume, root: Root, file: FileRef): RatioOutcome {
  const found = same(volume, root, file, 'estimateCompressedRatio')
  if (!('subvolume' in found)) return found
  const { sizeBytes, ratio } = found.node as FileNode
  if (sizeBytes === 0) return { ok: true, ratio: 1 }
  return {
    ok: true,
    ratio: Math.min(1, compressedBytes(sizeBytes, ALGORITHMS.lzo(ratio)) / roundUp(sizeBytes, SECTOR_BYTES)),
  }
}
