/** Started by sysfs.test.ts: becomes nobody, reads what sysfs tells of the volume given, tries to change it. */
import { openFilesystem } from '../../src/btrfs/filesystem.js'

process.setgroups?.([])
process.setgid?.(65_534)
process.setuid?.(65_534)
await using fs = await openFilesystem(process.argv[2]!)
const refusal = (promise: Promise<void>) =>
  promise.then(
    () => 'permitted',
    ({ code, hint }) => ({ code, hint }),
  )
const result = {
  statistics: await fs.statistics(),
  reclaim: await fs.reclaimSettings(),
  set: await refusal(fs.setReclaimSettings({ data: { thresholdPercent: 1 } })),
  reset: await refusal(fs.resetCommitStatistics()),
}
process.stdout.write(JSON.stringify(result))
