import { once } from 'node:events'
import { type FileRow, rows } from '../btrfs/batch.js'
import { openFilesystem } from '../btrfs/filesystem.js'
import type { ScanOptions } from '../btrfs/scan.js'
import { formatBytes } from '../units.js'
import { type Io, table } from './output.js'
import { Unread } from './skipped.js'

export interface ScanCommand {
  readonly json?: boolean
  readonly since?: number
  readonly extents?: boolean
  readonly sharing?: boolean
  readonly consistent?: boolean
  readonly largest?: number
}

const KINDS = new Map([
  [0o100000, 'files'],
  [0o040000, 'directories'],
  [0o120000, 'symlinks'],
])
const kindOf = (mode: number) => KINDS.get(mode & 0o170000) ?? 'special files'

export async function scan(io: Io, path: string, command: ScanCommand): Promise<void> {
  const { json, since: sinceGeneration, extents, sharing, consistent, largest } = command
  await using fs = await openFilesystem(path, { signal: io.signal })
  const options: ScanOptions = { signal: io.signal, sinceGeneration, extents, sharing, consistent }
  const unread = new Unread()
  if (json && largest === undefined) {
    for await (const batch of fs.scan(options)) {
      unread.note(batch.skipped)
      const lines = Array.from(rows.of(batch), (row) => `${JSON.stringify(row)}\n`)
      if (!io.stdout.write(lines.join(''))) await once(io.stdout, 'drain', { signal: io.signal })
    }
    return unread.tell(io)
  }
  const most = largest ?? 10
  const sums = new Map<string, Sum>()
  let top: { text: string; sizeBytes: number }[] = []
  let least = -1
  const linked = new Set<number>()
  const totals = { extents: 0, compressedBytes: 0, sharedBytes: 0 }
  const look = (row: FileRow) => {
    if (linked.has(row.inode)) return
    if (row.links > 1) linked.add(row.inode) // counts once
    const kind = kindOf(row.mode)
    const sum = sums.get(kind) ?? { count: 0, sizeBytes: 0, diskBytes: 0 }
    sums.set(kind, sum)
    sum.count++
    sum.sizeBytes += row.sizeBytes
    sum.diskBytes += row.diskBytes
    totals.extents += row.extentCount ?? 0
    totals.compressedBytes += row.compressedBytes ?? 0
    totals.sharedBytes += row.sharedBytes || 0
    if (kind !== 'files' || most === 0 || row.sizeBytes <= least) return
    top.push({ text: json ? JSON.stringify(row) : row.path, sizeBytes: row.sizeBytes })
    if (top.length < 2 * most) return
    top = top.sort((a, b) => b.sizeBytes - a.sizeBytes).slice(0, most)
    least = top.at(-1)!.sizeBytes
  }
  for await (const batch of fs.scan(options)) {
    unread.note(batch.skipped)
    for (const row of rows.of(batch)) look(row)
  }
  top = top.sort((a, b) => b.sizeBytes - a.sizeBytes).slice(0, most)
  if (json) for (const { text } of top) io.stdout.write(`${text}\n`)
  else show(io, command, sums, totals, top)
  unread.tell(io)
}

interface Sum {
  count: number
  sizeBytes: number
  diskBytes: number
}

function show(
  io: Io,
  { extents, sharing }: ScanCommand,
  sums: ReadonlyMap<string, Sum>,
  totals: { readonly extents: number; readonly compressedBytes: number; readonly sharedBytes: number },
  top: readonly { readonly text: string; readonly sizeBytes: number }[],
): void {
  const counted = [...sums].map(([kind, { count, sizeBytes, diskBytes }]) => {
    return [String(count), kind, formatBytes(sizeBytes), formatBytes(diskBytes)]
  })
  io.stdout.write(table(['count', 'kind', 'size', 'allocated'], counted, [0, 2, 3]))
  if (extents || sharing) {
    const shared = sharing ? `, ${formatBytes(totals.sharedBytes)} shared` : ''
    io.stdout.write(`\n${totals.extents} extents, ${formatBytes(totals.compressedBytes)} compressed${shared}\n`)
  }
  if (top.length === 0) return
  const named = top.map(({ text, sizeBytes }) => [formatBytes(sizeBytes), text])
  io.stdout.write(`\n${table(['largest', 'path'], named, [0])}`)
}
