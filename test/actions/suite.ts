/** What the actions do, on the kernel and on the simulator alike. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Executor, type ExecutorOptions } from '../../src/actions/executor.js'
import { metadataBlockGroupBytes } from '../../src/actions/guard.js'
import type { Outcome, Plan } from '../../src/actions/plan.js'
import type { ActionName } from '../../src/actions/table.js'
import { readingOf } from '../../src/monitor/sample.js'
import { DAY_MS, HOUR_MS, MIB } from '../../src/units.js'
import { type ActionBench, type BenchOptions, listing, sampleOf } from './bench.js'

export type Part = 'temp' | 'compress' | 'balance' | 'snapshots' | 'journal' | 'roots'

export function actionSuite(
  name: string,
  make: (options?: BenchOptions) => Promise<ActionBench>,
  parts: readonly Part[],
): void {
  let bench: ActionBench
  let stateDir: string
  const executors: Executor[] = []
  beforeEach(async () => {
    stateDir = mkdtempSync(join(tmpdir(), 'actions-state-'))
    bench = await make()
  })
  afterEach(async () => {
    for (const executor of executors.splice(0)) await executor.close()
    await bench.dispose()
    rmSync(stateDir, { recursive: true, force: true })
  })

  async function open(options: ExecutorOptions): Promise<Executor> {
    const executor = await Executor.open(bench.fs, { clock: bench.clock, stateDir, ...options })
    executors.push(executor)
    expect(await executor.refresh()).toEqual([])
    return executor
  }
  async function act(executor: Executor, action: ActionName, dryRun = false): Promise<Outcome> {
    await bench.fs.sync()
    const sample = await sampleOf(bench)
    return executor.execute(allowed(executor.plan(action, sample)), { sample, dryRun })
  }
  function allowed(plan: ReturnType<Executor['plan']>): Plan {
    if (!plan.allowed) throw new Error(`refused: ${plan.reason}`)
    return plan
  }
  const refusal = async (executor: Executor, action: ActionName) => executor.plan(action, await sampleOf(bench))
  const names = async (path: string) => Object.keys(await listing(bench.fs, `${bench.root}/${path}`)).sort()

  const tests: Record<Part, () => void> = {
    temp() {
      it('deletes what is old, oldest first, and frees what it predicted', async () => {
        bench.makeDirectory('tmp')
        bench.makeDirectory('keep')
        for (const file of ['a', 'b', 'c']) {
          bench.writeFile(`tmp/${file}`, 8 * MIB)
          bench.writeFile(`keep/${file}`, MIB)
          bench.advance(HOUR_MS)
        }
        await bench.fs.sync()
        bench.advance(10 * DAY_MS - HOUR_MS - 60_000) // c is a minute short of ten days.
        const keep = await listing(bench.fs, `${bench.root}/keep`)
        const executor = await open({ temp: [`${bench.root}/tmp`] })
        const outcome = await act(executor, 'temp')
        expect(outcome).toMatchObject({
          action: 'temp',
          dryRun: false,
          items: { planned: 2, done: 2, failed: 0 },
          predictedBytes: 16 * MIB,
          touches: [`${bench.root}/tmp/a`, `${bench.root}/tmp/b`],
          explanation: '2 temporary files, the oldest not touched for 10 days; expected to free 16.00 MiB',
          warnings: [],
          error: undefined,
        })
        expect(outcome.freedBytes).toBe(16 * MIB)
        expect(outcome.firstActMs).toBeDefined()
        expect(await names('tmp')).toEqual(['c'])
        expect(await listing(bench.fs, `${bench.root}/keep`)).toEqual(keep)
        expect(await refusal(executor, 'temp')).toMatchObject({
          code: 'nothing-to-do',
          reason: 'none of 3 temporary files is older than 10 days',
        })
      })

      it('a dry run changes nothing and says what it would do', async () => {
        bench.makeDirectory('tmp')
        bench.writeFile('tmp/a', 4 * MIB)
        await bench.fs.sync()
        bench.advance(11 * DAY_MS)
        const executor = await open({ temp: [`${bench.root}/tmp`] })
        await bench.fs.sync()
        const before = await listing(bench.fs, bench.root)
        const { generation } = await bench.fs.info()
        const sample = await sampleOf(bench)
        const plan = allowed(executor.plan('temp', sample))
        const outcome = await executor.execute(plan, { sample, dryRun: true })
        expect(outcome).toMatchObject({
          dryRun: true,
          predictedBytes: 4 * MIB,
          freedBytes: undefined,
          items: { planned: 1, done: 0 },
          touches: [`${bench.root}/tmp/a`],
          firstActMs: undefined,
        })
        expect(await listing(bench.fs, bench.root)).toEqual(before)
        expect((await bench.fs.info()).generation).toBe(generation)
      })

      it('does not count what a snapshot holds too', async () => {
        await bench.fs.createSubvolume(`${bench.root}/tmp`)
        bench.writeFile('tmp/shared', 8 * MIB)
        await bench.fs.sync()
        await bench.fs.snapshot(`${bench.root}/tmp`, `${bench.root}/frozen`, { readonly: true })
        bench.writeFile('tmp/own', 4 * MIB)
        await bench.fs.sync()
        bench.advance(11 * DAY_MS)
        const executor = await open({ temp: [`${bench.root}/tmp`] })
        const outcome = await act(executor, 'temp')
        expect(outcome).toMatchObject({ predictedBytes: 4 * MIB, freedBytes: 4 * MIB, items: { done: 2 } })
      })

      it('takes no more files in a step than it may', async () => {
        bench.makeDirectory('tmp')
        for (let i = 0; i < 200; i++) {
          bench.writeFile(`tmp/f${String(i).padStart(3, '0')}`, 4096)
          bench.advance(1000)
        }
        await bench.fs.sync()
        bench.advance(11 * DAY_MS)
        const executor = await open({ temp: [`${bench.root}/tmp`], stepFiles: 150 })
        expect((await act(executor, 'temp')).items).toMatchObject({ planned: 150, done: 150 })
        const left = await names('tmp')
        expect(left).toHaveLength(50)
        expect(left[0]).toBe('f150')
        expect((await act(executor, 'temp')).items).toMatchObject({ planned: 50, done: 50 })
      })

      it('leaves alone what changed since it was seen', async () => {
        bench.makeDirectory('tmp')
        bench.writeFile('tmp/a', 5000)
        bench.writeFile('tmp/b', 5000)
        await bench.fs.sync()
        bench.advance(11 * DAY_MS)
        const executor = await open({ temp: [`${bench.root}/tmp`] })
        bench.writeFile('tmp/a', 6000)
        const outcome = await act(executor, 'temp')
        expect(outcome.items).toEqual({
          planned: 2,
          done: 1,
          failed: 1,
          failures: [{ path: `${bench.root}/tmp/a`, code: 'CHANGED' }],
        })
        expect(await names('tmp')).toEqual(['a'])
      })

      it('in an emergency takes younger files, only until it is enough', async () => {
        bench.makeDirectory('tmp')
        for (let i = 0; i < 40; i++) bench.writeFile(`tmp/f${i}`, 10 * MIB)
        await bench.fs.sync()
        bench.advance(11 * 60_000)
        bench.writeFile('tmp/fresh', 10 * MIB)
        await bench.fs.sync()
        const executor = await open({ temp: [`${bench.root}/tmp`], emergencyTargetPercent: 50 })
        const sample = { ...(await sampleOf(bench)), liveUsedPercent: 70 }
        expect(executor.plan('temp', sample)).toMatchObject({ code: 'nothing-to-do' })
        const outcome = await executor.forceDeleteTemp({ sample, dryRun: false })
        expect(outcome).toMatchObject({ emergency: true, action: 'temp', error: undefined })
        const left = await names('tmp')
        expect(left).toContain('fresh')
        // A fifth of 1 GiB is 21 files of 10 MiB.
        expect(outcome.items).toMatchObject({ planned: 21, done: 21, failed: 0 })
        expect(outcome.predictedBytes).toBe(210 * MIB)
        expect(left).toHaveLength(20)
      })

      it('in an emergency takes no more for not knowing the profile', async () => {
        bench.makeDirectory('tmp')
        for (let i = 0; i < 40; i++) bench.writeFile(`tmp/f${i}`, 10 * MIB)
        await bench.fs.sync()
        bench.advance(11 * 60_000)
        bench.fs.usage = () => Promise.reject(new Error('EPERM: not permitted'))
        const options = { temp: [`${bench.root}/tmp`], emergencyTargetPercent: 50 }
        const executor = await Executor.open(bench.fs, { clock: bench.clock, ...options })
        executors.push(executor)
        expect(await executor.refresh()).toEqual(['usage: EPERM: not permitted'])
        const sample = { ...(await sampleOf(bench)), liveUsedPercent: 70 }
        const outcome = await executor.forceDeleteTemp({ sample, dryRun: false })
        expect(outcome).toMatchObject({ predictedBytes: undefined, items: { planned: 21, done: 21, failed: 0 } })
      })

      it('in an emergency spares what would free nothing: metadata goes last, what a snapshot holds never', async () => {
        await bench.fs.createSubvolume(`${bench.root}/tmp`)
        for (let i = 0; i < 10; i++) bench.writeFile(`tmp/small${i}`, 1000)
        for (let i = 0; i < 10; i++) bench.writeFile(`tmp/shared${i}`, 4 * MIB)
        await bench.fs.sync()
        await bench.fs.snapshot(`${bench.root}/tmp`, `${bench.root}/frozen`, { readonly: true })
        bench.advance(60_000)
        for (let i = 0; i < 10; i++) bench.writeFile(`tmp/own${i}`, 10 * MIB)
        await bench.fs.sync()
        bench.advance(11 * 60_000)
        const options = { temp: [`${bench.root}/tmp`], emergencyTargetPercent: 50 }
        // Without a look before, so that nothing is known of any file.
        const executor = await Executor.open(bench.fs, { clock: bench.clock, ...options })
        executors.push(executor)
        const sample = { ...(await sampleOf(bench)), liveUsedPercent: 54.8 }
        const some = await executor.forceDeleteTemp({ sample, dryRun: false })
        expect(some.items).toMatchObject({ planned: 5, done: 5, failed: 0 })
        const starting = async (name: string) => (await names('tmp')).filter((path) => path.startsWith(name)).length
        expect([await starting('own'), await starting('small'), await starting('shared')]).toEqual([5, 10, 10])
        // As if others wrote as fast as it deletes.
        const measured = await bench.fs.measure()
        bench.fs.measure = async () => ({ ...measured, liveUsedPercent: 99.5 })
        await executor.forceDeleteTemp({ sample: { ...sample, liveUsedPercent: 99.5 }, dryRun: false })
        expect([await starting('own'), await starting('small'), await starting('shared')]).toEqual([0, 0, 10])
      })

      it('in an emergency looks by itself, and a dry run only says so', async () => {
        bench.makeDirectory('tmp')
        bench.writeFile('tmp/f', 10 * MIB)
        await bench.fs.sync()
        bench.advance(11 * 60_000)
        const temp = [`${bench.root}/tmp`]
        const executor = await Executor.open(bench.fs, { clock: bench.clock, temp, emergencyTargetPercent: 50 })
        executors.push(executor)
        const sample = { ...(await sampleOf(bench)), liveUsedPercent: 99.5 }
        const said = await executor.forceDeleteTemp({ sample, dryRun: true })
        expect(said).toMatchObject({ dryRun: true, items: { planned: 1, done: 0 }, touches: [`${bench.root}/tmp/f`] })
        expect(await names('tmp')).toEqual(['f'])
        expect((await executor.forceDeleteTemp({ sample, dryRun: false })).items).toMatchObject({ done: 1 })
        expect(await executor.forceDeleteTemp({ sample, dryRun: false })).toMatchObject({
          refusal: { code: 'nothing-to-do', reason: 'none of 0 temporary files is older than 10 min' },
        })
      })

      it('stops when it is told to, and keeps account of what it did', async () => {
        bench.makeDirectory('tmp')
        for (let i = 0; i < 300; i++) bench.writeFile(`tmp/f${i}`, 4096)
        await bench.fs.sync()
        bench.advance(11 * DAY_MS)
        const executor = await open({ temp: [`${bench.root}/tmp`] })
        const sample = await sampleOf(bench)
        const plan = allowed(executor.plan('temp', sample))
        const stop = new AbortController()
        const { removeFiles } = bench.fs
        bench.fs.removeFiles = async (...args) => {
          const removed = await removeFiles.apply(bench.fs, args)
          stop.abort()
          return removed
        }
        const outcome = await executor.execute(plan, { sample, dryRun: false, signal: stop.signal })
        expect(outcome.items.done).toBeGreaterThan(0)
        expect(outcome.items.done).toBe(300 - (await names('tmp')).length)
        expect(outcome.freedBytes).toBeUndefined()
      })
    },

    compress() {
      it('compresses what is inactive, private and compressible, once', async () => {
        await bench.fs.createSubvolume(`${bench.root}/data`)
        bench.writeFile('data/shared', 4 * MIB, true)
        await bench.fs.sync()
        await bench.fs.snapshot(`${bench.root}/data`, `${bench.root}/frozen`, { readonly: true })
        bench.writeFile('data/text', 16 * MIB, true)
        bench.writeFile('data/noise', 8 * MIB)
        bench.writeFile('data/small', 64 * 1024, true)
        await bench.fs.sync()
        bench.advance(31 * DAY_MS)
        const before = await listing(bench.fs, `${bench.root}/data`)
        const executor = await open({ compress: [`${bench.root}/data`] })
        const outcome = await act(executor, 'compress')
        expect(outcome).toMatchObject({
          items: { planned: 1, done: 1, failed: 0 },
          touches: [`${bench.root}/data/text`],
          error: undefined,
        })
        expect(outcome.freedBytes).toBeGreaterThan(12 * MIB)
        expect(outcome.predictedBytes).toBeGreaterThan(12 * MIB)
        const after = await listing(bench.fs, `${bench.root}/data`)
        for (const path of ['shared', 'noise', 'small']) expect(after[path]).toBe(before[path])
        expect(await executor.refresh()).toEqual([])
        expect(await refusal(executor, 'compress')).toMatchObject({ code: 'nothing-to-do' })
        const again = await open({ compress: [`${bench.root}/data`], stateDir: undefined })
        expect(await refusal(again, 'compress')).toMatchObject({ code: 'nothing-to-do' })
      })

      it('counts no longer what a snapshot came to hold after it was found', async () => {
        await bench.fs.createSubvolume(`${bench.root}/data`)
        bench.makeDirectory('archive')
        bench.writeFile('data/text', 8 * MIB, true)
        bench.writeFile('archive/text', 4 * MIB, true)
        await bench.fs.sync()
        bench.advance(31 * DAY_MS)
        const executor = await open({ compress: [`${bench.root}/data`, `${bench.root}/archive`] })
        expect(executor.plan('compress', await sampleOf(bench))).toMatchObject({ items: 2 })
        await bench.fs.snapshot(`${bench.root}/data`, `${bench.root}/frozen`, { readonly: true })
        expect(await executor.refresh()).toEqual([])
        const outcome = await act(executor, 'compress')
        expect(outcome).toMatchObject({
          items: { planned: 1, done: 1, failed: 0 },
          touches: [`${bench.root}/archive/text`],
        })
        expect(outcome.predictedBytes).toBeLessThanOrEqual(4 * MIB)
      })

      it('takes only what fits into half of the free space', async () => {
        bench.makeDirectory('data')
        bench.writeFile('data/text', 64 * MIB, true)
        await bench.fs.sync()
        bench.advance(31 * DAY_MS)
        const executor = await open({ compress: [`${bench.root}/data`] })
        const sample = await sampleOf(bench)
        expect(executor.plan('compress', sample)).toMatchObject({ items: 1 })
        expect(executor.plan('compress', { ...sample, freeBytes: MIB })).toMatchObject({
          code: 'nothing-to-do',
          reason: '1 file would not fit, compressed, into half of the free space',
        })
      })

      it('leaves active files alone', async () => {
        bench.makeDirectory('data')
        bench.writeFile('data/text', MIB, true)
        await bench.fs.sync()
        bench.advance(29 * DAY_MS)
        const executor = await open({ compress: [`${bench.root}/data`] })
        expect(await refusal(executor, 'compress')).toMatchObject({
          code: 'nothing-to-do',
          reason: 'none of 1 file is large, untouched for 30 days, private and compressible',
        })
      })

      it('rewrites no more in a step than it may, the largest first', async () => {
        bench.makeDirectory('data')
        for (const [index, mib] of [2, 8, 4].entries()) bench.writeFile(`data/f${index}`, mib * MIB, true)
        await bench.fs.sync()
        bench.advance(31 * DAY_MS)
        const executor = await open({ compress: [`${bench.root}/data`], stepCompressBytes: 9 * MIB })
        expect((await act(executor, 'compress')).touches).toEqual([`${bench.root}/data/f1`, `${bench.root}/data/f2`])
        expect((await act(executor, 'compress')).touches).toEqual([`${bench.root}/data/f0`])
      })
    },

    balance() {
      it('is refused while metadata slack is thin', async () => {
        const executor = await open({})
        expect(await refusal(executor, 'balance')).toMatchObject({ code: 'metadata-slack' })
      })

      it('is refused below two block groups that would fit into one', async () => {
        const executor = await open({ metadataReserveBlockGroups: 1 })
        const { blockGroups } = await bench.fs.usage()
        const metadata = blockGroups.find(({ type }) => type === 'metadata')!
        const sample = await sampleOf(bench)
        // Not half full, and alone.
        expect(2 * metadata.usedBytes).toBeLessThan(metadata.sizeBytes)
        const roomy = { ...sample, metadataSlackBytes: 10 * metadataBlockGroupBytes(sample.sizeBytes) }
        expect(executor.plan('balance', roomy)).toMatchObject({
          code: 'nothing-to-merge',
          reason: 'no two metadata block groups would fit into one',
        })
      })

      it('gives block groups back, and leaves the reserve', async () => {
        await bench.dispose()
        bench = await make({ sizeMiB: 128, metadata: 'single' })
        bench.writeFile('keep', MIB)
        await bench.thinMetadata()
        const files = await listing(bench.fs, bench.root)
        const cautious = await open({ stateDir: undefined, metadataReserveBlockGroups: 3 })
        expect(await refusal(cautious, 'balance')).toMatchObject({ code: 'metadata-slack' })

        const executor = await open({ metadataReserveBlockGroups: 1 })
        const before = await bench.fs.measure()
        const sample = readingOf(before, bench.clock.wallMs(), 0)
        const plan = allowed(executor.plan('balance', sample))
        const outcome = await executor.execute(plan, { sample, dryRun: false })
        const after = await bench.fs.measure()
        expect(outcome).toMatchObject({ error: undefined, warnings: [] })
        expect(outcome.items).toEqual({ planned: 1, done: 1, failed: 0, failures: [] })
        const givenBytes = before.metadataAllocatedBytes - after.metadataAllocatedBytes
        expect(givenBytes).toBeGreaterThan(0)
        // All that was given back, unless the cleaner took an empty block group just after.
        expect(outcome.freedBytes).toBeGreaterThan(0)
        expect(outcome.freedBytes).toBeLessThanOrEqual(givenBytes)
        expect(plan.predictedBytes).toBeGreaterThan(0)
        const slackBytes = after.metadataAllocatedBytes - after.metadataUsedBytes - after.globalReserveBytes
        expect(slackBytes).toBeGreaterThan(metadataBlockGroupBytes(after.deviceSizeBytes))
        expect(await listing(bench.fs, bench.root)).toEqual(files)
        expect(await refusal(executor, 'balance')).toMatchObject({ code: 'cool-down' })
      })
    },

    snapshots() {
      const make = async (count: number) => {
        await bench.fs.createSubvolume(`${bench.root}/data`)
        bench.makeDirectory('snapshots')
        for (let i = 0; i < count; i++) {
          bench.writeFile('data/file', 8 * MIB)
          await bench.fs.sync()
          await bench.fs.snapshot(`${bench.root}/data`, `${bench.root}/snapshots/s${i}`, { readonly: true })
          bench.advance(HOUR_MS)
        }
      }
      const left = async () => {
        const all: string[] = []
        for await (const { path } of bench.fs.subvolumes()) all.push(path)
        return all.sort()
      }

      it('deletes the oldest, one a step, down to the floor', async () => {
        await make(4)
        const executor = await open({
          snapshots: [`${bench.root}/snapshots`],
          keepSnapshots: 2,
          cooldownMinutes: { snapshots: 0 },
        })
        const first = await act(executor, 'snapshots')
        expect(first).toMatchObject({
          items: { planned: 1, done: 1 },
          touches: [`${bench.root}/snapshots/s0`],
          predictedBytes: undefined,
          freedBytes: 8 * MIB,
          error: undefined,
        })
        expect(first.explanation).toContain('what it frees is not known before the first one is gone')
        expect(await left()).toEqual(['data', 'snapshots/s1', 'snapshots/s2', 'snapshots/s3'])
        expect(await executor.refresh()).toEqual([])
        const second = await act(executor, 'snapshots')
        expect(second).toMatchObject({ predictedBytes: 8 * MIB, freedBytes: 8 * MIB })
        expect(second.explanation).toContain('expected to free 8.00 MiB, as the last 1 did on average')
        const reason = '2 read-only snapshots in 1 directory; 2 stay in each'
        expect(await refusal(executor, 'snapshots')).toMatchObject({ code: 'nothing-to-do', reason })
        expect(await left()).toEqual(['data', 'snapshots/s2', 'snapshots/s3'])
      })

      it('leaves alone what is no read-only snapshot, or not directly inside', async () => {
        await make(2)
        const at = (path: string) => `${bench.root}/${path}`
        await bench.fs.snapshot(at('data'), at('snapshots/writable'))
        await bench.fs.createSubvolume(at('snapshots/subvolume'))
        bench.makeDirectory('snapshots/deeper')
        await bench.fs.snapshot(at('data'), at('snapshots/deeper/x'), { readonly: true })
        await bench.fs.snapshot(at('data'), at('outside'), { readonly: true })
        const executor = await open({ snapshots: [at('snapshots')], keepSnapshots: 1 })
        const sample = await sampleOf(bench)
        expect(executor.plan('snapshots', sample)).toMatchObject({ touches: [at('snapshots/s0')] })
        await act(executor, 'snapshots')
        expect(executor.plan('snapshots', sample)).toMatchObject({ code: 'nothing-to-do' })
        expect(await left()).toEqual([
          'data',
          'outside',
          'snapshots/deeper/x',
          'snapshots/s1',
          'snapshots/subvolume',
          'snapshots/writable',
        ])
      })

      it('looks again before it deletes: the same snapshot, and the floor', async () => {
        await make(3)
        const at = (path: string) => `${bench.root}/${path}`
        const options = { snapshots: [at('snapshots')], keepSnapshots: 2, cooldownMinutes: { snapshots: 0 } }
        const first = await open(options)
        await bench.fs.deleteSubvolume(at('snapshots/s0'))
        await bench.fs.snapshot(at('data'), at('snapshots/s0'), { readonly: true })
        const changed = await act(first, 'snapshots')
        expect(changed.items).toMatchObject({ done: 0, failures: [{ path: at('snapshots/s0'), code: 'CHANGED' }] })
        expect(changed).toMatchObject({ firstActMs: undefined, freedBytes: undefined })
        expect(await refusal(first, 'snapshots')).toMatchObject({ code: 'nothing-to-do' })

        const second = await open({ ...options, stateDir: undefined })
        await bench.fs.deleteSubvolume(at('snapshots/s2'))
        const short = await act(second, 'snapshots')
        expect(short).toMatchObject({ items: { done: 0 }, error: { code: 'BTRMIND_ERR_GUARD' }, firstActMs: undefined })
        expect(await left()).toEqual(['data', 'snapshots/s0', 'snapshots/s1'])
      })
    },

    journal() {
      it('remembers over a restart what acted when, and what snapshots freed', async () => {
        bench.makeDirectory('snapshots')
        await bench.fs.createSubvolume(`${bench.root}/data`)
        for (let i = 0; i < 3; i++) {
          bench.writeFile('data/file', 4 * MIB)
          await bench.fs.sync()
          await bench.fs.snapshot(`${bench.root}/data`, `${bench.root}/snapshots/s${i}`, { readonly: true })
          bench.advance(1000)
        }
        const options = { snapshots: [`${bench.root}/snapshots`], keepSnapshots: 1 }
        const first = await open(options)
        await act(first, 'snapshots')
        await first.close()
        const second = await open(options)
        expect(second.unfinished).toEqual([])
        expect(await refusal(second, 'snapshots')).toMatchObject({ code: 'cool-down' })
        bench.advance(6 * 60_000)
        expect(second.plan('snapshots', await sampleOf(bench))).toMatchObject({ predictedBytes: 4 * MIB })
      })

      it('an action that failed on everything rests, also after a restart', async () => {
        bench.makeDirectory('tmp')
        bench.writeFile('tmp/a', 5000)
        await bench.fs.sync()
        bench.advance(11 * DAY_MS)
        const first = await open({ temp: [`${bench.root}/tmp`] })
        bench.writeFile('tmp/a', 6000)
        expect((await act(first, 'temp')).items).toMatchObject({ done: 0, failed: 1 })
        await first.close()
        bench.advance(60_000)
        const second = await open({ temp: [`${bench.root}/tmp`], tempAgeHours: 0 })
        expect(await refusal(second, 'temp')).toMatchObject({ code: 'fruitless' })
        bench.advance(15 * 60_000)
        expect(await refusal(second, 'temp')).toMatchObject({ allowed: true })
      })
    },

    roots() {
      it('an action whose candidates cannot be looked for says so', async () => {
        const { subvolumes } = bench.fs
        bench.makeDirectory('snapshots')
        const executor = await Executor.open(bench.fs, { snapshots: [`${bench.root}/snapshots`] })
        executors.push(executor)
        expect(await refusal(executor, 'snapshots')).toMatchObject({
          reason: 'its candidates are still being looked for',
        })
        bench.fs.subvolumes = () => {
          throw new Error('EPERM: not permitted')
        }
        expect(await executor.refresh()).toEqual(['snapshots: EPERM: not permitted'])
        const reason = 'its candidates could not be looked for: EPERM: not permitted'
        expect(await refusal(executor, 'snapshots')).toMatchObject({ code: 'not-looked-yet', reason })
        bench.fs.subvolumes = subvolumes
        expect(await executor.refresh()).toEqual([])
        expect(await refusal(executor, 'snapshots')).toMatchObject({ code: 'nothing-to-do' })
      })

      it('refuses what nobody can mean', async () => {
        bench.makeDirectory('tmp')
        bench.writeFile('file', 1)
        const at = (path: string) => `${bench.root}/${path}`
        const opening = (options: ExecutorOptions) => Executor.open(bench.fs, { clock: bench.clock, ...options })
        const top = opening({ temp: [bench.root] })
        await expect(top).rejects.toMatchObject({ code: 'BTRMIND_ERR_ROOT' })
        await expect(top).rejects.toThrow(
          `temporary directory '${bench.root}': it holds the whole of the opened volume`,
        )
        await expect(opening({ temp: [at('none')] })).rejects.toMatchObject({ code: 'ENOENT' })
        await expect(opening({ snapshots: [at('file')] })).rejects.toMatchObject({ code: 'ENOTDIR' })
        await expect(opening({ temp: [at('tmp')], stateDir: at('tmp/state') })).rejects.toThrow(
          'it holds the state directory',
        )
        await expect(opening({ temp: [at('tmp')], stateDir: bench.root })).rejects.toThrow(
          'it lies in the state directory',
        )
        await expect(opening({ temps: [] } as never)).rejects.toThrow("unknown option 'temps'; did you mean 'temp'?")
        await expect(opening({ keepSnapshots: 0 })).rejects.toMatchObject({ code: 'BTRMIND_ERR_ARGUMENT' })
      })

      it('takes a directory once, and not within another', async () => {
        bench.makeDirectory('tmp')
        bench.makeDirectory('tmp/inner')
        const at = (path: string) => `${bench.root}/${path}`
        const temp = [at('tmp/inner'), at('tmp'), at('tmp/')]
        const executor = await open({ temp, compress: [bench.root], snapshots: [at('tmp'), at('tmp/inner')] })
        const paths = (kind: 'temp' | 'compress' | 'snapshots') => executor.roots[kind].map(({ path }) => path)
        expect(paths('temp')).toEqual([at('tmp')])
        expect(paths('compress')).toEqual([bench.root])
        expect(paths('snapshots')).toEqual([at('tmp'), at('tmp/inner')])
      })
    },
  }
  for (const part of parts) describe(`${name}: ${part}`, tests[part])
}
