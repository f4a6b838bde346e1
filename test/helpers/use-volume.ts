/** A volume and the filesystem open on it, made before and taken away after the tests of a `describe`. */
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest'
import { type KernelFilesystem, openFilesystem } from '../../src/btrfs/filesystem.js'
import { standIn } from './stand-in.js'
import { makeVolume, type TestVolume, type VolumeOptions } from './volume.js'

/** To be destructured at once: each part stands for what is there while a test runs. */
export interface UsedVolume {
  readonly volume: TestVolume
  readonly fs: KernelFilesystem
  /** A path on the volume. */
  readonly at: (...names: string[]) => string
}

/** One volume for all tests. Hooks that come after find it, and run before it is taken away. */
export function useVolume(options: VolumeOptions = {}): UsedVolume {
  const { make, end, used } = place()
  beforeAll(() => make(options))
  afterAll(end)
  return used
}

/** A fresh one for each test. */
export function useFreshVolume(options: VolumeOptions = {}): UsedVolume {
  const { make, end, used } = place()
  beforeEach(() => make(options))
  afterEach(end)
  return used
}

export interface OwnVolume extends UsedVolume {
  readonly make: (options?: VolumeOptions) => Promise<void>
  /** Once more, after a test closed it and mounted it anew. */
  readonly open: () => Promise<void>
}

/** The one that a test makes. */
export function useOwnVolume(): OwnVolume {
  const { make, open, end, used } = place()
  afterEach(end)
  return { ...used, make, open }
}

function place() {
  let volume: TestVolume | undefined
  let fs: KernelFilesystem | undefined
  const there = standIn(() => volume)
  const open = async () => {
    fs = await openFilesystem(there.path)
  }
  return {
    open,
    async make(options: VolumeOptions = {}) {
      volume = makeVolume(options)
      await open()
    },
    async end() {
      await fs?.close()
      volume?.[Symbol.dispose]()
      fs = undefined
      volume = undefined
    },
    used: {
      volume: there,
      fs: standIn(() => fs),
      at: (...names: string[]) => join(there.path, ...names),
    },
  }
}
