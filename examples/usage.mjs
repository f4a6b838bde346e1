// What is on a volume and what is left of it, also as a user without privilege.
// node examples/usage.mjs /mnt/pool
import { BtrfsError, formatBytes, openFilesystem } from 'btrmind-native'

const path = process.argv[2] ?? '/mnt/pool'
const show = (bytes) => (bytes === undefined ? 'not available' : formatBytes(bytes))

try {
  const fs = await openFilesystem(path)
  const [info, usage, devices] = await Promise.all([fs.info(), fs.usage({ timeoutMs: 5_000 }), fs.devices()])
  console.log(`${info.label || info.uuid}: ${devices.length} device(s), ${show(usage.deviceSizeBytes)}`)
  console.log(`used ${show(usage.usedBytes)}, free about ${show(usage.freeEstimatedBytes)}`)
  if (usage.live) console.log(`${usage.live.usedPercent.toFixed(2)} % with what is not flushed yet`)
  for (const { type, profile, usedBytes, sizeBytes } of usage.blockGroups) {
    console.log(`  ${type} ${profile}: ${show(usedBytes)} of ${show(sizeBytes)}`)
  }
  for (const { devid, missing, errors } of devices) {
    if (missing) console.log(`  device ${devid} is missing`)
    if (errors && Object.values(errors).some((count) => count > 0)) console.log(`  device ${devid}:`, errors)
  }
  for (const { field, reason } of usage.unavailable) console.log(`  not available: ${field} (${reason})`)
  await fs.close()
} catch (error) {
  if (!(error instanceof BtrfsError)) throw error
  console.error(error.message) // code, path and hint: "not a btrfs filesystem", "needs root" …
  process.exitCode = 1
}
