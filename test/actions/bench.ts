/** A volume and a clock for the actions: real ones, or simulated. */
import { randomBytes } from 'node:crypto'
import { mkdirSync, symlinkSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { VolumeFacts } from '../../src/actions/guard.js'
import { fileRef } from '../../src/btrfs/batch.js'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import type { Filesystem } from '../../src/btrfs/interface.js'
import type { Clock } from '../../src/clock.js'
import { readingOf } from '../../src/monitor/sample.js'
import { SimulatedClock, SimulatedFilesystem } from '../../src/simulator/index.js'
import { MIB } from '../../src/units.js'
import { makeVolume } from '../helpers/volume.js'

export interface ActionBench {
  readonly fs: Filesystem
  readonly root: string
  readonly clock: Clock
  /** Makes everything older. */
  advance(ms: number): void
  writeFile(path: string, bytes: number, compressible?: boolean): void
  makeDirectory(path: string): void
  /** Fills some 40 MiB of metadata and leaves a tenth, spread over all of it. */
  thinMetadata(): Promise<void>
  dispose(): Promise<void>
}

export interface BenchOptions {
  /** Default 1,024. */
  readonly sizeMiB?: number
  /** Default dup. */
  readonly metadata?: 'single' | 'dup'
}

export async function simulatedBench({ sizeMiB = 1024, metadata = 'dup' }: BenchOptions = {}): Promise<ActionBench> {
  const clock = new SimulatedClock()
  const fs = new SimulatedFilesystem({ clock, seed: 1, devicesBytes: [sizeMiB * MIB], metadata })
  const at = (path: string) => `${fs.path}/${path}`
  return {
    fs,
    root: fs.path,
    clock,
    advance: (ms) => clock.advance(ms),
    writeFile: (path, bytes, compressible = false) =>
      fs.volume.writeFile(at(path), bytes, { compressibleRatio: compressible ? 0.04 : 1 }),
    makeDirectory: (path) => fs.volume.makeDirectory(at(path)),
    async thinMetadata() {
      fs.volume.makeDirectory(at('thin'))
      for (let i = 0; i < 15_000; i++) fs.volume.writeFile(at(`thin/f${i}`), 2000) // Inline.
      await fs.sync()
      for await (const batch of fs.walk(at('thin'))) {
        const files = Array.from({ length: batch.length }, (_, index) => fileRef(batch, index))
        await fs.removeFiles(
          at('thin'),
          files.filter((_, index) => !batch.path(index).endsWith('0')),
        )
      }
      await fs.sync()
    },
    dispose: () => fs.close(),
  }
}

/** ctime cannot be set, so that files grow old by a clock that runs ahead. */
export class AheadClock implements Clock {
  aheadMs = 0
  wallMs(): number {
    return Date.now() + this.aheadMs
  }
  elapsedMs(): number {
    return performance.now()
  }
}

export async function kernelBench({ sizeMiB = 1024, metadata = 'dup' }: BenchOptions = {}): Promise<ActionBench> {
  const volume = makeVolume({ devicesMiB: [sizeMiB], metadata })
  const fs = await openFilesystem(volume.path)
  const clock = new AheadClock()
  return {
    fs,
    root: volume.path,
    clock,
    advance(ms) {
      clock.aheadMs += ms
    },
    writeFile(path, bytes, compressible = false) {
      const at = join(volume.path, path)
      writeFileSync(at, compressible ? Buffer.alloc(bytes, 'one line like the other\n') : randomBytes(bytes))
      const now = clock.wallMs() / 1000
      if (clock.aheadMs > 0) utimesSync(at, now, now)
    },
    makeDirectory: (path) => mkdirSync(join(volume.path, path), { recursive: true }),
    async thinMetadata() {
      const target = 'x'.repeat(3800) // Symlinks are inline, and take one system call each.
      for (let i = 0; i < 11_000; i++) symlinkSync(target, join(volume.path, `${i}`))
      await fs.sync()
      for (let i = 0; i < 11_000; i++) if (i % 10 !== 0) unlinkSync(join(volume.path, `${i}`))
      await fs.sync()
    },
    async dispose() {
      await fs.close()
      volume[Symbol.dispose]()
    },
  }
}

export async function sampleOf({ fs, clock }: Pick<ActionBench, 'fs' | 'clock'>): Promise<VolumeFacts> {
  return readingOf(await fs.measure(), clock.wallMs(), 0)
}

/** Everything below a directory, as the walk sees it: path → what tells whether it was touched. */
export async function listing(fs: Filesystem, root: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {}
  for await (const batch of fs.walk(root)) {
    for (let i = 0; i < batch.length; i++) {
      files[batch.path(i)] = [
        batch.inode[i],
        batch.sizeBytes[i],
        batch.diskBytes[i],
        batch.mtimeMs[i],
        batch.ctimeMs[i],
      ].join()
    }
  }
  return files
}
