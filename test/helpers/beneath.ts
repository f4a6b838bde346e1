/**
 * Started by tests under strace, which makes openat2 fail as on an old kernel: `beneath.ts <volume>`; reads the
 * root and files as a JSON line, tries to remove them, walks what is left, and prints both; or the code it failed with.
 */
import { readFileSync } from 'node:fs'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { nameOf, refs } from './files.js'

const { root, files: asked } = JSON.parse(readFileSync(0, 'utf8')) as { root: string; files: { path: string }[] }
const files = asked.map((file) => ({ ...file, path: Buffer.from(file.path, 'latin1') }))
await using fs = await openFilesystem(process.argv[2]!)
try {
  const outcomes = await fs.removeFiles(root, files as never)
  const skipped: string[] = []
  for await (const batch of fs.walk(root)) {
    skipped.push(...batch.skipped.map(({ reason, count }) => `${reason} ${count}`))
  }
  const left = (await refs(fs, root)).map(nameOf)
  const codes = outcomes.map(({ code }) => code ?? 'ok')
  process.stdout.write(JSON.stringify({ codes, skipped: skipped.sort(), left }))
} catch (error) {
  process.stdout.write(JSON.stringify({ failed: (error as { code: string }).code }))
}
