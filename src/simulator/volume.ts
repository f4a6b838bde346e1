/** The state of a simulated volume and all that changes it, synchronously; the clock moves it on. */
import { check } from '../errors.js'
import { createRandom, type Random } from '../random.js'
import { SimulatedDevice } from './blockgroup.js'
import { SECTOR_BYTES } from './chunks.js'
import { Cleaner } from './cleaner.js'
import type { SimulatedClock } from './clock.js'
import { failure } from './failure.js'
import { type FileOptions, type VolumeOptions, volumeOptions } from './options.js'
import { asDirectory, type Found, find, findDirectory } from './paths.js'
import { compressedBytes, roundUp, Space } from './space.js'
import { type DirectoryNode, type FileNode, type Node, Nodes, type SubvolumeRecord } from './tree.js'

/** Files up to this size live in metadata (max_inline's default). */
const MAX_INLINE_BYTES = 2048
const FIRST_SUBVOLUME_ID = 256
const TOP_ID = 5

export class SimulatedVolume {
  readonly clock: SimulatedClock
  readonly space: Space
  readonly nodes: Nodes
  readonly mountPath: string
  readonly uuid: string
  readonly label: string
  readonly rewriteBytesPerSecond: number
  readonly top: SubvolumeRecord
  readonly subvolumes = new Map<number, SubvolumeRecord>()
  generation = 7
  readonly #random: Random
  readonly #commitIntervalMs: number
  readonly #pending = new Set<FileNode>()
  readonly #cleaner: Cleaner
  #nextCommitMs: number
  #lastId = FIRST_SUBVOLUME_ID - 1

