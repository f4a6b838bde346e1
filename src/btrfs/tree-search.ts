/** Any tree of a volume, item by item. */
import * as v from 'valibot'
import { check } from '../errors.js'
import { native } from '../native.js'
import { type DecodedItem, decode, typeName } from './items/types.js'
import type { Volume } from './volume.js'

const TREES = {
  root: 1,
  extent: 2,
  chunk: 3,
  dev: 4,
  fs: 5,
  csum: 7,
  quota: 8,
  uuid: 9,
  'free-space': 10,
  'block-group': 11,
  'raid-stripe': 12,
} as const
export type TreeName = keyof typeof TREES
export const TREE_NAMES = Object.keys(TREES) as TreeName[]

/** Ordered as one compound number: objectid, then type, then offset. */
export interface TreeKey {
  readonly objectid?: bigint | number | undefined
  readonly type?: number | undefined
  readonly offset?: bigint | number | undefined
}

export interface TreeSearchOptions {
  /** By name, or by id: a subvolume's, or any other; 0 is the subvolume that was opened. `fs` is the top one (5). */
  readonly tree: TreeName | number
  /** The first and the last key, both included. What they leave out is the least, the greatest. */
  readonly min?: TreeKey | undefined
  readonly max?: TreeKey | undefined
  /** Only items in leaves that were written in this generation or later: whole leaves, so older items are among them. */
  readonly sinceGeneration?: number | undefined
  readonly signal?: AbortSignal | undefined
}

export interface TreeItem {
  readonly objectid: bigint
  readonly type: number
  /** 'INODE_ITEM'; 'TYPE_42' where it is not known. */
  readonly typeName: string
  readonly offset: bigint
  /** Of the leaf that it lies in. */
  readonly generation: bigint
  /** A view of the page that it came in: copy what is to be kept for long. */
  readonly data: Uint8Array
  /**
   * Its fields; undefined for a type that has no decoder.
   * @throws BtrfsError EUCLEAN (shorter than its type has to be), ERANGE (a number past 2^53)
   */
  decode(): DecodedItem | undefined
}

const MAX = 0xffff_ffff_ffff_ffffn
const raw = v.union(
  [
    v.pipe(v.bigint(), v.minValue(0n), v.maxValue(MAX)),
    v.pipe(
      v.number(),
      v.safeInteger(),
      v.minValue(0),
      v.transform((value) => BigInt(value)),
    ),
  ],
  'an unsigned 64-bit integer (bigint, or a safe number)',
)
const key = v.strictObject({
  objectid: v.optional(raw),
  type: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(255, 'a type from 0 to 255'))),
  offset: v.optional(raw),
})
const searchOptions = v.strictObject({
  tree: v.union(
    [v.picklist(TREE_NAMES), v.pipe(v.number(), v.safeInteger(), v.minValue(0))],
    `a tree's id, or one of ${TREE_NAMES.join(', ')}`,
  ),
  min: v.optional(key, {}),
  max: v.optional(key, {}),
  sinceGeneration: v.optional(v.pipe(v.number(), v.safeInteger('a generation'), v.minValue(0)), 0),
  signal: v.optional(v.instance(AbortSignal)),
})

/**
 * Items of any tree of the volume, in the order of their keys: what the other calls are made of, for what they leave
 * out. BTRFS_IOC_TREE_SEARCH_V2 · CAP_SYS_ADMIN · a quick hop for each 64 KiB of items, and the next only when those
 * are read. A search sees what is committed, and each page anew: others may write between two. sync() first for what
 * was just done. A range bounds the three parts of a key together, so between its ends lie items of every type.
 * @param options.tree which; the search begins with the first item that is asked for
 * @returns items; breaking off needs no clean-up
 * @throws BtrfsError EPERM, ENOENT (no such tree), EBADF; the signal's reason; BtrmindError BTRMIND_ERR_ARGUMENT,
 * BTRMIND_ERR_OPTION
 * @example
 * for await (const item of fs.treeSearch({ tree: 'chunk', min: { objectid: 256 } })) {
 *   const chunk = item.decode()
 *   if (chunk?.kind === 'chunk') console.log(item.offset, chunk.lengthBytes, chunk.stripes.length)
 * }
 */
