import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Verdict, VolumeFacts } from '../../src/actions/guard.js'
import { ACTIONS, type ActionName, actionId } from '../../src/actions/table.js'
import { Dqn } from '../../src/agent/dqn.js'
import { DqnPolicy } from '../../src/policies/dqn.js'
import type { DecisionContext } from '../../src/policies/policy.js'
import { RulePolicy } from '../../src/policies/rules.js'
import { GIB } from '../../src/units.js'

const allowed = (...names: ActionName[]): Verdict[] =>
  ACTIONS.map(({ name: action }) =>
    action === 'none' || names.includes(action)
      ? { allowed: true }
      : { allowed: false, action, code: 'nothing-to-do', reason: `no ${action} here` },
  )
const ALL = allowed('temp', 'compress', 'balance', 'snapshots')

function at(usedPercent: number, verdicts = ALL, more: Partial<VolumeFacts> = {}): DecisionContext {
  const sample: VolumeFacts = {
    timeMs: 0,
    source: 'kernel',
    usedPercent: 1,
    liveUsedPercent: usedPercent,
    sizeBytes: 100 * GIB,
    freeBytes: GIB,
    unallocatedBytes: 50 * GIB,
    ...more,
  }
  return { sample, verdicts, state: Float32Array.of(0.5, 0, -0.5, 0) }
}

describe('RulePolicy', () => {
  it('takes the cheapest action whose threshold is reached and that is allowed', () => {
    const cases: [number, Verdict[], ActionName][] = [
      [74.9, ALL, 'none'],
      [75, ALL, 'temp'],
      [79.9, allowed('compress', 'snapshots'), 'none'],
      [80, allowed('compress', 'snapshots'), 'compress'],
      [84.9, allowed('snapshots'), 'none'],
      [85, allowed('snapshots'), 'snapshots'],
      [99, allowed(), 'none'],
    ]
    for (const [used, verdicts, action] of cases) {
      expect(new RulePolicy().decide(at(used, verdicts)), `${used}`).toMatchObject({ action, policy: 'rules' })
    }
  })

  it('balances only when chunks are short', () => {
    const verdicts = allowed('balance', 'snapshots')
    expect(new RulePolicy().decide(at(90, verdicts)).action).toBe('snapshots')
    expect(new RulePolicy().decide(at(90, verdicts, { unallocatedBytes: 4 * GIB }))).toMatchObject({
      action: 'balance',
      reason: '90.0 % used and 4.0 % unallocated, balance from 75 %',
    })
    expect(new RulePolicy().decide(at(90, verdicts, { unallocatedBytes: undefined })).action).toBe('snapshots')
  })

  it('goes on a little below the threshold once it began', () => {
    const rules = new RulePolicy({ hysteresisPercent: 2 })
    const series: [number, ActionName][] = [
      [74, 'none'],
      [75, 'temp'],
      [73, 'temp'],
      [72.9, 'none'],
      [74, 'none'],
    ]
    for (const [used, action] of series) expect(rules.decide(at(used)).action, `${used}`).toBe(action)
  })

  it('says why it does nothing', () => {
    expect(new RulePolicy().decide(at(50)).reason).toBe('50.0 % used, no threshold is reached')
    expect(new RulePolicy().decide(at(82, allowed())).reason).toBe(
      '82.0 % used, nothing is allowed (temp: no temp here; compress: no compress here)',
    )
  })

  it('has the thresholds of docs/policies.md', () => {
    const text = readFileSync(new URL('../../docs/policies.md', import.meta.url), 'utf8')
    const rows = [...text.matchAll(/^\| \d \| (\w+) \| (\d+) %/gm)].map(
      (row) => [row[1] as ActionName, Number(row[2])] as const,
    )
    expect(rows.map(([action]) => action)).toEqual(['temp', 'compress', 'balance', 'snapshots'])
    for (const [action, from] of rows) {
      const short = { unallocatedBytes: 4.9 * GIB }
      expect(new RulePolicy().decide(at(from, allowed(action), short)).action).toBe(action)
      expect(new RulePolicy().decide(at(from - 0.1, allowed(action), short)).action).toBe('none')
    }
    const [, short] = /less than (\d+) % of the devices unallocated/.exec(text)!
    const enough = { unallocatedBytes: Number(short) * GIB }
    expect(new RulePolicy().decide(at(99, allowed('balance'), enough)).action).toBe('none')
  })

  it('checks its options', () => {
    expect(() => new RulePolicy({ tempPercent: 120 })).toThrow("option 'tempPercent'")
    expect(() => new RulePolicy({ temppercent: 1 } as never)).toThrow("did you mean 'tempPercent'?")
  })
})

