/** Actions on the volume, and what all actions keep to. */
import { expect, it } from 'vitest'
import { Executor, type ExecutorOptions } from '../../src/actions/executor.js'
import { metadataBlockGroupBytes } from '../../src/actions/guard.js'
import { readingOf } from '../../src/monitor/sample.js'
import { DAY_MS, HOUR_MS, MIB } from '../../src/units.js'
import { listing, sampleOf } from './bench.js'
import type { Hands } from './hands.js'

export function balance({ bench, remake, open, allowed, refusal }: Hands) {
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
    await remake({ sizeMiB: 128, metadata: 'single' })
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
}

export function snapshots({ bench, open, act, refusal }: Hands) {
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
}

export function journal({ bench, open, act, refusal }: Hands) {
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
}

export function roots({ bench, start, open, refusal }: Hands) {
  it('an action whose candidates cannot be looked for says so', async () => {
    const { subvolumes } = bench.fs
    bench.makeDirectory('snapshots')
    const executor = await start({ snapshots: [`${bench.root}/snapshots`] })
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
    await expect(top).rejects.toThrow(`temporary directory '${bench.root}': it holds the whole of the opened volume`)
    await expect(opening({ temp: [at('none')] })).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(opening({ snapshots: [at('file')] })).rejects.toMatchObject({ code: 'ENOTDIR' })
    await expect(opening({ temp: [at('tmp')], stateDir: at('tmp/state') })).rejects.toThrow(
      'it holds the state directory',
    )
    await expect(opening({ temp: [at('tmp')], stateDir: bench.root })).rejects.toThrow('it lies in the state directory')
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
}
