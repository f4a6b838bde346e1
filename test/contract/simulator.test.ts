import { SimulatedClock, SimulatedFilesystem } from '../../src/simulator/index.js'
import { GIB } from '../../src/units.js'
import { type Bench, filesystemContract } from './filesystem.js'

filesystemContract('simulator', async (): Promise<Bench> => {
  const clock = new SimulatedClock()
  const fs = new SimulatedFilesystem({ clock, seed: 1, devicesBytes: [GIB] })
  const at = (path: string) => `${fs.path}/${path}`
  return {
    fs,
    root: fs.path,
    async writeFile(path, bytes, { ageMs = 0, compressible = false } = {}) {
      const then = clock.wallMs() - ageMs
      const times = { atimeMs: then, mtimeMs: then }
      fs.volume.writeFile(at(path), bytes, { ...times, compressibleRatio: compressible ? 0.04 : 1 })
    },
    async makeDirectory(path) {
      fs.volume.makeDirectory(at(path))
    },
    async makeSymlink(path, target) {
      fs.volume.makeSymlink(at(path), target)
    },
    dispose: () => fs.close(),
  }
})
