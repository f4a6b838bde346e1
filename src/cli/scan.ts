import { once } from 'node:events'
import { type FileRow, rows } from '../btrfs/batch.js'
import { openFilesystem } from '../btrfs/filesystem.js'
import type { ScanOptions } from '../btrfs/scan.js'
import { formatBytes } from '../units.js'
import { type Io, table } from './output.js'

export interface ScanCommand {
  readonly json?: boolean
  readonly since?: number
  readonly extents?: boolean
  readonly sharing?: boolean
  readonly consistent?: boolean
  readonly largest: number
}

const KINDS = new Map([
  [0o100000, 'files'],
  [0o040000, 'directories'],
  [0o120000, 'symlinks'],
])
const kindOf = (mode: number) => KINDS.get(mode & 0o170000) ?? 'special files'

export async function scan(io: Io, path: string, command: ScanCommand): Promise<void> {
  const { since: sinceGeneration, extents, sharing, consistent, largest } = command
  await using fs = await openFilesystem(path, { signal: io.signal })
  const options: ScanOptions = { signal: io.signal, sinceGeneration, extents, sharing, consistent }
  if (command.json) {
    for await (const batch of fs.scan(options)) {
      const lines: string[] = []
      for (const row of rows.of(batch)) lines.push(JSON.stringify(row))
      if (!io.stdout.write(`${lines.join('\n')}\n`)) await once(io.stdout, 'drain', { signal: io.signal })
    }
    return
  }
  const sums = new Map<string, { count: number; sizeBytes: number; diskBytes: number }>()
  let top: { path: string; sizeBytes: number }[] = []
  let least = 0
  let last = -1
  const totals = { extents: 0, compressedBytes: 0, sharedBytes: 0 }
  const look = (row: FileRow) => {
    // The names of a hard link follow one another: it counts once.
    if (row.inode === last) return
    last = row.inode
    const kind = kindOf(row.mode)
    const sum = sums.get(kind) ?? { count: 0, sizeBytes: 0, diskBytes: 0 }
    sums.set(kind, sum)
    sum.count++
    sum.sizeBytes += row.sizeBytes
    sum.diskBytes += row.diskBytes
    totals.extents += row.extentCount ?? 0
    totals.compressedBytes += row.compressedBytes ?? 0
    totals.sharedBytes += row.sharedBytes || 0
    if (largest === 0 || row.sizeBytes <= least) return
    top.push({ path: row.path, sizeBytes: row.sizeBytes })
    if (top.length < 2 * largest) return
    top = top.sort((a, b) => b.sizeBytes - a.sizeBytes).slice(0, largest)
    least = top.at(-1)!.sizeBytes
  }
  for await (const batch of fs.scan(options)) for (const row of rows.of(batch)) look(row)
  const counted = [...sums].map(([kind, { count, sizeBytes, diskBytes }]) => {
    return [String(count), kind, formatBytes(sizeBytes), formatBytes(diskBytes)]
  })
  io.stdout.write(table(['count', 'kind', 'size', 'allocated'], counted, [0, 2, 3]))
  if (extents || sharing) {
    const shared = sharing ? `, ${formatBytes(totals.sharedBytes)} shared` : ''
    io.stdout.write(`\n${totals.extents} extents, ${formatBytes(totals.compressedBytes)} compressed${shared}\n`)
  }
  top = top.sort((a, b) => b.sizeBytes - a.sizeBytes).slice(0, largest)
  if (top.length === 0) return
  const named = top.map(({ path, sizeBytes }) => [formatBytes(sizeBytes), path])
  io.stdout.write(`\n${table(['largest', 'path'], named, [0])}`)
}
