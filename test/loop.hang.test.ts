/** A disk that hangs, in each of the loop's moments: it goes on sampling, says so, adds nothing, and can be stopped. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { openFilesystem } from '../src/btrfs/filesystem.js'
import type { Filesystem } from '../src/btrfs/interface.js'
import type { BtrmindOptions } from '../src/loop/options.js'
import { Btrmind, type Step } from '../src/loop.js'
import { lockStateDirectory } from '../src/monitor/lock.js'
import type { Policy } from '../src/policies/policy.js'
import { RulePolicy } from '../src/policies/rules.js'
import { SimulatedClock, SimulatedFilesystem } from '../src/simulator/index.js'
import { DAY_MS, MIB } from '../src/units.js'
import { AheadClock } from './actions/bench.js'
import { openFiles } from './helpers/open-files.js'
import { cannotStall, makeStallableVolume, type StallableVolume } from './helpers/stall.js'
import { cannotMount, makeVolume, run } from './helpers/volume.js'
import { failure } from './monitor/fake.js'

type Call = 'usage' | 'fileExtents' | 'removeFiles' | 'sync' | 'measure' | 'statfs'

/** Promise.withResolvers() of Node 22. */
function withResolvers<T>() {
  let resolve = (_: T) => {}
  let reject = (_: unknown) => {}
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}

/** A volume of whose calls some are stuck until they are let go: an abort settles the quick ones, as the kernel's do. */
function hanging(filesystem: Filesystem) {
  const stuck = new Set<Call>()
  const asked: Partial<Record<Call, number>> = {}
  let failing: Call | undefined
  let letGo = withResolvers<void>()
  const volume = new Proxy(filesystem, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target)
      if (typeof value !== 'function') return value
      return (...args: { signal?: AbortSignal }[]) => {
        asked[name as Call] = (asked[name as Call] ?? 0) + 1
        const go = () => Reflect.apply(value, target, args)
        if (failing === name) return Promise.reject(failure('EIO', name))
        if (!stuck.has(name as Call)) return go()
        const given = withResolvers<never>()
        const signal = name === 'removeFiles' ? undefined : args.find((each) => each?.signal)?.signal
        const give = () => given.reject(signal?.reason)
        signal?.addEventListener('abort', give)
        return Promise.race([letGo.promise.then(go), given.promise]).finally(() => {
          signal?.removeEventListener('abort', give)
        })
      }
    },
  })
  return {
    volume,
    asked,
    fail(call?: Call) {
      failing = call
    },
    hang: (...calls: Call[]) => {
      for (const call of calls) stuck.add(call)
    },
    resume() {
      stuck.clear()
      letGo.resolve(undefined)
      letGo = withResolvers()
    },
  }
}

const codes = ({ decision }: Pick<Step, 'decision'>) =>
  decision.verdicts.map((verdict) => (verdict.allowed ? 'allowed' : verdict.code))

/** Deletes whatever it may. */
const eager = (): Policy => ({
  name: 'eager',
  decide: ({ verdicts }) => ({ action: verdicts[1]!.allowed ? 'temp' : 'none', policy: 'eager', reason: '' }),
})

