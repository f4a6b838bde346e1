/** What the suite acts on, and what it asks of that; the tests of the simulator do likewise. */
import { type FileRef, fileRef } from '../../src/btrfs/batch.js'
import type { Root } from '../../src/btrfs/directory.js'
import type { Filesystem } from '../../src/btrfs/interface.js'
import type { Measurement } from '../../src/btrfs/measure.js'
import type { Subvolume } from '../../src/btrfs/subvolume-list.js'

export interface FileTraits {
  /** How long ago it was last read and written. Default 0. */
  readonly ageMs?: number
  /** Text that shrinks to a few percent; else random bytes. */
  readonly compressible?: boolean
}

/** A volume of one device of 1 GiB or more, data single, metadata DUP, nothing on it. Paths are relative to `root`. */
export interface Bench {
  readonly fs: Filesystem
  readonly root: string
  writeFile(path: string, bytes: number, traits?: FileTraits): Promise<void>
  makeDirectory(path: string): Promise<void>
  makeSymlink(path: string, target: string): Promise<void>
  dispose(): Promise<void>
}

/** What `act` rejects with. */
export async function refusal(act: () => Promise<unknown>): Promise<unknown> {
  try {
    await act()
  } catch (error) {
    return error
  }
  throw new Error('it did not fail')
}

export async function rows(fs: Filesystem, root: Root, batchSize?: number): Promise<(FileRef & { name: string })[]> {
  const found: (FileRef & { name: string })[] = []
  for await (const batch of fs.walk(root, { batchSize })) {
    for (let index = 0; index < batch.length; index++) found.push({ ...fileRef(batch, index), name: batch.path(index) })
  }
  return found
}

export async function list(fs: Filesystem, below?: string): Promise<Subvolume[]> {
  const found: Subvolume[] = []
  for await (const subvolume of fs.subvolumes(below === undefined ? {} : { below })) found.push(subvolume)
  return found
}

export async function settled(fs: Filesystem): Promise<Measurement> {
  await fs.sync()
  return fs.measure()
}
