/** A deletion that takes longer than the step: gone, or not known. */
import { afterEach, beforeEach, expect, it } from 'vitest'
import { Executor } from '../../src/actions/executor.js'
import type { Filesystem } from '../../src/btrfs/interface.js'
import { BtrfsError } from '../../src/errors.js'
import { readingOf } from '../../src/monitor/sample.js'
import { type ActionBench, simulatedBench } from './bench.js'

let bench: ActionBench
beforeEach(async () => {
  bench = await simulatedBench()
  bench.makeDirectory('snapshots')
  await bench.fs.createSubvolume(`${bench.root}/data`)
  for (const name of ['s0', 's1']) {
    bench.advance(3_600_000)
    await bench.fs.snapshot(`${bench.root}/data`, `${bench.root}/snapshots/${name}`, { readonly: true })
  }
})
afterEach(() => bench.dispose())

const error = (operation: string, code: string, errno: number) =>
  new BtrfsError(operation, { code, errno, text: code, path: 'there' })

/** Deletes or not, and says that it took too long; then a look at the place answers with `after`. */
async function late(deletes: boolean, after: Error | undefined) {
  let over = false
  const fs = new Proxy(bench.fs, {
    get(target, name) {
      if (name === 'deleteSubvolume')
        return async (...args: Parameters<Filesystem['deleteSubvolume']>) => {
          if (deletes) await target.deleteSubvolume(...args)
          over = true
          throw error('deleteSubvolume', 'ETIMEDOUT', -110)
        }
      if (name === 'directory' && over && after !== undefined)
        return async () => {
          throw after
        }
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
  await using executor = await Executor.open(fs, {
    snapshots: [`${bench.root}/snapshots`],
    keepSnapshots: 1,
    clock: bench.clock,
  })
  await executor.refresh()
  const sample = readingOf(await bench.fs.measure(), bench.clock.wallMs(), 0)
  const plan = executor.plan('snapshots', { ...sample, source: 'kernel' } as never)
  if (!plan.allowed) throw new Error(plan.reason)
  return executor.execute(plan, { sample: { ...sample, source: 'kernel' } as never, dryRun: false })
}

it('is done when the snapshot is no longer there', async () => {
  const outcome = await late(true, undefined)
  expect(outcome).toMatchObject({ items: { done: 1 }, error: undefined })
  expect(outcome.explanation).toContain('not free yet')
})

it('is not done while it is still there', async () => {
  expect(await late(false, undefined)).toMatchObject({ items: { done: 0 }, error: { code: 'ETIMEDOUT' } })
})

it('is not taken for done when nobody can say', async () => {
  const outcome = await late(false, error('directory', 'EIO', -5))
  expect(outcome).toMatchObject({ items: { done: 0 }, error: { code: 'EIO' } })
})
