/** What is put on record between steps as about to go. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { Executor } from '../../src/actions/executor.js'
import { type ActionBench, simulatedBench } from './bench.js'

let bench: ActionBench
let stateDir: string
beforeEach(async () => {
  bench = await simulatedBench()
  stateDir = mkdtempSync(join(tmpdir(), 'btrmind-state-'))
  bench.makeDirectory('tmp')
})
afterEach(async () => {
  await bench.dispose()
  rmSync(stateDir, { recursive: true, force: true })
})

it('is old enough for an emergency at least', async () => {
  const journal = join(stateDir, 'journal.jsonl')
  const onRecord = () => (existsSync(journal) ? readFileSync(journal, 'utf8') : '')
  bench.writeFile('tmp/first', 10_000)
  await bench.fs.sync()
  await using executor = await Executor.open(bench.fs, { temp: [`${bench.root}/tmp`], stateDir, clock: bench.clock })
  await executor.refresh({ prepare: true })
  expect(onRecord()).not.toContain('first')
  bench.advance(11 * 60_000)
  bench.writeFile('tmp/second', 10_000)
  await executor.refresh({ prepare: true })
  expect(onRecord()).toContain('first')
  expect(onRecord()).not.toContain('second')
})
