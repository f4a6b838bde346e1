import { type KernelFilesystem, openFilesystem } from '../btrfs/filesystem.js'
import type { ScrubProgress } from '../btrfs/scrub-progress.js'
import { formatBytes, MIB } from '../units.js'
import { followUntilStopped } from './follow.js'
import { bar, type Io, paint, printJson, shellWord, table } from './output.js'

export interface ScrubCommand {
  readonly json?: boolean
  readonly readonly?: boolean
  readonly device?: number
  readonly limit?: number
  readonly start?: readonly (readonly [devid: number, bytes: number])[]
}

/** @returns whether everything is readable, or was made so, and no other process cancelled it */
export async function scrub(io: Io, path: string, command: ScrubCommand): Promise<boolean> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  const start = command.start === undefined ? undefined : Object.fromEntries(command.start)
  const bytesPerSecond = command.limit === undefined ? undefined : Math.round(command.limit * MIB)
  const scrub = fs.scrub({
    readonly: command.readonly,
    devid: command.device,
    bytesPerSecond,
    start,
    signal: io.signal,
  })
  const { last, cut } = await followUntilStopped(io, scrub, line, 'devices', command)
  if (command.json) printJson(io, last)
  else show(io, last, cut, path, command)
  return last.uncorrectableErrors + last.correctableErrors === 0 && cut !== 'elsewhere'
}

function line({ ratio, bytesPerSecond, remainingMs, uncorrectableErrors, ...counts }: ScrubProgress): string {
  const left = remainingMs === undefined ? '' : `, ${Math.ceil(remainingMs / 1000)} s left`
  const bad = uncorrectableErrors + counts.correctedErrors + counts.correctableErrors
  return `${bar(ratio, 30)} ${(100 * ratio).toFixed(1)} %  ${formatBytes(bytesPerSecond)}/s${left}${bad > 0 ? `, ${bad} errors` : ''}`
}

function show(
  io: Io,
  progress: ScrubProgress,
  cut: 'here' | 'elsewhere' | undefined,
  path: string,
  command: ScrubCommand,
): void {
  const rows = progress.devices.map((device) => [
    String(device.devid),
    device.state,
    formatBytes(device.dataBytes + device.treeBytes),
    String(device.correctedErrors),
    String(device.correctableErrors),
    String(device.uncorrectableErrors),
  ])
  const head = ['id', 'state', 'checked', 'corrected', 'correctable', 'uncorrectable']
  io.stdout.write(table(head, rows, [0, 2, 3, 4, 5]))
  if (progress.uncorrectableErrors > 0) {
    const text = 'some data has no good copy: the kernel’s log names the files'
    io.stdout.write(`${paint(io, 'red', text)}\n`)
  } else if (progress.correctableErrors > 0) {
    io.stdout.write(`${paint(io, 'yellow', 'another copy is good: a scrub without --read-only repairs it')}\n`)
  }
  if (cut) {
    const by = cut === 'here' ? 'stopped' : 'another process cancelled it'
    io.stdout.write(`${by}; to go on: ${goOn(progress, path, command)}\n`)
  }
}

/** Without its options a check would go on as a repair, or faster than it may. */
function goOn({ devices }: ScrubProgress, path: string, { readonly, device, limit }: ScrubCommand): string {
  const words = ['btrmind', 'scrub', shellWord(path)]
  if (readonly) words.push('--read-only')
  if (device !== undefined) words.push('--device', String(device))
  if (limit !== undefined) words.push('--limit', String(limit))
  for (const { devid, lastPhysicalBytes } of devices) words.push('--start', `${devid}:${lastPhysicalBytes}`)
  return words.join(' ')
}

export async function status(io: Io, path: string, { json }: { readonly json?: boolean }): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  await tell(io, fs, json)
}

export async function cancel(io: Io, path: string, { json }: { readonly json?: boolean }): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  await fs.cancelScrub({ signal: io.signal })
  await tell(io, fs, json)
}

async function tell(io: Io, fs: KernelFilesystem, json: boolean | undefined): Promise<void> {
  const status = await fs.scrubStatus({ signal: io.signal })
  if (json) return printJson(io, status ?? null)
  if (status === undefined) {
    io.stdout.write('no scrub runs\n')
    return
  }
  const rows = status.devices.map((device) => [
    String(device.devid),
    formatBytes(device.dataBytes + device.treeBytes),
    String(device.lastPhysicalBytes),
    String(device.correctedOrCorrectableErrors),
    String(device.uncorrectableErrors),
  ])
  io.stdout.write(table(['id', 'checked', 'position', 'correctable', 'uncorrectable'], rows, [0, 1, 2, 3, 4]))
}
