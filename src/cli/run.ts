import { resolve } from 'node:path'
import { type RootOptions, resolveRoots } from '../actions/roots.js'
import { ACTIONS } from '../actions/table.js'
import { openFilesystem } from '../btrfs/filesystem.js'
import type { Filesystem } from '../btrfs/interface.js'
import { BtrfsError, BtrmindError } from '../errors.js'
import { Btrmind, type Step } from '../loop.js'
import { utilisationPercent } from '../monitor/sample.js'
import { DqnPolicy } from '../policies/dqn.js'
import { RulePolicy } from '../policies/rules.js'
import { formatBytes } from '../units.js'
import { type Io, paint, warn } from './output.js'
import { defaultStateDir } from './state.js'

export interface RunOptions {
  readonly path: string
  readonly temp?: string[]
  readonly snapshots?: string[]
  readonly inactiveDays: number
  readonly tempHours: number
  readonly keepSnapshots: number
  readonly apply?: boolean
  readonly once?: boolean
  readonly interval: number
  readonly stateDir?: string
  readonly policy: 'dqn' | 'rules'
  readonly seed: number
  readonly json?: boolean
}

/** @returns whether a critical alert stands at the end */
export async function run(io: Io, options: RunOptions): Promise<{ critical: boolean }> {
  const policy = options.policy === 'rules' ? new RulePolicy() : new DqnPolicy({ seed: options.seed })
  const { path, temp = [], snapshots = [], apply = false, json = false, once = false } = options

  await using filesystem = await openFilesystem(path, { signal: io.signal })
  const stateDir = options.stateDir ?? (apply ? defaultStateDir(filesystem.uuid) : undefined)
  for (const dir of temp) await checkRoot(filesystem, '--temp', { temp: [dir] }, stateDir, io.signal)
  for (const dir of snapshots) await checkRoot(filesystem, '--snapshots', { snapshots: [dir] }, stateDir, io.signal)

  const noAnswer = new AbortController()
  const mind = new Btrmind({
    filesystem,
    policy,
    roots: { temp, snapshots, compress: [path] },
    actions: {
      inactiveDays: options.inactiveDays,
      tempAgeHours: options.tempHours,
      keepSnapshots: options.keepSnapshots,
    },
    dryRun: !apply,
    intervalMs: options.interval * 1000,
    ...(stateDir === undefined ? {} : { stateDir }),
    signal: AbortSignal.any([io.signal, noAnswer.signal]),
    onWarning: (warning) => {
      // The loop would ask again for ever, which is not what --once asks for.
      if (once && warning instanceof BtrmindError && warning.code === 'BTRMIND_ERR_SAMPLE') noAnswer.abort(warning)
      else warn(io, warning.message)
    },
  })
  if (!json) io.stdout.write(heading(io, options, stateDir))
  let critical = false
  for await (const step of mind) {
    critical = step.critical
    if (json) io.stdout.write(`${JSON.stringify(step, replacer)}\n`)
    else io.stdout.write(lines(io, step) + (step.index === 0 && !apply ? readiness(step) : ''))
    if (once) break
  }
  noAnswer.signal.throwIfAborted()
  return { critical }
}

/** Each by itself and before anything is said, so that the error can name the option. */
async function checkRoot(
  filesystem: Filesystem,
  option: string,
  root: RootOptions,
  stateDir: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  try {
    await resolveRoots(filesystem, root, stateDir, { signal })
  } catch (error) {
    if (error instanceof BtrfsError || error instanceof BtrmindError) error.message += ` (given by ${option})`
    throw error
  }
}

/** Errors as their message; everything else as it is. */
function replacer(_key: string, value: unknown): unknown {
  return value instanceof Error ? value.message : value
}

function heading(
  io: Io,
  { path, temp, snapshots, apply, once, interval }: RunOptions,
  stateDir: string | undefined,
): string {
  const mode = apply ? paint(io, 'red', 'really acts (--apply)') : paint(io, 'green', 'dry run: changes nothing')
  const list = (paths: string[] | undefined, none: string) => paths?.map((p) => resolve(p)).join(', ') ?? none
  return [
    `${resolve(path)}, ${once ? 'once' : `every ${interval} s`}, ${mode}`,
    `  temporary files below  ${list(temp, 'nothing (--temp)')}`,
    `  snapshots directly in  ${list(snapshots, 'nothing (--snapshots)')}`,
    `  inactive files below   ${resolve(path)}`,
    `  state and journal in   ${stateDir === undefined ? 'memory (--state-dir)' : resolve(stateDir)}`,
    '',
  ].join('\n')
}

function lines(io: Io, step: Step): string {
  const { sample, decision, outcome, reward, stagesMs } = step
  const used = utilisationPercent(sample)
  const style = used >= 99 ? 'red' : used >= 90 ? 'yellow' : 'green'
  const slope = sample.slopePercentPerHour === undefined ? '' : `, ${signed(sample.slopePercentPerHour)} %/h`
  const time = new Date(sample.timeMs).toISOString().slice(11, 19)
  const points = reward === undefined ? '' : `  reward ${signed(reward)}`
  const text = [
    `${time}  ${paint(io, style, `${used.toFixed(1)} %`)}${slope}  ${paint(io, 'bold', decision.action)} (${decision.policy}: ${decision.reason})${points}  ${stagesMs.total.toFixed(0)} ms`,
  ]
  if (outcome.action !== 'none') text.push(`          ${result(outcome)}`)
  if (outcome.dryRun) for (const path of outcome.touches.slice(0, 5)) text.push(`            ${path}`)
  for (const { level, message } of step.alerts) {
    text.push(`          ${paint(io, level === 'critical' ? 'red' : 'yellow', `${level}:`)} ${message}`)
  }
  return `${text.join('\n')}\n`
}

/** What could be done if the policy wanted it, and why the rest could not: so that options can be tried on any volume. */
function readiness({ decision }: Step): string {
  const rows = decision.verdicts.slice(1).map((verdict, index) => {
    const name = ACTIONS[index + 1]!.name
    return `          ${name.padEnd(10)} ${verdict.allowed ? 'could be taken' : `could not: ${verdict.reason}`}\n`
  })
  return rows.join('')
}

function result({ dryRun, refusal, explanation, predictedBytes, freedBytes, items }: Step['outcome']): string {
  if (refusal !== undefined) return `refused (${refusal.code}): ${explanation}`
  const predicted = predictedBytes === undefined ? 'unknown' : formatBytes(predictedBytes)
  if (dryRun) return `would touch ${items.planned}, expecting ${predicted}: ${explanation}`
  const freed = freedBytes === undefined ? 'unknown' : formatBytes(freedBytes)
  const failed = items.failed > 0 ? `, ${items.failed} failed` : ''
  return `did ${items.done} of ${items.planned}${failed}; freed ${freed}, predicted ${predicted}: ${explanation}`
}

function signed(value: number): string {
  return `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(1)}`
}
