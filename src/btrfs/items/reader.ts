/** Fields of an item one after the other, little-endian. What is past its end is an error, never 0. */
import { BtrfsError, quote } from '../../errors.js'

/** A key that an item names: of an inode, a root. */
export interface ItemKey {
  readonly objectid: bigint
  readonly type: number
  readonly offset: bigint
}

export class Reader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #what: string
  at = 0

  /** @param what the item's type, for errors */
  constructor(bytes: Uint8Array, what: string) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#what = what
  }

  get left(): number {
    return this.#bytes.length - this.at
  }

  get more(): boolean {
    return this.left > 0
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1))
  }
  u16(): number {
    return this.#view.getUint16(this.#take(2), true)
  }
  u32(): number {
    return this.#view.getUint32(this.#take(4), true)
  }
  raw64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true)
  }
  /** Exact, or an error. */
  u64(): number {
    return this.exact(this.raw64())
  }
  /** Of the key: as a number. */
  exact(value: bigint): number {
    if (value <= Number.MAX_SAFE_INTEGER) return Number(value)
    throw this.#failure('ERANGE', -34, `a field past 2^53 in ${this.#what}: ${quote(value)}`)
  }
  /** Undefined past 2^53: no limit, or below zero. */
  maybe64(): number | undefined {
    const value = this.raw64()
    return value <= Number.MAX_SAFE_INTEGER ? Number(value) : undefined
  }
  timeMs(): number {
    const at = this.#take(12)
    return Number(this.#view.getBigInt64(at, true)) * 1e3 + this.#view.getUint32(at + 8, true) / 1e6
  }
  key(): ItemKey {
    return { objectid: this.raw64(), type: this.u8(), offset: this.raw64() }
  }
  /** Undefined: all zeros. */
  uuid(): string | undefined {
    const hex = Buffer.from(this.bytes(16)).toString('hex')
    if (/^0+$/.test(hex)) return undefined
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
  }
  /** A view, not a copy. */
  bytes(length: number): Uint8Array {
    const at = this.#take(length)
    return this.#bytes.subarray(at, at + length)
  }
  skip(length: number): void {
    this.#take(length)
  }

  #take(length: number): number {
    const at = this.at
    if (length > this.left)
      throw this.#failure('EUCLEAN', -117, `too short for ${this.#what}: ${this.#bytes.length} bytes`)
    this.at += length
    return at
  }

  #failure(code: string, errno: number, text: string): BtrfsError {
    const hint = 'the tree is damaged, or of a version of btrfs that is not known here'
    return new BtrfsError('decode', { code, errno, text, hint })
  }
}
