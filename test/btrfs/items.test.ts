/** The decoders of items on bytes that no kernel wrote. */
import { describe, expect, it } from 'vitest'
import { decode, typeName } from '../../src/btrfs/items/types.js'
import { BtrfsError } from '../../src/errors.js'
import { createRandom } from '../../src/random.js'

const TYPES = Array.from({ length: 256 }, (_, type) => type)
const EXTREMES = [0n, 1n, 255n, 256n, 1n << 53n, (1n << 63n) - 1n, 1n << 63n, (1n << 64n) - 1n]

/** Whatever is a number is exact: times alone may have fractions, and any size. */
function inexact(value: unknown, name = ''): string[] {
  if (typeof value === 'number') return Number.isSafeInteger(value) || name.endsWith('Ms') ? [] : [name]
  if (value === null || typeof value !== 'object' || ArrayBuffer.isView(value)) return []
  return Object.entries(value).flatMap(([key, inner]) => inexact(inner, Array.isArray(value) ? name : key))
}

describe('decode()', () => {
  it.each([1, 2, 3, 4])('of random bytes gives fields, undefined or an error of ours, seed %i', (seed) => {
    const random = createRandom(seed)
    const pick = (most: number) => Math.floor(random.next() * most)
    const number = () => (pick(2) === 0 ? EXTREMES[pick(EXTREMES.length)]! : BigInt(pick(2 ** 32)))
    const outcomes = new Set<string>()
    const wrong: string[] = []
    for (const type of TYPES) {
      for (let round = 0; round < 100; round++) {
        // In a larger buffer: what stands around an item is not its own.
        const around = new Uint8Array(64 + pick(600))
        // Few bits make small numbers, of which counts and lengths are; all of them large ones.
        const bits = [1, 3, 8][pick(3)]!
        for (let at = 0; at < around.length; at++)
          around[at] = pick(4) === 0 ? pick(2 ** bits) : pick(2) * 255 * pick(2)
        const data = around.subarray(32, 32 + pick(around.length - 63))
        const before = Buffer.from(around)
        let outcome = 'fields'
        try {
          const decoded = decode({ objectid: number(), type, offset: number() }, data)
          wrong.push(...inexact(decoded, typeName(type)))
          if (decoded === undefined) outcome = 'undefined'
        } catch (error) {
          if (!(error instanceof BtrfsError)) throw error
          outcome = error.code
          if (!error.message.includes(typeName(type))) wrong.push(`${typeName(type)}: ${error.message}`)
        }
        if (!before.equals(around)) wrong.push(`${typeName(type)} was written to`)
        outcomes.add(outcome)
      }
    }
    expect(wrong).toEqual([])
    expect([...outcomes].sort()).toEqual(['ERANGE', 'EUCLEAN', 'fields', 'undefined'])
  })

  it('never reads past the item, whatever length stands in it', () => {
    const around = new Uint8Array(200).fill(0xff)
    // DIR_INDEX: a name and data of 65,535 bytes each.
    for (let length = 0; length <= 100; length++) {
      const outcome = () => decode({ objectid: 256n, type: 96, offset: 2n }, around.subarray(50, 50 + length))
      if (length === 0) expect(outcome()).toEqual({ kind: 'dir-index', entries: [] })
      else expect(outcome).toThrow(/EUCLEAN|ERANGE/)
    }
  })
})
