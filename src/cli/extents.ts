/** extents, deduplicate, clone. */
import { once } from 'node:events'
import { resolve } from 'node:path'
import type { FileExtent } from '../btrfs/extents.js'
import type { DeduplicateProgress, DeduplicateStopped } from '../btrfs/sharing.js'
import { formatBytes } from '../units.js'
import { followUntilStopped } from './follow.js'
import { bar, type Io, paint, printJson, table } from './output.js'
import { openVolumeOf } from './place.js'

const PAGE = 512

export interface ExtentsCommand {
  readonly json?: boolean
  readonly start?: number
  readonly length?: number
}

/** Page by page, for a file may have millions. */
export async function extents(io: Io, path: string, { json, start, length }: ExtentsCommand): Promise<void> {
  const { fs, target } = await openVolumeOf(io, path)
  await using _ = fs
  const sums = { count: 0, bytes: 0, shared: 0, compressed: 0 }
  const write = async (text: string) => {
    if (text !== '' && !io.stdout.write(text)) await once(io.stdout, 'drain', { signal: io.signal })
  }
  // Not before it is known that there is something to show.
  let lines = json ? '' : `${row('offset', 'length', 'address', 'is')}\n`
  for await (const extent of fs.extents(target, { startBytes: start, lengthBytes: length, signal: io.signal })) {
    lines += `${json ? JSON.stringify(extent) : line(extent)}\n`
    sums.count++
    sums.bytes += extent.lengthBytes
    if (extent.shared) sums.shared += extent.lengthBytes
    if (extent.compressed) sums.compressed += extent.lengthBytes
    if (sums.count % PAGE !== 0) continue
    await write(lines)
    lines = ''
  }
  await write(lines)
  if (json) return
  const parts = `${formatBytes(sums.shared)} shared, ${formatBytes(sums.compressed)} compressed`
  await write(`\n${sums.count} extents, ${formatBytes(sums.bytes)}: ${parts}\n`)
}

const row = (offset: string, length: string, address: string, is: string) =>
  `${offset.padStart(16)}  ${length.padStart(12)}  ${address.padStart(18)}  ${is}`.trimEnd()

function line(extent: FileExtent): string {
  const { logicalBytes, lengthBytes, physicalBytes, ...flags } = extent
  const set = Object.entries(flags).flatMap(([name, on]) => (on === true ? [name] : []))
  return row(String(logicalBytes), String(lengthBytes), String(physicalBytes ?? '-'), set.join(' '))
}

export interface DeduplicateCommand {
  readonly json?: boolean
  readonly start?: number
  readonly length?: number
  readonly destinationStart?: number
}

/** @returns whether none failed; that one differs, or was not come to, is no failure */
export async function deduplicate(
  io: Io,
  source: string,
  destinations: readonly string[],
  { json, start, length, destinationStart }: DeduplicateCommand,
): Promise<boolean> {
  const { fs, target } = await openVolumeOf(io, source)
  await using _ = fs
  const to = destinations.map((path) => ({ path: resolve(path), startBytes: destinationStart }))
  const range = { startBytes: start, lengthBytes: length }
  const work = fs.deduplicate(target, range, to, { signal: io.signal, intervalMs: 200 })
  const { last, cut } = await followUntilStopped(io, work, compared, 'doneBytes', { json })
  const outcomes = Array.isArray(last) ? last : (last as DeduplicateStopped).outcomes
  if (json) printJson(io, outcomes)
  else {
    const rows = outcomes.map(({ path, outcome, dedupedBytes, code, hint }) => [
      code === 'ECANCELED' ? 'stopped' : (code ?? outcome),
      formatBytes(dedupedBytes),
      hint === undefined ? path : `${path}: ${hint}`,
    ])
    io.stdout.write(table(['outcome', 'deduplicated', 'path'], rows, [1]))
    if (cut) io.stdout.write('stopped; what is shared by now stays shared\n')
  }
  return outcomes.every(({ outcome, code }) => outcome !== 'failed' || code === 'ECANCELED')
}

function compared({ doneBytes, totalBytes, dedupedBytes }: DeduplicateProgress): string {
  const ratio = totalBytes ? doneBytes / totalBytes : 0
  return `${bar(ratio, 20)} ${(100 * ratio).toFixed(1)} %  ${formatBytes(dedupedBytes)} shared`
}

export interface CloneCommand {
  readonly json?: boolean
  readonly create?: boolean
  readonly sourceStart?: number
  readonly length?: number
  readonly destinationStart?: number
}

export async function clone(io: Io, source: string, destination: string, command: CloneCommand): Promise<void> {
  const { json, create, sourceStart, length, destinationStart } = command
  const { fs, target } = await openVolumeOf(io, source)
  await using _ = fs
  const to = resolve(destination)
  const range = { sourceStartBytes: sourceStart, lengthBytes: length, destinationStartBytes: destinationStart }
  await fs.clone(target, to, { ...range, create, signal: io.signal })
  if (json) printJson(io, { source: target, destination: to })
  else io.stdout.write(`${paint(io, 'green', 'shared')}: ${source} -> ${destination}\n`)
}
