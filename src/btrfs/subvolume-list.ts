/** Which subvolumes there are. */
import { inspect } from 'node:util'
import { check } from '../errors.js'
import { type NativeSubvolumes, native } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions, listOptions, pathArgument, subvolumeId } from './options.js'
import { Rows } from './rows.js'

import type { Volume } from './volume.js'

export interface Subvolume {
  readonly id: number
  /**
   * From the top of the volume (id 5), without a leading slash; '' for the top itself. Other calls take `absolutePath`,
   * or `id` where they say so.
   */
  readonly path: string
  /** Only where the path is not UTF-8, so that `path` has U+FFFD in it: the bytes that the kernel has. */
  readonly pathBytes?: Uint8Array | undefined
  /**
   * By the mount that the filesystem was opened through. Undefined where it does not show it, and where the path is not
   * UTF-8. Another mount may cover it.
   */
  readonly absolutePath: string | undefined
  /** The subvolume that it lies in, and the inode of the directory there. Undefined for the top of the volume. */
  readonly parentId: number | undefined
  readonly directoryInode: number | undefined
  readonly uuid: string | undefined
  readonly parentUuid: string | undefined
  readonly receivedUuid: string | undefined
  /** The transaction that last wrote it, that made it, and that last changed something in it. */
  readonly generation: number
  readonly originGeneration: number
  readonly changedGeneration: number
  readonly readonly: boolean
  /** These and the times below are getters: a spread leaves them out, JSON has them. */
  readonly createdAt: Date
  readonly changedAt: Date
  /**
   * Of a subvolume that was received: the generation that it had where it was sent, when it was sent (btrfs receive
   * leaves that out), and when it came.
   */
  readonly sentGeneration: number | undefined
  readonly receivedGeneration: number | undefined
  readonly sentAt: Date | undefined
  readonly receivedAt: Date | undefined
}

export interface SubvolumeListOptions extends CallOptions {
  /** Only those beneath this directory, at any depth and not itself; default: all that the caller may see. */
  readonly below?: string
}

/**
 * Lists subvolumes and snapshots, top-down; the top of the volume (id 5) is not among them. One hop for the whole list.
 * Tree search of the root tree, whose generations and times are of the last commit · CAP_SYS_ADMIN for the whole volume. Without it: those beneath the subvolume that is
 * open (or that holds `below`) in directories that the caller may search.
 * @param options.below a directory: only subvolumes beneath it, at any depth and not itself. Absolute, or relative to
 *   the filesystem's path.
 * @throws BtrfsError ENOENT, ENOTDIR, EPERM; BtrmindError BTRMIND_ERR_WRONG_VOLUME
 * @example
 * for await (const { id, path } of fs.subvolumes()) console.log(id, path)
 */
export function subvolumes(
  volume: Volume,
  options: SubvolumeListOptions = {},
): AsyncIterableIterator<Subvolume, undefined, void> {
  let asked = false
  return new Rows(async () => {
    if (asked) return undefined
    asked = true
    const { below, ...callWith } = check('subvolumes', listOptions, options)
    const directory = below === undefined ? '' : volume.resolve(below)
    const context = below === undefined ? {} : { path: directory }
    const rows = await volume.call('subvolumes', context, callWith, (ticket) =>
      native.subvolumes(ticket, volume.handle, directory),
    )
    return unpack(rows)
  })
}

/**
 * The subvolume that holds a file or directory, or has an id. BTRFS_IOC_GET_SUBVOL_INFO · no privilege; by id tree
 * search, CAP_SYS_ADMIN · quick.
 * @param path absolute, or relative to the filesystem's path; default: the filesystem's path itself. Or an id.
 * @throws BtrfsError ENOENT, EACCES, EPERM; BtrmindError BTRMIND_ERR_WRONG_VOLUME
 * @example
 * const { uuid, readonly } = await fs.subvolume('projects')
 * const { path } = await fs.subvolume(257)
 */
export async function subvolume(
  volume: Volume,
  path: string | number = '.',
  options: CallOptions = {},
): Promise<Subvolume> {
  if (typeof path === 'number') {
    const id = check('subvolume: id', subvolumeId, path)
    const context = { path: `subvolume ${id}` }
    const rows = await volume.call('subvolume', context, check('subvolume', callOptions, options), (ticket) =>
      native.subvolumeById(ticket, volume.handle, id),
    )
    return unpack(rows).next().value as Subvolume
  }
  const target = check('subvolume: path', pathArgument, path)
  return holderOf('subvolume', volume, target, check('subvolume', callOptions, options))
}

/** The subvolume that holds a file or directory, for any call. Internal. */
export async function holderOf(
  operation: string,
  volume: Volume,
  path: string,
  options: CallOptions,
): Promise<Subvolume> {
  const target = volume.resolve(path)
  const rows = await volume.call(operation, { path: target }, options, (ticket) =>
    native.subvolume(ticket, volume.handle, target),
  )
  return unpack(rows).next().value as Subvolume
}

const NUMBERS = 13
const NO_UUID = '00000000-0000-0000-0000-000000000000'
/** Rows whose text is decoded at once: quicker than one at a time, and a row that is kept holds on to no more. */
const PAGE = 128

