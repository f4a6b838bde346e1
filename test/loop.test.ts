import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Journal } from '../src/actions/journal.js'
import { ACTIONS } from '../src/actions/table.js'
import { loadCheckpoint } from '../src/agent/checkpoint.js'
import { Dqn } from '../src/agent/dqn.js'
import { calculateReward } from '../src/agent/reward.js'
import type { Filesystem } from '../src/btrfs/interface.js'
import type { BtrmindError } from '../src/errors.js'
import type { BtrmindOptions } from '../src/loop/options.js'
import { Btrmind, type Step } from '../src/loop.js'
import { lockStateDirectory } from '../src/monitor/lock.js'
import { stateVector } from '../src/monitor/state.js'
import { DqnPolicy } from '../src/policies/dqn.js'
import type { Policy, Transition } from '../src/policies/policy.js'
import { RulePolicy } from '../src/policies/rules.js'
import { SimulatedClock, SimulatedFilesystem } from '../src/simulator/index.js'
import { DAY_MS, MIB } from '../src/units.js'

const SIZE_MIB = 1024
let clock: SimulatedClock
let fs: SimulatedFilesystem
let stateDir: string
let warnings: BtrmindError[]

beforeEach(() => {
  clock = new SimulatedClock()
  fs = new SimulatedFilesystem({ clock, devicesBytes: [SIZE_MIB * MIB] })
  fs.volume.makeDirectory(at('tmp'))
  stateDir = mkdtempSync(join(tmpdir(), 'loop-state-'))
  warnings = []
})
afterEach(async () => {
  await fs.close()
  rmSync(stateDir, { recursive: true, force: true })
})

const at = (path: string) => `${fs.path}/${path}`
/** Files of 10 MiB that nobody touched for 20 days, until so much is used. */
async function fill(usedPercent: number, directory = 'tmp') {
  const timeMs = clock.wallMs() - 20 * DAY_MS
  for (let i = 0; (await used()) < usedPercent; i++) {
    fs.volume.writeFile(at(`${directory}/f${i}`), 10 * MIB, { atimeMs: timeMs, mtimeMs: timeMs, ctimeMs: timeMs })
  }
  await fs.sync()
}
const used = async (volume: Filesystem = fs) => {
  const { liveUsedPercent, usedPercent } = await volume.measure()
  return liveUsedPercent ?? usedPercent
}
const temporary = () => readAll(at('tmp'))
async function readAll(root: string) {
  let files = 0
  for await (const batch of fs.walk(root)) files += batch.length
  return files
}
const mind = (options: Partial<BtrmindOptions> = {}) =>
  new Btrmind({
    filesystem: fs,
    roots: { temp: [at('tmp')] },
    clock,
    onWarning: (warning) => warnings.push(warning as BtrmindError),
    ...options,
  })
