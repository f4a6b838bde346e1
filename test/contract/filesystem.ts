/** What the upper layers rely on, of any filesystem: one suite for the kernel and for the simulator. */
import { afterAll, beforeAll, describe } from 'vitest'
import type { Bench } from './bench.js'
import { compression, files, walk } from './files.js'
import { balance, calls, directories, space, subvolumes } from './volume.js'

const PARTS = { space, directories, subvolumes, walk, files, compression, balance, calls }
export type Part = keyof typeof PARTS

export function filesystemContract(
  name: string,
  make: () => Promise<Bench>,
  parts = Object.keys(PARTS) as readonly Part[],
): void {
  for (const part of parts) {
    describe(`${name}: ${part}`, () => {
      let bench: Bench | undefined
      beforeAll(async () => {
        bench = await make()
      })
      afterAll(() => bench?.dispose())
      PARTS[part](() => bench!)
    })
  }
}
