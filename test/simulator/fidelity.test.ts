/** The same script on a real volume of 1 GiB and on a simulated one. docs/simulator.md states what is measured here. */
import { beforeAll, describe, expect, it } from 'vitest'
import type { Measurement } from '../../src/btrfs/measure.js'
import { KIB, MIB } from '../../src/units.js'
import { type Bench, refusal, rows } from '../contract/bench.js'
import { kernelBench, simulatorBench } from '../contract/benches.js'
import { cannotMount } from '../helpers/volume.js'

type Marks = Map<string, Measurement>

/** The kernel may have flushed some of it by itself. */
const WRITTEN = '160 MiB written'
const AFTER_FULL = new Set(['full', 'half of the last removed'])

async function script(bench: Bench): Promise<Marks> {
  const { fs, root } = bench
  const marks: Marks = new Map()
  const mark = async (what: string, flushed = true) => {
    if (flushed) await fs.sync()
    marks.set(what, await fs.measure())
  }
  const remove = async (directory: string, keep: (index: number) => boolean) => {
    const found = await rows(fs, `${root}/${directory}`)
    await fs.removeFiles(
      `${root}/${directory}`,
      found.filter((_, index) => !keep(index)),
    )
  }
  await mark('new')
  await fs.createSubvolume(`${root}/data`)
  for (const name of ['noise', 'text', 'small', 'inline']) await bench.makeDirectory(`data/${name}`)
  for (let index = 0; index < 40; index++) await bench.writeFile(`data/noise/f${index}`, 4 * MIB)
  await mark(WRITTEN, false)
  await mark('160 MiB flushed')
  for (let index = 0; index < 120; index++) await bench.writeFile(`data/text/f${index}`, MIB, { compressible: true })
  await mark('120 MiB of text')
  for (let index = 0; index < 2000; index++) await bench.writeFile(`data/small/f${index}`, 6000)
  await mark('2,000 files of 6,000 bytes')
  for (let index = 0; index < 2000; index++) await bench.writeFile(`data/inline/f${index}`, 1000)
  await mark('2,000 files of 1,000 bytes')
  await fs.snapshot(`${root}/data`, `${root}/snapshot`, { readonly: true })
  await mark('snapshot')
  await remove('data/noise', (index) => index % 2 === 1)
  await remove('data/small', (index) => index >= 1000)
  await mark('half removed, held by the snapshot')
  await bench.writeFile('data/noise/large', 100 * MIB)
  await mark('one file of 100 MiB')
  await fs.deleteSubvolume(`${root}/snapshot`, { waitUntilFreed: true })
  await mark('snapshot deleted')
  await remove('data/inline', () => false)
  await mark('2,000 files removed')
  for (const file of await rows(fs, `${root}/data/text`)) {
    expect(await fs.compressFile(`${root}/data/text`, file, { algorithm: 'zstd' })).toMatchObject({ ok: true })
  }
  await mark('text compressed')
  await fs.balance({ data: { usagePercent: 40 } }).result
  await mark('data balanced')
  await fs.balance({ metadata: { usagePercent: 50 } }).result
  await mark('metadata balanced')
  const fill = async () => {
    for (let index = 0; ; index++) await bench.writeFile(`fill${index}`, 16 * MIB)
  }
  expect(await refusal(fill)).toMatchObject({ code: 'ENOSPC' })
  await mark('full')
  const found = await rows(fs, root)
  await fs.removeFiles(root, found.slice(0, found.length / 2))
  await mark('half of the last removed')
  return marks
}

