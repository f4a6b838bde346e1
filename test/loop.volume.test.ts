/** The loop on a real volume: what goes, what stays, and a volume that is really full. */
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { BtrmindOptions } from '../src/loop/options.js'
import { Btrmind, type Step } from '../src/loop.js'
import { lockStateDirectory } from '../src/monitor/lock.js'
import { RulePolicy } from '../src/policies/rules.js'
import { MIB } from '../src/units.js'
import { AheadClock } from './actions/bench.js'
import { useFreshVolume } from './helpers/use-volume.js'
import { cannotMount, run } from './helpers/volume.js'

describe.skipIf(cannotMount)('the loop on a real volume', () => {
  const { fs, at } = useFreshVolume({ devicesMiB: [256] })
  let stateDir: string
  let clock: AheadClock
  let warnings: string[]
  beforeEach(() => {
    mkdirSync(at('tmp'))
    stateDir = mkdtempSync(join(tmpdir(), 'loop-state-'))
    clock = new AheadClock()
    warnings = []
  })
  afterEach(() => {
    rmSync(stateDir, { recursive: true, force: true })
  })

  async function take(count: number, options: Partial<BtrmindOptions>): Promise<Step[]> {
    const steps: Step[] = []
    const policy = new RulePolicy()
    const onWarning = ({ message }: Error) => void warnings.push(message)
    const common = {
      filesystem: fs,
      policy,
      roots: { temp: [at('tmp')] },
      clock,
      intervalMs: 1,
      dryRun: false,
      onWarning,
    }
    for await (const step of new Btrmind({ ...common, ...options })) if (steps.push(step) === count) break
    return steps
  }
  async function fill() {
    try {
      for (let i = 0; ; i++) writeFileSync(at('tmp', `f${i}`), Buffer.alloc(4 * MIB, i + 1))
    } catch (error) {
      expect(error).toMatchObject({ code: 'ENOSPC' })
    }
    await fs.sync()
    clock.aheadMs = 11 * 60_000
  }

  it('old temporary files really go, and what that frees is what was said', async () => {
    for (let i = 0; i < 32; i++) writeFileSync(at('tmp', `f${i}`), Buffer.alloc(4 * MIB, i + 1))
    writeFileSync(at('kept'), Buffer.alloc(MIB, 1))
    await fs.sync()
    const [dry] = await take(1, { dryRun: true, actions: { tempAgeHours: 0 } })
    expect(dry!.outcome).toMatchObject({ action: 'temp', predictedBytes: 128 * MIB, items: { planned: 32, done: 0 } })
    expect(readdirSync(at('tmp'))).toHaveLength(32)
    const steps = await take(2, { stateDir, actions: { tempAgeHours: 0 } })
    expect(steps[0]!.outcome).toMatchObject({
      action: 'temp',
      predictedBytes: 128 * MIB,
      items: { done: 32, failed: 0 },
    })
    expect(Math.abs(steps[0]!.outcome.freedBytes! - 128 * MIB)).toBeLessThan(MIB)
    expect(steps[0]!.stagesMs.monitorToAction).toBeGreaterThan(0)
    expect(steps[1]!.decision.action).toBe('none')
    expect(readdirSync(at('tmp'))).toEqual([])
    expect(existsSync(at('kept'))).toBe(true)
    expect(warnings).toEqual([])
  })

  it('full: deletes as many as it takes, and raises one critical alert', async () => {
    await fill()
    const files = readdirSync(at('tmp')).length
    const steps = await take(2, { stateDir })
    expect(steps[0]!.decision).toMatchObject({ action: 'temp', policy: 'emergency', emergency: true })
    expect(steps[0]!.outcome.items.done).toBeGreaterThan(0)
    expect(readdirSync(at('tmp'))).toHaveLength(files - steps[0]!.outcome.items.done)
    expect(steps.flatMap(({ alerts }) => alerts.map(({ level, code }) => [level, code]))).toEqual([
      ['critical', 'full'],
    ])
    expect(steps[1]!.sample.liveUsedPercent).toBeLessThan(95)
    expect(steps.map(({ critical }) => critical)).toEqual([false, false])
    expect(warnings).toEqual([])
  })

  describe('a journal on another disk, which is full', () => {
    beforeEach(async () => {
      run('mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', stateDir)
      await take(1, { stateDir, dryRun: true })
      try {
        for (;;) appendFileSync(join(stateDir, 'filler'), Buffer.alloc(4096))
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOSPC' })
      }
      warnings.splice(0)
    })
    afterEach(() => run('umount', stateDir))
    const unwritten = /BTRMIND_ERR_STATE: '.*\/journal\.jsonl': ENOSPC/

    it('what cannot be put on record is not deleted, and somebody is told', async () => {
      for (let i = 0; i < 32; i++) writeFileSync(at('tmp', `f${i}`), Buffer.alloc(4 * MIB, i + 1))
      await fs.sync()
      const [step] = await take(1, { stateDir, actions: { tempAgeHours: 0 } })
      expect(step!.outcome).toMatchObject({ action: 'temp', emergency: false, items: { planned: 32, done: 0 } })
      expect(step!.outcome.error?.message).toMatch(unwritten)
      expect(step!.alerts).toContainEqual({
        level: 'warning',
        code: 'action',
        message: expect.stringMatching(unwritten),
      })
      expect(readdirSync(at('tmp'))).toHaveLength(32)
    })

    it('an emergency deletes nevertheless, and somebody is told', async () => {
      await fill()
      const files = readdirSync(at('tmp')).length
      const [step] = await take(1, { stateDir })
      expect(step!.outcome).toMatchObject({ action: 'temp', emergency: true, error: undefined })
      expect(step!.outcome.items.done).toBeGreaterThan(0)
      expect(readdirSync(at('tmp'))).toHaveLength(files - step!.outcome.items.done)
      expect(step!.alerts).toContainEqual({
        level: 'warning',
        code: 'state',
        message: expect.stringMatching(unwritten),
      })
    })
  })

  it.each(['before', 'after'])('full, with a state directory on it made %s: acts nevertheless', async (when) => {
    const within = at('state')
    if (when === 'before') await take(1, { stateDir: within })
    await fill()
    const steps = await take(2, { stateDir: within })
    expect(steps[0]!.outcome).toMatchObject({ action: 'temp', emergency: true, error: undefined })
    expect(steps[0]!.outcome.items.done).toBeGreaterThan(0)
    expect(steps[1]!.sample.liveUsedPercent).toBeLessThan(95)
    ;(await lockStateDirectory(within)).release()
    // From now on it is kept as ever.
    warnings.splice(0)
    await take(1, { stateDir: within })
    expect(readdirSync(within)).toContain('volume.json')
  })
})
