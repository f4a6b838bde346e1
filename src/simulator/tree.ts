/**
 * Subvolumes, directories and files, shared with snapshots as btrfs shares its trees: a node counts who holds it, a
 * writer copies the shared directories on its way down, and what nobody holds any more is freed. A snapshot is one
 * reference. Names are keyed by their bytes (latin1), so that names that are not UTF-8 survive.
 */
import type { Extent } from './blockgroup.js'
import { NODE_BYTES } from './chunks.js'
import type { Space } from './space.js'

export interface FileNode {
  readonly kind: 'file'
  refs: number
  readonly inode: number
  sizeBytes: number
  atimeMs: number
  mtimeMs: number
  ctimeMs: number
  /** Compressed size / size that zstd reaches. */
  ratio: number
  /** The kernel's flag after a block of it did not shrink. */
  noCompress: boolean
  /** Reserved, not flushed yet. */
  pendingBytes: number
  inlineBytes: number
  extents: Extent[]
  /** In {@link Nodes.files}. */
  listed: boolean
}
export interface DirectoryNode {
  readonly kind: 'directory'
  refs: number
  readonly inode: number
  readonly entries: Map<string, Node>
  /** What is kept twice because it was written after a snapshot: with the older version, and with newer ones. */
  readonly older: Copy | undefined
  readonly newer: Copy[]
}
/** Metadata that two versions of a directory no longer share; given back when either is gone. */
interface Copy {
  bytes: number
  gone: boolean
}
export interface SymlinkNode {
  readonly kind: 'symlink'
  refs: number
  readonly inode: number
  readonly target: string
}
/** Where a subvolume hangs; in a snapshot of the one around it, an empty directory. */
export interface SubvolumeNode {
  readonly kind: 'subvolume'
  refs: number
  readonly id: number
  readonly withinId: number
}
export type Node = FileNode | DirectoryNode | SymlinkNode | SubvolumeNode

export interface SubvolumeRecord {
  readonly id: number
  /** From the top of the volume, as keys. */
  readonly trail: readonly string[]
  readonly parentId: number | undefined
  readonly directoryInode: number | undefined
  readonly uuid: string
  readonly parentUuid: string | undefined
  readonly readonly: boolean
  readonly originGeneration: number
  generation: number
  readonly createdAtMs: number
  changedAtMs: number
  root: DirectoryNode
}

/** Inode item, reference and two directory items, as packed on kernel 6.18. */
const FILE_BYTES = 380
const DIRECTORY_BYTES = 350
const INLINE_RATIO = 1.25

const PATH_BYTES = 2 * NODE_BYTES

export function key(name: string | Uint8Array): string {
  return Buffer.from(name as string).toString('latin1')
}

export class Nodes {
  #lastInode = 256
  readonly #files: FileNode[] = []
  constructor(readonly space: Space) {}

  /** Those that have extents, in the order of their inodes, each once however many snapshots hold it. */
  get files(): readonly FileNode[] {
    return this.#files
  }
  /** Index in `files` of the first at or after an inode. */
  fileFrom(inode: number): number {
    let low = 0
    let high = this.#files.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#files[middle]!.inode < inode) low = middle + 1
      else high = middle
    }
    return low
  }

  file(atMs: number): FileNode {
    this.space.growMetadata(FILE_BYTES)
    const times = { atimeMs: atMs, mtimeMs: atMs, ctimeMs: atMs }
    const empty = { sizeBytes: 0, ratio: 1, noCompress: false, pendingBytes: 0, inlineBytes: 0, extents: [] }
    return { kind: 'file', refs: 0, inode: ++this.#lastInode, ...times, ...empty, listed: false }
  }
  directory(inode = ++this.#lastInode): DirectoryNode {
    this.space.growMetadata(DIRECTORY_BYTES)
    return { kind: 'directory', refs: 0, inode, entries: new Map(), older: undefined, newer: [] }
  }
  symlink(target: string): SymlinkNode {
    this.space.growMetadata(FILE_BYTES)
    return { kind: 'symlink', refs: 0, inode: ++this.#lastInode, target }
  }

  /** What a writer may change: the node itself, or a copy of it that takes over one reference. */
  ownDirectory(node: DirectoryNode): DirectoryNode {
    if (node.refs <= 1) return node
    const older: Copy = { bytes: 0, gone: false }
    node.newer.push(older)
    const copy: DirectoryNode = { ...node, refs: 1, entries: new Map(node.entries), older, newer: [] }
    for (const child of copy.entries.values()) child.refs++
    node.refs--
    return copy
  }
  ownFile(node: FileNode): FileNode {
    if (node.refs <= 1) return node
    const copy: FileNode = { ...node, refs: 1, extents: [...node.extents], listed: false }
    for (const extent of copy.extents) extent.refs++
    node.refs--
    this.#list(copy)
    this.space.growMetadata(FILE_BYTES + copy.inlineBytes * INLINE_RATIO)
    return copy
  }

  /**
   * A change in a directory that a snapshot has too copies the way down once, and a leaf for each file that is written
   * over. What comes and goes at the end of the directory, or in the order it was made, stays within those.
   */
  changed(directory: DirectoryNode, scattered = false): void {
    const { older } = directory
    if (older === undefined || older.gone) return
    const whole = PATH_BYTES + directory.entries.size * FILE_BYTES
    const more = older.bytes === 0 ? PATH_BYTES : scattered ? Math.min(NODE_BYTES, whole - older.bytes) : 0
    if (more <= 0) return
    older.bytes += more
    this.space.growMetadata(more)
  }

  setInline(file: FileNode, bytes: number): void {
    const more = (bytes - file.inlineBytes) * INLINE_RATIO
    file.inlineBytes = bytes
    if (more > 0) this.space.growMetadata(more)
    else this.space.shrinkMetadata(-more)
  }

  /** Gives a file other data; what nobody else holds is freed. */
  setExtents(file: FileNode, extents: Extent[]): void {
    for (const extent of extents) extent.refs++
    for (const extent of file.extents) if (--extent.refs === 0) this.space.free(extent)
    file.extents = extents
    this.#list(file)
  }

  /** Takes one reference from each; stops when `limit` nodes were touched, with what is left in `left`. */
  dropAll(left: Node[], limit = Number.POSITIVE_INFINITY): number {
    let touched = 0
    while (touched < limit) {
      const node = left.pop()
      if (node === undefined) break
      touched++
      for (const child of this.#drop(node)) left.push(child)
    }
    return touched
  }

  /** Gives the children that a directory held and that must be dropped in turn. */
  #drop(node: Node): Iterable<Node> {
    if (--node.refs > 0) return []
    if (node.kind === 'directory') {
      for (const copy of node.older === undefined ? node.newer : [node.older, ...node.newer]) {
        this.space.shrinkMetadata(copy.bytes)
        copy.bytes = 0
        copy.gone = true
      }
      this.space.shrinkMetadata(DIRECTORY_BYTES)
      return node.entries.values()
    }
    if (node.kind === 'subvolume') return []
    this.space.shrinkMetadata(FILE_BYTES)
    if (node.kind === 'symlink') return []
    if (node.pendingBytes > 0) this.space.unreserve(node.pendingBytes)
    node.pendingBytes = 0
    this.setInline(node, 0)
    this.setExtents(node, [])
    return []
  }

  #list(file: FileNode): void {
    const listed = file.extents.length > 0
    if (listed === file.listed) return
    file.listed = listed
    let at = this.fileFrom(file.inode)
    if (listed) this.#files.splice(at, 0, file)
    else {
      while (this.#files[at] !== file) at++
      this.#files.splice(at, 1)
    }
  }
}
