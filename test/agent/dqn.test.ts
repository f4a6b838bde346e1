import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import {
  bestAction,
  createRandom,
  Dqn,
  type DqnOptions,
  HYPERPARAMETERS,
  hyperparameters,
  qTargets,
} from '../../src/agent/index.js'

const SMALL = { hiddenSizes: [16, 16], batchSize: 8, warmupTransitions: 8, replayCapacity: 50 }

function agent(hyper: DqnOptions['hyper'] = {}, seed = 1): Dqn {
  return new Dqn({ seed, hyper: { ...SMALL, ...hyper } })
}

/** A made-up volume: drives `dqn` for some decisions and gives all that it said. */
function drive(dqn: Dqn, decisions: number, seed: number) {
  const random = createRandom(seed)
  const draw = () => Float32Array.from({ length: 4 }, () => 2 * random.next() - 1)
  const said: unknown[] = []
  let state = draw()
  for (let i = 0; i < decisions; i++) {
    const mask = [true, ...Array.from({ length: 4 }, () => random.next() < 0.7)]
    const choice = dqn.act(state, mask)
    const nextState = draw()
    const nextMask = [true, ...Array.from({ length: 4 }, () => random.next() < 0.7)]
    dqn.remember({ state, action: choice.action, reward: 20 * random.next() - 15, nextState, nextMask })
    said.push(choice, dqn.learn())
    state = nextState
  }
  return said
}

describe('bestAction', () => {
  const q = Float32Array.of(1, 5, 3, 5, -1)
  it.each([
    [[true, true, true, true, true], 1],
    [[true, false, true, true, true], 3],
    [[true, false, false, false, true], 0],
    [[false, false, false, false, true], 4],
    [[false, false, false, false, false], -1],
  ])('of what %j allows is %d', (mask, action) => {
    expect(bestAction(q, mask)).toBe(action)
  })
})

describe('qTargets', () => {
  const rewards = Float32Array.of(10, -20)
  const picks = Float32Array.of(1, 9, 5, 8, 2, 7)
  const values = Float32Array.of(100, 200, 300, 400, 500, 600)
  const targets = new Float32Array(2)
  const all = Uint8Array.of(1, 1, 1, 1, 1, 1)

  it('double: one network picks, the other values', () => {
    qTargets({ rewards, nextMasks: all }, picks, values, 0.5, 0.1, targets)
    expect([...targets]).toEqual([1 + 0.5 * 200, -2 + 0.5 * 400])
  })

  it('plain: the target network does both', () => {
    qTargets({ rewards, nextMasks: all }, values, values, 0.5, 0.1, targets)
    expect([...targets]).toEqual([1 + 0.5 * 300, -2 + 0.5 * 600])
  })

  it('leaves masked actions out of the maximum', () => {
    qTargets({ rewards, nextMasks: Uint8Array.of(1, 0, 1, 0, 1, 0) }, picks, values, 0.5, 0.1, targets)
    expect([...targets]).toEqual([1 + 0.5 * 300, -2 + 0.5 * 500])
  })
})

