/** Subvolumes with what lies in them. */
import { rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { BtrfsError, BtrmindError, check, quote } from '../errors.js'
import { native } from '../native.js'
import type { CallContext, CallOptions } from './call.js'
import { callOptions, pathArgument, snapshotOptions } from './options.js'
import { type Subvolume, subvolume, subvolumes } from './subvolume-list.js'
import { NO_GROUPS, type SnapshotOptions, snapshotHints } from './subvolumes.js'
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

export interface Member {
  readonly subvolume: Subvolume
  /** Absolute; and from the tree's top. */
  readonly path: string
  readonly inner: string
  /** Only where `inner` is not UTF-8. */
  readonly innerBytes?: Uint8Array | undefined
}

/** A subvolume and, unless it is asked for alone, those in it: parents first. */
export async function tree(volume: Volume, path: string, options: CallOptions, recursive = true): Promise<Member[]> {
  const top = await subvolume(volume, path, options)
  const all: Member[] = [{ subvolume: top, path, inner: '' }]
  if (!recursive) return all
  for await (const found of subvolumes(volume, { ...options, below: path })) {
    const inner = found.path.slice(top.path === '' ? 0 : top.path.length + 1)
    const above = (top.pathBytes ?? Buffer.from(top.path)).length
    const innerBytes = found.pathBytes?.subarray(above === 0 ? 0 : above + 1)
    all.push({ subvolume: found, path: join(path, inner), inner, innerBytes })
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
  const made: Place[] = []
  // Without signal and timeout: an answer that nobody waits for does not say what has to be deleted again.
  const call = <T>(context: CallContext, start: (ticket: number) => Promise<T>) =>
    own.call('snapshotTree', context, {}, start)
  const mark = ({ text, bytes }: Place, on: boolean) =>
    call({ path: text }, (ticket) => native.setReadonly(ticket, own.handle, bytes, on))
  try {
    for (const member of await tree(own, from, options)) {
      goOn()
      const place = placeIn(to, member)
      const context = { path: member.path, dest: place.text }
      // An empty directory stands where the inner one was.
      if (member.inner !== '') await removeStub(place)
      // By its id: something else may be mounted there.
      await call({ ...context, hints: snapshotHints }, (ticket) =>
        native.snapshot(ticket, own.handle, member.path, place.bytes, false, NO_GROUPS, member.subvolume.id),
      )
      made.unshift(place)
    }
    goOn()
    if (readonly) for (const place of made) await mark(place, true)
  } catch (error) {
    for (const place of made) {
      if (readonly) await mark(place, false).catch(() => {})
      await call({}, (ticket) => native.deleteSubvolume(ticket, own.handle, place.bytes, false)).catch(() => {})
    }
    throw error
  } finally {
    await own.close()
  }
}

/** Absolute: for messages, and for the kernel. */
interface Place {
  readonly text: string
  readonly bytes: Uint8Array
}

function placeIn(to: string, { inner, innerBytes }: Member): Place {
  const text = join(to, inner)
  return {
    text,
    bytes: innerBytes === undefined ? Buffer.from(text) : Buffer.concat([Buffer.from(`${to}/`), innerBytes]),
  }
}

async function removeStub({ text, bytes }: Place): Promise<void> {
  try {
    await rmdir(Buffer.from(bytes))
  } catch (error) {
    const { code = 'EIO', errno = -5 } = error as NodeJS.ErrnoException
    const hint = 'a directory without content stands for each subvolume in a snapshot: it is taken away before its own'
    throw new BtrfsError('snapshotTree', {
      code,
      errno,
      text: 'could not remove the directory in its place',
      path: text,
      hint,
    })
  }
}
