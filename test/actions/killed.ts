/** A process that is killed after it deleted and before it could say so: started by volume.test.ts. */
import { Executor } from '../../src/actions/executor.js'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { readingOf } from '../../src/monitor/sample.js'

const [root, stateDir] = process.argv.slice(2)
const fs = await openFilesystem(root!)
const { removeFiles } = fs
fs.removeFiles = async (...args) => {
  await removeFiles.apply(fs, args)
  process.kill(process.pid, 'SIGKILL')
  return new Promise(() => {})
}
const executor = await Executor.open(fs, { temp: [`${root}/tmp`], tempAgeHours: 0, stateDir })
await executor.refresh()
const sample = readingOf(await fs.measure(), Date.now(), 0)
const plan = executor.plan('temp', sample)
if (plan.allowed) await executor.execute(plan, { sample, dryRun: false })
