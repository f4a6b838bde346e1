/** A task small enough to solve exactly: what is learned must be the optimum, not just better than before. */
import { describe, expect, it } from 'vitest'
import { bestAction, Dqn } from '../../src/agent/index.js'

const STATES = 5
const DISCOUNT = 0.9
const oneHot = (s: number) => Float32Array.from({ length: STATES }, (_, i) => (i === s ? 1 : 0))

/** A chain: action 0 stays, 1 goes left, 2 goes right. A small sure reward on the left, a large one far on the right. */
function step(s: number, action: number): { next: number; reward: number } {
  const next = Math.max(0, Math.min(STATES - 1, s + [0, -1, 1][action]!))
  const cost = action === 0 ? 0 : 0.1
  return { next, reward: (s === 0 && next === 0 ? 0.4 : 0) + (s === 4 && next === 4 ? 1.5 : 0) - cost }
}

/** Value iteration over allowed actions, to convergence. */
function exactQ(allowed: (s: number) => readonly boolean[]): number[][] {
  let q = Array.from({ length: STATES }, () => [0, 0, 0])
  for (let sweep = 0; sweep < 500; sweep++) {
    const value = q.map((row, s) => Math.max(...row.filter((_, a) => allowed(s)[a])))
    q = q.map((row, s) =>
      row.map((_, a) => {
        const { next, reward } = step(s, a)
        return reward + DISCOUNT * value[next]!
      }),
    )
  }
  return q
}

const RULES: Record<string, (s: number) => readonly boolean[]> = {
  'everything allowed': () => [true, true, true],
  // The way right is shut in the middle: whoever bootstraps from masked actions overrates it.
  'right masked in the middle': (s) => [true, true, s !== 2],
}

describe.each([
  ['double', true],
  ['plain', false],
])('%s DQN on the five-state chain', (_, double) => {
  it.each(Object.keys(RULES))('%s: the exact policy, and Q within one per cent', (rule) => {
    const allowed = RULES[rule]!
    let dqn = new Dqn({
      features: STATES,
      actions: 3,
      seed: 11,
      hyper: {
        hiddenSizes: [32, 32],
        discountRatio: DISCOUNT,
        double,
        rewardScale: 1,
        learningRate: 1e-3,
        targetBlendRatio: 0.02,
        batchSize: 32,
        warmupTransitions: 100,
        epsilonStart: 1,
        epsilonEnd: 0.5,
        epsilonDecisions: 5000,
      },
    })
    let s = 0
    for (let decision = 0; decision < 5500; decision++) {
      // A constant rate leaves Adam jumping by it; the last steps settle.
      if (decision === 4000) dqn = Dqn.restore(dqn.snapshot(), { learningRate: 1e-4 })
      const mask = allowed(s)
      const { action } = dqn.act(oneHot(s), mask)
      if (!mask[action]) throw new Error(`masked action ${action} in state ${s}`)
      const { next, reward } = step(s, action)
      dqn.remember({ state: oneHot(s), action, reward, nextState: oneHot(next), nextMask: allowed(next) })
      dqn.learn()
      // Now and then the record is cut off, and the volume is found in another state.
      s = decision % 20 === 19 ? ((decision - 19) / 20) % STATES : next
    }
    for (const [state, exact] of exactQ(allowed).entries()) {
      const mask = allowed(state)
      const { action, q } = dqn.greedy(oneHot(state), mask)
      expect(action).toBe(bestAction(Float32Array.from(exact), mask))
      for (const [a, value] of exact.entries())
        if (mask[a]) expect(Math.abs(q[a]! - value) / Math.abs(value)).toBeLessThan(0.01)
    }
  })
})