describe('act', () => {
  it('takes the best allowed action when it does not explore', () => {
    const dqn = agent({ epsilonStart: 0, epsilonEnd: 0 })
    const random = createRandom(5)
    for (let i = 0; i < 200; i++) {
      const state = Float32Array.from({ length: 4 }, () => 2 * random.next() - 1)
      const mask = [true, ...Array.from({ length: 4 }, () => random.next() < 0.5)]
      const { action, q, explored } = dqn.act(state, mask)
      expect(explored).toBe(false)
      expect(mask[action]).toBe(true)
      expect(q).toEqual(dqn.network.predict(state))
      for (const [a, allowed] of mask.entries()) if (allowed) expect(q[action]).toBeGreaterThanOrEqual(q[a]!)
    }
  })

  it('explores among what is allowed, and mostly rests', () => {
    const dqn = agent({ epsilonStart: 1, epsilonEnd: 1, explorationNoOpRatio: 0.5 })
    const counts = new Array<number>(5).fill(0)
    const draws = 8000
    for (let i = 0; i < draws; i++) {
      const { action, explored } = dqn.act(new Float32Array(4), [true, true, false, true, true])
      expect(explored).toBe(true)
      counts[action]!++
    }
    expect(counts[2]).toBe(0)
    // Within five standard deviations of 1/2 and 1/6.
    expect(Math.abs(counts[0]! / draws - 1 / 2)).toBeLessThan(0.028)
    for (const a of [1, 3, 4]) expect(Math.abs(counts[a]! / draws - 1 / 6)).toBeLessThan(0.021)
  })

  it('explores without resting where resting is masked, and rests where nothing else is allowed', () => {
    const dqn = agent({ epsilonStart: 1, epsilonEnd: 1 })
    const state = new Float32Array(4)
    for (let i = 0; i < 50; i++) expect(dqn.act(state, [false, false, true, false, false]).action).toBe(2)
    for (let i = 0; i < 50; i++) expect(dqn.act(state, [true, false, false, false, false]).action).toBe(0)
  })

  it('explores as often as its schedule says', () => {
    const dqn = agent({ epsilonStart: 0.5, epsilonEnd: 0.1, epsilonDecisions: 100 })
    const seen = Array.from({ length: 150 }, () => dqn.act(new Float32Array(4)).epsilon)
    expect(seen[0]).toBe(0.5)
    expect(seen[50]).toBeCloseTo(0.3, 12)
    expect(seen[100]).toBeCloseTo(0.1, 12)
    expect(seen[149]).toBeCloseTo(0.1, 12)
    expect(dqn.decisions).toBe(150)
  })

  it('greedy() changes nothing', () => {
    const [a, b] = [agent(), agent()]
    for (let i = 0; i < 20; i++) a.greedy(new Float32Array(4))
    expect(a.decisions).toBe(0)
    expect(drive(a, 30, 2)).toEqual(drive(b, 30, 2))
  })

  it.each([
    ['a short state', new Float32Array(3), undefined, /state: 3 features, not 4/],
    ['a short mask', new Float32Array(4), [true], /mask: 1 actions, not 5/],
    ['a mask that allows nothing', new Float32Array(4), new Array<boolean>(5).fill(false), /no action is allowed/],
  ])('refuses %s', (_, state, mask, message) => {
    const dqn = agent()
    expect(() => dqn.act(state, mask)).toThrow(message)
    expect(dqn.decisions).toBe(0)
  })

  it('says so when the network or the state is not a number', () => {
    const failure = expect.objectContaining({ code: 'BTRMIND_ERR_MODEL' })
    const dqn = agent()
    expect(() => dqn.act(Float32Array.of(0, 0, 0, Number.NaN))).toThrow(failure)
    dqn.network.parameters[dqn.network.parameters.length - 1] = Number.POSITIVE_INFINITY
    expect(() => dqn.act(new Float32Array(4))).toThrow(failure)
  })
})

describe('learn', () => {
  it('waits for the warm-up', () => {
    const dqn = agent({ warmupTransitions: 10 })
    const state = new Float32Array(4)
    for (let i = 0; i < 9; i++) dqn.remember({ state, action: 0, reward: 0, nextState: state })
    expect(dqn.learn()).toBeUndefined()
    dqn.remember({ state, action: 0, reward: 0, nextState: state })
    expect(dqn.learn()).toMatchObject({ step: 1 })
    expect(dqn.steps).toBe(1)
  })

  it('moves the target network by τ', () => {
    const dqn = agent({ targetBlendRatio: 0.25 })
    const before = dqn.target.parameters.slice()
    drive(dqn, 8, 3)
    const online = dqn.network.parameters
    for (const [i, value] of dqn.target.parameters.entries())
      expect(value).toBeCloseTo(before[i]! + 0.25 * (online[i]! - before[i]!), 6)
    expect(online).not.toEqual(before)
  })

  it('fits a reward that depends on the action alone', () => {
    const dqn = agent({ discountRatio: 0, rewardScale: 0.1, learningRate: 3e-3 })
    const random = createRandom(6)
    for (let i = 0; i < 1500; i++) {
      const state = Float32Array.from({ length: 4 }, () => 2 * random.next() - 1)
      const action = random.integer(5)
      dqn.remember({ state, action, reward: 10 * action, nextState: state })
      dqn.learn()
    }
    const { q, action } = dqn.greedy(Float32Array.of(0.1, -0.2, 0.3, -0.4))
    expect(action).toBe(4)
    for (const [a, value] of q.entries()) expect(Math.abs(value - a)).toBeLessThan(0.15)
  })

  it('changes no parameter when something is not a number', () => {
    const dqn = agent()
    drive(dqn, 20, 4)
    const before = dqn.network.parameters.slice()
    dqn.target.parameters.fill(Number.NaN)
    expect(() => dqn.learn()).toThrow(expect.objectContaining({ code: 'BTRMIND_ERR_MODEL' }))
    expect(dqn.network.parameters).toEqual(before)
    // Finite, but past what a float's square holds.
    dqn.target.parameters.set(before)
    dqn.network.parameters.fill(1e30)
    expect(() => dqn.learn()).toThrow(expect.objectContaining({ code: 'BTRMIND_ERR_MODEL' }))
    expect(dqn.network.parameters.every((p) => p === Math.fround(1e30))).toBe(true)
  })
})

