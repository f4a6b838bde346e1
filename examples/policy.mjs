// A policy of your own: compress at night, delete temporary files only when it gets tight. The guard, the journal and
// the emergency at 99 % stay in force whatever a policy proposes.
// node examples/policy.mjs /mnt/pool [steps]
import { Btrmind, openFilesystem } from 'btrmind-native'

const [path = '/mnt/pool', steps = '3'] = process.argv.slice(2)

/** @type {import('btrmind-native').Policy} */
const nightShift = {
  name: 'night shift',
  decide({ sample, verdicts }) {
    const allowed = (id) => verdicts[id].allowed // ids as in ACTIONS: 1 temp, 2 compress
    const used = sample.liveUsedPercent ?? sample.usedPercent
    const hour = new Date(sample.timeMs).getHours()
    if (used > 85 && allowed(1)) return { action: 'temp', policy: this.name, reason: `${used.toFixed(1)} % used` }
    if ((hour < 6 || hour > 22) && allowed(2)) return { action: 'compress', policy: this.name, reason: 'it is night' }
    return { action: 'none', policy: this.name, reason: `${used.toFixed(1)} % used at ${hour} h: nothing to do` }
  },
  learn({ action, reward }) {
    console.log(`  learned: ${action} was worth ${reward.toFixed(1)}`)
  },
}

const filesystem = await openFilesystem(path).catch((error) => {
  console.error(error.message)
  process.exit(1)
})
const mind = new Btrmind({
  filesystem,
  policy: nightShift,
  roots: { compress: [path] }, // a dry run: nothing is done without dryRun: false
  intervalMs: 200,
  onWarning: (warning) => console.error('warning:', warning.message),
})
for await (const { index, decision, outcome } of mind) {
  console.log(`${decision.policy} says ${decision.action}: ${decision.reason}; ${outcome.explanation}`)
  if (index + 1 >= Number(steps)) break
}
await filesystem.close()
