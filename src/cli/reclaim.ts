import type { ReclaimProgress, ReclaimResult } from '../btrfs/balance-reclaim.js'
import { openFilesystem } from '../btrfs/filesystem.js'
import { formatBytes } from '../units.js'
import { followUntilStopped } from './follow.js'
import { type Io, printJson } from './output.js'

export interface ReclaimCommand {
  readonly json?: boolean
  readonly target?: number
  readonly max?: number
  readonly usage?: number
}

const WHY: Readonly<Record<ReclaimResult['stopped'], string>> = {
  target: 'so much is unallocated now',
  limit: 'as many as were asked for',
  'none left': 'no other one is used so little',
  'no room': 'what is in the next one fits nowhere',
  'no gain': 'moving further ones would give nothing back',
  stuck: 'the kernel leaves the next one where it is (a swap file?)',
}

/** @returns whether nobody else cut it short */
export async function reclaim(io: Io, path: string, { json, target, max, usage }: ReclaimCommand): Promise<boolean> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  // Without a bound, as far as it gains anything.
  const maxUsagePercent = usage ?? (target === undefined && max === undefined ? 100 : undefined)
  const limits = { targetUnallocatedBytes: target, maxBlockGroups: max, maxUsagePercent }
  const operation = fs.reclaimDataBlockGroups({ ...limits, signal: io.signal })
  const startMs = performance.now()
  const timed = (progress: ReclaimProgress) => line(progress, performance.now() - startMs)
  const { last, cut } = await followUntilStopped(io, operation, timed, 'movedBytes', { json })
  if (json) {
    printJson(io, last)
    return cut !== 'elsewhere'
  }
  const { blockGroups, movedBytes, gainedBytes, unallocatedBytes } = last
  const stopped = 'stopped' in last ? last.stopped : undefined
  io.stdout.write(`${blockGroups} block groups given back, ${formatBytes(movedBytes)} moved\n`)
  io.stdout.write(`unallocated: ${formatBytes(unallocatedBytes)}, ${formatBytes(gainedBytes)} gained\n`)
  const by = cut === 'elsewhere' ? 'another process cancelled it' : 'stopped'
  io.stdout.write(stopped === undefined ? `${by}; what was moved stays moved\n` : `ended: ${WHY[stopped]}\n`)
  return cut !== 'elsewhere'
}

function line({ blockGroups, movedBytes, gainedBytes, current }: ReclaimProgress, elapsedMs: number): string {
  const rate = `${formatBytes((1000 * movedBytes) / elapsedMs)}/s`
  const now = current === undefined ? '' : `, moving ${formatBytes(current.usedBytes)} out of another`
  return `${blockGroups} given back, ${formatBytes(gainedBytes)} gained, ${rate}${now}`
}
