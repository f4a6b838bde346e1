import { type KernelFilesystem, openFilesystem } from '../btrfs/filesystem.js'
import { formatBytes } from '../units.js'
import { type Io, paint, printJson, table } from './output.js'

export async function quota(io: Io, path: string, options: { json?: boolean }): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  const quota = await fs.quota({ signal: io.signal })
  if (options.json) return printJson(io, quota ?? null)
  if (quota === undefined) {
    io.stdout.write('quota is off\n')
    return
  }
  if (quota.mode === 'simple')
    io.stdout.write('simple mode: each extent counts for the subvolume that wrote it, none from before it was on\n')
  const bytes = (count: number | undefined, none: string) => (count === undefined ? none : formatBytes(count))
  const rows = quota.qgroups.map(({ id, path, subvolumeId, referencedBytes, exclusiveBytes, limits, parents }) => [
    id,
    bytes(referencedBytes, '?'),
    bytes(exclusiveBytes, '?'),
    bytes(limits.referencedBytes, '-'),
    bytes(limits.exclusiveBytes, '-'),
    parents.join(' '),
    path ?? (subvolumeId === undefined ? '' : '(deleted)'),
  ])
  const head = ['qgroup', 'referenced', 'exclusive', 'limit', 'limit (exclusive)', 'in', 'path']
  io.stdout.write(table(head, rows, [1, 2, 3, 4]))
  if (quota.rescanning) io.stdout.write(`${paint(io, 'yellow', 'counting: the figures are wrong until it ends')}\n`)
  else if (quota.inconsistent)
    io.stdout.write(`${paint(io, 'red', 'inconsistent: the figures are wrong until a rescan')}\n`)
}

/** What is done to a volume, and gives nothing. */
export type Change = (fs: KernelFilesystem, signal: AbortSignal) => Promise<void>

export async function change(io: Io, path: string, { json }: { json?: boolean }, run: Change): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  await run(fs, io.signal)
  if (json) printJson(io, (await fs.quota({ signal: io.signal })) ?? null)
}
