/** Started by scan.test.ts: becomes nobody, scans the directory given, prints what came of it. */
import { rows } from '../../src/btrfs/batch.js'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import type { ScanOptions } from '../../src/btrfs/scan.js'

process.setgroups?.([])
process.setgid?.(65_534)
process.setuid?.(65_534)
await using fs = await openFilesystem(process.argv[2]!)
const scan = async (options: ScanOptions) => {
  const found: string[] = []
  try {
    for await (const row of rows(fs.scan(options)))
      found.push(`${row.inode} ${row.sizeBytes} ${row.generation} ${row.path}`)
    return found
  } catch (error) {
    const { code, hint } = error as { code: string; hint: string }
    return { code, hint }
  }
}
const unread: string[] = []
const largest = await fs.largest(1, {
  onSkipped: (skipped) => unread.push(...skipped.map(({ reason, count }) => `${reason} ${count}`)),
})
const result = {
  largest: largest.length,
  unread,
  plain: await scan({}),
  since: await scan({ sinceGeneration: 1 }),
  extents: await scan({ extents: true }),
  consistent: await scan({ consistent: true }),
}
process.stdout.write(JSON.stringify(result))
