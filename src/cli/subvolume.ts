import { constants } from 'node:os'
import { resolve } from 'node:path'
import { type KernelFilesystem, openFilesystem } from '../btrfs/filesystem.js'
import type { DeleteProgress } from '../btrfs/subvolume-deletion.js'
import { type BtrfsError, BtrmindError } from '../errors.js'
import { followUntilStopped } from './follow.js'
import { type Io, paint, printJson } from './output.js'
import { failed, openAbove } from './place.js'
import { inCommands } from './words.js'

interface Json {
  readonly json?: boolean
}

export async function create(io: Io, path: string, options: Json & { inherit?: string[] }): Promise<void> {
  const target = resolve(path)
  await using fs = await openAbove(io, target)
  await fs.createSubvolume(target, { inherit: options.inherit, signal: io.signal })
  await tell(io, fs, target, options)
}

export async function snapshot(
  io: Io,
  source: string,
  destination: string,
  options: Json & { readOnly?: boolean; recursive?: boolean; inherit?: string[] },
): Promise<void> {
  const [from, to] = [resolve(source), resolve(destination)]
  const { readOnly: readonly = false, recursive, inherit, json } = options
  if (recursive && inherit !== undefined)
    throw new BtrmindError('BTRMIND_ERR_OPTION', '--inherit is for one snapshot, not with --recursive')
  await using fs = await openFilesystem(from, { signal: io.signal })
  if (recursive) await fs.snapshotTree(from, to, { readonly, signal: io.signal })
  else await fs.snapshot(from, to, { readonly, inherit, signal: io.signal })
  await tell(io, fs, to, { json })
}

/** What was made. */
async function tell(io: Io, fs: KernelFilesystem, path: string, { json }: Json): Promise<void> {
  const made = await fs.subvolume(path, { signal: io.signal })
  if (json) printJson(io, made)
  else io.stdout.write(`subvolume ${made.id}: ${made.path}\n`)
}

/** @returns whether all are gone */
export async function remove(
  io: Io,
  paths: readonly string[],
  options: Json & { id?: number; recursive?: boolean; perSecond?: number; wait: boolean },
): Promise<boolean> {
  const { id, recursive, perSecond, wait, json } = options
  if (id !== undefined) {
    if (paths.length > 1 || recursive || perSecond !== undefined)
      throw new BtrmindError('BTRMIND_ERR_OPTION', '--id is for one subvolume: one path, no --recursive, --per-second')
    await using fs = await openFilesystem(resolve(paths[0]!), { signal: io.signal })
    await fs.deleteSubvolume(id, { waitUntilFreed: wait, signal: io.signal })
    if (json) printJson(io, { planned: 1, deleted: 1, freed: wait ? 1 : 0, failures: [] })
    else io.stdout.write('1 of 1 deleted\n')
    return true
  }
  const targets = paths.map((path) => resolve(path))
  await using fs = await openAny(io, targets)
  const deletion = fs.deleteSubvolumes(targets, { recursive, perSecond, waitUntilFreed: wait, signal: io.signal })
  const line = ({ deleted, planned, freed }: DeleteProgress) =>
    planned === undefined ? 'looking at what is there' : `${deleted} of ${planned} deleted, ${freed} freed`
  const { last: done } = await followUntilStopped(io, deletion, line, 'deleted', { json })
  const { failures, ...counts } = done
  const { planned } = counts
  if (json) {
    const told = failures.map(({ path, error }) => {
      const { code, message, hint } = error as BtrfsError
      return { path, error: { code, message: inCommands(message), hint: hint && inCommands(hint) } }
    })
    printJson(io, { ...counts, failures: told })
  } else {
    for (const { path, error } of failures) {
      const inside = (error as BtrfsError).code === 'ENOTEMPTY' ? '; or use --recursive' : ''
      io.stderr.write(`${paint({ ...io, stdout: io.stderr }, 'red', path)}: ${inCommands(error.message)}${inside}\n`)
    }
    const stopped = io.signal.aborted && planned !== undefined ? `; stopped, ${planned - counts.deleted} left` : ''
    io.stdout.write(
      planned === undefined ? 'stopped before the first\n' : `${counts.deleted} of ${planned} deleted${stopped}\n`,
    )
  }
  return failures.length === 0
}

/** One whose directory is not there must not keep the others. */
async function openAny(io: Io, [target, ...others]: readonly string[]): Promise<KernelFilesystem> {
  try {
    return await openAbove(io, target!)
  } catch (error) {
    const next = others.length === 0 ? undefined : await openAny(io, others).catch(() => undefined)
    if (next !== undefined) return next
    if ((error as BtrfsError).code !== 'ENOTTY') throw error
    return await openMounted(io, target!, error)
  }
}

/** Where no btrfs is above it, a volume may be mounted there: what deletes says so then. */
async function openMounted(io: Io, target: string, otherwise: unknown): Promise<KernelFilesystem> {
  const fs = await openFilesystem(target, { signal: io.signal }).catch(() => {
    throw otherwise
  })
  const { id } = await fs.subvolume(target, { signal: io.signal })
  if (id !== TOP) return fs
  await fs.close()
  const busy = { code: 'EBUSY', errno: -constants.errno.EBUSY }
  throw failed('deleteSubvolumes', busy, target, 'it is the top of a volume, which cannot be deleted')
}
const TOP = 5

export async function show(io: Io, path: string, { json }: Json): Promise<void> {
  const target = resolve(path)
  await using fs = await openFilesystem(target, { signal: io.signal })
  const known = await fs.subvolume(target, { signal: io.signal })
  if (json) return printJson(io, known)
  for (const [name, value] of Object.entries(known)) {
    if (value === undefined) continue
    const words = name.replace(/([A-Z])/g, (letter) => ` ${letter.toLowerCase()}`)
    io.stdout.write(`${words.padEnd(20)}${value instanceof Date ? value.toISOString() : value}\n`)
  }
}

export async function readonly(
  io: Io,
  path: string,
  state: boolean | undefined,
  { json, force }: Json & { force?: boolean },
): Promise<void> {
  const target = resolve(path)
  await using fs = await openFilesystem(target, { signal: io.signal })
  if (state !== undefined) await fs.setReadonly(target, state, { force, signal: io.signal })
  if (state !== undefined && !json) return
  const known = await fs.subvolume(target, { signal: io.signal })
  if (json) printJson(io, { readonly: known.readonly })
  else io.stdout.write(`${known.readonly ? 'on' : 'off'}\n`)
}

/** The default one. */
export async function standard(io: Io, path: string, { json, set }: Json & { set?: boolean }): Promise<void> {
  const target = resolve(path)
  await using fs = await openFilesystem(target, { signal: io.signal })
  if (set) await fs.setDefaultSubvolume((await fs.subvolume(target, { signal: io.signal })).id, { signal: io.signal })
  if (set && !json) return
  const known = await fs.subvolume(await fs.defaultSubvolume({ signal: io.signal }), { signal: io.signal })
  if (json) printJson(io, { id: known.id, path: known.path })
  else io.stdout.write(`${known.id} ${known.path === '' ? '(the top of the volume)' : known.path}\n`)
}
