/** Actions on files. */
import { expect, it } from 'vitest'
import { DAY_MS, HOUR_MS, MIB } from '../../src/units.js'
import { listing, sampleOf } from './bench.js'
import type { Hands } from './hands.js'

export function temp({ bench, start, open, act, allowed, refusal, names }: Hands) {
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
    const executor = await start(options)
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
    const executor = await start(options)
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
    const executor = await start({ temp, emergencyTargetPercent: 50 })
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
}

export function compress({ bench, open, act, refusal }: Hands) {
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
}
