/** How long it takes to look at a balance and at a scrub while they run, at the 99th percentile. */
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { type KernelFilesystem, openFilesystem } from '../src/btrfs/filesystem.js'
import type { Operation } from '../src/btrfs/operation.js'
import { MIB } from '../src/units.js'
import { cannotMount, makeVolume } from '../test/helpers/volume.js'
import { type Row, row } from './measure.js'

/** Polls of each, and what one may take. */
const POLLS = 1_000
const MOST_MS = 5

export async function rows(polls = POLLS): Promise<Row[]> {
  if (cannotMount !== undefined) return [{ operation: 'progress poll', peerName: 'limit', skipped: cannotMount }]
  using volume = makeVolume({ devicesMiB: [4096] })
  await using fs = await openFilesystem(volume.path)
  const noise = randomBytes(8 * MIB)
  for (let i = 0; i < 200; i++) writeFileSync(join(volume.path, `${i}`), noise)
  await fs.sync()
  const works: Record<string, (fs: KernelFilesystem) => Operation<unknown, unknown>> = {
    balance: (fs) => fs.balance({ data: {} }),
    scrub: (fs) => fs.scrub({ readonly: true, bytesPerSecond: 400 * MIB }),
  }
  const out: Row[] = []
  for (const [name, begin] of Object.entries(works)) {
    const taken: number[] = []
    while (taken.length < polls) {
      await using operation = begin(fs)
      let over = false
      const end = () => {
        over = true
      }
      operation.result.then(end, end)
      while (!over && taken.length < polls) {
        const from = performance.now()
        const progress = await operation.progress()
        if (progress !== undefined) taken.push(performance.now() - from)
        await setImmediate()
      }
    }
    taken.sort((a, b) => a - b)
    const worst = taken[Math.floor(0.99 * taken.length)]!
    out.push(
      row(`progress poll during ${name}, p99`, `limit of ${MOST_MS} ms`, worst, MOST_MS, {
        unit: 'µs',
        target: '≥ 1×',
      }),
    )
  }
  return out
}