async function take(count: number, btrmind: Btrmind, each: (step: Step) => void = () => {}): Promise<Step[]> {
  const steps: Step[] = []
  if (count === 0) return steps
  for await (const step of btrmind) {
    each(step)
    if (steps.push(step) === count) break
  }
  return steps
}
const one = async (options?: Partial<BtrmindOptions>) => (await take(1, mind(options)))[0]!
/** Throws where the loop has kept it. */
const isFree = async (path = stateDir) => (await lockStateDirectory(path)).release()
/** The volume, with some calls answered otherwise. */
const answering = (calls: Partial<Filesystem>) =>
  new Proxy(fs as Filesystem, {
    get(target, name) {
      if (name in calls) return calls[name as keyof Filesystem]
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })

describe('a step', () => {
  it('has all that was seen, thought and done', async () => {
    await fill(82)
    const before = await used()
    const [step, next] = await take(2, mind({ dryRun: false, seed: 7 }))
    const { sample, state, decision, outcome, stagesMs } = step!
    expect(sample).toMatchObject({ source: 'kernel', liveUsedPercent: before, timeMs: clock.startMs })
    expect(state.utilisation).toBeCloseTo(before / 100, 6)
    expect(decision).toMatchObject({ action: 'temp', policy: 'rules', emergency: false })
    expect(decision.reason).toMatch(/^82\.\d % used, temp from 75 % \(warm-up, 0 of 1440 steps learned/)
    expect(decision.q).toHaveLength(ACTIONS.length)
    expect(decision.q!.every(Number.isFinite)).toBe(true)
    expect(decision.verdicts.map((verdict) => (verdict.allowed ? 'allowed' : verdict.code))).toEqual([
      'allowed',
      'allowed',
      'no-root',
      'metadata-slack',
      'no-root',
    ])
    expect(decision.verdicts[4]).toMatchObject({ reason: 'no snapshot directories were named (--snapshots)' })
    expect(outcome).toMatchObject({ action: 'temp', dryRun: false, error: undefined, items: { failed: 0 } })
    expect(outcome.freedBytes).toBeGreaterThan(500 * MIB)
    expect(outcome.predictedBytes).toBe(outcome.freedBytes)
    expect(stagesMs.total).toBe(stagesMs.sample + stagesMs.decide + stagesMs.execute + stagesMs.learn)
    expect(stagesMs.monitorToAction).toBeGreaterThanOrEqual(stagesMs.sample + stagesMs.decide)
    expect([step!.index, next!.index]).toEqual([0, 1])
    expect(next!.decision.action).toBe('none')
    expect(next!.sample.timeMs).toBe(clock.startMs + 60_000)
    expect(warnings).toEqual([])
  })

  it('is rewarded by what it really changed', async () => {
    await fill(82)
    const step = await one({ dryRun: false })
    const { liveUsedPercent } = step.sample
    const freedPercent = (100 * step.outcome.freedBytes!) / step.sample.sizeBytes
    expect(step.reward).toBe(calculateReward(liveUsedPercent!, liveUsedPercent! - freedPercent))
    expect(step.reward).toBeGreaterThan(0)
    expect(liveUsedPercent! - freedPercent).toBeCloseTo(await used(), 5)
  })

  it('changes nothing unless it is told to', async () => {
    await fill(82)
    const files = await temporary()
    const { generation } = fs.volume
    const step = await one()
    expect(step.outcome).toMatchObject({ action: 'temp', dryRun: true, freedBytes: undefined })
    expect(step.outcome.predictedBytes).toBeGreaterThan(500 * MIB)
    expect(step.outcome.touches[0]).toMatch(/^\/simulated\/tmp\/f\d+$/)
    expect(step.stagesMs.monitorToAction).toBeUndefined()
    expect([await temporary(), fs.volume.generation]).toEqual([files, generation])
  })

  it('a dry run does not teach what an action does, idle steps and real ones do', async () => {
    const learnt: Transition[] = []
    const pupil = (): Policy => {
      const rules = new RulePolicy()
      return { name: 'pupil', decide: (context) => rules.decide(context), learn: (given) => void learnt.push(given) }
    }
    await take(2, mind({ policy: pupil() }))
    expect(learnt.splice(0)).toMatchObject([{ action: 'none', reward: calculateReward(20, 20) }])
    await fill(82)
    await take(3, mind({ policy: pupil() }))
    expect(learnt).toEqual([])
    const [acted, next] = await take(2, mind({ policy: pupil(), dryRun: false }))
    expect(learnt).toEqual([
      {
        state: stateVector(acted!.state),
        action: 'temp',
        reward: acted!.reward,
        nextState: stateVector(next!.state),
        nextVerdicts: next!.decision.verdicts,
      },
    ])
  })

  it('a policy that cannot learn is a warning', async () => {
    const policy: Policy = {
      name: 'dull',
      decide: (context) => new RulePolicy().decide(context),
      learn: () => Promise.reject(new Error('no memory')),
    }
    await take(2, mind({ policy }))
    expect(warnings.map(String)).toEqual(['Error: no memory'])
  })
})

describe('the interval', () => {
  it('is counted from the start, and what comes too late is left out', async () => {
    const times: number[] = []
    await take(4, mind({ intervalMs: 1000 }), ({ sample, index }) => {
      times.push(sample.timeMs - clock.startMs)
      clock.advance(index === 1 ? 2500 : 300)
    })
    expect(times).toEqual([0, 1000, 4000, 5000])
  })

  it('is really waited for without a clock that sleeps', async () => {
    const stop = new AbortController()
    const real = { wallMs: () => Date.now(), elapsedMs: () => performance.now() }
    const steps = await take(3, mind({ clock: real, intervalMs: 1, signal: stop.signal }))
    expect(steps.map(({ index }) => index)).toEqual([0, 1, 2])
    const run = take(2, mind({ clock: real, intervalMs: 3_600_000, signal: stop.signal, stateDir }), () =>
      setImmediate(() => stop.abort()),
    )
    expect(await run).toHaveLength(1)
    await isFree()
  })
})

describe('AbortSignal', () => {
  it('before the start: nothing is asked, nothing is made', async () => {
    const never = () => Promise.reject(new Error('asked'))
    const filesystem = answering({ measure: never, directory: never, usage: never })
    const path = join(stateDir, 'none')
    expect(await take(1, mind({ filesystem, stateDir: path, signal: AbortSignal.abort() }))).toEqual([])
    expect(readdirSync(stateDir)).toEqual([])
  })

  it('while it opens', async () => {
    const stop = new AbortController()
    const filesystem = answering({
      directory: (path, options) => {
        stop.abort()
        return fs.directory(path, options)
      },
    })
    expect(await take(1, mind({ filesystem, stateDir, signal: stop.signal }))).toEqual([])
    expect(warnings).toEqual([])
    await isFree()
  })

  it.each(['resolves', 'rejects'])('while it sleeps, by a clock that then %s', async (how) => {
    const stop = new AbortController()
    const sleepy = {
      wallMs: () => clock.wallMs(),
      elapsedMs: () => clock.elapsedMs(),
      sleep: async () => {
        stop.abort()
        if (how === 'rejects') throw stop.signal.reason
      },
    }
    expect(await take(2, mind({ clock: sleepy, stateDir, signal: stop.signal }))).toHaveLength(1)
    await isFree()
  })

  it('while the volume is asked', async () => {
    const stop = new AbortController()
    const filesystem = answering({
      measure: () => {
        stop.abort()
        return new Promise(() => {})
      },
    })
    expect(await take(1, mind({ filesystem, stateDir, signal: stop.signal }))).toEqual([])
    expect(warnings).toEqual([])
    await isFree()
  })

  it('in a step: what had not begun is not begun', async () => {
    await fill(82)
    const files = await temporary()
    const stop = new AbortController()
    const policy: Policy = {
      name: 'last',
      decide: () => {
        stop.abort()
        return { action: 'temp', policy: 'last', reason: 'now' }
      },
    }
    const steps = await take(2, mind({ policy, dryRun: false, stateDir, signal: stop.signal }))
    expect(steps).toHaveLength(1)
    expect(steps[0]!.outcome.items).toMatchObject({ done: 0, failed: 0 })
    expect(await temporary()).toBe(files)
    await isFree()
  })
})

describe('an emergency', () => {
  it('deletes at once, and says so once', async () => {
    await fill(99.2)
    const asked: string[] = []
    const policy: Policy = {
      name: 'unasked',
      decide: () => {
        asked.push('decide')
        return { action: 'none', policy: 'unasked', reason: '' }
      },
    }
    const slow = answering({
      removeFiles: (...args) => {
        clock.advance(5)
        return fs.removeFiles(...args)
      },
    })
    const steps = await take(2, mind({ filesystem: slow, policy, dryRun: false }))
    expect(steps[0]!.stagesMs.decide).toBe(0)
    expect(steps[0]!.stagesMs.execute).toBeGreaterThanOrEqual(5)
    expect(steps[0]).toMatchObject({
      decision: { action: 'temp', policy: 'emergency', emergency: true },
      outcome: { action: 'temp', emergency: true },
      alerts: [{ level: 'critical', code: 'full', message: expect.stringMatching(/^the volume is 99\.\d % full$/) }],
    })
    expect(steps[0]!.reward).toBeGreaterThan(0)
    expect(await used()).toBeLessThan(95)
    expect(steps[1]).toMatchObject({ alerts: [], decision: { emergency: false } })
    expect(asked).toEqual(['decide'])
  })

  it('a dry run says what would go; the alert stands, and is not repeated', async () => {
    await fill(99.2)
    const files = await temporary()
    const steps = await take(2, mind())
    expect(steps.map(({ alerts }) => alerts.map(({ level }) => level))).toEqual([['critical'], []])
    expect(steps[1]!.decision).toMatchObject({ action: 'temp', policy: 'emergency' })
    expect(await temporary()).toBe(files)
  })

  it('with nothing to delete the policy is asked, and told so', async () => {
    fs.volume.makeDirectory(at('documents'))
    await fill(99.2, 'documents')
    const step = await one({ dryRun: false, policy: new RulePolicy() })
    expect(step.decision).toMatchObject({ action: 'none', policy: 'rules', emergency: true })
    expect(step.alerts).toMatchObject([
      { level: 'critical', code: 'full' },
      { level: 'warning', code: 'action', message: expect.stringContaining('the emergency deletion freed nothing: ') },
    ])
  })
})

describe('statfs’s figures', () => {
  /** measure() fails when it is asked for the nth time. */
  const failing = (...turns: number[]) => {
    let asked = 0
    const fails = () => fs.directory(at('none')) as never
    return answering({ measure: (options) => (turns.includes(++asked) ? fails() : fs.measure(options)) })
  }

  it('make no emergency: nothing goes at once until the kernel says the same', async () => {
    await fill(99.2)
    const files = await temporary()
    const idle: Policy = { name: 'idle', decide: () => ({ action: 'none', policy: 'idle', reason: '' }) }
    const filesystem = answering({
      measure: (options) => (asked++ < 2 ? (fs.directory(at('none')) as never) : fs.measure(options)),
      statfs: async () => ({ sizeBytes: 100, freeBytes: 0, usedPercent: 100 }),
    })
    let asked = 0
    const seen: number[] = []
    const steps: Step[] = []
    for await (const step of mind({ filesystem, policy: idle, dryRun: false })) {
      seen.push(await temporary())
      if (steps.push(step) === 3) break
    }
    expect(steps.map(({ decision }) => decision.emergency)).toEqual([false, false, true])
    expect(seen.slice(0, 2)).toEqual([files, files])
    expect(seen[2]).toBeLessThan(files)
    const critical = steps.map(({ alerts }) => alerts.filter(({ level }) => level === 'critical'))
    expect(critical.map((alerts) => alerts.map(({ message }) => message))).toEqual([
      ['the volume is 100.0 % full by statfs alone: nothing is deleted at once until the kernel says so'],
      [],
      [expect.stringMatching(/^the volume is 99\.\d % full$/)],
    ])
  })

  it('are not what an action is measured from, nor learned from', async () => {
    await fill(82)
    const learnt: Transition[] = []
    const rules = new RulePolicy()
    const policy: Policy = {
      name: 'pupil',
      decide: (context) => rules.decide(context),
      learn: (given) => void learnt.push(given),
    }
    const beforePercent = await used()
    const [acted, next] = await take(2, mind({ filesystem: failing(1), policy, dryRun: false }))
    const afterPercent = await used()
    expect(acted).toMatchObject({ sample: { source: 'statfs' }, outcome: { action: 'temp', error: undefined } })
    expect(acted!.sample.usedPercent).not.toBe(beforePercent)
    expect(acted!.outcome.freedBytes).toBe(Math.round(((beforePercent - afterPercent) / 100) * SIZE_MIB * MIB))
    expect(acted!.reward).toBeCloseTo(calculateReward(beforePercent, afterPercent), 6)
    expect(next).toMatchObject({ sample: { source: 'kernel' } })
    expect(learnt).toEqual([])
  })

  it('without a measurement before it, what an action freed is not known', async () => {
    await fill(82)
    const [acted] = await take(1, mind({ filesystem: failing(1, 2), policy: new RulePolicy(), dryRun: false }))
    expect(acted).toMatchObject({ sample: { source: 'statfs' }, reward: undefined, outcome: { freedBytes: undefined } })
    expect(acted!.outcome.items.done).toBeGreaterThan(0)
    expect(acted!.alerts).toContainEqual({
      ...{ level: 'warning', code: 'state' },
      message: expect.stringContaining('what it frees will not be known: ENOENT'),
    })
  })

  it('an idle step has no reward by them', async () => {
    expect((await one({ filesystem: failing(1) })).reward).toBeUndefined()
    expect((await one({ filesystem: failing() })).reward).toBeDefined()
  })
})

describe('what fails beside it', () => {
  const ruled = { action: 'temp', policy: 'rules' } as const

  it.each([
    ['throws', () => Promise.reject(new Error('out of my depth'))],
    ['proposes what there is not', async () => ({ action: 'format', policy: 'mad', reason: '' }) as never],
  ])('a policy that %s: the rules decide, with a warning', async (_, decide) => {
    await fill(82)
    const step = await one({ policy: { name: 'mad', decide } })
    expect(step.decision).toMatchObject(ruled)
    expect(step.alerts).toMatchObject([
      { level: 'warning', code: 'policy', message: expect.stringMatching(/^policy 'mad' failed, the rules decide: /) },
    ])
  })

  it('a network of NaN: the rules decide, and it does not replace the last good one', async () => {
    await fill(82)
    const policy = new DqnPolicy({ warmUpSteps: 0, dqn: new Dqn({ seed: 1 }) })
    policy.dqn.network.parameters.fill(Number.NaN)
    const [step] = await take(1, mind({ policy, stateDir }))
    expect(step!.decision).toMatchObject(ruled)
    expect(step!.alerts).toMatchObject(
      [{ level: 'warning', code: 'policy', message: /BTRMIND_ERR_MODEL/ }].map((alert) => ({
        ...alert,
        message: expect.stringMatching(alert.message),
      })),
    )
    expect(warnings).toMatchObject([{ code: 'BTRMIND_ERR_MODEL' }])
    expect((await loadCheckpoint(join(stateDir, 'model'))).snapshot).toBeUndefined()
  })

  it('a query without an answer: statfs answers, and the loop goes on', async () => {
    const filesystem = answering({
      measure: (options) =>
        new Promise((_, reject) => {
          options?.signal?.addEventListener('abort', () => reject(options.signal?.reason as Error))
        }),
    })
    const steps = await take(2, mind({ filesystem, timeoutMs: 5, stateDir }))
    for (const step of steps) {
      expect(step.sample.source).toBe('statfs')
      expect(step.alerts).toMatchObject([{ level: 'warning', code: 'no-answer' }])
    }
    await isFree()
  })

  it('no answer at all: a warning for each sample, until there is one', async () => {
    let silent = 2
    const fails = () => fs.directory(at('none')) as never
    const filesystem = answering({
      measure: (options) => (silent-- > 0 ? fails() : fs.measure(options)),
      statfs: fails,
    })
    const [step] = await take(1, mind({ filesystem }))
    expect(warnings.map(({ code }) => code)).toEqual(['BTRMIND_ERR_SAMPLE', 'BTRMIND_ERR_SAMPLE'])
    expect(step).toMatchObject({ index: 2, sample: { source: 'kernel' } })
  })

  it('an action that fails is an alert, and the loop goes on', async () => {
    await fill(82)
    const filesystem = answering({ removeFiles: () => fs.directory(at('none')) as never })
    const steps = await take(2, mind({ filesystem, dryRun: false }))
    expect(steps[0]!.alerts).toMatchObject([
      { level: 'warning', code: 'action', message: expect.stringMatching(/^temp: ENOENT: /) },
    ])
    expect(steps[1]!.decision.verdicts[1]).toMatchObject({ code: 'fruitless' })
  })

  it('candidates that cannot be looked for are a warning', async () => {
    const filesystem = answering({ usage: () => fs.directory(at('none')) as never })
    expect(await one({ filesystem })).toMatchObject({ index: 0 })
    expect(warnings.map(String)).toMatchObject([expect.stringContaining('usage: ENOENT')])
  })

  it('a volume that was closed ends it', async () => {
    await expect(take(2, mind({ stateDir }), () => void fs.close())).rejects.toMatchObject({ code: 'EBADF' })
    await isFree()
  })
})

describe('the state directory', () => {
  it('serves one at a time', async () => {
    const btrmind = mind({ stateDir })
    await take(1, btrmind, () => {})
    for await (const step of btrmind) {
      expect(step.index).toBe(0)
      await expect(one({ stateDir })).rejects.toMatchObject({ code: 'BTRMIND_ERR_LOCKED' })
      await expect(take(1, btrmind)).rejects.toMatchObject({ code: 'BTRMIND_ERR_LOCKED' })
      break
    }
    expect(await one({ stateDir })).toMatchObject({ index: 0 })
  })

  it('is not made where the roots are refused, and given back where anything else is', async () => {
    const path = join(stateDir, 'new')
    for (const temp of [fs.path, at('none')]) {
      await expect(one({ stateDir: path, roots: { temp: [temp] } })).rejects.toThrow(`'${temp}'`)
    }
    expect(readdirSync(stateDir)).toEqual([])
    const policy: Policy = {
      name: 'lost',
      decide: () => ({ action: 'none', policy: 'lost', reason: '' }),
      restore: () => Promise.reject(new Error('no memory')),
    }
    await expect(one({ stateDir: path, policy })).rejects.toThrow('no memory')
    await isFree(path)
  })

  const pupil = (learns = true) =>
    new DqnPolicy({ dqn: new Dqn({ seed: 1, hyper: { warmupTransitions: 64 } }), learns })

  it('what was learned is learned on from by the next run', async () => {
    const first = pupil()
    await take(70, mind({ policy: first, stateDir }))
    expect(first.dqn.steps).toBeGreaterThan(0)
    const second = pupil()
    await take(3, mind({ policy: second, stateDir }))
    expect(second.dqn.steps).toBe(first.dqn.steps + 2)
    expect(second.dqn.decisions).toBe(first.dqn.decisions + 3)
  })

  it('a damaged checkpoint is named, and the last good one used', async () => {
    const first = pupil()
    await take(70, mind({ policy: first, stateDir })) // Saved after 60 steps, and at the end.
    const sets = readdirSync(join(stateDir, 'model')).sort()
    expect(sets).toHaveLength(2)
    writeFileSync(join(stateDir, 'model', sets[1]!, 'weights.bin'), 'torn')
    const second = pupil(false)
    await take(1, mind({ policy: second, stateDir }))
    expect(warnings).toMatchObject([
      { code: 'BTRMIND_ERR_STATE_CORRUPT', message: expect.stringContaining('weights.bin') },
    ])
    expect(second.dqn.decisions).toBe(60 + 1)
  })

  it('an action that was cut off is named, once', async () => {
    const journal = await Journal.open(stateDir, clock)
    await journal.begin('temp', false).intend([at('tmp/f1'), at('tmp/f2')], true)
    await journal.close()
    await one({ stateDir })
    expect(warnings.splice(0)).toMatchObject([
      {
        code: 'BTRMIND_ERR_UNFINISHED',
        message: expect.stringContaining("'temp' was under way at '/simulated/tmp/f1' when the process ended"),
      },
    ])
    await one({ stateDir })
    expect(warnings).toEqual([])
  })

  it('a damaged journal is named', async () => {
    writeFileSync(join(stateDir, 'journal.jsonl'), '{"kind":"int\n{"kind":"what"}\n')
    await one({ stateDir })
    expect(warnings.map(({ code }) => code)).toEqual(['BTRMIND_ERR_STATE_CORRUPT'])
  })
})

it('checks its options', () => {
  expect(() => mind({ intervall: 5 } as never)).toThrow("did you mean 'intervalMs'?")
  expect(() => mind({ intervalMs: Number.NaN })).toThrow(/option 'intervalMs'.*NaN/)
  expect(() => mind({ policy: {} as never })).toThrow('a Policy with decide()')
  expect(() => mind({ actions: { keepSnapshots: 0 } })).toThrow("option 'actions.keepSnapshots'")
  expect(() => mind({ filesystem: '/mnt' as never })).toThrow("expected a Filesystem, got '/mnt'")
})
