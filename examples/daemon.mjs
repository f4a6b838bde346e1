// Embeds the mind in a daemon of your own: it watches a volume, and everything that it does goes through your hands.
// node examples/daemon.mjs /mnt/pool [seconds between samples] [steps]
import { Btrmind, BtrmindError, formatBytes, openFilesystem } from 'btrmind-native'

const [path = '/mnt/pool', seconds = '60', steps = 'Infinity'] = process.argv.slice(2)
const stop = new AbortController()
process.once('SIGINT', () => stop.abort())
process.once('SIGTERM', () => stop.abort())

const filesystem = await openFilesystem(path).catch((error) => {
  console.error(error.message)
  process.exit(1)
})
const mind = new Btrmind({
  filesystem,
  roots: { temp: [], compress: [path] }, // name your own; without a root an action is never taken
  dryRun: true, // false: really act
  intervalMs: Number(seconds) * 1000,
  signal: stop.signal,
  onWarning: (warning) => console.error('warning:', warning.message),
})

try {
  for await (const { index, sample, decision, outcome, reward, alerts } of mind) {
    console.log(
      new Date(sample.timeMs).toISOString(),
      `${sample.usedPercent.toFixed(1)} % used, ${formatBytes(sample.freeBytes)} free,`,
      `${decision.action}: ${outcome.explanation}, reward ${reward ?? 'unknown'}`,
    )
    for (const alert of alerts) console.error(alert.level, alert.message) // page somebody here
    if (index + 1 >= Number(steps)) break
  }
} catch (error) {
  if (!(error instanceof BtrmindError)) throw error
  console.error(error.message) // says what to do: a state directory in use, a root that is none …
  process.exitCode = 1
} finally {
  await filesystem.close()
}
