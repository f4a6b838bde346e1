import { describe, expect, it } from 'vitest'
import {
  createWorkload,
  SimulatedClock,
  SimulatedFilesystem,
  type Workload,
  type WorkloadOptions,
} from '../../src/simulator/index.js'
import { GIB, HOUR_MS } from '../../src/units.js'
import { rows } from '../contract/bench.js'

function make(options: WorkloadOptions = {}) {
  const clock = new SimulatedClock()
  const fs = new SimulatedFilesystem({ clock, seed: options.seed ?? 1, devicesBytes: [2 * GIB] })
  return { clock, fs, workload: createWorkload(fs, options) }
}

/** All that can be seen of a volume. */
async function everything({ fs, workload }: { fs: SimulatedFilesystem; workload: Workload }) {
  const subvolumes = []
  for await (const subvolume of fs.subvolumes()) subvolumes.push(subvolume)
  const files = await rows(fs, fs.path)
  const documents = await rows(fs, workload.paths.documents)
  return JSON.stringify([
    await fs.info(),
    await fs.usage(),
    await fs.measure(),
    workload.stats,
    subvolumes,
    files,
    documents,
  ])
}

async function acted(seed: number) {
  const made = make({ seed })
  const { fs, workload } = made
  for (let hour = 0; hour < 6; hour++) {
    for (let minute = 0; minute < 60; minute++) workload.tick(60_000)
    const temp = await rows(fs, workload.paths.temp)
    await fs.removeFiles(workload.paths.temp, temp.slice(0, 20))
    const documents = await rows(fs, workload.paths.documents)
    await fs.compressFile(workload.paths.documents, documents[hour]!)
    await fs.balance({ data: { usagePercent: 50 } }).result
    for await (const { path } of fs.subvolumes({ below: workload.paths.snapshots })) {
      if (hour === 5) await fs.deleteSubvolume(path, { waitUntilFreed: true })
    }
  }
  return everything(made)
}

describe('createWorkload()', () => {
  it('is repeatable to the bit, with all that is done to the volume', async () => {
    const first = await acted(7)
    expect(await acted(7)).toBe(first)
    expect(await acted(8)).not.toBe(first)
  })

  it('writes the same however time is cut into ticks', async () => {
    const [minutes, hours] = [make(), make()]
    for (let minute = 0; minute < 5 * 60; minute++) minutes.workload.tick(60_000)
    hours.workload.tick(5 * HOUR_MS)
    expect(await everything(minutes)).toBe(await everything(hours))
  })

  it('fills the volume until writes fail', async () => {
    const { fs, workload } = make({ tempRatioPerHour: 0.1 })
    const { usedPercent } = await fs.measure()
    expect(usedPercent).toBeGreaterThan(40)
    expect(usedPercent).toBeLessThan(55)
    workload.tick(4 * HOUR_MS)
    const later = await fs.measure()
    expect(later.liveUsedPercent).toBeGreaterThan(usedPercent + 10)
    expect(workload.stats).toMatchObject({ failedWrites: 0, snapshots: 2 })
    expect(workload.stats.deletedBytes).toBeGreaterThan(0)
    workload.tick(24 * HOUR_MS)
    expect((await fs.measure()).usedPercent).toBeGreaterThan(99)
    expect(workload.stats.failedWrites).toBeGreaterThan(0)
  })

  it('makes files that the actions look for: old compressible documents, leaked temporary files', async () => {
    const { fs, workload, clock } = make({ snapshotEveryMs: 0 })
    workload.tick(6 * HOUR_MS)
    const old = (await rows(fs, workload.paths.documents)).filter(
      ({ mtimeMs }) => clock.wallMs() - mtimeMs > 30 * 24 * HOUR_MS,
    )
    expect(old.length).toBeGreaterThan(100)
    const ratios = await Promise.all(old.map((file) => fs.estimateCompressedRatio(workload.paths.documents, file)))
    const share = ratios.filter((outcome) => outcome.ok && outcome.ratio < 0.8).length / ratios.length
    expect(share).toBeGreaterThan(0.5)
    expect(share).toBeLessThan(0.7)
    const leaked = (await rows(fs, workload.paths.temp)).filter(({ mtimeMs }) => clock.wallMs() - mtimeMs > 3 * HOUR_MS)
    expect(leaked.length).toBeGreaterThan(10)
  })

  it('refuses nonsense', () => {
    expect(() => make({ tempLeakRatio: 2 })).toThrow("option 'tempLeakRatio'")
    expect(() => make({ tempRatio: 1 } as never)).toThrow("unknown option 'tempRatio'")
  })
})
