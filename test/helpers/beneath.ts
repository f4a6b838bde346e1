/**
 * Started by tests under strace, which makes openat2 fail as on an old kernel: `beneath.ts <root>`; reads files as a
 * JSON line, tries to remove them, walks what is left, and prints both.
 */
import { readFileSync } from 'node:fs'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { nameOf, refs } from './files.js'

const root = process.argv[2]!
const asked = JSON.parse(readFileSync(0, 'utf8')) as { path: string }[]
const files = asked.map((file) => ({ ...file, path: Buffer.from(file.path, 'latin1') }))
await using fs = await openFilesystem(root)
const outcomes = await fs.removeFiles(root, files as never)
const skipped: string[] = []
for await (const batch of fs.walk(root)) skipped.push(...batch.skipped.map(({ reason, count }) => `${reason} ${count}`))
const left = (await refs(fs, root)).map(nameOf)
process.stdout.write(JSON.stringify({ codes: outcomes.map(({ code }) => code ?? 'ok'), skipped: skipped.sort(), left }))
