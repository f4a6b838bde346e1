import { openFilesystem } from '../btrfs/filesystem.js'
import { formatBytes } from '../units.js'
import { bar, type Io, paint, printJson, table } from './output.js'

export async function usage(io: Io, path: string, options: { json?: boolean }): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  const usage = await fs.usage({ signal: io.signal })
  if (options.json) return printJson(io, usage)

  const out = (text: string) => io.stdout.write(text)
  const { live } = usage
  if (live !== undefined) {
    const style = live.usedPercent >= 99 ? 'red' : live.usedPercent >= 90 ? 'yellow' : 'green'
    out(
      `${paint(io, style, bar(live.usedPercent / 100, 40))} ${live.usedPercent.toFixed(1)} % used, live (metadata as allocated)\n\n`,
    )
  }
  const ratio = (value: number | undefined) => value?.toFixed(2) ?? 'not available'
  const bytes = (value: number | undefined) => (value === undefined ? 'not available' : formatBytes(value))
  out(
    table(
      ['Overall', ''],
      [
        ['device size', bytes(usage.deviceSizeBytes)],
        ['allocated', bytes(usage.deviceAllocatedBytes)],
        ['unallocated', bytes(usage.deviceUnallocatedBytes)],
        ['missing', bytes(usage.deviceMissingBytes)],
        ['slack', bytes(usage.deviceSlackBytes)],
        ['used', bytes(usage.usedBytes)],
        ['free (estimated)', `${bytes(usage.freeEstimatedBytes)} (min ${bytes(usage.freeEstimatedMinBytes)})`],
        ['free (statfs)', bytes(usage.freeStatfsBytes)],
        ['data ratio', ratio(usage.dataRatio)],
        ['metadata ratio', ratio(usage.metadataRatio)],
        ['global reserve', `${bytes(usage.globalReserveBytes)} (used ${bytes(usage.globalReserveUsedBytes)})`],
        ['multiple profiles', usage.multipleProfiles ? 'yes' : 'no'],
      ],
    ),
  )
  out('\n')
  const groups = usage.blockGroups.map((group) => [
    group.type,
    group.profile,
    formatBytes(group.sizeBytes),
    formatBytes(group.usedBytes),
    group.sizeBytes === 0 ? '' : `${((100 * group.usedBytes) / group.sizeBytes).toFixed(1)} %`,
    group.devices?.map((d) => `${d.path ?? `missing ${d.devid}`} ${formatBytes(d.sizeBytes)}`).join(', ') ?? '',
  ])
  out(table(['Block groups', 'profile', 'size', 'used', '', 'on'], groups, [2, 3, 4]))
  if (usage.unallocated !== undefined) {
    out('\n')
    const rows = usage.unallocated.map((d) => [d.path ?? `missing ${d.devid}`, formatBytes(d.sizeBytes)])
    out(table(['Unallocated', ''], rows, [1]))
  }
  for (const { field, reason } of usage.unavailable) io.stderr.write(`not available: ${field} (${reason})\n`)
}