/** Not a generator: 10,000 rows would take a tenth longer. */
function unpack(raw: NativeSubvolumes): Iterator<Subvolume, undefined> {
  const { numbers, uuids, paths, pathEnds } = raw
  const where = shownAt(Buffer.from(raw.mountRoot).toString(), Buffer.from(raw.mountPoint).toString())
  const ids = Buffer.from(uuids.buffer, uuids.byteOffset, uuids.length)
  const bytes = Buffer.from(paths.buffer, paths.byteOffset, paths.length)
  const endOf = (row: number) => (row === 0 ? 0 : pathEnds[row - 1]!)
  let row = 0
  let page = { first: 0, ids: '', start: 0, paths: '', isAscii: true, isUtf8: true }
  const turn = () => {
    const last = Math.min(row + PAGE, pathEnds.length)
    const start = endOf(row)
    const text = bytes.toString('utf8', start, endOf(last))
    const isAscii = text.length === endOf(last) - start
    const isUtf8 = !text.includes('\uFFFD')
    page = { first: row, ids: ids.toString('latin1', row * 108, last * 108), start, paths: text, isAscii, isUtf8 }
  }
  const next = (): IteratorResult<Subvolume, undefined> => {
    if (row === pathEnds.length) return { done: true, value: undefined }
    if (row % PAGE === 0) turn()
    const [from, to] = [endOf(row), endOf(row + 1)]
    const path = page.isAscii ? page.paths.slice(from - page.start, to - page.start) : bytes.toString('utf8', from, to)
    const isWhole = page.isUtf8 || !path.includes('\uFFFD')
    const absolutePath = isWhole ? where(path) : undefined
    const value: Subvolume = new Row(numbers, row * NUMBERS, page.ids, (row - page.first) * 108, path, absolutePath)
    if (!isWhole) Object.assign(value, { pathBytes: Uint8Array.from(bytes.subarray(from, to)) })
    row++
    return { done: false, value }
  }
  return { next }
}

/** Absolute paths of what a mount shows: of `root`, from the top of the volume, at `point`. */
function shownAt(root: string, point: string): (path: string) => string | undefined {
  const prefix = point === '/' ? point : `${point}/`
  if (root === '/') return (path) => (path === '' ? point : prefix + path)
  const within = `${root.slice(1)}/`
  return (path) => {
    if (`${path}/` === within) return point
    return path.startsWith(within) ? prefix + path.slice(within.length) : undefined
  }
}

function uuid(ids: string, at: number): string | undefined {
  const text = ids.slice(at, at + 36)
  return text === NO_UUID ? undefined : text
}

/** Its times become Dates when they are asked for: 20,000 of them would take as long as the rest of the list. */
class Row implements Subvolume {
  readonly id: number
  readonly path: string
  declare readonly pathBytes?: Uint8Array
  readonly absolutePath: string | undefined
  readonly parentId: number | undefined
  readonly directoryInode: number | undefined
  readonly uuid: string | undefined
  readonly parentUuid: string | undefined
  readonly receivedUuid: string | undefined
  readonly generation: number
  readonly originGeneration: number
  readonly changedGeneration: number
  readonly readonly: boolean
  readonly sentGeneration: number | undefined
  readonly receivedGeneration: number | undefined
  readonly #createdMs: number
  readonly #changedMs: number
  readonly #sentMs: number
  readonly #receivedMs: number

  constructor(
    numbers: Float64Array,
    at: number,
    ids: string,
    idAt: number,
    path: string,
    absolutePath: string | undefined,
  ) {
    this.id = numbers[at]!
    this.path = path
    this.absolutePath = absolutePath
    this.parentId = numbers[at + 1] || undefined
    this.directoryInode = numbers[at + 2] || undefined
    this.uuid = uuid(ids, idAt)
    this.parentUuid = uuid(ids, idAt + 36)
    this.receivedUuid = uuid(ids, idAt + 72)
    this.generation = numbers[at + 3]!
    this.originGeneration = numbers[at + 4]!
    this.changedGeneration = numbers[at + 5]!
    this.readonly = numbers[at + 8] === 1
    this.sentGeneration = numbers[at + 6] || undefined
    this.receivedGeneration = numbers[at + 7] || undefined
    this.#createdMs = numbers[at + 9]!
    this.#changedMs = numbers[at + 10]!
    this.#sentMs = numbers[at + 11]!
    this.#receivedMs = numbers[at + 12]!
  }

  get createdAt() {
    return new Date(this.#createdMs)
  }
  get changedAt() {
    return new Date(this.#changedMs)
  }
  get sentAt() {
    return this.#sentMs ? new Date(this.#sentMs) : undefined
  }
  get receivedAt() {
    return this.#receivedMs ? new Date(this.#receivedMs) : undefined
  }
  toJSON() {
    const { createdAt, changedAt, sentAt, receivedAt } = this
    return { ...this, createdAt, changedAt, sentAt, receivedAt }
  }
  /** console.log() would see none of the getters. */
  [inspect.custom]() {
    return this.toJSON()
  }
}
