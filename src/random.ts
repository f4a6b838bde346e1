/** Where a generator stands: four unsigned 32-bit words, not all zero. JSON keeps it exactly. */
export type RandomState = readonly [number, number, number, number]

/**
 * A seeded generator: xoshiro128** (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2018).
 * The same seed gives the same numbers on every machine. Not for secrets.
 */
export interface Random {
  /** Uniform in 0 ≤ x < 1, with 32 bits. */
  next(): number
  /** Uniform integer in 0 ≤ n < `bound` (1 … 2^32), without modulo bias. */
  integer(bound: number): number
  /** What {@link restoreRandom} goes on from. */
  state(): RandomState
}

/**
 * A generator from a seed.
 * @param seed any integer; its low 32 bits count
 * @example
 * const random = createRandom(7)
 * const restored = restoreRandom(random.state())
 * random.next() === restored.next() // true
 */
export function createRandom(seed: number): Random {
  // splitmix32 fills the state, so that near seeds give unlike streams.
  let x = seed >>> 0
  const word = () => {
    x = (x + 0x9e3779b9) >>> 0
    let z = x
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
    return (z ^ (z >>> 16)) >>> 0
  }
  return restoreRandom([word(), word(), word(), word()])
}

/** A generator that goes on where another was. */
export function restoreRandom(state: RandomState): Random {
  let [a, b, c, d] = state
  const word = () => {
    const scrambled = Math.imul(b, 5)
    const result = Math.imul((scrambled << 7) | (scrambled >>> 25), 9) >>> 0
    const shifted = b << 9
    c ^= a
    d ^= b
    b ^= c
    a ^= d
    c ^= shifted
    d = (d << 11) | (d >>> 21)
    return result
  }
  const next = () => word() / 2 ** 32
  return {
    next,
    integer(bound) {
      const limit = 2 ** 32 - (2 ** 32 % bound)
      let drawn = word()
      while (drawn >= limit) drawn = word()
      return drawn % bound
    },
    state: () => [a >>> 0, b >>> 0, c >>> 0, d >>> 0],
  }
}
