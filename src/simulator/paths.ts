/** From a path to what it names, through subvolumes and, where asked, symlinks. */
import type { Root } from '../btrfs/directory.js'
import { failure } from './failure.js'
import { type DirectoryNode, key, type Node, type SubvolumeRecord } from './tree.js'

/** Where a path leads. */
export interface Found {
  readonly subvolume: SubvolumeRecord
  /** Names below the subvolume's top. */
  readonly trail: readonly string[]
  /** Directories passed on the way, the subvolume's top first; the found node itself is not among them. */
  readonly directories: readonly DirectoryNode[]
  /** Undefined: the last name does not exist, its directory does. */
  readonly node: Node | undefined
}

export interface Walkable {
  readonly mountPath: string
  readonly top: SubvolumeRecord
  subvolumeById(id: number): SubvolumeRecord | undefined
}

const MAX_LINKS = 40

/** Names below the mount point, as keys; undefined when the path lies outside. */
export function names(volume: Walkable, path: string): string[] | undefined {
  if (path === volume.mountPath) return []
  const inside = volume.mountPath === '/' ? '/' : `${volume.mountPath}/`
  return path.startsWith(inside) ? key(path.slice(inside.length)).split('/').filter(Boolean) : undefined
}

/**
 * @param path absolute
 * @param follow a symlink at the end too; those on the way are always followed
 * @throws BtrfsError ENOENT (of what is on the way), ENOTDIR, ELOOP
 */
export function find(volume: Walkable, path: string, operation: string, follow: boolean): Found {
  const waiting = names(volume, path)
  if (waiting === undefined) throw failure('ENOENT', operation, { path })
  let links = 0
  let at = start(volume.top)
  while (true) {
    const name = waiting.shift()
    if (name === undefined) return at
    const here = asDirectory(volume, at)
    if (here === undefined) throw failure(at.node === undefined ? 'ENOENT' : 'ENOTDIR', operation, { path })
    if (name === '.') continue
    if (name === '..') {
      at = find(volume, parentPath(volume, here), operation, true)
      continue
    }
    const directory = here.node as DirectoryNode
    const node = directory.entries.get(name)
    if (node?.kind === 'symlink' && (follow || waiting.length > 0)) {
      if (++links > MAX_LINKS) throw failure('ELOOP', operation, { path })
      const target = key(node.target)
      if (target.startsWith('/')) {
        const inside = names(volume, node.target)
        if (inside === undefined) throw failure('ENOENT', operation, { path })
        waiting.unshift(...inside)
        at = start(volume.top)
      } else {
        waiting.unshift(...target.split('/').filter(Boolean))
        at = here
      }
      continue
    }
    at = { ...here, trail: [...here.trail, name], directories: [...here.directories, directory], node }
  }
}

function start(subvolume: SubvolumeRecord): Found {
  return { subvolume, trail: [], directories: [], node: subvolume.root }
}

/** A found directory, or the subvolume that hangs there, entered. */
export function asDirectory(volume: Walkable, found: Found): Found | undefined {
  const { node } = found
  if (node?.kind === 'directory') return found
  if (node?.kind !== 'subvolume') return undefined
  const inside = node.withinId === found.subvolume.id ? volume.subvolumeById(node.id) : undefined
  if (inside !== undefined) return start(inside)
  return {
    ...found,
    node: { kind: 'directory', refs: 1, inode: 2, entries: new Map(), older: undefined, newer: [] },
  }
}

/** @throws BtrfsError ENOENT, ENOTDIR, ELOOP */
export function findDirectory(volume: Walkable, path: string, operation: string): Found & { node: DirectoryNode } {
  const found = find(volume, path, operation, true)
  const directory = asDirectory(volume, found)
  if (directory?.node?.kind === 'directory') return { ...directory, node: directory.node }
  throw failure(found.node === undefined ? 'ENOENT' : 'ENOTDIR', operation, { path })
}

/** A root that somebody named: never itself a symlink. @throws BtrfsError ENOENT, ENOTDIR, ELOOP, ESTALE */
export function findRoot(volume: Walkable, root: Root, operation: string): Found & { node: DirectoryNode } {
  if (typeof root !== 'string') {
    const found = findDirectory(volume, root.path, operation)
    const same = found.node.inode === root.inode && found.subvolume.id === root.subvolumeId
    if (same && pathOf(volume, found) === root.path) return found
    throw failure('ESTALE', operation, { path: root.path })
  }
  const path = root
  if (find(volume, path, operation, false).node?.kind === 'symlink') throw failure('ELOOP', operation, { path })
  return findDirectory(volume, path, operation)
}

/** Is any of what leads there also held by a snapshot? */
export function isShared(found: Found): boolean {
  return found.directories.some(({ refs }) => refs > 1) || (found.node?.refs ?? 0) > 1
}

/** Absolute, without symlinks, as text. */
export function pathOf(volume: Walkable, found: Found): string {
  const all = [...found.subvolume.trail, ...found.trail].map((name) => Buffer.from(name, 'latin1').toString())
  return [volume.mountPath === '/' ? '' : volume.mountPath, ...all].join('/') || '/'
}

function parentPath(volume: Walkable, found: Found): string {
  const path = pathOf(volume, found)
  return path === volume.mountPath ? path : path.slice(0, path.lastIndexOf('/')) || '/'
}
