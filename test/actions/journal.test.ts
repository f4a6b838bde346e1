import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Executor } from '../../src/actions/executor.js'
import { Journal, type JournalRecord } from '../../src/actions/journal.js'
import { SimulatedClock } from '../../src/simulator/index.js'
import { DAY_MS } from '../../src/units.js'
import { type ActionBench, listing, sampleOf, simulatedBench } from './bench.js'

let stateDir: string
let path: string
const clock = new SimulatedClock()
beforeEach(() => {
  stateDir = mkdtempSync(join(tmpdir(), 'actions-journal-'))
  path = join(stateDir, 'journal.jsonl')
})
afterEach(() => rmSync(stateDir, { recursive: true, force: true }))

const lines = () =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => (JSON.parse(line) as { record: JournalRecord }).record)

async function reopen(): Promise<Pick<Journal, 'unfinished' | 'problems'>> {
  const journal = await Journal.open(stateDir, clock)
  await journal.close()
  return journal
}

describe('Journal', () => {
  it('reports an intent without an outcome at the next start, once', async () => {
    const journal = await Journal.open(stateDir, clock)
    const done = journal.begin('temp', false)
    await done.intend(['/v/tmp/a'], true)
    await done.conclude({ done: 1, failed: 0 })
    const cut = journal.begin('temp', true)
    await cut.intend(['/v/tmp/b'], true)
    await cut.intend(['/v/tmp/c', '/v/tmp/d'], true)
    await journal.close()
    const paths = ['/v/tmp/b', '/v/tmp/c', '/v/tmp/d']
    const unfinished = [{ action: 'temp', emergency: true, begun: true, timeMs: clock.wallMs(), paths }]
    expect(await reopen()).toMatchObject({ unfinished, problems: [] })
    expect(lines().at(-1)).toMatchObject({ kind: 'outcome', error: 'cut off: the process ended under way' })
    expect(await reopen()).toMatchObject({ unfinished: [], problems: [] })
  })

  it('drops a torn outcome: what it concluded counts as unfinished', async () => {
    const journal = await Journal.open(stateDir, clock)
    const record = journal.begin('temp', false)
    await record.intend(['/v/tmp/a'], true)
    const whole = readFileSync(path).length
    await record.conclude({ done: 1, failed: 0 })
    await journal.close()
    writeFileSync(path, readFileSync(path).subarray(0, whole + 20))
    const { unfinished, problems } = await reopen()
    expect(unfinished).toMatchObject([{ action: 'temp', paths: ['/v/tmp/a'] }])
    expect(problems).toEqual([`'${path}' ended in a torn line, which was dropped`])
  })

  it('sets a damaged file aside and guesses at nothing', async () => {
    const journal = await Journal.open(stateDir, clock)
    const record = journal.begin('temp', false)
    await record.intend(['/v/tmp/a'], true)
    await record.conclude({ done: 1, failed: 0 })
    await journal.close()
    writeFileSync(path, readFileSync(path, 'utf8').replace('/v/tmp/a', '/v/tmp/z'))
    const { unfinished, problems } = await reopen()
    expect(unfinished).toEqual([])
    expect(problems).toEqual([`'${path}' was damaged (1 of 2 lines); it was set aside as '${path}.corrupt-1'`])
    appendFileSync(path, 'rubbish\nmore\n')
    expect((await reopen()).problems[0]).toContain('.corrupt-2')
  })

  it('what was prepared is on disk before it begins, and is dropped when nothing comes of it', async () => {
    const prepared = { action: 'temp', emergency: false, begun: false, paths: ['/v/tmp/b', '/v/tmp/c'] }
    const first = await Journal.open(stateDir, clock)
    await first.prepare('temp', ['/v/tmp/a'])
    await first.prepare('temp', prepared.paths)
    await first.prepare('temp', [...prepared.paths].reverse()) // The same: nothing new to write.
    expect(lines()).toHaveLength(2)
    const crashed = readFileSync(path)
    await first.close()
    expect(await reopen()).toMatchObject({ unfinished: [], problems: [] })

    writeFileSync(path, crashed)
    expect((await reopen()).unfinished).toMatchObject([prepared])
    expect((await reopen()).unfinished).toEqual([])

    writeFileSync(path, crashed)
    const second = await Journal.open(stateDir, clock)
    await second.prepare('temp', prepared.paths)
    const record = second.begin('temp', true)
    await record.intend(['/v/tmp/b'], true)
    await vi.waitFor(() => expect(lines().at(-1)).toMatchObject({ kind: 'intent', paths: ['/v/tmp/b'] })) // Nobody waits for it.
    const begun = readFileSync(path)
    await record.conclude({ done: 1, failed: 0 })
    await second.close()
    expect((await reopen()).unfinished).toEqual([])
    writeFileSync(path, begun)
    expect((await reopen()).unfinished).toMatchObject([{ begun: true, emergency: true, paths: ['/v/tmp/b'] }])
  })

  it('without a state directory keeps nothing', async () => {
    const journal = await Journal.open(undefined, clock)
    await journal.begin('temp', false).intend(['/v/tmp/a'], true)
    await journal.close()
    expect(journal.unfinished).toEqual([])
  })
})

