/** Started by privilege.test.ts: becomes nobody, tries everything (or what is named) on the volume given, prints what came of it. */
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { CHANGE, READ, tell } from './privilege.js'

process.setgroups?.([])
process.setgid?.(65_534)
process.setuid?.(65_534)
const [path, device, spare, ...which] = process.argv.slice(2)
await using fs = await openFilesystem(path!)
const all = Object.entries({ ...READ, ...CHANGE })
const calls = Object.fromEntries(all.filter(([name]) => which.length === 0 || which.includes(name)))
process.stdout.write(JSON.stringify(await tell(calls, { fs, device: device!, spare: spare! })))
