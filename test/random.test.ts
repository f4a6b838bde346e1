import { describe, expect, it } from 'vitest'
import { createRandom, restoreRandom } from '../src/random.js'

describe('createRandom', () => {
  it('is xoshiro128**, word for word', () => {
    const random = restoreRandom([1, 2, 3, 4])
    const words = Array.from({ length: 4 }, () => random.next() * 2 ** 32)
    expect(words).toEqual(reference([1n, 2n, 3n, 4n], 4))
  })

  it('repeats itself from a seed, and goes on from a saved state', () => {
    const a = createRandom(7)
    const b = createRandom(7)
    for (let i = 0; i < 1000; i++) expect(a.next()).toBe(b.next())
    const c = restoreRandom(JSON.parse(JSON.stringify(a.state())))
    for (let i = 0; i < 1000; i++) expect(c.integer(1000)).toBe(a.integer(1000))
    expect(createRandom(8).next()).not.toBe(createRandom(7).next())
  })

  it('is uniform', () => {
    const random = createRandom(1)
    const counts = new Array<number>(10).fill(0)
    const draws = 100_000
    for (let i = 0; i < draws; i++) counts[random.integer(10)]!++
    const chiSquare = counts.reduce((sum, n) => sum + (n - draws / 10) ** 2 / (draws / 10), 0)
    expect(chiSquare).toBeLessThan(27.9) // p = 0.001 with nine degrees of freedom
    let sum = 0
    for (let i = 0; i < draws; i++) {
      const x = random.next()
      if (x < 0 || x >= 1) throw new Error(`${x} is out of range`)
      sum += x
    }
    expect(Math.abs(sum / draws - 0.5)).toBeLessThan(0.004)
  })
})

/** The same recurrence in big integers, as its authors print it. */
function reference(state: [bigint, bigint, bigint, bigint], count: number): number[] {
  const mask = 0xffffffffn
  const rotate = (x: bigint, k: bigint) => ((x << k) | (x >> (32n - k))) & mask
  const s = state
  return Array.from({ length: count }, () => {
    const result = (rotate((s[1] * 5n) & mask, 7n) * 9n) & mask
    const t = (s[1] << 9n) & mask
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= t
    s[3] = rotate(s[3], 11n)
    return Number(result)
  })
}
