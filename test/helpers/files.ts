/** Files for tests of walking, removing and compressing. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import { type FileRef, fileRef } from '../../src/btrfs/batch.js'
import type { Root } from '../../src/btrfs/directory.js'
import type { KernelFilesystem } from '../../src/btrfs/filesystem.js'
import { createRandom } from '../../src/random.js'
import { run } from './volume.js'

/** Every file below `root`, in the order of their names. */
export async function refs(fs: KernelFilesystem, root: Root): Promise<FileRef[]> {
  const found: FileRef[] = []
  for await (const batch of fs.walk(root)) {
    for (let i = 0; i < batch.length; i++) found.push(fileRef(batch, i))
  }
  return found.sort((a, b) => Buffer.compare(a.path, b.path))
}

export const nameOf = (file: FileRef) => Buffer.from(file.path).toString('latin1')

/** Lines of a log: they shrink to about a half. */
export function logLines(bytes: number, seed = 1): Buffer {
  const random = createRandom(seed)
  const pick = (...words: string[]) => words[Math.floor(random.next() * words.length)]
  const lines: string[] = []
  for (let length = 0; length < bytes; length += lines.at(-1)!.length) {
    const user = Math.floor(random.next() * 1e6)
    lines.push(
      `${JSON.stringify({ time: 1.7e12 + lines.length * 17, level: pick('info', 'warn'), user, message: pick('login', 'request served', 'cache miss'), ms: random.next() })}\n`,
    )
  }
  return Buffer.from(lines.join('')).subarray(0, bytes)
}

export const checksum = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex')

/** Disk bytes as compsize counts them; sync before. */
export function compsizeBytes(path: string): number {
  if (!isAbsolute(path)) throw new Error('an absolute path')
  return Number(/^TOTAL\s+\S+\s+(\d+)/m.exec(run('compsize', '-b', path))![1])
}