  constructor(options: VolumeOptions) {
    const checked = check('SimulatedFilesystem', volumeOptions, options)
    const { clock, seed, devicesBytes, data, path, label, commitIntervalMs, rewriteBytesPerSecond } = checked
    this.clock = clock
    this.#random = createRandom(seed)
    this.mountPath = path
    this.label = label
    this.#commitIntervalMs = commitIntervalMs
    this.rewriteBytesPerSecond = rewriteBytesPerSecond
    this.uuid = this.#newUuid()
    this.space = new Space(
      devicesBytes.map((size, at) => new SimulatedDevice(at + 1, this.#newUuid(), `/dev/simulated${at + 1}`, size)),
      { data, metadata: checked.metadata ?? (devicesBytes.length > 1 ? 'raid1' : 'dup') },
    )
    this.nodes = new Nodes(this.space)
    const now = this.clock.elapsedMs()
    this.#cleaner = new Cleaner(this.nodes, checked.cleanerNodesPerSecond, now)
    this.#nextCommitMs = now + this.#commitIntervalMs
    this.top = this.#addSubvolume({ id: TOP_ID, trail: [], root: this.nodes.directory(FIRST_SUBVOLUME_ID) })
  }

  subvolumeById(id: number) {
    return this.subvolumes.get(id)
  }

  /** Does what fell due since the last call: commits every 30 s, and the cleaner. */
  catchUp(): void {
    const now = this.clock.elapsedMs()
    while (this.#nextCommitMs <= now) {
      this.#cleaner.runUntil(this.#nextCommitMs)
      this.commit()
      this.#nextCommitMs += this.#commitIntervalMs
    }
    this.#cleaner.runUntil(now)
  }

  /** Flushes what is pending, ends the transaction, wakes the cleaner. BTRFS_IOC_SYNC, and every 30 s. */
  commit(): void {
    for (const file of this.#pending) this.flush(file)
    this.#pending.clear()
    this.space.commit(this.clock.elapsedMs())
    this.generation++
    this.#cleaner.wake()
  }

  /** Moves the clock by what it takes to read and write so many bytes again. */
  takeTimeFor(bytes: number): void {
    this.clock.advance((bytes / this.rewriteBytesPerSecond) * 1000)
    this.catchUp()
  }

  find(path: string, operation: string, follow = true): Found {
    return find(this, path, operation, follow)
  }

  makeDirectory(path: string): void {
    this.#add(path, 'makeDirectory', () => this.#create('makeDirectory', path).directory())
  }
  makeSymlink(path: string, target: string): void {
    this.#add(path, 'makeSymlink', () => this.#create('makeSymlink', path).symlink(target))
  }

  /**
   * Makes a file, or replaces all of its content.
   * @throws BtrfsError ENOSPC: as much as fits is written, as a writer that goes on until write(2) fails would
   */
  writeFile(path: string, bytes: number, options: FileOptions = {}): void {
    this.catchUp()
    const now = this.clock.wallMs()
    let found = this.find(path, 'writeFile')
    if (found.node === undefined) {
      this.#add(path, 'writeFile', () => this.#create('writeFile', path).file(now))
      found = this.find(path, 'writeFile')
    }
    const file = this.ownFile(found, 'writeFile')
    this.#truncate(file)
    file.ratio = options.compressibleRatio ?? 1
    file.noCompress = false
    file.atimeMs = options.atimeMs ?? now
    file.mtimeMs = options.mtimeMs ?? now
    file.ctimeMs = options.ctimeMs ?? now
    this.#append(file, bytes, 'writeFile', path)
  }
  /** @throws BtrfsError as writeFile */
  appendFile(path: string, bytes: number): void {
    this.catchUp()
    const file = this.ownFile(this.find(path, 'appendFile'), 'appendFile')
    file.mtimeMs = file.ctimeMs = this.clock.wallMs()
    this.#append(file, bytes, 'appendFile', path)
  }
  unlink(path: string, operation = 'unlink'): void {
    this.catchUp()
    this.unlinkFound(this.find(path, operation, false), operation, path)
  }
  unlinkFound(found: Found, operation: string, path?: string): void {
    const { node } = found
    if (node === undefined) throw failure('ENOENT', operation, { path })
    if (node.kind === 'directory' || node.kind === 'subvolume') throw failure('EISDIR', operation, { path })
    const directory = this.#own(found, operation, path)
    directory.entries.delete(found.trail.at(-1)!)
    this.nodes.changed(directory)
    this.nodes.dropAll([node])
  }

  createSubvolume(path: string): void {
    this.#add(path, 'createSubvolume', (parent) => {
      const root = this.nodes.directory(FIRST_SUBVOLUME_ID)
      return this.#hang(parent, this.#addSubvolume({ ...this.#at(parent), root }))
    })
  }
  /** Flushes first, as the kernel does: a snapshot holds what was written before it. */
  snapshot(source: string, destination: string, readonly: boolean): void {
    const paths = { path: source, dest: destination }
    const from = findDirectory(this, source, 'snapshot')
    if (from.trail.length > 0) throw failure('EINVAL', 'snapshot', paths)
    this.commit()
    this.#add(destination, 'snapshot', (parent) => {
      const { root, uuid } = from.subvolume
      const record = { ...this.#at(parent), root, parentUuid: uuid, readonly }
      return this.#hang(parent, this.#addSubvolume(record))
    })
    this.commit()
  }
  deleteSubvolume(path: string, id?: number): SubvolumeRecord {
    this.catchUp()
    const operation = 'deleteSubvolume'
    const found = this.find(path, operation, false)
    const { node, trail } = found
    if (node === undefined) throw failure('ENOENT', operation, { path })
    const record = asDirectory(this, found)?.subvolume
    if (node.kind !== 'subvolume' || record === undefined || record.id === found.subvolume.id) {
      throw failure('EINVAL', operation, { path })
    }
    if (id !== undefined && record.id !== id) throw failure('ESTALE', operation, { path })
    for (const { parentId } of this.subvolumes.values()) {
      if (parentId === record.id) throw failure('ENOTEMPTY', operation, { path })
    }
    this.#own(found, operation, path).entries.delete(trail.at(-1)!)
    this.subvolumes.delete(record.id)
    this.#cleaner.add(record)
    return record
  }
  /** Has the cleaner freed it? (The bytes come with the next commit.) */
  isCleaned(record: SubvolumeRecord): boolean {
    return this.#cleaner.isDone(record)
  }

  /** The file that a writer may change. @throws BtrfsError ENOENT, EISDIR, EROFS */
  ownFile(found: Found, operation: string, path?: string): FileNode {
    if (found.node === undefined) throw failure('ENOENT', operation, { path })
    if (found.node.kind !== 'file') throw failure('EISDIR', operation, { path })
    const directory = this.#own(found, operation, path)
    const name = found.trail.at(-1)!
    const file = this.nodes.ownFile(directory.entries.get(name) as FileNode)
    directory.entries.set(name, file)
    this.nodes.changed(directory, true)
    return file
  }

