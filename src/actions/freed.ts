/** What an action freed: utilisation before and after, by one definition. */
import type { Filesystem } from '../btrfs/interface.js'
import { utilisationPercent } from '../monitor/sample.js'
import type { Execution } from './execution.js'
import type { VolumeFacts } from './guard.js'

/** How full the volume is, as the monitor defines it; statfs has another definition. */
export type Fullness = Pick<VolumeFacts, 'usedPercent' | 'liveUsedPercent' | 'sizeBytes'>

/** The sample itself, unless statfs answered: then it is measured. Undefined: it cannot be had. */
export async function fullnessBefore(
  filesystem: Filesystem,
  sample: VolumeFacts,
  run: Execution,
): Promise<Fullness | undefined> {
  if (sample.source === 'kernel') return sample
  try {
    return await fullness(filesystem, run.signal)
  } catch (error) {
    run.signal?.throwIfAborted()
    run.warnings.push(`what it frees will not be known: ${(error as Error).message}`)
    return undefined
  }
}

/** Raw bytes. The sync frees what was unlinked; a deleted snapshot was waited for already. */
export async function measureFreed(
  filesystem: Filesystem,
  before: Fullness | undefined,
  run: Execution,
): Promise<void> {
  try {
    await filesystem.sync({ signal: run.signal })
    if (before === undefined) return
    const after = await fullness(filesystem, run.signal)
    const beforePercent = utilisationPercent(before)
    const usedBytes = (utilisationPercent(after) / 100) * after.sizeBytes
    run.freedBytes = Math.round((beforePercent / 100) * before.sizeBytes - usedBytes)
    run.utilisation = { beforePercent, afterPercent: beforePercent - (100 * run.freedBytes) / before.sizeBytes }
  } catch (error) {
    run.warnings.push(`what was freed is not known: ${(error as Error).message}`)
  }
}

async function fullness(filesystem: Filesystem, signal: AbortSignal | undefined): Promise<Fullness> {
  const { usedPercent, liveUsedPercent, deviceSizeBytes: sizeBytes } = await filesystem.measure({ signal })
  return { usedPercent, liveUsedPercent, sizeBytes }
}
