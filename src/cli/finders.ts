import { once } from 'node:events'
import { resolve } from 'node:path'
import type { FileRow } from '../btrfs/batch.js'
import { type KernelFilesystem, openFilesystem } from '../btrfs/filesystem.js'
import { type Io, printable } from './output.js'
import { Unread } from './skipped.js'

interface Form {
  readonly json?: boolean
  readonly null?: boolean
}

export async function changed(io: Io, path: string, command: Form & { readonly since: string }): Promise<void> {
  const since = /^\d+$/.test(command.since) ? Number(command.since) : resolve(command.since)
  await print(io, path, command, (fs) => fs.changed(since, { signal: io.signal }))
}

const DAY_MS = 86_400_000

export async function inactive(
  io: Io,
  path: string,
  command: Form & { readonly days: number; readonly minimum: number },
): Promise<void> {
  const { days, minimum: minimumBytes } = command
  const unread = new Unread()
  const options = { minimumBytes, onSkipped: unread.note, signal: io.signal }
  await print(io, path, command, (fs) => fs.inactive(days * DAY_MS, options))
  unread.tell(io)
}

/** Paths, one a line; all columns as JSON lines; or NUL after each path. */
async function print(
  io: Io,
  path: string,
  form: Form,
  files: (fs: KernelFilesystem) => AsyncIterable<FileRow>,
): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  for await (const row of files(fs)) {
    const text = form.json
      ? `${JSON.stringify(row)}\n`
      : form.null
        ? Buffer.concat([row.pathBytes, Buffer.of(0)])
        : `${printable(row.path) || '.'}\n`
    if (!io.stdout.write(text)) await once(io.stdout, 'drain', { signal: io.signal })
  }
}
