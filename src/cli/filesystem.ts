import { openFilesystem } from '../btrfs/filesystem.js'
import type { TrimProgress } from '../btrfs/trim.js'
import type { BlockGroupType, Unavailable } from '../btrfs/types.js'
import { formatBytes } from '../units.js'
import { followUntilStopped } from './follow.js'
import { bar, type Io, printJson, table } from './output.js'

interface Json {
  readonly json?: boolean
}
const open = (io: Io, path: string) => openFilesystem(path, { signal: io.signal })

export async function label(io: Io, path: string, text: string | undefined, { json }: Json): Promise<void> {
  await using fs = await open(io, path)
  if (text !== undefined) await fs.setLabel(text, { signal: io.signal })
  const { label } = await fs.info({ signal: io.signal })
  if (json) printJson(io, { label })
  else if (text === undefined) io.stdout.write(`${label}\n`)
}

export async function features(
  io: Io,
  path: string,
  { enable = [], disable = [], json }: Json & { enable?: string[]; disable?: string[] },
): Promise<void> {
  await using fs = await open(io, path)
  const wanted = Object.fromEntries([...enable.map((name) => [name, true]), ...disable.map((name) => [name, false])])
  if (Object.keys(wanted).length > 0) await fs.setFeatures(wanted, { signal: io.signal })
  const known = await fs.features({ signal: io.signal })
  if (json) return printJson(io, known)
  const names = [...new Set([...known.inUse, ...known.supported])].sort()
  const rows = names.map((name) => [
    name,
    known.inUse.includes(name) ? 'in use' : '',
    known.supported.includes(name) ? '' : 'not known to this kernel',
    [known.settable.includes(name) ? 'on' : '', known.clearable.includes(name) ? 'off' : ''].filter(Boolean).join(', '),
  ])
  io.stdout.write(table(['feature', '', '', 'can be turned'], rows))
}

export async function sync(io: Io, path: string, { json }: Json): Promise<void> {
  await using fs = await open(io, path)
  await fs.sync({ signal: io.signal })
  if (json) printJson(io, null)
}

export async function trim(
  io: Io,
  path: string,
  { start, length, minimum, json }: Json & { start?: number; length?: number; minimum?: number },
): Promise<void> {
  await using fs = await open(io, path)
  const range = { startBytes: start, lengthBytes: length, minimumBytes: minimum }
  const work = fs.trim({ ...range, signal: io.signal, intervalMs: 200 })
  const { last, cut } = await followUntilStopped(io, work, trimming, 'trimmedBytes', { json })
  if (json) return printJson(io, last)
  const { blockGroups, totalBlockGroups, trimmedBytes } = last
  const stopped = cut === undefined ? '' : `; stopped after ${blockGroups} of ${totalBlockGroups} block groups`
  io.stdout.write(`${formatBytes(trimmedBytes)} trimmed${stopped}\n`)
}

function trimming({ blockGroups, totalBlockGroups, trimmedBytes }: TrimProgress): string {
  const ratio = totalBlockGroups === 0 ? 1 : blockGroups / totalBlockGroups
  return `${bar(ratio, 20)} ${blockGroups} of ${totalBlockGroups} block groups  ${formatBytes(trimmedBytes)} trimmed`
}

export async function statistics(io: Io, path: string, { reset, json }: Json & { reset?: boolean }): Promise<void> {
  await using fs = await open(io, path)
  const { unavailable, ...known } = await fs.statistics({ signal: io.signal })
  if (reset) await fs.resetCommitStatistics({ signal: io.signal })
  if (json) return printJson(io, { ...known, unavailable })
  const rows = Object.entries(known).flatMap(([name, value]) => lines(name, value))
  io.stdout.write(table(['', ''], rows).replace(/^\s*\n/, ''))
  tellUnavailable(io, unavailable)
}

function lines(name: string, value: unknown): string[][] {
  if (value === undefined) return []
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [[name, String(value)]]
  return Object.entries(value).flatMap(([inner, one]) => lines(`${name}.${inner}`, one))
}

export async function reclaimSettings(
  io: Io,
  path: string,
  options: Json & { type: BlockGroupType; threshold?: number; dynamic?: boolean; periodic?: boolean },
): Promise<void> {
  const { type, threshold: thresholdPercent, dynamic, periodic, json } = options
  await using fs = await open(io, path)
  if ([thresholdPercent, dynamic, periodic].some((value) => value !== undefined))
    await fs.setReclaimSettings({ [type]: { thresholdPercent, dynamic, periodic }, signal: io.signal })
  const settings = await fs.reclaimSettings({ signal: io.signal })
  if (json) return printJson(io, settings)
  const yes = (value: boolean | undefined) => (value === undefined ? '?' : value ? 'on' : 'off')
  const rows = Object.entries(settings.types).map(([name, row]) => [
    name,
    row.thresholdPercent === undefined ? '?' : `${row.thresholdPercent} %`,
    yes(row.dynamic),
    yes(row.periodic),
    row.reclaimed === undefined ? '?' : String(row.reclaimed),
    row.reclaimedBytes === undefined ? '?' : formatBytes(row.reclaimedBytes),
    row.errors === undefined ? '?' : String(row.errors),
  ])
  const head = ['type', 'threshold', 'dynamic', 'periodic', 'reclaimed', 'bytes', 'errors']
  io.stdout.write(table(head, rows, [1, 4, 5, 6]))
  tellUnavailable(io, settings.unavailable)
}

function tellUnavailable(io: Io, unavailable: readonly Unavailable[]): void {
  for (const { field, reason } of unavailable) io.stdout.write(`${field}: ${reason}\n`)
}
