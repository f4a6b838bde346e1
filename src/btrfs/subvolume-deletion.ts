/** Many subvolumes deleted, with what lies in them. */
import { setTimeout as sleep } from 'node:timers/promises'
import * as v from 'valibot'
import { check } from '../errors.js'
import { native } from '../native.js'
import { poll } from './call.js'
import { cancelled, LongOperation, type Operation, type ResumeOptions } from './operation.js'
import { pathArgument, resumeOptions, subvolumeId } from './options.js'
import { type Subvolume, subvolume, subvolumes } from './subvolume-list.js'
import { setReadonly, tree } from './subvolume-trees.js'
import { deleteSubvolume, mayNotWait } from './subvolumes.js'
import type { Volume } from './volume.js'

interface Target {
  readonly subvolume: Subvolume
  /** Absolute; of one that was named by its id, what it is called. */
  readonly path: string
  readonly byId: boolean
}

/** A subvolume and, where asked, those in it: parents first. */
async function targetsOf(volume: Volume, which: string | number, recursive: boolean): Promise<Target[]> {
  if (typeof which === 'string')
    return (await tree(volume, which, {}, recursive)).map((member) => ({ ...member, byId: false }))
  const target = (subvolume: Subvolume) => ({ subvolume, path: `subvolume ${subvolume.id}`, byId: true })
  const all = [target(await subvolume(volume, which))]
  if (!recursive) return all
  const within = new Set([which])
  // Parents come first.
  for await (const found of subvolumes(volume)) {
    if (found.parentId === undefined || !within.has(found.parentId)) continue
    within.add(found.id)
    all.push(target(found))
  }
  return all
}

