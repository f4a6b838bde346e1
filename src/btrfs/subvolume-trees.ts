/** Subvolumes with what lies in them, and many at once. */
import { rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import * as v from 'valibot'
import { BtrfsError, BtrmindError, check, quote } from '../errors.js'
import { native } from '../native.js'
import { type CallOptions, poll } from './call.js'
import { cancelled, LongOperation, type Operation, type ResumeOptions } from './operation.js'
import { callOptions, pathArgument, resumeOptions, snapshotOptions, subvolumeId } from './options.js'
import { subvolume, subvolumes } from './subvolume-list.js'
import { deleteSubvolume, type SnapshotOptions, snapshot } from './subvolumes.js'
import type { Volume } from './volume.js'

export interface SetReadonlyOptions extends CallOptions {
  /** Make a received subvolume writable: incremental receives on it will fail from then on. Default false. */
  readonly force?: boolean
}
const setReadonlyOptions = v.strictObject({ ...callOptions.entries, force: v.optional(v.boolean(), false) })

/**
 * Makes a subvolume read-only, or writable again. BTRFS_IOC_SUBVOL_SETFLAGS · owner, or CAP_FOWNER · quick, with a
 * commit.
 * @param path absolute, or relative to the filesystem's path
 * @throws BtrfsError ENOENT, EINVAL (not a subvolume), EPERM, EROFS, ETXTBSY (a file is open for writing: to read-only);
 *   BtrmindError BTRMIND_ERR_GUARD (received, and no `force`), BTRMIND_ERR_WRONG_VOLUME
 * @example
 * await fs.setReadonly('projects', true)
 */
export async function setReadonly(
  volume: Volume,
  path: string,
  readonly: boolean,
  options: SetReadonlyOptions = {},
): Promise<void> {
  const target = volume.resolve(check('setReadonly: path', pathArgument, path))
  const on = check('setReadonly: readonly', v.boolean(), readonly)
  const { force, ...callWith } = check('setReadonly', setReadonlyOptions, options)
  if (!on && !force) {
    const { receivedUuid } = await subvolume(volume, target, callWith)
    if (receivedUuid !== undefined) {
      const hint = 'use `force`, or take a writable snapshot of it'
      throw new BtrmindError(
        'BTRMIND_ERR_GUARD',
        `${quote(target)} was received: once writable, incremental receives on it fail`,
        { hint },
      )
    }
  }
  const hints = { EPERM: 'needs to be its owner, or root (CAP_FOWNER)' }
  await volume.call('setReadonly', { path: target, hints }, callWith, (t) =>
    native.setReadonly(t, volume.handle, target, on),
  )
}

interface Member {
  readonly id: number
  readonly parentId: number | undefined
  readonly readonly: boolean
  /** Absolute; and from the tree's top. */
  readonly path: string
  readonly inner: string
}

/** Named by id, not by path. */
type Target = Member & { readonly byId: boolean }

/** A subvolume and, unless it is asked for alone, those in it: parents first. */
export async function tree(volume: Volume, path: string, options: CallOptions, recursive = true): Promise<Member[]> {
  const top = await subvolume(volume, path, options)
  const { id, parentId, readonly } = top
  const all: Member[] = [{ id, parentId, readonly, path, inner: '' }]
  if (!recursive) return all
  for await (const { path: whole, id, parentId, readonly } of subvolumes(volume, { ...options, below: path })) {
    const inner = whole.slice(top.path === '' ? 0 : top.path.length + 1)
    all.push({ id, parentId, readonly, path: join(path, inner), inner })
  }
  return all
}

/** The same of an id, wherever it is: what it is called, for errors, in place of the path. */
async function treeOf(volume: Volume, id: number, recursive: boolean): Promise<Member[]> {
  const row = ({ id, parentId, readonly }: Omit<Member, 'path' | 'inner'>): Member => {
    return { id, parentId, readonly, path: `subvolume ${id}`, inner: '' }
  }
  const all = [row(await subvolume(volume, id))]
  if (!recursive) return all
  const within = new Set([id])
  // Parents come first.
  for await (const found of subvolumes(volume)) {
    if (found.parentId === undefined || !within.has(found.parentId)) continue
    within.add(found.id)
    all.push(row(found))
  }
  return all
}

/**
 * Takes a snapshot of a subvolume and of every one in it, each in its place. One after the other, so not all of one
 * moment. When one fails, and on abort, timeout (looked at after each one) and close(), those that were made are
 * deleted again. SNAP_CREATE_V2, SUBVOL_SETFLAGS · as snapshot(), and
 * CAP_SYS_ADMIN for what lies below others' directories · a commit each.
 * @throws BtrfsError as snapshot()
 * @example
 * await fs.snapshotTree('machines', 'backup/machines', { readonly: true })
 */
export async function snapshotTree(
  volume: Volume,
  source: string,
  destination: string,
  options: SnapshotOptions = {},
): Promise<void> {
  const from = volume.resolve(check('snapshotTree: source', pathArgument, source))
  const to = volume.resolve(check('snapshotTree: destination', pathArgument, destination))
  const { readonly, ...callWith } = check('snapshotTree', snapshotOptions, options)
  await volume.track(takeTree(volume, from, to, readonly, callWith))
}

async function takeTree(volume: Volume, from: string, to: string, readonly: boolean, options: CallOptions) {
  const { signal, timeoutMs } = options
  const startMs = performance.now()
  const goOn = () => {
    signal?.throwIfAborted()
    const fail = (code: string, errno: number, text: string) =>
      new BtrfsError('snapshotTree', { code, errno, text, path: from, dest: to })
    if (volume.closing.aborted) throw fail('EBADF', -9, 'the filesystem was closed')
    if (timeoutMs !== undefined && performance.now() - startMs >= timeoutMs)
      throw fail('ETIMEDOUT', -110, `not done within ${timeoutMs} ms`)
  }
  const own = await volume.share('snapshotTree')
  const made: string[] = []
  try {
    for (const { path, inner } of await tree(own, from, options)) {
      goOn()
      const place = join(to, inner)
      // An empty directory stands where the inner one was.
      if (inner !== '') await rmdir(place)
      // Without signal and timeout: an answer that nobody waits for does not say what has to be deleted again.
      await snapshot(own, path, place)
      made.unshift(place)
    }
    goOn()
    if (readonly) for (const path of made) await setReadonly(own, path, true)
  } catch (error) {
    for (const path of made) {
      if (readonly) await setReadonly(own, path, false).catch(() => {})
      await deleteSubvolume(own, path).catch(() => {})
    }
    throw error
  } finally {
    await own.close()
  }
}

export interface DeleteManyOptions extends ResumeOptions {
  /** Those inside too, first. Default false: then they make it fail (ENOTEMPTY). */
  readonly recursive?: boolean | undefined
  /** At most so many a second, so that others are not held up. Default: as fast as it goes. */
  readonly perSecond?: number | undefined
  /** Done only when the kernel's cleaner is, and the counters show it (CAP_SYS_ADMIN). Default true. */
  readonly waitUntilFreed?: boolean | undefined
}
export interface DeleteProgress {
  /** With those that could not be found. */
  readonly planned: number
  readonly deleted: number
  /** Of those, done with by the cleaner. */
  readonly freed: number
  /** What was left alone, or not found, and why; the others went on. */
  readonly failures: readonly { readonly path: string; readonly error: Error }[]
}
/** Not the top of the volume: with what is inside that would be all. */
const deletable = v.pipe(subvolumeId, v.minValue(256))
const deleteManyOptions = v.strictObject({
  ...resumeOptions.entries,
  recursive: v.optional(v.boolean(), false),
  perSecond: v.optional(v.pipe(v.number(), v.minValue(0.001))),
  waitUntilFreed: v.optional(v.boolean(), true),
})

/**
 * Deletes subvolumes one after the other, each by its id, and waits until the cleaner has freed them all.
 * BTRFS_IOC_SNAP_DESTROY_V2 · CAP_SYS_ADMIN, or without `waitUntilFreed` the mount option user_subvol_rm_allowed ·
 * seconds to hours. cancel(), an aborted signal and close() stop it before the next one; what was deleted stays so.
 * @param which their paths, absolute or relative to the filesystem's; or their ids, wherever they are, also outside of
 *   what is mounted (CAP_SYS_ADMIN, Linux 5.7): `failures` then name them `subvolume 257`
 * @returns an operation; its `result` has what could not be found or deleted in `failures`, and rejects with BtrfsError
 * ECANCELED with the same in `progress`, or EPERM (it may not wait: nothing was deleted)
 * @throws BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT
 * @example
 * const gone = fs.deleteSubvolumes(['snapshots/1', 'snapshots/2'], { recursive: true, perSecond: 10 })
 * for await (const { deleted, planned } of gone) console.log(`${deleted} of ${planned}`)
 */
export function deleteSubvolumes(
  volume: Volume,
  which: readonly (string | number)[],
  options: DeleteManyOptions = {},
): Operation<DeleteProgress, DeleteProgress> {
  const targets = check(
    'deleteSubvolumes: which',
    v.array(v.union([deletable, pathArgument], 'a path, or an id of 256 or more')),
    which,
  )
  const { signal, intervalMs, ...how } = check('deleteSubvolumes', deleteManyOptions, options)
  const failures: { path: string; error: Error }[] = []
  const waiting = new Set<number>()
  let planned = 0
  let deleted = 0
  const now = (): DeleteProgress => ({ planned, deleted, freed: deleted - waiting.size, failures: [...failures] })
  const stopHere = (stop: AbortSignal) => {
    if (!stop.aborted) return
    throw cancelled('deleteSubvolumes', volume.path, now())
  }
  const work = async (own: Volume, stop: AbortSignal) => {
    const all = new Map<number, Target>()
    // By id they are found in the root tree, as it was committed.
    if (targets.some((target) => typeof target === 'number'))
      await own.call('deleteSubvolumes', {}, {}, (t) => native.sync(t, own.handle))
    for (const target of targets) {
      const byId = typeof target === 'number'
      const path = byId ? `subvolume ${target}` : own.resolve(target)
      try {
        const found = await (byId ? treeOf(own, target, how.recursive) : tree(own, path, {}, how.recursive))
        for (const member of found.reverse()) all.set(member.id, { ...member, byId })
      } catch (error) {
        failures.push({ path, error: error as Error })
      }
      stopHere(stop)
    }
    planned = all.size + failures.length
    // Whether it may wait is known before anything is gone.
    if (how.waitUntilFreed) await own.call('deleteSubvolumes', {}, {}, (t) => native.deletedSubvolumes(t, own.handle))
    /** Nothing can be taken out of a read-only one: these were made writable, being about to go themselves. */
    const opened = new Set<Target>()
    const protect = ({ id, path, byId }: Target, on: boolean) =>
      byId
        ? own.call('deleteSubvolumes', { path }, {}, (t) => native.setReadonlyById(t, own.handle, id, on))
        : setReadonly(own, path, on, { force: true })
    const startMs = performance.now()
    for (const [index, member] of [...all.values()].entries()) {
      if (how.perSecond !== undefined) {
        const restMs = startMs + (1000 * index) / how.perSecond - performance.now()
        if (restMs > 0) await sleep(restMs, undefined, { signal: stop }).catch(() => {})
      }
      if (stop.aborted) break
      const parent = all.get(member.parentId ?? 0)
      try {
        if (parent?.readonly && !opened.has(parent)) {
          await protect(parent, false)
          opened.add(parent)
        }
        if (member.byId) await deleteSubvolume(own, member.id)
        else await deleteSubvolume(own, member.path, { id: member.id })
        opened.delete(member)
        deleted++
        if (how.waitUntilFreed) waiting.add(member.id)
      } catch (error) {
        failures.push({ path: member.path, error: error as Error })
      }
    }
    for (const member of opened) {
      await protect(member, true).catch((error: Error) => failures.push({ path: member.path, error }))
    }
    stopHere(stop)
    if (waiting.size > 0) await own.call('deleteSubvolumes', {}, {}, (t) => native.sync(t, own.handle))
    const freed = async () => {
      const left = await own.call('deleteSubvolumes', {}, {}, (t) => native.deletedSubvolumes(t, own.handle))
      for (const id of waiting) if (!left.includes(id)) waiting.delete(id)
      stopHere(stop)
      return waiting.size === 0
    }
    if (waiting.size > 0) await poll(freed, { signal: stop }).finally(() => stopHere(stop))
    if (how.waitUntilFreed) await own.call('deleteSubvolumes', {}, {}, (t) => native.sync(t, own.handle))
    return now()
  }
  /** On a descriptor of its own, so that close() leaves no read-only one writable. */
  const begin = async (stop: AbortSignal) => {
    const own = await volume.share('deleteSubvolumes')
    try {
      return await work(own, stop)
    } finally {
      await own.close()
    }
  }
  return new LongOperation({
    operation: 'deleteSubvolumes',
    path: volume.path,
    start: (stop) => volume.track(begin(AbortSignal.any([stop, volume.closing]))),
    progress: async () => now(),
    last: () => now(),
    signal,
    intervalMs,
  })
}
