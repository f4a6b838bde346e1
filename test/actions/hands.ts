/** What the tests of all actions do with a volume of their own. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect } from 'vitest'
import { Executor, type ExecutorOptions } from '../../src/actions/executor.js'
import type { Outcome, Plan } from '../../src/actions/plan.js'
import type { ActionName } from '../../src/actions/table.js'
import { standIn } from '../helpers/stand-in.js'
import { type ActionBench, type BenchOptions, listing, sampleOf } from './bench.js'

export type Hands = ReturnType<typeof useHands>

/** To be called in a `describe`. */
export function useHands(make: (options?: BenchOptions) => Promise<ActionBench>) {
  let there: ActionBench | undefined
  const bench = standIn(() => there)
  let stateDir: string
  const executors: Executor[] = []
  beforeEach(async () => {
    stateDir = mkdtempSync(join(tmpdir(), 'actions-state-'))
    there = await make()
  })
  afterEach(async () => {
    for (const executor of executors.splice(0)) await executor.close()
    await bench.dispose()
    rmSync(stateDir, { recursive: true, force: true })
  })

  /** Another volume in the place of the one that is there. */
  async function remake(options: BenchOptions): Promise<void> {
    await bench.dispose()
    there = await make(options)
  }
  /** That has not looked yet, and keeps no state. */
  async function start(options: ExecutorOptions): Promise<Executor> {
    const executor = await Executor.open(bench.fs, { clock: bench.clock, ...options })
    executors.push(executor)
    return executor
  }
  async function open(options: ExecutorOptions): Promise<Executor> {
    const executor = await start({ stateDir, ...options })
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
  return { bench, remake, start, open, act, allowed, refusal, names }
}