  /** Rewrites a file compressed to `ratio`; takes new room first, also for what a snapshot holds. */
  compress(found: Found, ratio: number, operation: string): void {
    const shared = found.node as FileNode
    if (this.#pending.has(shared)) this.commit()
    const bytes = Math.min(
      shared.sizeBytes,
      shared.extents.reduce((sum, extent) => sum + extent.bytes, 0),
    )
    const got = this.space.reserve(bytes)
    if (got < bytes) {
      this.space.unreserve(got)
      throw failure('ENOSPC', operation)
    }
    const smaller = compressedBytes(bytes, ratio) < compressedBytes(bytes, 1)
    const file = this.ownFile(found, operation)
    file.noCompress = !smaller
    this.nodes.setExtents(file, this.space.place(bytes, smaller ? ratio : 1))
    this.takeTimeFor(bytes)
  }

  #append(file: FileNode, bytes: number, operation: string, path: string): void {
    const size = file.sizeBytes + bytes
    if (size <= MAX_INLINE_BYTES && file.extents.length === 0 && file.pendingBytes === 0) {
      this.nodes.setInline(file, size)
      file.sizeBytes = size
      return
    }
    let { held, got, wanted } = this.#reserveFor(file, bytes)
    if (got < wanted) {
      this.space.unreserve(got)
      this.commit()
      ;({ held, got, wanted } = this.#reserveFor(file, bytes))
    }
    const before = file.pendingBytes + file.inlineBytes
    if (held + got < before) {
      this.space.unreserve(got)
      throw failure('ENOSPC', operation, { path })
    }
    const after = Math.min(before + bytes, held + got)
    this.nodes.setInline(file, 0)
    file.pendingBytes = after
    file.sizeBytes += after - before
    if (after > 0) this.#pending.add(file)
    if (after < before + bytes) throw failure('ENOSPC', operation, { path })
  }
  #reserveFor(file: FileNode, bytes: number) {
    const held = roundUp(file.pendingBytes, SECTOR_BYTES)
    const wanted = roundUp(file.pendingBytes + file.inlineBytes + bytes, SECTOR_BYTES) - held
    return { held, wanted, got: this.space.reserve(wanted) }
  }
  #truncate(file: FileNode): void {
    if (this.#pending.delete(file)) this.space.unreserve(file.pendingBytes)
    file.pendingBytes = file.sizeBytes = 0
    this.nodes.setInline(file, 0)
    this.nodes.setExtents(file, [])
  }
  flush(file: FileNode): void {
    if (file.refs === 0 || file.pendingBytes === 0) return
    const extents = [...file.extents, ...this.space.place(file.pendingBytes, 1, file.extents.at(-1))]
    file.pendingBytes = 0
    this.nodes.setExtents(file, extents)
  }

  /** Puts a new node at a path whose last name is free. Made first: a snapshot must not hold itself. */
  #add(path: string, operation: string, make: (parent: Found) => Node): void {
    this.catchUp()
    const found = this.find(path, operation, false)
    if (found.node !== undefined) throw failure('EEXIST', operation, { path })
    if (found.subvolume.readonly) throw failure('EROFS', operation, { path })
    const node = make(found)
    const directory = this.#own(found, operation, path)
    node.refs++
    directory.entries.set(found.trail.at(-1)!, node)
    this.nodes.changed(directory)
  }
  /** The directory that holds what was found, with all that is shared above it copied. */
  #own(found: Found, operation: string, path?: string): DirectoryNode {
    const { subvolume, trail } = found
    if (subvolume.readonly) throw failure('EROFS', operation, { path })
    subvolume.generation = this.generation
    subvolume.changedAtMs = this.clock.wallMs()
    let directory = this.nodes.ownDirectory(subvolume.root)
    subvolume.root = directory
    for (const name of trail.slice(0, -1)) {
      const inner = this.nodes.ownDirectory(directory.entries.get(name) as DirectoryNode)
      directory.entries.set(name, inner)
      directory = inner
    }
    return directory
  }

  /** Subvolumes and snapshots still work when metadata is too full for these. */
  #create(operation: string, path: string): Nodes {
    if (!this.space.canCreate()) throw failure('ENOSPC', operation, { path })
    return this.nodes
  }
  #at(parent: Found) {
    const { subvolume, trail, directories } = parent
    return { trail: [...subvolume.trail, ...trail], parentId: subvolume.id, directoryInode: directories.at(-1)!.inode }
  }
  #hang(parent: Found, { id }: SubvolumeRecord): Node {
    return { kind: 'subvolume', refs: 0, id, withinId: parent.subvolume.id }
  }
  #addSubvolume(
    record: Pick<SubvolumeRecord, 'trail' | 'root'> &
      Partial<Pick<SubvolumeRecord, 'id' | 'parentId' | 'directoryInode' | 'parentUuid' | 'readonly'>>,
  ): SubvolumeRecord {
    const now = this.clock.wallMs()
    const { id = ++this.#lastId, parentId, directoryInode, parentUuid, readonly = false } = record
    const born = { originGeneration: this.generation, generation: this.generation, createdAtMs: now, changedAtMs: now }
    const added = { ...record, id, parentId, directoryInode, parentUuid, readonly, uuid: this.#newUuid(), ...born }
    added.root.refs++
    this.space.growMetadata(16_384)
    this.subvolumes.set(id, added)
    return added
  }

  #newUuid(): string {
    const word = () =>
      this.#random
        .integer(2 ** 32)
        .toString(16)
        .padStart(8, '0')
    const hex = word() + word() + word() + word()
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`
  }
}
