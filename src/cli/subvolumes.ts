import { openFilesystem } from '../btrfs/filesystem.js'
import { type Io, table } from './output.js'

export async function subvolumes(io: Io, path: string, options: { json?: boolean }): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  const rows: string[][] = []
  for await (const s of fs.subvolumes({ signal: io.signal })) {
    if (options.json) {
      io.stdout.write(`${JSON.stringify(s)}\n`)
      continue
    }
    const kind = s.parentUuid === undefined ? 'subvolume' : 'snapshot'
    const created = s.createdAt.toISOString().slice(0, 19).replace('T', ' ')
    rows.push([String(s.id), kind, s.readonly ? 'ro' : 'rw', String(s.generation), created, s.path])
  }
  if (!options.json) io.stdout.write(table(['id', 'kind', '', 'generation', 'created (UTC)', 'path'], rows, [0, 3]))
}
