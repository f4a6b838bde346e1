/** What reading a tree adds to a process, as the tree grows. Minutes, for it makes 3,000,000 files: `--only memory`. */
import { openFilesystem } from '../src/btrfs/filesystem.js'
import { makeVolume, run } from '../test/helpers/volume.js'
import type { BenchRow } from './measure.js'
import { makeFiles } from './trees.js'

const KINDS = {
  scan: 'reading every row of a scan',
  compression: 'compression()',
}

export async function rows(sizes = [300_000, 3_000_000]): Promise<BenchRow[]> {
  using volume = makeVolume({ devicesMiB: [32_768] })
  const out: BenchRow[] = []
  const first = new Map<string, number>()
  let made = 0
  for (const size of sizes) {
    makeFiles(volume.path, size, made)
    made = size
    run('sync', '--file-system', volume.path)
    for (const [kind, name] of Object.entries(KINDS)) {
      // In a process of its own: what else this one has done is not to count.
      const child = new URL('memory.ts', import.meta.url).pathname
      const ours = Number(run(process.execPath, '--import', 'tsx', child, kind, volume.path)) / 1e6
      const peer = first.get(kind) ?? ours
      first.set(kind, peer)
      const operation = `memory that ${name} adds, ${size} files`
      out.push({
        operation,
        ours,
        peer,
        peerName: `${sizes[0]} files`,
        unit: 'MB',
        ratio: peer / ours,
        target: '≥ 0.8×',
      })
    }
  }
  return out
}

/** The most that it held, beyond what it held before. */
async function child(kind: string, path: string): Promise<void> {
  await using fs = await openFilesystem(path)
  const read = async (subvolume?: string) => {
    if (kind === 'compression') return fs.compression({ subvolume }).result
    let bytes = 0
    for await (const batch of fs.scan({ subvolume }))
      for (let i = 0; i < batch.length; i++) bytes += batch.path(i).length + batch.sizeBytes[i]!
    return bytes
  }
  await read('group-0/directory-0') // what is loaded and compiled once
  const before = process.memoryUsage.rss()
  await read()
  process.stdout.write(String(process.resourceUsage().maxRSS * 1024 - before))
}

const [, script, kind, path] = process.argv
if (script === new URL(import.meta.url).pathname && kind !== undefined && path !== undefined) await child(kind, path)
