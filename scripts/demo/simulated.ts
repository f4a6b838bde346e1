/** The demo's volume where there is no root or no loop device: the same loop on a simulated one, five minutes a tick. */
import { setTimeout as sleep } from 'node:timers/promises'
import { createWorkload, SimulatedClock, SimulatedFilesystem } from '../../src/simulator/index.js'
import { DAY_MS, formatBytes, GIB, MIB } from '../../src/units.js'
import type { Stage } from './stage.js'

/** Real time for one tick. */
const TICK_MS = 100
const INTERVAL_MS = 5 * 60_000

export async function simulatedStage(say: (text: string) => void): Promise<Stage> {
  say('a simulated btrfs volume of 64 GiB; every tick is five minutes …')
  const clock = new SimulatedClock()
  const fs = new SimulatedFilesystem({ clock, devicesBytes: [64 * GIB] })
  const archive = `${fs.path}/archive`
  fs.volume.makeDirectory(archive)
  const oldMs = clock.wallMs() - 90 * DAY_MS
  const times = { atimeMs: oldMs, mtimeMs: oldMs, ctimeMs: oldMs }
  for (let index = 0; index < 256; index++) {
    fs.volume.writeFile(`${archive}/access-${index}.log`, 32 * MIB, { ...times, compressibleRatio: 0.3 })
  }
  const workload = createWorkload(fs, {
    seed: 7,
    fileBytes: 16 * MIB,
    tempRatioPerHour: 0.04,
    documentRatio: 0.45,
    growthRatioPerHour: 0.006,
    rewriteRatioPerHour: 0.008,
  })
  const { temp, snapshots } = workload.paths
  return {
    title: 'btrmind on a simulated btrfs volume, 64 GiB',
    fs,
    intervalMs: INTERVAL_MS,
    actions: {
      tempAgeHours: 2,
      inactiveDays: 30,
      keepSnapshots: 4,
      stepCompressBytes: 1 * GIB,
      cooldownMinutes: { temp: 60, compress: 30, snapshots: 60 },
    },
    roots: { temp: [temp], compress: [archive], snapshots: [snapshots] },
    // Days pass on the volume, but what the loop takes is measured in real time.
    clock: {
      wallMs: () => clock.wallMs(),
      elapsedMs: () => performance.now(),
      async sleep(_ms, signal) {
        workload.tick(INTERVAL_MS)
        await sleep(TICK_MS, undefined, { signal }).catch(() => undefined)
      },
    },
    writer: () => {
      const { writtenBytes, failedWrites } = workload.stats
      const failed = failedWrites > 0 ? `; ENOSPC ${failedWrites} times` : ''
      return `temporary files, documents, a snapshot every 2 h: ${formatBytes(writtenBytes)} so far${failed}`
    },
    // Nobody writes while a step is under way.
    takenBytes: () => 0,
    latencyNote: 'In real time, of the loop alone: a simulated volume answers at once.',
    [Symbol.asyncDispose]: () => fs.close(),
  }
}
