/**
 * `npm run demo`: watch a volume being kept from filling up, for about a minute. Takes everything away again, however
 * it ends. Exit code: 0; 130 after Ctrl-C, 143 after SIGTERM (128 + signal), 1 after an error.
 */
import { constants } from 'node:os'
import { parseArgs } from 'node:util'
import { Btrmind, DqnPolicy } from '../../src/index.js'
import { cannotMount } from '../../test/helpers/volume.js'
import { Screen } from './screen.js'
import { simulatedStage } from './simulated.js'
import { kernelStage } from './stage.js'

const WARM_UP_STEPS = 1440

const { values } = parseArgs({ options: { seconds: { type: 'string' }, simulate: { type: 'boolean' } } })
const seconds = Number(values.seconds ?? 50)
if (!(seconds >= 1 && seconds <= 3600)) {
  process.stderr.write(`--seconds '${values.seconds}': expected 1 to 3600\n`)
  process.exit(2)
}

const stop = new AbortController()
const end = new AbortController()
stop.signal.addEventListener('abort', () => end.abort())
const screen = new Screen(seconds)
const say = (text: string) => process.stdout.write(`${text}\n`)
function fail(error: unknown): void {
  if (!stop.signal.aborted || error !== stop.signal.reason) {
    screen.leave()
    process.stderr.write(`${error instanceof Error ? error.stack : error}\n`)
    process.exitCode = 1
  }
  stop.abort()
}

for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const) {
  process.on(name, () => {
    if (stop.signal.aborted) return
    process.exitCode = 128 + constants.signals[name]
    screen.leave()
    say('\nstopping …')
    stop.abort()
  })
}
// A loop that sleeps while its writer goes on would only fill the volume.
process.on('SIGTSTP', () => {})
process.on('uncaughtException', fail)
// `npm run demo | head`
process.stdout.on('error', () => stop.abort())

try {
  const why = values.simulate ? '--simulate was given' : cannotMount
  if (why !== undefined) say(`No real volume here (${why}): the same loop runs on a simulated one.`)
  await using stage = await (why === undefined ? kernelStage(say, stop.signal) : simulatedStage(say))
  const policy = new DqnPolicy({ warmUpSteps: WARM_UP_STEPS })
  const mind = new Btrmind({
    filesystem: stage.fs,
    roots: stage.roots,
    actions: stage.actions,
    policy,
    dryRun: false,
    intervalMs: stage.intervalMs,
    signal: end.signal,
    ...(stage.clock === undefined ? {} : { clock: stage.clock }),
  })
  // Not AbortSignal.any with a timeout: Node 20 may collect the timeout as garbage, and the demo would never end.
  const timer = setTimeout(() => end.abort(), seconds * 1000)
  screen.enter(stage, () => {
    const { steps: learned, replay } = policy.dqn
    return learned < WARM_UP_STEPS
      ? `rules decide, the network warms up: ${replay.length} steps seen, ${learned} of ${WARM_UP_STEPS} learned`
      : `the network decides, behind its shield; ${learned} steps learned`
  })
  for await (const step of mind) screen.show(step)
  clearTimeout(timer)
  screen.leave()
  if (process.exitCode !== 1) say(screen.summary())
} catch (error) {
  fail(error)
} finally {
  screen.leave()
}
say('Nothing is left of it: the volume, its loop device and its files are gone.')
