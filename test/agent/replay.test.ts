import { describe, expect, it } from 'vitest'
import { createRandom, Replay } from '../../src/agent/index.js'

/** A transition that can be told apart: number `n` in every field. */
function transition(n: number) {
  return {
    state: Float32Array.of(n, -n),
    action: n % 3,
    reward: n / 2,
    nextState: Float32Array.of(n + 0.5, -n),
    nextMask: [true, n % 2 === 0, false],
  }
}

describe('Replay', () => {
  it('samples filled slots only, whole, and all of them', () => {
    const replay = new Replay(100, 2, 3)
    for (let n = 1; n <= 10; n++) replay.add(transition(n))
    const batch = replay.batch(2000)
    replay.sample(createRandom(3), batch)
    const seen = new Set<number>()
    for (let row = 0; row < 2000; row++) {
      const n = batch.states[2 * row]!
      seen.add(n)
      expect(batch.states[2 * row + 1]).toBe(-n)
      expect(batch.actions[row]).toBe(n % 3)
      expect(batch.rewards[row]).toBe(n / 2)
      expect(batch.nextStates[2 * row]).toBe(n + 0.5)
      expect([...batch.nextMasks.subarray(3 * row, 3 * row + 3)]).toEqual([1, n % 2 === 0 ? 1 : 0, 0])
    }
    expect([...seen].sort((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  })

  it('drops the oldest when it is full', () => {
    const replay = new Replay(4, 2, 3)
    for (let n = 1; n <= 6; n++) replay.add(transition(n))
    expect(replay.length).toBe(4)
    const { states, cursor } = replay.contents()
    expect([0, 2, 4, 6].map((i) => states[i])).toEqual([5, 6, 3, 4])
    expect(cursor).toBe(2)
  })

  it('takes a copy', () => {
    const replay = new Replay(4, 2, 3)
    const state = Float32Array.of(1, 2)
    replay.add({ ...transition(1), state })
    state.fill(9)
    expect([...replay.contents().states]).toEqual([1, 2])
  })

  it('comes back slot for slot, or the newest into another capacity', () => {
    const replay = new Replay(4, 2, 3)
    for (let n = 1; n <= 6; n++) replay.add(transition(n))
    const same = new Replay(4, 2, 3)
    same.restore(replay.contents())
    expect(same.contents()).toEqual(replay.contents())
    for (const [capacity, kept, next] of [
      [3, [4, 5, 6], 0],
      [8, [3, 4, 5, 6], 4],
    ] as const) {
      const other = new Replay(capacity, 2, 3)
      other.restore(replay.contents())
      const { states, cursor } = other.contents()
      expect(kept.map((_, i) => states[2 * i])).toEqual(kept)
      expect(cursor).toBe(next)
    }
  })

  it.each([
    ['a short state', { state: Float32Array.of(1) }, /state has 1 features, not 2/],
    ['NaN', { state: Float32Array.of(1, Number.NaN) }, /state is not finite: 1, NaN/],
    ['Infinity', { nextState: Float32Array.of(1, Number.POSITIVE_INFINITY) }, /nextState is not finite/],
    ['an unknown action', { action: 3 }, /no action 3/],
    ['half an action', { action: 0.5 }, /no action 0.5/],
    ['a reward that is not a number', { reward: Number.NaN }, /the reward is NaN/],
    ['a reward past float', { reward: 1e39 }, /the reward is 1e\+39/],
    ['a short mask', { nextMask: [true] }, /nextMask has 1 actions, not 3/],
    ['a mask that allows nothing', { nextMask: [false, false, false] }, /nextMask allows no action/],
  ])('refuses %s', (_, wrong, message) => {
    const replay = new Replay(4, 2, 3)
    expect(() => replay.add({ ...transition(1), ...wrong })).toThrow(message)
    expect(replay.length).toBe(0)
  })

  it('refuses to sample nothing', () => {
    const replay = new Replay(4, 2, 3)
    expect(() => replay.sample(createRandom(1), replay.batch(1))).toThrow(/the replay is empty/)
  })
})
