/** Started by measure.test.ts: becomes nobody, reads the space of the volume given, prints it. */
import { openFilesystem } from '../../src/btrfs/filesystem.js'

process.setgroups?.([])
process.setgid?.(65_534)
process.setuid?.(65_534)
await using fs = await openFilesystem(process.argv[2]!)
const measured = await fs.measure().catch((error: Error) => ({ refused: error.message }))
const read = { usage: await fs.usage(), devices: await fs.devices(), statfs: await fs.statfs(), measured }
process.stdout.write(JSON.stringify(read))
