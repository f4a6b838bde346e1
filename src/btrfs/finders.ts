/** Files of a tree that somebody looks for: scans, of which only a few rows become objects. */
import * as v from 'valibot'
import { BtrmindError, check, quote } from '../errors.js'
import { copyOf, type FileRow, rowAt, type ScanBatch, type Skipped } from './batch.js'
import { pathArgument, scanOptions } from './options.js'
import { checkScan, type ScanOptions, scanTree } from './scan.js'
import { holderOf } from './subvolume-list.js'
import type { Volume } from './volume.js'

type FindOptions = Omit<ScanOptions, 'batchSize' | 'sinceGeneration'>
interface WalkedOptions extends FindOptions {
  /** Called with what could not be read, where a walk stands in for the scan: the files in it are missing. */
  readonly onSkipped?: ((skipped: readonly Skipped[]) => void) | undefined
}
export interface LargestOptions extends WalkedOptions {
  /** By the size that a reader sees, or by what the file takes without holes and before compression. Default 'sizeBytes'. */
  readonly by?: 'sizeBytes' | 'diskBytes' | undefined
}
export interface InactiveOptions extends WalkedOptions {
  /** Only files of at least so many bytes. Default 0. */
  readonly minimumBytes?: number | undefined
}
export type ChangedOptions = FindOptions

const isFunction = (value: unknown) => typeof value === 'function'
const { batchSize: _, sinceGeneration: generation, ...find } = scanOptions.entries
const whole = generation.wrapped
const onSkipped = v.optional(v.custom<(skipped: readonly Skipped[]) => void>(isFunction, 'a function'))
const largestOptions = v.strictObject({
  ...find,
  onSkipped,
  by: v.optional(v.picklist(['sizeBytes', 'diskBytes']), 'sizeBytes'),
})
const inactiveOptions = v.strictObject({ ...find, onSkipped, minimumBytes: v.optional(whole, 0) })
const changedOptions = v.strictObject(find)
const countArgument = v.pipe(v.number(), v.integer('a count'), v.minValue(1, 'a count'), v.maxValue(1e6))
const sinceArgument = v.union([whole, pathArgument], 'a generation, or the path of a snapshot')
const ageArgument = v.pipe(v.number(), v.finite('milliseconds'), v.minValue(0, 'milliseconds'))

const isFile = (mode: number) => (mode & 0o170000) === 0o100000

/** Of each file that has what is wanted, its first name. */
async function* pick(
  volume: Volume,
  operation: string,
  { onSkipped, ...options }: ScanOptions & Pick<WalkedOptions, 'onSkipped'>,
  wanted: (batch: ScanBatch, index: number) => boolean,
): AsyncGenerator<FileRow, void, void> {
  /** Where a walk stands in for the scan, its names do not follow one another. */
  const linked = new Set<number>()
  for await (const batch of scanTree(volume, checkScan(options), operation)) {
    const { length, inode, mode, links, skipped } = batch
    if (skipped.length > 0) onSkipped?.(skipped)
    for (let i = 0; i < length; i++) {
      if (!isFile(mode[i]!) || linked.has(inode[i]!)) continue
      if (links[i]! > 1) linked.add(inode[i]!)
      if (wanted(batch, i)) yield rowAt(batch, i)
    }
  }
}

/**
 * The largest files of a tree, largest first; one with several names once. As scan() otherwise: without
 * CAP_SYS_ADMIN only of the directories that may be read; `onSkipped` tells of the others.
 * @param count at most so many
 * @throws BtrfsError as scan(); BtrmindError BTRMIND_ERR_ARGUMENT, BTRMIND_ERR_OPTION
 * @example
 * for (const { path, sizeBytes } of await fs.largest(20, { subvolume: 'home' })) console.log(sizeBytes, path)
 */
export async function largest(volume: Volume, count: number, options: LargestOptions = {}): Promise<FileRow[]> {
  const most = check('largest: count', countArgument, count)
  const { by, ...scanWith } = check('largest', largestOptions, options)
  let top: FileRow[] = []
  let least = -1
  const sort = () => {
    top = top.sort((a, b) => b[by] - a[by]).slice(0, most)
    if (top.length === most) least = top.at(-1)![by]
  }
  for await (const row of pick(volume, 'largest', scanWith, (batch, index) => batch[by][index]! > least)) {
    top.push(copyOf(row))
    if (top.length >= 2 * most) sort()
  }
  sort()
  return top
}