describe('a call that hangs', () => {
  let clock: SimulatedClock
  let fs: SimulatedFilesystem
  let disk: ReturnType<typeof hanging>
  let stateDir: string
  let warnings: string[]
  beforeEach(async () => {
    clock = new SimulatedClock()
    fs = new SimulatedFilesystem({ clock, devicesBytes: [1024 * MIB] })
    fs.volume.makeDirectory('/simulated/tmp')
    const old = clock.wallMs() - 20 * DAY_MS
    const times = { atimeMs: old, mtimeMs: old, ctimeMs: old }
    for (let i = 0; i < 64; i++) fs.volume.writeFile(`/simulated/tmp/f${i}`, 10 * MIB, times)
    await fs.sync()
    disk = hanging(fs)
    stateDir = mkdtempSync(join(tmpdir(), 'loop-state-'))
    warnings = []
  })
  afterEach(async () => {
    disk.resume()
    await fs.close()
    rmSync(stateDir, { recursive: true, force: true })
  })

  const mind = (options: Partial<BtrmindOptions> = {}) =>
    new Btrmind({
      filesystem: disk.volume,
      policy: new RulePolicy(),
      roots: { temp: ['/simulated/tmp'] },
      actions: { stepMs: 20, scanMs: 1 },
      ...{ clock, stateDir, timeoutMs: 500, dryRun: false },
      onWarning: ({ message }) => void warnings.push(message),
      ...options,
    })
  async function take(
    count: number,
    each: (step: Step) => void = () => {},
    options: Partial<BtrmindOptions> = {},
    until = (_: Step) => false,
  ) {
    const steps: Step[] = []
    for await (const step of mind(options)) {
      each(step)
      if (steps.push(step) >= count || until(step)) break
    }
    ;(await lockStateDirectory(stateDir)).release()
    return steps
  }
  const said = (step: Step | undefined) =>
    step?.alerts.map(({ level, code, message }) => `${level} ${code}: ${message.replace(/for \d+ s/, 'for … s')}`)
  const files = async () => {
    let count = 0
    for await (const batch of fs.walk('/simulated/tmp')) count += batch.length
    return count
  }
  const busy = ['allowed', ...Array.from({ length: 4 }, () => 'still-under-way')]

  it('a look asks for the usage once', async () => {
    await take(1)
    expect(disk.asked.usage).toBe(1)
  })

  it.each<[Call, string]>([
    ['usage', 'usage'],
    ['fileExtents', 'temp'],
  ])('in a look (%s): steps go on, nothing acts, none is added; then it ends', async (call, what) => {
    disk.hang(call)
    const each = ({ index }: Step) => {
      if (index !== 3) return
      expect(disk.asked[call]).toBe(1)
      disk.resume()
    }
    const steps = await take(1_000, each, { policy: eager() }, ({ outcome }) => outcome.items.done > 0)
    expect(said(steps[0])).toEqual([
      `warning no-answer: the look for candidates has been under way for … s (${what}); nothing acts until it ends`,
    ])
    for (const step of steps.slice(0, 4)) expect(codes(step)).toEqual(busy)
    expect(steps.slice(1, 4).flatMap(({ alerts }) => alerts)).toEqual([])
    expect(steps.at(-1)).toMatchObject({ outcome: { action: 'temp', error: undefined, items: { done: 64 } } })
    expect(warnings).toEqual([])
  })

  it.each<[Call, string, number]>([
    ['measure', 'before it began', 0],
    ['removeFiles', 'at work', 0],
    ['sync', 'until its space is free', 64],
  ])('in an action (%s): what is known is said, nothing follows; then it ends', async (call, where, done) => {
    let hung = false
    // By statfs's figures an action begins only after a measurement.
    if (call === 'measure') disk.fail('measure')
    const cameBack = ({ alerts }: Step) => alerts.filter(({ message }) => message.startsWith('temp came back'))
    const steps = await take(
      1_000,
      ({ index }) => {
        if (index === 3) disk.resume()
      },
      {
        policy: {
          name: 'late',
          decide: () => {
            if (hung) return { action: 'none', policy: 'late', reason: '' }
            hung = true
            disk.hang(call)
            disk.fail()
            return { action: 'temp', policy: 'late', reason: '' }
          },
        },
      },
      (step) => cameBack(step).length > 0,
    )
    const message = `BTRMIND_ERR_UNDER_WAY: 'temp' has not come back for … s (${where}); the disk hangs, or is very slow; nothing else is begun until it ends`
    expect(said(steps[0])).toContain(`warning action: temp: ${message}`)
    expect(steps[0]).toMatchObject({ outcome: { items: { done }, freedBytes: undefined }, reward: undefined })
    for (const step of steps.slice(1, 4)) {
      expect(codes(step)).toEqual(busy)
      expect(said(step)!.filter((text) => !text.includes('statfs answered instead'))).toEqual([])
    }
    const ends = steps.flatMap(cameBack)
    // Held up before it began, it must not begin half an hour later.
    expect(ends).toMatchObject([{ level: 'warning', code: 'action' }])
    expect(ends[0]!.message).toContain(call === 'measure' ? '0 done' : '64 done')
    expect(disk.asked.removeFiles).toBe(call === 'measure' ? undefined : 1)
    expect(await files()).toBe(call === 'measure' ? 64 : 0)
  })

  it('in an emergency: nothing more is deleted while it hangs', async () => {
    const times = { atimeMs: 0, mtimeMs: 0, ctimeMs: 0 }
    for (let i = 0; (await fs.measure()).usedPercent < 99.2; i++) {
      fs.volume.writeFile(`/simulated/tmp/more${i}`, 4 * MIB, times)
      await fs.sync()
    }
    disk.hang('removeFiles')
    const steps = await take(2)
    expect(steps[0]).toMatchObject({ outcome: { action: 'temp', emergency: true, items: { done: 0 } } })
    expect(said(steps[0])?.slice(1)).toEqual([
      expect.stringMatching(/^warning action: temp: .*'temp' has not come back /),
    ])
    expect(codes(steps[1]!)).toEqual(busy)
    expect(disk.asked.removeFiles).toBe(1)
  })

  it.each<[string, Call[]]>([
    ['in a look', ['fileExtents']],
    ['in an action', ['removeFiles']],
    ['in the settle', ['sync']],
    ['without any answer', ['measure', 'statfs']],
  ])('stops at an abort (%s)', async (where, calls) => {
    const stop = new AbortController()
    disk.hang(...calls)
    const asked = setInterval(() => (disk.asked[calls[0]!] ?? 0) > 0 && stop.abort(), 5)
    // What is told to stop in an action is given as long as a query.
    const timeoutMs = where === 'in an action' ? 150 : 60_000
    const options = { policy: eager(), actions: { stepMs: 60_000 }, timeoutMs, signal: stop.signal }
    for await (const _ of mind(options));
    clearInterval(asked)
    ;(await lockStateDirectory(stateDir)).release()
    expect(disk.asked[calls[0]!]).toBe(1)
  })

  it('while what was learned is saved', async () => {
    const rules = new RulePolicy()
    const saves: number[] = []
    const policy = {
      name: 'slow',
      decide: rules.decide.bind(rules),
      save: () => {
        saves.push(1)
        return new Promise<void>(() => {})
      },
    }
    expect(await take(130, undefined, { policy, dryRun: true })).toHaveLength(130)
    expect(saves).toHaveLength(1)
    expect(warnings).toEqual([`BTRMIND_ERR_STATE: '${stateDir}': the disk does not answer within 500 ms`])
  })
})