describe('the executor and its journal', () => {
  let bench: ActionBench
  let executor: Executor
  beforeEach(async () => {
    bench = await simulatedBench()
    bench.makeDirectory('tmp')
    for (let i = 0; i < 100; i++) bench.writeFile(`tmp/f${i}`, 4096)
    await bench.fs.sync()
    bench.advance(11 * DAY_MS)
    executor = await Executor.open(bench.fs, { clock: bench.clock, stateDir, temp: [`${bench.root}/tmp`] })
    await executor.refresh({ prepare: true })
  })
  afterEach(async () => {
    await executor.close()
    await bench.dispose()
  })
  async function act(emergency = false) {
    const sample = await sampleOf(bench)
    const plan = executor.plan('temp', sample, { emergency })
    if (!plan.allowed) throw new Error(plan.reason)
    return executor.execute(plan, { sample: { ...sample, liveUsedPercent: 99.5 }, dryRun: false })
  }

  it('every path is on record before it is deleted, then the outcome', async () => {
    const { removeFiles } = bench.fs
    const recorded: number[] = []
    bench.fs.removeFiles = (...args) => {
      const paths = lines().flatMap((record) => (record.kind === 'intent' ? record.paths : []))
      recorded.push(new Set(paths).size)
      for (const { path } of args[1]) expect(paths).toContain(`${bench.root}/tmp/${Buffer.from(path)}`)
      return removeFiles.apply(bench.fs, args)
    }
    const outcome = await act()
    expect(recorded).toEqual([64, 100])
    const { predictedBytes, freedBytes } = outcome
    expect(lines()[0]).toMatchObject({ prepared: true })
    expect(lines().at(-1)).toMatchObject({
      kind: 'outcome',
      action: 'temp',
      done: 100,
      failed: 0,
      predictedBytes,
      freedBytes,
    })
    expect(new Set(lines().map(({ id }) => id)).size).toBe(1)
  })

  it('nothing is deleted that cannot be put on record', async () => {
    await executor.close() // The journal's file is closed under it.
    const outcome = await act()
    expect(outcome).toMatchObject({ items: { done: 0 }, firstActMs: undefined, error: { code: 'BTRMIND_ERR_STATE' } })
    expect(Object.keys(await listing(bench.fs, `${bench.root}/tmp`))).toHaveLength(100)
  })

  it('in an emergency neither, but for temporary files', async () => {
    bench.makeDirectory('snapshots')
    for (let i = 0; i < 2; i++) await bench.fs.snapshot(bench.root, `${bench.root}/snapshots/s${i}`, { readonly: true })
    const snapshots = [`${bench.root}/snapshots`]
    await using other = await Executor.open(bench.fs, { clock: bench.clock, stateDir, snapshots, keepSnapshots: 1 })
    await other.refresh()
    await other.close()
    const sample = await sampleOf(bench)
    const plan = other.plan('snapshots', sample, { emergency: true })
    if (!plan.allowed) throw new Error(plan.reason)
    const outcome = await other.execute(plan, { sample, dryRun: false })
    expect(outcome).toMatchObject({ items: { planned: 1, done: 0 }, error: { code: 'BTRMIND_ERR_STATE' } })
    expect((await bench.fs.subvolume(`${bench.root}/snapshots/s0`)).readonly).toBe(true)
  })

  it('an emergency goes on without it, and says so', async () => {
    await executor.close()
    const sample = { ...(await sampleOf(bench)), liveUsedPercent: 99.5 }
    const outcome = await executor.forceDeleteTemp({ sample, dryRun: false })
    expect(outcome.items.done).toBeGreaterThan(0)
    expect(outcome.error).toBeUndefined()
    expect(outcome.warnings).toEqual([`the journal could not be written: BTRMIND_ERR_STATE: '${path}' was closed`])
  })
})
