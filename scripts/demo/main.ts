/** `npm run demo`: watch a volume being kept from filling up, for about a minute. Takes everything away again. */
import { parseArgs } from 'node:util'
import { Btrmind } from '../../src/index.js'
import { cannotMount } from '../../test/helpers/volume.js'
import { Screen } from './screen.js'
import { simulatedStage } from './simulated.js'
import { kernelStage } from './stage.js'

const { values } = parseArgs({ options: { seconds: { type: 'string' }, simulate: { type: 'boolean' } } })
const seconds = Number(values.seconds ?? 50)
if (!(seconds > 0 && seconds <= 3600)) {
  process.stderr.write(`--seconds '${values.seconds}': expected 1 to 3600\n`)
  process.exit(2)
}

const say = (text: string) => process.stdout.write(`${text}\n`)
const stop = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    if (!stop.signal.aborted) say('\nstopping, and taking the volume away …')
    stop.abort()
  })
}

const why = values.simulate ? '--simulate was given' : cannotMount
if (why !== undefined) say(`No real volume here (${why}): the same loop runs on a simulated one.`)
{
  await using stage = await (why === undefined ? kernelStage(say, stop.signal) : simulatedStage(say))
  const screen = new Screen(stage.title)
  const startMs = performance.now()
  const clock = AbortSignal.timeout(seconds * 1000)
  const mind = new Btrmind({
    filesystem: stage.fs,
    roots: stage.roots,
    actions: stage.actions,
    dryRun: false,
    intervalMs: stage.intervalMs,
    signal: AbortSignal.any([stop.signal, clock]),
    ...(stage.clock === undefined ? {} : { clock: stage.clock }),
  })
  say('')
  for await (const step of mind) {
    screen.show(step, `${((performance.now() - startMs) / 1000).toFixed(0)} s of ${seconds} s`, stage.writer())
  }
  say(screen.summary())
}
say('The volume, its loop device and its files are gone again.')
