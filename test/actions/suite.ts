/** What the actions do, on the kernel and on the simulator alike. */
import { describe } from 'vitest'
import type { ActionBench, BenchOptions } from './bench.js'
import { useHands } from './hands.js'
import { compress, temp } from './suite-files.js'
import { balance, journal, roots, snapshots } from './suite-volume.js'

const PARTS = { temp, compress, balance, snapshots, journal, roots }

export function actionSuite(
  name: string,
  make: (options?: BenchOptions) => Promise<ActionBench>,
  parts: readonly (keyof typeof PARTS)[],
): void {
  const hands = useHands(make)
  for (const part of parts) describe(`${name}: ${part}`, () => PARTS[part](hands))
}