describe.skipIf(cannotStall)('a disk that hangs', () => {
  let volume: StallableVolume
  let stateDir: string
  beforeEach(() => {
    volume = makeStallableVolume()
    stateDir = mkdtempSync(join(tmpdir(), 'loop-state-'))
    for (const directory of ['tmp', 'kept']) mkdirSync(join(volume.path, directory))
    for (let i = 0; i < 3_000; i++) {
      const directory = i % 50 === 0 ? 'tmp' : 'kept'
      writeFileSync(join(volume.path, directory, `file${i}`), Buffer.alloc(3_000, i))
    }
    volume.remount()
  })
  afterEach(() => {
    volume[Symbol.dispose]()
    rmSync(stateDir, { recursive: true, force: true })
  })
  const options = (filesystem: Filesystem): BtrmindOptions => ({
    filesystem,
    roots: { temp: [join(volume.path, 'tmp')] },
    actions: { tempAgeHours: 0, stepMs: 500, scanMs: 50 },
    policy: eager(),
    ...{ stateDir, intervalMs: 100, timeoutMs: 100, dryRun: false },
    onWarning: () => {},
  })

  it.each(['look', 'settle'] as const)(
    'in the %s: steps go on, with one warning, and act again when the disk answers',
    async (where) => {
      const fs = await openFilesystem(volume.path)
      const filesystem = new Proxy(fs, {
        get(target, name) {
          const value = Reflect.get(target, name, target)
          if (typeof value !== 'function') return value
          return (...args: unknown[]) => {
            if (name === (where === 'look' ? 'usage' : 'sync')) volume.stall()
            return Reflect.apply(value, target, args)
          }
        },
      })
      const steps: Step[] = []
      const message =
        where === 'look' ? /^the look for candidates has been under way/ : /^temp: .*until its space is free/
      const hung = () => steps.filter(({ decision }) => codes({ decision }).includes('still-under-way'))
      let resumed = false
      for await (const step of new Btrmind(options(filesystem))) {
        steps.push(step)
        if (!resumed && steps.length === 12) {
          resumed = true
          volume.resume()
          volume.stall = () => {}
        }
        if (resumed && step.sample.source === 'kernel' && step.decision.verdicts[1]!.allowed) break
        if (resumed && readdirSync(join(volume.path, 'tmp')).length === 0) break
      }
      expect(hung().length).toBeGreaterThan(6)
      const alerts = steps.flatMap((step) => step.alerts)
      expect(alerts.filter((alert) => message.test(alert.message))).toHaveLength(1)
      // What measure() reads was in memory before the action.
      expect(hung().map(({ sample }) => sample.source)).toContain(where === 'look' ? 'statfs' : 'kernel')
      await fs.close()
      await vi.waitFor(() => expect(openFiles()).not.toContain(volume.path), 20_000)
    },
  )

  it('is left by an abort', async () => {
    const fs = await openFilesystem(volume.path)
    const stop = new AbortController()
    let steps = 0
    volume.stall()
    for await (const step of new Btrmind({ ...options(fs), signal: stop.signal })) {
      expect(step.sample.source).toBe('statfs')
      if (++steps === 3) stop.abort()
    }
    expect(steps).toBe(3)
    await fs.close()
    volume.resume()
    await vi.waitFor(() => expect(openFiles()).not.toContain(volume.path), 20_000)
  })
})