export interface DeleteManyOptions extends ResumeOptions {
  /** Those inside too, first, unless one of them cannot be deleted. Default false: then they make it fail (ENOTEMPTY). */
  readonly recursive?: boolean | undefined
  /** At most so many a second, so that others are not held up. Default: as fast as it goes. */
  readonly perSecond?: number | undefined
  /** Done only when the kernel's cleaner is, and the counters show it (CAP_SYS_ADMIN). Default true. */
  readonly waitUntilFreed?: boolean | undefined
}
export interface DeleteProgress {
  /** With those that could not be found. Undefined until all are known. */
  readonly planned: number | undefined
  readonly deleted: number
  /** Of those, done with by the cleaner. */
  readonly freed: number
  /**
   * What was left alone, or not found, and why; the others went on. Where one of a tree is refused before anything in
   * it was deleted, only that one is named, and the tree is left whole.
   */
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
 * Deletes subvolumes one after the other, each by its id, and waits until the cleaner has freed them all. With
 * `recursive` every one of a tree is looked at before the first is deleted: where one would be refused (mounted, the
 * default subvolume, no permission, in a read-only one …) the tree is left whole. What comes up later (a mount, a
 * running send) is refused alone, with those that hold it.
 * BTRFS_IOC_SNAP_DESTROY_V2 · CAP_SYS_ADMIN, or without `waitUntilFreed` the mount option user_subvol_rm_allowed ·
 * seconds to hours. cancel(), an aborted signal and close() stop it before the next one; what was deleted stays so.
 * @param which their paths, absolute or relative to the filesystem's; or their ids, wherever they are, also outside of
 *   what is mounted (CAP_SYS_ADMIN, Linux 5.7): `failures` then name them `subvolume 257`
 * @returns an operation; its `result` has what could not be found or deleted in `failures`, and rejects with BtrfsError
 * ECANCELED with the same in `progress`, or EPERM (it may not wait: nothing was deleted)
 * @throws BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT
 * @example
 * const gone = fs.deleteSubvolumes(['snapshots/1', 'snapshots/2'], { recursive: true, perSecond: 10 })
 * for await (const { deleted, planned } of gone) console.log(`${deleted} of ${planned ?? 'so many'}`)
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
  const gone = new Set<number>()
  const waiting = new Set<number>()
  let planned: number | undefined
  const now = (): DeleteProgress => {
    return { planned, deleted: gone.size, freed: gone.size - waiting.size, failures: [...failures] }
  }
  const stopHere = (stop: AbortSignal) => {
    if (!stop.aborted) return
    throw cancelled('deleteSubvolumes', volume.path, now())
  }
  const work = async (own: Volume, stop: AbortSignal) => {
    const trees: Target[][] = []
    // By id they are found in the root tree, as it was committed.
    if (targets.some((target) => typeof target === 'number'))
      await own.call('deleteSubvolumes', {}, {}, (t) => native.sync(t, own.handle))
    for (const target of targets) {
      const path = typeof target === 'number' ? `subvolume ${target}` : own.resolve(target)
      try {
        trees.push(await targetsOf(own, typeof target === 'number' ? target : path, how.recursive))
      } catch (error) {
        failures.push({ path, error: error as Error })
      }
      stopHere(stop)
    }
    const all = new Map(trees.flat().map((member) => [member.subvolume.id, member]))
    planned = all.size + failures.length
    // Whether it may wait is known before anything is gone.
    if (how.waitUntilFreed)
      await own.call('deleteSubvolumes', mayNotWait, {}, (t) => native.deletedSubvolumes(t, own.handle))
    /** Nothing can be taken out of a read-only one: these were made writable, being about to go themselves. */
    const opened = new Set<Target>()
    const protect = ({ subvolume: { id }, path, byId }: Target, on: boolean) =>
      byId
        ? own.call('deleteSubvolumes', { path }, {}, (t) => native.setReadonlyById(t, own.handle, id, on))
        : setReadonly(own, path, on, { force: true })
    /** Deleted, or named as a failure; and those of trees that are left whole. */
    const settled = new Set<number>()
    const kept = new Set<number>()
    const opens = (id: number | undefined) => !kept.has(id ?? 0) && all.get(id ?? 0)?.subvolume.readonly === true
    /** Whether nothing is known that would keep one of them; each is looked at again as it is deleted. */
    const deletable = async (members: readonly Target[]) => {
      let sound = true
      /** They hold one where something is mounted, which is theirs too: only the innermost is named. */
      const holders = new Set<number>()
      for (const { subvolume, path, byId } of members) {
        const { id, parentId = 0, directoryInode = 0 } = subvolume
        const place = subvolume.pathBytes ?? subvolume.path
        try {
          await own.call('deleteSubvolumes', { path }, {}, (t) =>
            native.deletable(
              t,
              own.handle,
              byId ? '' : path,
              place,
              id,
              parentId,
              directoryInode,
              opens(id),
              opens(parentId),
            ),
          )
        } catch (error) {
          sound = false
          const busy = (error as { code?: string }).code === 'EBUSY'
          if (busy) holders.add(parentId)
          if (busy && holders.has(id)) continue
          if (!settled.has(id)) failures.push({ path, error: error as Error })
          settled.add(id)
        }
        if (stop.aborted) return false
      }
      return sound
    }
    const startMs = performance.now()
    let turn = 0
    for (const members of trees) {
      const left = members.filter(({ subvolume }) => !settled.has(subvolume.id)).reverse()
      const remaining = members.filter(({ subvolume }) => !gone.has(subvolume.id)).reverse()
      if (members.length > 1 && !(await deletable(remaining))) {
        for (const { subvolume } of left) kept.add(subvolume.id)
        continue
      }
      for (const member of left) {
        const { id, parentId } = member.subvolume
        if (how.perSecond !== undefined) {
          const restMs = startMs + (1000 * turn++) / how.perSecond - performance.now()
          if (restMs > 0) await sleep(restMs, undefined, { signal: stop }).catch(() => {})
        }
        if (stop.aborted) break
        settled.add(id)
        const parent = all.get(parentId ?? 0)
        try {
          if (parent !== undefined && opens(parentId) && !opened.has(parent)) {
            await protect(parent, false)
            opened.add(parent)
          }
          if (member.byId) await deleteSubvolume(own, id)
          else await deleteSubvolume(own, member.path, { id })
          opened.delete(member)
          gone.add(id)
          if (how.waitUntilFreed) waiting.add(id)
        } catch (error) {
          failures.push({ path: member.path, error: error as Error })
        }
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