describe('a seed', () => {
  it('decides everything, to the bit', () => {
    const [a, b] = [agent({}, 42), agent({}, 42)]
    expect(drive(a, 120, 7)).toEqual(drive(b, 120, 7))
    expect(a.snapshot()).toEqual(b.snapshot())
    const other = agent({}, 43)
    expect(other.network.parameters).not.toEqual(agent({}, 42).network.parameters)
  })

  it('goes on from a snapshot as if nothing had been, to the bit', () => {
    const straight = agent({}, 42)
    drive(straight, 60, 7)
    const restored = Dqn.restore(straight.snapshot())
    expect(drive(restored, 60, 8)).toEqual(drive(straight, 60, 8))
    expect(restored.snapshot()).toEqual(straight.snapshot())
  })

  it('a snapshot is a copy', () => {
    const dqn = agent()
    drive(dqn, 20, 1)
    const snapshot = dqn.snapshot()
    const copy = structuredClone(snapshot)
    drive(dqn, 20, 2)
    expect(snapshot).toEqual(copy)
  })

  it('restores with other hyper-parameters, and without a replay', () => {
    const dqn = agent()
    drive(dqn, 60, 1)
    const { replay: _, ...snapshot } = dqn.snapshot()
    const restored = Dqn.restore(snapshot, { learningRate: 1e-5, replayCapacity: 30 })
    expect(restored.hyper).toMatchObject({ ...SMALL, learningRate: 1e-5, replayCapacity: 30 })
    expect(restored.replay.length).toBe(0)
    expect(restored.steps).toBe(dqn.steps)
    expect(restored.network.parameters).toEqual(dqn.network.parameters)
  })
})

describe('hyper-parameters', () => {
  it('have their defaults', () => {
    const { hyper, network } = new Dqn({ seed: 1 })
    expect(network.sizes).toEqual([4, 128, 128, 128, 5])
    expect(hyper).toMatchObject({ double: true, learningRate: 3e-4, targetBlendRatio: 0.005, clipNorm: 10 })
    for (const [name, { default: value }] of Object.entries(HYPERPARAMETERS))
      expect(hyper[name as keyof typeof hyper]).toEqual(value)
  })

  it('are all in docs/learning.md, with their defaults', () => {
    const docs = readFileSync(new URL('../../docs/learning.md', import.meta.url), 'utf8')
    const rows = [...docs.matchAll(/^\| `(\w+)` +\| `(.+?)` +\| (.+?) +\| (.+?) +\|$/gm)]
    const table = Object.entries(HYPERPARAMETERS).map(([name, { default: value, meaning, source }]) => [
      name,
      name === 'rewardScale' ? '1/15' : JSON.stringify(value),
      meaning,
      source,
    ])
    expect(rows.map((row) => row.slice(1, 5))).toEqual(table)
  })

  it.each([
    [{ learningrate: 1 }, /unknown option 'learningrate'; did you mean 'learningRate'\?/],
    [{ learningRate: 0 }, /option 'learningRate': expected a number above 0, got 0/],
    [{ learningRate: Number.NaN }, /option 'learningRate'/],
    [{ discountRatio: 1 }, /option 'discountRatio': expected from 0 to below 1, got 1/],
    [{ batchSize: 1.5 }, /option 'batchSize': expected an integer from 1 to 65536, got 1.5/],
    [{ hiddenSizes: [128, 0] }, /option 'hiddenSizes.1'/],
    [{ loss: 'mse' }, /option 'loss': expected .*got 'mse'/],
    [{ epsilonStart: 1.1 }, /option 'epsilonStart': expected a ratio, 0 to 1, got 1.1/],
  ])('refuse %j', (hyper, message) => {
    expect(() => hyperparameters(hyper as never)).toThrow(message)
  })

  it.each([
    [{}, /option 'seed'/],
    [{ seed: 'x' }, /option 'seed'.*got 'x'/],
    [{ seed: 1, actions: 0 }, /option 'actions'/],
    [{ seed: 1, action: 5 }, /unknown option 'action'; did you mean 'actions'\?/],
    [{ seed: 1, hyper: 5 }, /option 'hyper': expected a record, got 5/],
  ])('Dqn refuses %j', (options, message) => {
    expect(() => new Dqn(options as never)).toThrow(message)
  })
})