describe.skipIf(cannotMount)('a volume on which nothing can be changed', () => {
  it('an action that is stuck in the kernel: the loop goes on, and hears of its end', async () => {
    using volume = makeVolume({ devicesMiB: [256] })
    mkdirSync(join(volume.path, 'tmp'))
    for (let i = 0; i < 200; i++) writeFileSync(join(volume.path, 'tmp', `${i}`), Buffer.alloc(10_000, i))
    await using fs = await openFilesystem(volume.path)
    const clock = new AheadClock()
    clock.aheadMs = DAY_MS
    let frozen = false
    const thaw = () => {
      if (frozen) run('fsfreeze', '--unfreeze', volume.path)
      frozen = false
    }
    const policy = {
      name: 'eager',
      decide: () => {
        if (!frozen) run('fsfreeze', '--freeze', volume.path)
        frozen = true
        return { action: 'temp', policy: 'eager', reason: '' } as const
      },
    }
    const steps: Step[] = []
    try {
      const roots = { temp: [join(volume.path, 'tmp')] }
      const actions = { tempAgeHours: 1, stepMs: 50, scanMs: 50 }
      const bounds = { intervalMs: 20, timeoutMs: 100, dryRun: false }
      for await (const step of new Btrmind({ filesystem: fs, clock, policy, roots, actions, ...bounds })) {
        steps.push(step)
        if (steps.length === 5) {
          expect(readdirSync(join(volume.path, 'tmp'))).toHaveLength(200)
          policy.decide = () => ({ action: 'none', policy: 'eager', reason: '' }) as never
          thaw()
        }
        if (step.alerts.some(({ message }) => message.startsWith('temp came back'))) break
      }
    } finally {
      thaw()
    }
    expect(steps[0]!.outcome).toMatchObject({ items: { done: 0 }, error: { code: 'BTRMIND_ERR_UNDER_WAY' } })
    for (const step of steps.slice(1, 5)) {
      expect(step.sample.source).toBe('kernel')
      expect(step.outcome.refusal).toMatchObject({ code: 'still-under-way' })
    }
    // Of the files whose removal had been given to the kernel some are gone; no other was begun.
    expect(readdirSync(join(volume.path, 'tmp')).length).toBeGreaterThanOrEqual(200 - 64)
  })
})