export function treeSearch(volume: Volume, options: TreeSearchOptions): AsyncIterableIterator<TreeItem> {
  return new Search(volume, check('treeSearch', searchOptions, options))
}

/** transid, objectid, offset, type, length. */
const HEADER_BYTES = 32

class Item implements TreeItem {
  constructor(
    readonly objectid: bigint,
    readonly type: number,
    readonly offset: bigint,
    readonly generation: bigint,
    readonly data: Uint8Array,
  ) {}
  get typeName(): string {
    return typeName(this.type)
  }
  decode(): DecodedItem | undefined {
    return decode(this, this.data)
  }
}

/** An async generator would do the same at several times the cost of an item. */
class Search implements AsyncIterableIterator<TreeItem> {
  readonly #volume: Volume
  readonly #options: v.InferOutput<typeof searchOptions>
  #objectid: bigint
  #type: number
  #offset: bigint
  #page: Uint8Array = new Uint8Array()
  #view = new DataView(new ArrayBuffer(0))
  #at = 0
  #done = false
  #loading: Promise<unknown> = Promise.resolve()

  constructor(volume: Volume, options: v.InferOutput<typeof searchOptions>) {
    this.#volume = volume
    this.#options = options
    const { objectid = 0n, type = 0, offset = 0n } = options.min
    this.#objectid = objectid
    this.#type = type
    this.#offset = offset
  }

  next(): Promise<IteratorResult<TreeItem>> {
    const item = this.#take()
    if (item !== undefined) return Promise.resolve({ done: false, value: item })
    // Several at once wait for one another.
    const loaded = this.#loading.then(() => this.#more())
    this.#loading = loaded.catch(() => {})
    return loaded
  }

  return(): Promise<IteratorResult<TreeItem>> {
    this.#done = true
    this.#at = this.#page.length
    return Promise.resolve({ done: true, value: undefined })
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async #more(): Promise<IteratorResult<TreeItem>> {
    const item = this.#take()
    if (item !== undefined) return { done: false, value: item }
    if (!this.#done) await this.#load()
    const first = this.#take()
    return first === undefined ? { done: true, value: undefined } : { done: false, value: first }
  }

  #take(): TreeItem | undefined {
    if (this.#at >= this.#page.length) return undefined
    const view = this.#view
    const at = this.#at
    const data = at + HEADER_BYTES
    this.#at = data + view.getUint32(at + 28, true)
    this.#objectid = view.getBigUint64(at + 8, true)
    this.#offset = view.getBigUint64(at + 16, true)
    this.#type = view.getUint32(at + 24, true)
    const generation = view.getBigUint64(at, true)
    const item = new Item(this.#objectid, this.#type, this.#offset, generation, this.#page.subarray(data, this.#at))
    if (this.#at >= this.#page.length) this.#advance()
    return item
  }

  /** To the key after the last one, with carry. */
  #advance(): void {
    if (this.#offset < MAX) this.#offset++
    else if (this.#type < 255) [this.#type, this.#offset] = [this.#type + 1, 0n]
    else if (this.#objectid < MAX) [this.#objectid, this.#type, this.#offset] = [this.#objectid + 1n, 0, 0n]
    else this.#done = true
  }

  async #load(): Promise<void> {
    const { tree, max, sinceGeneration, signal } = this.#options
    const { objectid = MAX, type = 255, offset = MAX } = max
    const id = BigInt(typeof tree === 'number' ? tree : TREES[tree])
    const keys = [this.#objectid, this.#type, this.#offset, objectid, type, offset] as const
    const hints = { ENOENT: `there is no tree ${typeof tree === 'number' ? tree : `'${tree}'`}` }
    try {
      const { bytes } = await this.#volume.call('treeSearch', { hints }, { signal }, (ticket) =>
        native.treeSearch(ticket, this.#volume.handle, id, ...keys, BigInt(sinceGeneration)),
      )
      if (this.#done) return
      this.#page = bytes
      this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      this.#at = 0
      if (bytes.length === 0) this.#done = true
    } catch (error) {
      this.#done = true
      throw error
    }
  }
}
