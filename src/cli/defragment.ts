import type { DefragmentOptions, DefragmentProgress } from '../btrfs/defragment.js'
import { formatBytes } from '../units.js'
import { followUntilStopped } from './follow.js'
import { bar, type Io, printJson, table } from './output.js'
import { openVolumeOf } from './place.js'

export interface DefragmentCommand {
  readonly json?: boolean
  readonly recursive?: boolean
  readonly compress?: 'zlib' | 'lzo' | 'zstd'
  readonly level?: number
  readonly uncompressed?: boolean
  readonly recompress?: boolean
  readonly unshare?: boolean
  readonly threshold?: number
  readonly start?: number
  readonly length?: number
}

export async function defragment(io: Io, path: string, command: DefragmentCommand): Promise<void> {
  const { json, recursive, compress, level } = command
  const options: DefragmentOptions = {
    recursive,
    compress,
    level,
    nocompress: command.uncompressed,
    skipCompressed: command.recompress ? false : undefined,
    skipShared: !command.unshare,
    extentThresholdBytes: command.threshold,
    startBytes: command.start,
    lengthBytes: command.length,
    signal: io.signal,
  }
  const { fs, target } = await openVolumeOf(io, path)
  await using _ = fs
  const work = fs.defragment(target, { ...options, intervalMs: 200 })
  const { last, cut } = await followUntilStopped(io, work, line, 'files', { json })
  if (json) printJson(io, last)
  else show(io, last, cut !== undefined)
}

function line({ bytes, totalBytes, files, path = '' }: DefragmentProgress): string {
  if (totalBytes === undefined) return 'counting …'
  const ratio = totalBytes === 0 ? 1 : bytes / totalBytes
  // One line of an ordinary terminal; a name may hold anything.
  const name = path.slice(-40).replaceAll(/\p{C}/gu, '?')
  return `${bar(ratio, 20)} ${(100 * ratio).toFixed(1)} %  ${files} files  ${name}`
}

function show(io: Io, result: DefragmentProgress, cut: boolean): void {
  const { files, rewrittenFiles, rewrittenBytes, diskBytesBefore: before, diskBytesAfter: after } = result
  const disk = before === undefined ? '' : `; on disk ${formatBytes(before)} before, ${formatBytes(after!)} now`
  const given = `${rewrittenFiles} rewritten where it was worth it, ${formatBytes(rewrittenBytes)} looked at`
  io.stdout.write(`${cut ? 'stopped: ' : ''}${files} files, ${given}${disk}\n`)
  if (result.skipped.length === 0) return
  const rows = result.skipped.map(({ reason, files, bytes, example }) => [
    reason,
    String(files),
    formatBytes(bytes),
    example,
  ])
  io.stdout.write(`\n${table(['left alone', 'files', 'bytes', 'for example'], rows, [1, 2])}`)
}
