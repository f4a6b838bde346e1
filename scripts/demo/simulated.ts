/** The demo's volume where there is no root or no loop device: the same loop on a simulated one, five minutes a tick. */
import { setTimeout as sleep } from 'node:timers/promises'
import { createWorkload, SimulatedClock, SimulatedFilesystem } from '../../src/simulator/index.js'
import { formatBytes, GIB } from '../../src/units.js'
import type { Stage } from './stage.js'

/** Real time for one tick. */
const TICK_MS = 100

export async function simulatedStage(say: (text: string) => void): Promise<Stage> {
  say('a simulated btrfs volume of 64 GiB; every tick is five minutes …')
  const clock = new SimulatedClock()
  const fs = new SimulatedFilesystem({ clock, devicesBytes: [64 * GIB] })
  const workload = createWorkload(fs, {
    seed: 7,
    fileBytes: 16 * 1024 ** 2,
    tempRatioPerHour: 0.12,
    documentRatio: 0.5,
  })
  const { temp, documents, snapshots } = workload.paths
  return {
    title: 'btrmind on a simulated btrfs volume of 64 GiB',
    fs,
    intervalMs: 5 * 60_000,
    actions: { tempAgeHours: 2, inactiveDays: 30, keepSnapshots: 4, cooldownMinutes: { temp: 15, snapshots: 60 } },
    roots: { temp: [temp], compress: [documents], snapshots: [snapshots] },
    clock: {
      wallMs: () => clock.wallMs(),
      elapsedMs: () => clock.elapsedMs(),
      async sleep(ms, signal) {
        workload.tick(ms)
        await sleep(TICK_MS, undefined, { signal }).catch(() => undefined)
      },
    },
    writer: () =>
      `a workload wrote ${formatBytes(workload.stats.writtenBytes)} (${workload.stats.failedWrites} times ENOSPC)`,
    [Symbol.asyncDispose]: () => fs.close(),
  }
}
