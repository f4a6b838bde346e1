/** Action 4: deletes the oldest read-only snapshot that lies directly in a named directory, never below the floor. */
import { basename, join } from 'node:path'
import type { Directory } from '../btrfs/directory.js'
import type { Subvolume } from '../btrfs/subvolume-list.js'
import { BtrfsError, BtrmindError } from '../errors.js'
import { formatBytes } from '../units.js'
import { type Actor, type ActorContext, count, type Draft, formatAge } from './actor.js'
import type { Run } from './plan.js'

interface Found {
  readonly root: Directory
  /** Oldest first. */
  readonly snapshots: readonly Snapshot[]
}

interface Snapshot {
  /** Absolute. */
  readonly path: string
  readonly root: Directory
  readonly id: number
  readonly uuid: string | undefined
  readonly createdMs: number
}

/** Of past deletions so many make the estimate of the next. */
const REMEMBERED = 16

const GONE = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'EACCES'])

export class SnapshotsActor implements Actor {
  readonly #context: ActorContext
  #found: Found[] | undefined
  /** Subvolume id → where it was found; spares a look at each one each time. */
  #known = new Map<number, string>()
  readonly #freed: number[]

  /** @param freedBefore raw bytes that past deletions freed, oldest first */
  constructor(context: ActorContext, freedBefore: readonly number[]) {
    this.#context = context
    this.#freed = freedBefore.slice(-REMEMBERED).map((bytes) => Math.max(0, bytes))
  }

  facts() {
    if (this.#found === undefined) return undefined
    const all = this.#found.reduce((sum, { snapshots }) => sum + snapshots.length, 0)
    const floor = this.#context.options.keepSnapshots
    const nothing = `${count(all, 'read-only snapshot')} in ${count(this.#found.length, 'directory').replace('directorys', 'directories')}; ${floor} stay in each`
    return { items: this.#deletable().length, nothing }
  }

  async refresh(signal: AbortSignal | undefined): Promise<string[]> {
    const { filesystem, roots } = this.#context
    if (roots.snapshots.length === 0) {
      this.#found = []
      return []
    }
    const all: Subvolume[] = []
    for await (const subvolume of filesystem.subvolumes({ signal })) if (isSnapshot(subvolume)) all.push(subvolume)
    const known = new Map<number, string>()
    const found: Found[] = []
    for (const root of roots.snapshots) {
      const snapshots: Snapshot[] = []
      for (const subvolume of all) {
        if (subvolume.parentId !== root.subvolumeId) continue
        const path = join(root.path, basename(subvolume.path))
        if (this.#known.get(subvolume.id) !== path && !(await this.#isAt(path, subvolume.id))) continue
        known.set(subvolume.id, path)
        const { id, uuid, createdAt } = subvolume
        snapshots.push({ path, root, id, uuid, createdMs: createdAt.getTime() })
      }
      snapshots.sort((a, b) => a.createdMs - b.createdMs || a.id - b.id)
      found.push({ root, snapshots })
    }
    this.#known = known
    this.#found = found
    return []
  }

  next(): readonly string[] {
    return this.#deletable()
      .slice(0, 1)
      .map(({ path }) => path)
  }

  plan(): Draft {
    const oldest = this.#deletable()[0]
    const known = this.#freed.length > 0
    const predictedBytes = known
      ? Math.round(this.#freed.reduce((sum, b) => sum + b, 0) / this.#freed.length)
      : undefined
    const expected = known
      ? `expected to free ${formatBytes(predictedBytes!)}, as the last ${this.#freed.length} did on average`
      : 'what it frees is not known before the first one is gone'
    const age = formatAge(oldest === undefined ? 0 : this.#context.clock.wallMs() - oldest.createdMs)
    return {
      items: oldest === undefined ? 0 : 1,
      predictedBytes,
      explanation: `the oldest snapshot, ${age} old; ${expected}`,
      touches: oldest === undefined ? [] : [oldest.path],
      perform: async (run) => {
        if (oldest !== undefined) await this.#delete(oldest, run)
      },
    }
  }

  async close(): Promise<void> {}

  /** What a deletion freed, for the next prediction. */
  learn(freedBytes: number): void {
    this.#freed.push(Math.max(0, freedBytes))
    if (this.#freed.length > REMEMBERED) this.#freed.shift()
  }

  /** Above the floor of its directory; oldest first. */
  #deletable(): Snapshot[] {
    const floor = this.#context.options.keepSnapshots
    return (this.#found ?? [])
      .flatMap(({ snapshots }) => snapshots.slice(0, Math.max(0, snapshots.length - floor)))
      .sort((a, b) => a.createdMs - b.createdMs || a.id - b.id)
  }

  /** Is this the subvolume's top directory, and not just any directory of that name? */
  async #isAt(path: string, id: number): Promise<boolean> {
    try {
      const at = await this.#context.filesystem.directory(path)
      return at.path === path && at.subvolumeTop && at.subvolumeId === id
    } catch (error) {
      // Anything else does not say that it is gone.
      if (error instanceof BtrfsError && GONE.has(error.code)) return false
      throw error
    }
  }

  async #delete(snapshot: Snapshot, run: Run): Promise<void> {
    const { filesystem, options } = this.#context
    const siblings = this.#found?.find(({ snapshots }) => snapshots.includes(snapshot))?.snapshots ?? []
    this.#found = this.#found?.map(({ root, snapshots }) => ({
      root,
      snapshots: snapshots.filter(({ id }) => id !== snapshot.id),
    }))
    this.#known.delete(snapshot.id)
    await run.intend([snapshot.path])
    // Seen up to a look ago: is it still the same, and is the floor still there?
    const now = await filesystem.subvolume(snapshot.path, { signal: run.signal })
    const same = now.id === snapshot.id && now.uuid === snapshot.uuid && isSnapshot(now)
    if (!same || !(await this.#isAt(snapshot.path, snapshot.id))) return run.failed(snapshot.path, 'CHANGED')
    let left = 0
    for (const sibling of siblings) {
      if (sibling.id !== snapshot.id && (await this.#isAt(sibling.path, sibling.id))) left++
      if (left === options.keepSnapshots) break
    }
    if (left < options.keepSnapshots) {
      throw new BtrmindError('BTRMIND_ERR_GUARD', `only ${left} other snapshots are left beside '${snapshot.path}'`)
    }
    run.acting()
    try {
      const { id, root: parent } = snapshot
      const timeoutMs = Math.max(1, run.leftMs)
      const how = { id, parent, waitUntilFreed: true, signal: run.signal, timeoutMs }
      await filesystem.deleteSubvolume(snapshot.path, how)
    } catch (error) {
      // A file that somebody holds open keeps the space: the loop has other things to watch meanwhile.
      const late = error instanceof BtrfsError && error.code === 'ETIMEDOUT'
      if (!late || (await this.#isAt(snapshot.path, snapshot.id))) throw error
      run.note('it is deleted, but its space is not free yet')
    }
    run.done()
  }
}

function isSnapshot({ readonly, parentUuid }: Subvolume): boolean {
  return readonly && parentUuid !== undefined
}