/**
 * Files that nobody has touched for so long: neither read, written nor changed, by the youngest of their times. A read
 * may not show (`noatime`; `relatime` notes one a day). A file with several names comes once. As scan() otherwise: without
 * CAP_SYS_ADMIN only of the directories that may be read; `onSkipped` tells of the others.
 * @param ageMs at least so old when the scan begins
 * @throws BtrfsError as scan(); BtrmindError BTRMIND_ERR_ARGUMENT, BTRMIND_ERR_OPTION
 * @example
 * for await (const file of fs.inactive(30 * 86_400_000, { minimumBytes: 1e6 })) console.log(file.path)
 */
export function inactive(
  volume: Volume,
  ageMs: number,
  options: InactiveOptions = {},
): AsyncGenerator<FileRow, void, void> {
  const before = Date.now() - check('inactive: ageMs', ageArgument, ageMs)
  const { minimumBytes, ...scanWith } = check('inactive', inactiveOptions, options)
  return pick(volume, 'inactive', scanWith, ({ sizeBytes, atimeMs, mtimeMs, ctimeMs }, i) => {
    return sizeBytes[i]! >= minimumBytes && Math.max(atimeMs[i]!, mtimeMs[i]!, ctimeMs[i]!) <= before
  })
}

/**
 * What was changed in a tree since a generation, or since a snapshot of it: of every kind, one row a name, directories
 * too. What was deleted does not show, but the directory that it was in does; of a directory that was renamed only itself
 * does, not what is in it. A read that the kernel noted (`relatime`: one a day) is a change of the inode: its `ctimeMs`
 * is then older. TREE_SEARCH_V2 · CAP_SYS_ADMIN · as
 * scan() otherwise.
 * @param since the path of a snapshot of the subvolume, or, where that is a snapshot itself, of an earlier one of the same:
 * changes after it. Or a generation: changes in it and later. What a snapshot has not is of its `originGeneration` + 1
 * and later; its `generation` grows when it is balanced.
 * @throws BtrfsError as scan(); BtrmindError BTRMIND_ERR_ARGUMENT (no snapshot of it; a generation beyond
 * the next one of the volume), BTRMIND_ERR_OPTION
 * @example
 * for await (const { path } of fs.changed('backup/monday', { subvolume: 'backup/tuesday' })) console.log(path)
 */
export async function* changed(
  volume: Volume,
  since: number | string,
  options: ChangedOptions = {},
): AsyncGenerator<FileRow, void, void> {
  const scanWith = check('changed', changedOptions, options)
  const from = check('changed: since', sinceArgument, since)
  // Of 0 a scan without privilege would give what may be read, and not say that it is not all.
  const sinceGeneration = typeof from === 'number' ? Math.max(1, from) : await generationAfter(volume, from, scanWith)
  for await (const batch of scanTree(volume, checkScan({ ...scanWith, sinceGeneration }), 'changed'))
    for (let i = 0; i < batch.length; i++) yield rowAt(batch, i)
}

/** The first one that a snapshot has nothing of: taking it is the last thing that its own transaction does. */
async function generationAfter(volume: Volume, path: string, { signal, ...options }: ChangedOptions): Promise<number> {
  const snapshot = await holderOf('changed', volume, path, { signal })
  const target = await holderOf('changed', volume, options.subvolume ?? '.', { signal })
  const isOf = target.uuid !== undefined && snapshot.parentUuid === target.uuid
  const isBefore =
    target.parentUuid !== undefined &&
    snapshot.parentUuid === target.parentUuid &&
    snapshot.originGeneration <= target.originGeneration
  if (!isOf && !isBefore)
    throw new BtrmindError(
      'BTRMIND_ERR_ARGUMENT',
      `changed: since: expected a snapshot of ${quote(options.subvolume ?? '.')}, or an earlier one of the same; got ${quote(path)}`,
    )
  return snapshot.originGeneration + 1
}
