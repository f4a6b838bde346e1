import { randomBytes } from 'node:crypto'
import { mkdir, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import type { Filesystem } from '../../src/btrfs/types.js'
import { MIB } from '../../src/units.js'
import { cannotMount, makeVolume } from '../helpers/volume.js'
import { type Bench, filesystemContract } from './filesystem.js'

const LINE = 'one line of text, like the other ones, number '

function text(bytes: number): Buffer {
  let made = ''
  for (let line = 0; made.length < Math.min(bytes, MIB); line++) made += `${LINE}${line}\n`
  return Buffer.alloc(bytes, made)
}

async function kernelBench(): Promise<Bench> {
  const volume = makeVolume({ devicesMiB: [1024] })
  const fs = (await openFilesystem(volume.path)) as unknown as Filesystem
  return {
    fs,
    root: volume.path,
    async writeFile(path, bytes, { ageMs = 0, compressible = false } = {}) {
      const at = join(volume.path, path)
      await writeFile(at, compressible ? text(bytes) : randomBytes(bytes))
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

describe.skipIf(cannotMount)('on a loop device', () => {
  filesystemContract('kernel', kernelBench, ['space', 'directories', 'subvolumes', 'walk', 'files'])
})
