/** The directories that the operator named. Nothing outside them is ever touched. */
import { realpath } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import * as v from 'valibot'
import type { CallOptions } from '../btrfs/call.js'
import type { Directory } from '../btrfs/directory.js'
import type { Filesystem } from '../btrfs/interface.js'
import { BtrmindError, check, quote } from '../errors.js'

export type RootKind = 'temp' | 'compress' | 'snapshots'
export type Roots = Readonly<Record<RootKind, readonly Directory[]>>

const paths = v.optional(v.array(v.pipe(v.string(), v.nonEmpty('a path'))), [])
export const rootOptions = v.strictObject({
  /** Directories whose old files may be deleted. */
  temp: paths,
  /** Directories whose inactive files may be compressed. */
  compress: paths,
  /** Directories whose oldest read-only snapshots may be deleted. */
  snapshots: paths,
})
export type RootOptions = v.InferInput<typeof rootOptions>

/** Directories that no system keeps only temporary files in. */
const NEVER_TEMPORARY = new Set(
  '/ /bin /boot /dev /etc /home /lib /lib32 /lib64 /media /mnt /opt /proc /root /run /sbin /srv /sys /usr /var'.split(
    ' ',
  ),
)

/**
 * Resolves the named directories once and for all, symlinks and all, and refuses what nobody can mean.
 * @param stateDir the journal and the history live there: no temporary directory may hold it
 * @throws BtrmindError BTRMIND_ERR_ROOT, BTRMIND_ERR_WRONG_VOLUME, BTRMIND_ERR_ARGUMENT; BtrfsError ENOENT, ENOTDIR …
 */
export async function resolveRoots(
  filesystem: Filesystem,
  named: RootOptions,
  stateDir: string | undefined,
  options?: CallOptions,
): Promise<Roots> {
  const { temp, compress, snapshots } = check('roots', rootOptions, named)
  const find = async (list: readonly string[]) => {
    const found: Directory[] = []
    for (const path of list) found.push(await filesystem.directory(path, options))
    return found
  }
  const roots = { temp: await find(temp), compress: await find(compress), snapshots: await find(snapshots) }
  const opened = await filesystem.directory(filesystem.path, options)
  const state = stateDir === undefined ? undefined : await realOrNext(stateDir)
  for (const root of roots.temp) refuseTemp(root, opened, state)
  return { temp: outermost(roots.temp), compress: outermost(roots.compress), snapshots: distinct(roots.snapshots) }
}

function refuseTemp(root: Directory, opened: Directory, state: string | undefined): void {
  const refuse = (why: string, hint: string) => {
    throw new BtrmindError('BTRMIND_ERR_ROOT', `temporary directory ${quote(root.path)}: ${why}`, { hint })
  }
  const below = 'name a directory that holds nothing but temporary files'
  if (NEVER_TEMPORARY.has(root.path)) refuse('a directory of the system', below)
  if (isWithin(opened.path, root.path)) refuse('it holds the whole of the opened volume', below)
  if (root.subvolumeTop && (root.subvolumeId === 5 || root.subvolumeId === opened.subvolumeId)) {
    refuse('it is the volume’s top under another name', below)
  }
  if (state !== undefined && isWithin(state, root.path)) {
    refuse(`it holds the state directory ${quote(state)}`, 'keep the state elsewhere (--state-dir)')
  }
  if (state !== undefined && isWithin(root.path, state)) {
    refuse(`it lies in the state directory ${quote(state)}`, below)
  }
}

/** Is `path` the directory or something below it? Both absolute and resolved. */
export function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory.endsWith('/') ? directory : `${directory}/`)
}

function distinct(roots: readonly Directory[]): Directory[] {
  const same = (a: Directory, b: Directory) => a.inode === b.inode && a.subvolumeId === b.subvolumeId
  return roots.filter((root, index) => roots.findIndex((other) => same(root, other)) === index)
}

/** A directory within another one that was named too would be looked through twice. */
function outermost(roots: readonly Directory[]): Directory[] {
  const all = distinct(roots)
  const holds = (outer: Directory, inner: Directory) =>
    outer !== inner && outer.subvolumeId === inner.subvolumeId && isWithin(inner.path, outer.path)
  return all.filter((root) => !all.some((other) => holds(other, root)))
}

/** realpath of what may not be there yet. */
async function realOrNext(path: string): Promise<string> {
  const absolute = resolve(path)
  try {
    return await realpath(absolute)
  } catch {
    if (absolute === '/') return absolute
    return join(await realOrNext(dirname(absolute)), basename(absolute))
  }
}
