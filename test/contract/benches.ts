/** The two kinds of volume that the contract and the fidelity tests run on: one device, nothing on it. */
import { randomBytes } from 'node:crypto'
import { mkdir, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { SimulatedClock, SimulatedFilesystem } from '../../src/simulator/index.js'
import { MIB } from '../../src/units.js'
import { makeVolume } from '../helpers/volume.js'
import type { Bench } from './bench.js'

/** What the kernel's zstd makes of text() below: one sector of each 128 KiB. */
const TEXT_RATIO = 0.03

const LINE = 'one line of text, like the other ones, number '

function text(bytes: number): Buffer {
  let made = ''
  for (let line = 0; made.length < Math.min(bytes, MIB); line++) made += `${LINE}${line}\n`
  return Buffer.alloc(bytes, made)
}

/** A repeat a MiB away is out of sight for what compresses 128 KiB at a time. */
function noise(bytes: number): Buffer {
  return Buffer.alloc(bytes, randomBytes(Math.max(1, Math.min(bytes, MIB))))
}

export async function kernelBench(mib = 1024): Promise<Bench> {
  const volume = makeVolume({ devicesMiB: [mib] })
  const fs = await openFilesystem(volume.path)
  return {
    fs,
    root: volume.path,
    async writeFile(path, bytes, { ageMs = 0, compressible = false } = {}) {
      const at = join(volume.path, path)
      await writeFile(at, compressible ? text(bytes) : noise(bytes))
      if (ageMs === 0) return
      const then = (Date.now() - ageMs) / 1000
      await utimes(at, then, then)
    },
    async makeDirectory(path) {
      await mkdir(join(volume.path, path))
    },
    async makeSymlink(path, target) {
      await symlink(target, join(volume.path, path))
    },
    async dispose() {
      await fs.close()
      volume[Symbol.dispose]()
    },
  }
}

export async function simulatorBench(mib = 1024): Promise<Bench> {
  const clock = new SimulatedClock()
  const fs = new SimulatedFilesystem({ clock, seed: 1, devicesBytes: [mib * MIB] })
  const at = (path: string) => `${fs.path}/${path}`
  return {
    fs,
    root: fs.path,
    async writeFile(path, bytes, { ageMs = 0, compressible = false } = {}) {
      const then = clock.wallMs() - ageMs
      const times = { atimeMs: then, mtimeMs: then }
      fs.volume.writeFile(at(path), bytes, { ...times, compressibleRatio: compressible ? TEXT_RATIO : 1 })
    },
    async makeDirectory(path) {
      fs.volume.makeDirectory(at(path))
    },
    async makeSymlink(path, target) {
      fs.volume.makeSymlink(at(path), target)
    },
    dispose: () => fs.close(),
  }
}
