import { type KernelFilesystem, openFilesystem } from '../btrfs/filesystem.js'
import { type Io, table, warn } from './output.js'

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
  if (!(await seesAll(fs, io.signal)))
    warn(io, 'not all: only those beneath this subvolume that may be reached; all need root (CAP_SYS_ADMIN)')
}

/** The default one stands in the tree that the list of all is read from. */
const seesAll = (fs: KernelFilesystem, signal: AbortSignal): Promise<boolean> =>
  fs.defaultSubvolume({ signal }).then(
    () => true,
    (error: { code?: string }) => {
      if (error.code === 'EPERM') return false
      throw error
    },
  )