/** A network that has one favourite: the bias of its last layer, all else 0. */
function favouring(action: ActionName): Dqn {
  const dqn = new Dqn({ seed: 1, hyper: { epsilonStart: 0, epsilonEnd: 0 } })
  dqn.network.parameters.fill(0)
  dqn.network.parameters[dqn.network.parameters.length - ACTIONS.length + actionId(action)] = 1
  return dqn
}

describe('DqnPolicy', () => {
  const state = Float32Array.of(0.5, 0, -0.5, 0)

  it('takes the highest Q of what is allowed', () => {
    const policy = new DqnPolicy({ warmUpSteps: 0, dqn: favouring('balance') })
    expect(policy.decide(at(50))).toMatchObject({
      action: 'balance',
      policy: 'dqn',
      q: [0, 0, 0, 1, 0],
      explored: false,
      reason: 'highest Q of what is allowed: 1.000',
    })
    expect(policy.decide(at(50, allowed('temp'))).action).toBe('none')
  })

  it('explores only what is allowed', () => {
    const policy = new DqnPolicy({
      warmUpSteps: 0,
      dqn: new Dqn({ seed: 3, hyper: { epsilonStart: 1, epsilonEnd: 1 } }),
    })
    const seen = new Set<ActionName>()
    for (let i = 0; i < 100; i++) {
      const { action, explored } = policy.decide(at(80, allowed('temp', 'snapshots')))
      expect(explored).toBe(true)
      seen.add(action)
    }
    expect([...seen].sort()).toEqual(['none', 'snapshots', 'temp'])
  })

  it('deletes nothing below 70 %, unless its shield is off', () => {
    const rash = new DqnPolicy({ warmUpSteps: 0, dqn: favouring('snapshots') })
    expect(rash.decide(at(69.9)).action).toBe('none')
    expect(rash.decide(at(70)).action).toBe('snapshots')
    const bare = new DqnPolicy({ warmUpSteps: 0, dqn: favouring('temp'), shield: false })
    expect(bare.decide(at(10)).action).toBe('temp')
    // The target's max leaves it out too: utilisation 0.25 is −0.5 in the vector.
    const nextState = Float32Array.of(-0.5, 0, 0, 0)
    rash.learn({ state, action: 'none', reward: 0, nextState, nextVerdicts: ALL })
    expect([...rash.dqn.replay.contents().nextMasks.subarray(0, 5)].map(Boolean)).toEqual([
      true,
      false,
      true,
      true,
      false,
    ])
  })

  it('lets the rules decide until it has learned, and shows what it would have taken', () => {
    const policy = new DqnPolicy({ warmUpSteps: 2, dqn: favouring('balance') })
    expect(policy.decide(at(80))).toMatchObject({
      action: 'temp',
      policy: 'rules',
      q: [0, 0, 0, 1, 0],
      reason: '80.0 % used, temp from 75 % (warm-up, 0 of 2 steps learned; the network would take balance)',
    })
  })

  it('goes on from what it saved, and names what is damaged', async () => {
    const stateDir = mkdtempSync(join(tmpdir(), 'btrmind-policy-'))
    try {
      const hyper = { warmupTransitions: 64 }
      const first = new DqnPolicy({ dqn: new Dqn({ seed: 9, hyper }) })
      expect(await first.restore(stateDir)).toEqual([])
      for (let i = 0; i < 80; i++)
        first.learn({ state, action: 'none', reward: i, nextState: state, nextVerdicts: ALL })
      await first.save(stateDir)
      const second = new DqnPolicy()
      expect(await second.restore(stateDir)).toEqual([])
      expect(second.dqn.steps).toBe(first.dqn.steps)
      expect(second.dqn.steps).toBeGreaterThan(0)
      expect(second.dqn.network.parameters).toEqual(first.dqn.network.parameters)
      for (const set of readdirSync(join(stateDir, 'model'))) {
        if (set.startsWith('generation-')) writeFileSync(join(stateDir, 'model', set, 'weights.bin'), 'torn')
      }
      const third = new DqnPolicy()
      const [problem] = await third.restore(stateDir)
      expect(problem).toMatchObject({ code: 'BTRMIND_ERR_STATE_CORRUPT' })
      expect(problem?.message).toContain('weights.bin')
      expect(third.dqn.steps).toBe(0)
      const other = new DqnPolicy({ dqn: new Dqn({ seed: 1, features: 7 }) })
      await first.save(stateDir)
      expect((await other.restore(stateDir)).at(-1)?.message).toContain('is 4 → 5, not 7 → 5')
    } finally {
      rmSync(stateDir, { recursive: true })
    }
  })

  it('behind its shield: from 88.5 % the rules act where it would not, from 90 % they decide', () => {
    const idle = new DqnPolicy({ warmUpSteps: 0, dqn: favouring('none') })
    expect(idle.decide(at(88.4)).action).toBe('none')
    expect(idle.decide(at(88.5))).toMatchObject({
      action: 'temp',
      policy: 'rules',
      q: [1, 0, 0, 0, 0],
      reason: 'shield from 88.5 % (the network proposed none); 88.5 % used, temp from 75 %',
    })
    const rash = new DqnPolicy({ warmUpSteps: 0, dqn: favouring('snapshots') })
    expect(rash.decide(at(89.9))).toMatchObject({ action: 'snapshots', policy: 'dqn' })
    expect(rash.decide(at(90))).toMatchObject({ action: 'temp', policy: 'rules', shielded: true })
    expect(rash.decide(at(90, allowed('snapshots')))).toMatchObject({ action: 'snapshots', policy: 'dqn' })
    const bare = new DqnPolicy({ warmUpSteps: 0, dqn: favouring('none'), shield: false })
    expect(bare.decide(at(98)).action).toBe('none')
  })

  it('goes on by rules when the model fails, and says so', () => {
    const policy = new DqnPolicy({ warmUpSteps: 0, dqn: favouring('none') })
    policy.dqn.network.parameters.fill(Number.NaN)
    const decision = policy.decide(at(80))
    expect(decision).toMatchObject({ action: 'temp', policy: 'rules' })
    expect(decision.reason).toMatch(
      /^80\.0 % used, temp from 75 % \(model error, the rules decide: BTRMIND_ERR_MODEL: .*\)$/,
    )
    expect(policy.modelError).toMatchObject({ code: 'BTRMIND_ERR_MODEL' })
    policy.dqn.network.parameters.fill(0)
    expect(policy.decide(at(80)).policy).toBe('dqn')
    expect(policy.modelError).toBeUndefined()
  })

  it('learns which action pays, with what is refused left out of the target', () => {
    const dqn = new Dqn({ seed: 5, hyper: { warmupTransitions: 64, discountRatio: 0, learningRate: 3e-3 } })
    const policy = new DqnPolicy({ warmUpSteps: 0, dqn })
    for (let i = 0; i < 400; i++) {
      const { name: action } = ACTIONS[i % ACTIONS.length]!
      const reward = action === 'compress' ? 15 : 0
      policy.learn({ state, action, reward, nextState: state, nextVerdicts: allowed('temp') })
    }
    expect(policy.modelError).toBeUndefined()
    expect(dqn.steps).toBeGreaterThan(300)
    expect(policy.dqn.greedy(state).action).toBe(actionId('compress'))
    expect([...dqn.replay.contents().nextMasks.subarray(0, 5)].map(Boolean)).toEqual([true, true, false, false, false])
  })

  it('a failure to learn is shown by the next decision', () => {
    const policy = new DqnPolicy({ warmUpSteps: 0, dqn: favouring('none') })
    policy.learn({ state, action: 'temp', reward: Number.NaN, nextState: state, nextVerdicts: ALL })
    const decision = policy.decide(at(50))
    expect(decision.reason).toContain('; did not learn: ')
    expect(decision.fallback).toMatch(/^did not learn: /)
    expect(policy.modelError).toBeDefined()
    const shielded = policy.decide(at(95))
    expect(shielded).toMatchObject({ shielded: true, action: 'temp' })
    expect(shielded.fallback).toBe(decision.fallback)
    policy.learn({ state, action: 'temp', reward: 1, nextState: state, nextVerdicts: ALL })
    expect(policy.decide(at(50)).reason).toBe('highest Q of what is allowed: 1.000')
  })

  it('does not learn when told not to', () => {
    const policy = new DqnPolicy({ warmUpSteps: 0, dqn: favouring('none'), learns: false })
    policy.learn({ state, action: 'temp', reward: 1, nextState: state, nextVerdicts: ALL })
    expect(policy.dqn.replay.length).toBe(0)
  })
})
