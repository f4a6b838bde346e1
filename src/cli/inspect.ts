import { once } from 'node:events'
import { resolve } from 'node:path'
import { openFilesystem } from '../btrfs/filesystem.js'
import type { TreeItem, TreeKey, TreeName } from '../btrfs/tree-search.js'
import type { Unavailable } from '../btrfs/types.js'
import { BtrfsError } from '../errors.js'
import { formatBytes } from '../units.js'
import { type Io, printJson, table } from './output.js'

interface Json {
  readonly json?: boolean
}
const open = (io: Io, path: string) => openFilesystem(path, { signal: io.signal })

export async function logical(
  io: Io,
  path: string,
  address: number,
  { wholeExtent, json }: Json & { wholeExtent?: boolean },
): Promise<void> {
  await using fs = await open(io, path)
  const files = await fs.logicalFiles(address, { wholeExtent, signal: io.signal })
  if (json) return printJson(io, files)
  if (files.length === 0) io.stdout.write('no file has its data there\n')
  const rows = files.flatMap(({ subvolumeId, inode, offsetBytes, paths }) =>
    (paths.length === 0 ? ['(deleted)'] : paths).map((name) => [
      String(subvolumeId),
      String(inode),
      String(offsetBytes),
      name,
    ]),
  )
  if (rows.length > 0) io.stdout.write(table(['subvolume', 'inode', 'offset', 'path'], rows, [0, 1, 2]))
}

export async function inode(
  io: Io,
  path: string,
  number: number,
  { subvolume, json }: Json & { subvolume?: number },
): Promise<void> {
  await using fs = await open(io, path)
  const id = subvolume ?? (await fs.directory(resolve(path), { signal: io.signal })).subvolumeId
  const paths = await fs.inodePaths(id, number, { signal: io.signal })
  if (json) return printJson(io, paths)
  if (paths.length === 0) io.stdout.write(`subvolume ${id} has no inode ${number}, or it has no name\n`)
  for (const name of paths) io.stdout.write(`${name === '' ? '.' : name}\n`)
}

export async function subvolume(io: Io, path: string, id: number, { json }: Json): Promise<void> {
  await using fs = await open(io, path)
  const known = await fs.subvolume(id, { signal: io.signal })
  if (json) printJson(io, known)
  else io.stdout.write(`${known.path === '' ? '.' : known.path}\n`)
}

export async function chunks(io: Io, path: string, { json }: Json): Promise<void> {
  await using fs = await open(io, path)
  const groups = await fs.blockGroups({ signal: io.signal })
  if (json) return printJson(io, groups)
  const rows = groups.map(({ logicalBytes, type, profile, sizeBytes, usedBytes, stripes }) => [
    String(logicalBytes),
    type,
    profile,
    formatBytes(sizeBytes),
    usedBytes === undefined ? '?' : `${((100 * usedBytes) / sizeBytes).toFixed(1)} %`,
    stripes.map(({ devid, offsetBytes }) => `${devid}:${offsetBytes}`).join(' '),
  ])
  io.stdout.write(table(['address', 'type', 'profile', 'size', 'used', 'device:offset'], rows, [0, 3, 4]))
}

export async function tree(
  io: Io,
  path: string,
  name: string | number,
  { min, max, since, json }: Json & { min?: TreeKey; max?: TreeKey; since?: number },
): Promise<void> {
  await using fs = await open(io, path)
  const options = { tree: name as TreeName, min, max, sinceGeneration: since, signal: io.signal }
  for await (const item of fs.treeSearch(options)) {
    const { objectid, type, typeName, offset, generation, data } = item
    const line = json
      ? JSON.stringify({ objectid, type, typeName, offset, generation, bytes: data.length, ...fieldsOf(item) }, plain)
      : `(${objectid} ${typeName} ${offset}) generation ${generation}, ${data.length} bytes`
    if (!io.stdout.write(`${line}\n`)) await once(io.stdout, 'drain', { signal: io.signal })
  }
}

/** One item that cannot be decoded must not hide the rest. */
function fieldsOf(item: TreeItem): { fields?: unknown; unavailable?: readonly Unavailable[] } {
  try {
    return { fields: item.decode() }
  } catch (error) {
    if (!(error instanceof BtrfsError)) throw error
    return { unavailable: [{ field: 'fields', reason: error.message }] }
  }
}

function plain(_: string, value: unknown): unknown {
  if (typeof value === 'bigint') return String(value)
  return value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value
}
