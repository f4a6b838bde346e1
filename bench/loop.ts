/** Monitor to action: from the question to the kernel until the first call that changes the volume, journal included. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { percentile } from '../src/cli/chart.js'
import { Btrmind, openFilesystem, type Policy } from '../src/index.js'
import { makeVolume } from '../test/helpers/volume.js'
import { type BenchRow, row } from './measure.js'

/** What the specification allows. */
const LIMIT_MS = 500

/** Always the action that deletes: each step has one file to go. */
const eager: Policy = {
  name: 'eager',
  decide: ({ verdicts }) => ({
    action: verdicts[1]?.allowed ? 'temp' : 'none',
    policy: 'eager',
    reason: 'bench',
  }),
}

export async function rows(steps = 1000): Promise<BenchRow[]> {
  using volume = makeVolume({ devicesMiB: [1024] })
  await using filesystem = await openFilesystem(volume.path)
  const temp = join(volume.path, 'tmp')
  mkdirSync(temp)
  const write = (index: number) => writeFileSync(join(temp, `file-${index}`), Buffer.alloc(16_384, index))
  const mind = new Btrmind({
    filesystem,
    roots: { temp: [temp] },
    actions: { tempAgeHours: 0, cooldownMinutes: { temp: 0 } },
    policy: eager,
    dryRun: false,
    intervalMs: 1,
    stateDir: join(volume.directory, 'state'),
  })
  const latency: number[] = []
  write(0)
  for await (const { index, stagesMs } of mind) {
    if (stagesMs.monitorToAction !== undefined) latency.push(stagesMs.monitorToAction)
    if (latency.length >= steps || index > 20 * steps) break
    write(index + 1)
  }
  const name = `monitor to action, ${latency.length} steps`
  const limit = 'the specification’s limit'
  return [
    row(`${name}, p50`, limit, percentile(latency, 50)!, LIMIT_MS),
    row(`${name}, p99`, limit, percentile(latency, 99)!, LIMIT_MS, { target: '≤ 5 ms' }),
  ]
}