/** Files of 128 KiB on a volume that is full but for holes of at most 97 KiB. */
async function inPieces({ fs, root, ...bench }: Bench): Promise<{ ratio: number; extents: number }> {
  for (const name of ['large', 'small', 'pieces']) await bench.makeDirectory(name)
  for (let index = 0; index < 60; index++) await bench.writeFile(`large/f${index}`, 4 * KIB)
  for (let index = 0; index < 4000; index++) await bench.writeFile(`small/f${index}`, (4 + ((index * 37) % 93)) * KIB)
  for (let index = 0; index < 500; index++) await bench.writeFile(`pieces/f${index}`, 4 * KIB)
  await fs.sync()
  const fill = async () => {
    for (let index = 0; ; index++) await bench.writeFile(`large/f${index}`, 16 * MIB)
  }
  expect(await refusal(fill)).toMatchObject({ code: 'ENOSPC' })
  const small = await rows(fs, `${root}/small`)
  const even = small.filter((_, index) => index % 2 === 0)
  await fs.removeFiles(`${root}/small`, even)
  await fs.sync()
  for (let index = 0; index < 500; index++) await bench.writeFile(`pieces/f${index}`, 128 * KIB)
  await fs.sync()
  // So that every page of the sample is of these files.
  await fs.removeFiles(
    `${root}/small`,
    small.filter((file) => !even.includes(file)),
  )
  await fs.sync()
  let extents = 0
  for (const file of await rows(fs, `${root}/pieces`)) {
    const found = await fs.fileExtents(`${root}/pieces`, file)
    if (!found.ok) throw new Error(found.code)
    extents += found.extents
  }
  return { ratio: (await fs.measure()).fragmentationRatio!, extents }
}

const run = async <T>(bench: Bench, work: (bench: Bench) => Promise<T>): Promise<T> => {
  try {
    return await work(bench)
  } finally {
    await bench.dispose()
  }
}

/** Of data, on a volume of 1 GiB. */
const CHUNK = 112 * MIB

describe.skipIf(cannotMount)('the simulator against the kernel', () => {
  const both: [string, Measurement, Measurement][] = []
  beforeAll(async () => {
    const kernel = await run(await kernelBench(), script)
    const simulator = await run(await simulatorBench(), script)
    for (const [what, measured] of kernel) both.push([what, measured, simulator.get(what)!])
  })
  /** To the byte; once the volume was full, to the little that the kernel could not place. */
  const same = (of: (measured: Measurement) => number | undefined, except?: string, slack = 0) => {
    for (const [what, kernel, simulated] of both) {
      if (what === except) continue
      const allowed = Math.max(slack, AFTER_FULL.has(what) ? 256 * KIB : 0)
      expect(Math.abs(of(simulated)! - of(kernel)!), what).toBeLessThanOrEqual(allowed)
    }
  }

  it('uses the same bytes of data, flushed or not', () => {
    same((measured) => measured.liveDataUsedBytes)
    same((measured) => measured.dataUsedBytes, WRITTEN)
  })
  it('allocates the same block groups', () => {
    // When a writer is quicker than the flusher, the kernel takes the next one early: not always the same.
    same((measured) => measured.dataAllocatedBytes, undefined, CHUNK)
    same((measured) => measured.metadataAllocatedBytes)
    same((measured) => measured.unallocatedBytes, undefined, CHUNK)
  })
  it('has the same bytes free', () => {
    same((measured) => measured.freeBytes, WRITTEN)
    same((measured) => measured.globalReserveBytes)
  })
  it('is as full, to a hundredth of a percent', () => {
    for (const [what, kernel, simulated] of both) {
      expect(Math.abs(simulated.liveUsedPercent! - kernel.liveUsedPercent!), what).toBeLessThan(0.01)
    }
  })
  it('uses metadata within a quarter', () => {
    for (const [what, kernel, simulated] of both) {
      const error = Math.abs(simulated.metadataUsedBytes - kernel.metadataUsedBytes)
      expect(error, what).toBeLessThanOrEqual(Math.max(0.25 * kernel.metadataUsedBytes, 256 * KIB))
    }
  })
  it('is as fragmented, once there are only holes left', async () => {
    const kernel = await run(await kernelBench(), inPieces)
    const simulated = await run(await simulatorBench(), inPieces)
    expect(kernel.ratio).toBeGreaterThan(0.3)
    expect(Math.abs(simulated.ratio - kernel.ratio)).toBeLessThan(0.1)
    expect(Math.abs(simulated.extents / kernel.extents - 1)).toBeLessThan(0.1)
  })
})
