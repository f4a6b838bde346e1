/** `btrfs filesystem usage -b`, parsed whole: a line that is not understood is an error, so that no figure escapes. */
import type { Usage } from '../../src/btrfs/usage.js'

export interface ProgsUsage {
  overall: Record<string, string>
  /** 'Data,single' → its line and its bytes on each device. */
  blockGroups: { name: string; sizeBytes: number; usedBytes: number; usedPercent: string; devices: Bytes[] }[]
  unallocated: Bytes[]
}
/** Device path ('missing' for one that is not there) and bytes. */
type Bytes = [string, number]

export function parseUsage(text: string): ProgsUsage {
  const out: ProgsUsage = { overall: {}, blockGroups: [], unallocated: [] }
  let devices: Bytes[] | undefined
  for (const line of text.split('\n')) {
    const figure = /^ {4}([A-Z][^:]*):\s+(.*)$/.exec(line)
    const group = /^(\S+,\S+): Size:(\d+), Used:(\d+) \((.*)%\)$/.exec(line)
    const device = /^ {3}(\S.*?)\t\s*(-?\d+)$/.exec(line)
    if (line === '' || line === 'Overall:') continue
    if (figure) out.overall[figure[1]!] = figure[2]!.replaceAll(/\s+/g, ' ')
    else if (group) {
      devices = []
      out.blockGroups.push({
        name: group[1]!,
        sizeBytes: Number(group[2]),
        usedBytes: Number(group[3]),
        usedPercent: group[4]!,
        devices,
      })
    } else if (line === 'Unallocated:') devices = out.unallocated
    else if (device && devices) devices.push([device[1]!, Number(device[2])])
    else throw new Error(`a line of btrfs filesystem usage that is not understood: '${line}'`)
  }
  return out
}

/** Our figures as btrfs-progs would print them. */
export function printedUsage(usage: Usage): ProgsUsage {
  const row = ({ path, sizeBytes }: { path: string | undefined; sizeBytes: number }): Bytes => [
    path ?? 'missing',
    sizeBytes,
  ]
  const kind = { data: 'Data', metadata: 'Metadata', system: 'System', 'data+metadata': 'Data+Metadata' }
  const types = usage.blockGroups.map((group) => group.type)
  const several = new Set(types.filter((type, index) => types.indexOf(type) !== index))
  const multiple = (['data', 'metadata', 'data+metadata', 'system'] as const).filter((type) => several.has(type))
  return {
    overall: {
      'Device size': `${usage.deviceSizeBytes}`,
      'Device allocated': `${usage.deviceAllocatedBytes}`,
      'Device unallocated': `${usage.deviceUnallocatedBytes}`,
      'Device missing': `${usage.deviceMissingBytes}`,
      'Device slack': `${usage.deviceSlackBytes}`,
      Used: `${usage.usedBytes}`,
      'Free (estimated)': `${usage.freeEstimatedBytes} (min: ${usage.freeEstimatedMinBytes})`,
      'Free (statfs, df)': `${usage.freeStatfsBytes}`,
      'Data ratio': `${usage.dataRatio?.toFixed(2)}`,
      'Metadata ratio': `${usage.metadataRatio?.toFixed(2)}`,
      'Global reserve': `${usage.globalReserveBytes} (used: ${usage.globalReserveUsedBytes})`,
      'Multiple profiles': usage.multipleProfiles ? `yes (${multiple.join(', ')})` : 'no',
    },
    blockGroups: usage.blockGroups.map((group) => ({
      name: `${kind[group.type]},${group.profile === 'single' ? 'single' : group.profile.toUpperCase()}`,
      sizeBytes: group.sizeBytes,
      usedBytes: group.usedBytes,
      usedPercent: Math.fround((100 * group.usedBytes) / (group.sizeBytes + 1)).toFixed(2),
      devices: group.devices!.map(row),
    })),
    unallocated: usage.unallocated.map(row),
  }
}
