import { openFilesystem } from '../btrfs/filesystem.js'
import { formatBytes } from '../units.js'
import { type Io, paint, printJson, table } from './output.js'

export async function devices(io: Io, path: string, options: { json?: boolean }): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  const devices = await fs.devices({ signal: io.signal })
  if (options.json) return printJson(io, devices)

  const rows = devices.map((device) => {
    const { errors } = device
    const counts = errors === undefined ? undefined : Object.entries(errors).filter(([, count]) => count > 0)
    return [
      String(device.devid),
      device.missing ? 'MISSING' : (device.path ?? '?'),
      formatBytes(device.sizeBytes),
      formatBytes(device.allocatedBytes),
      formatBytes(device.unallocatedBytes),
      device.slackBytes === undefined ? '?' : formatBytes(device.slackBytes),
      counts === undefined ? '?' : counts.length === 0 ? 'none' : counts.map(([k, n]) => `${k} ${n}`).join(', '),
    ]
  })
  const text = table(['id', 'device', 'size', 'allocated', 'unallocated', 'slack', 'errors'], rows, [0, 2, 3, 4, 5])
  for (const line of text.trimEnd().split('\n')) {
    io.stdout.write(`${/MISSING|[a-z] \d+$/.test(line) ? paint(io, 'red', line) : line}\n`)
  }
}
