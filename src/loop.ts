/**
 * The loop, read from top to bottom: sample → state → decide → guard → execute → measure → reward → learn.
 * Start here.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import * as v from 'valibot'
import { Executor, refused } from './actions/executor.js'
import type { Verdict } from './actions/guard.js'
import { type ActionSettings, actionOptions } from './actions/options.js'
import type { Outcome } from './actions/plan.js'
import { type RootOptions, resolveRoots, rootOptions } from './actions/roots.js'
import { ACTIONS } from './actions/table.js'
import { calculateReward } from './agent/reward.js'
import type { Filesystem } from './btrfs/interface.js'
import { type Clock, systemClock, within } from './clock.js'
import { BtrmindError, check, quote } from './errors.js'
import { Monitor } from './monitor/monitor.js'
import { type Sample, utilisationPercent } from './monitor/sample.js'
import { type State, stateVector } from './monitor/state.js'
import { DqnPolicy } from './policies/dqn.js'
import type { Decision, Policy, Transition } from './policies/policy.js'
import { RulePolicy } from './policies/rules.js'

/** From here on temporary files go at once, and somebody is told. */
export const EMERGENCY_PERCENT = 99
/** An alert that was raised stands until the volume is less full than this. */
const CLEAR_PERCENT = 97
/** What the policy learned is written so often; and at the end. */
const SAVE_EVERY_STEPS = 60

export interface Alert {
  readonly level: 'critical' | 'warning'
  readonly code: 'full' | 'no-answer' | 'policy' | 'state' | 'action'
  /** One sentence for people. */
  readonly message: string
}

export interface Step {
  /** From 0, in this run. */
  readonly index: number
  readonly sample: Sample
  readonly state: State
  readonly decision: Decision & {
    /** By action id: the guard's word on each, before the decision. */
    readonly verdicts: readonly Verdict[]
    /** The volume was about to be full: nobody was asked. */
    readonly emergency: boolean
  }
  readonly outcome: Outcome
  /** calculateReward(utilisation before, utilisation after); undefined when what was freed could not be measured. */
  readonly reward: number | undefined
  /** What is new in this step. */
  readonly alerts: readonly Alert[]
  /** The critical alert of a full volume stands after this step: what it freed may have cleared it. */
  readonly critical: boolean
  /** Milliseconds. monitorToAction: from the question to the kernel until the first call that changes the volume. */
  readonly stagesMs: {
    readonly sample: number
    readonly decide: number
    readonly execute: number
    readonly learn: number
    readonly total: number
    readonly monitorToAction: number | undefined
  }
}

export interface BtrmindOptions {
  readonly filesystem: Filesystem
  /** Directories that may be acted on; without one its action is never taken. */
  readonly roots?: RootOptions
  /** Ages, floors and bounds of the actions; docs/actions.md. */
  readonly actions?: ActionSettings
  /** Default: a DQN behind the shield of the rules. */
  readonly policy?: Policy
  /** Say what would be done and do nothing. Default true. */
  readonly dryRun?: boolean
  /** Between two samples. Default 60,000. */
  readonly intervalMs?: number
  /** For one query; then it is asked again, then statfs answers. Default 5,000. */
  readonly timeoutMs?: number
  /** History, journal and model are kept here, for one process at a time. Default: nowhere. */
  readonly stateDir?: string
  /** Of the default policy. Default 1. */
  readonly seed?: number
  /** Ends the iteration; a step under way is finished or cut short first. */
  readonly signal?: AbortSignal
  readonly clock?: Clock
  /**
   * Told of what went wrong beside the steps: a sample without an answer, damaged state that was set aside. Default:
   * process.emitWarning.
   */
  readonly onWarning?: (warning: Error) => void
}

const object = <T>(what: string) => v.custom<T>((value) => typeof value === 'object' && value !== null, what)
const positive = v.pipe(v.number(), v.minValue(1), v.maxValue(2 ** 31 - 1))
const options = v.strictObject({
  filesystem: object<Filesystem>('a Filesystem'),
  roots: v.optional(rootOptions, {}),
  actions: v.optional(actionOptions, {}),
  policy: v.optional(
    v.custom<Policy>((value) => typeof (value as Policy | null)?.decide === 'function', 'a Policy with decide()'),
  ),
  dryRun: v.optional(v.boolean(), true),
  intervalMs: v.optional(positive, 60_000),
  timeoutMs: v.optional(positive, 5_000),
  stateDir: v.optional(v.pipe(v.string(), v.nonEmpty('a path'))),
  seed: v.optional(v.pipe(v.number(), v.integer('an integer')), 1),
  signal: v.optional(v.instance(AbortSignal)),
  clock: v.optional(object<Clock>('a Clock'), systemClock),
  onWarning: v.optional(v.custom<(warning: Error) => void>((value) => typeof value === 'function', 'a function')),
})

/** What is open while the loop runs. */
interface Room {
  readonly monitor: Monitor
  readonly executor: Executor
  readonly policy: Policy
  readonly signal: AbortSignal
  /** Waits for the next state, to be learned from. */
  pending: Omit<Transition, 'nextState' | 'nextVerdicts'> | undefined
  /** An alert that stands: the volume is full, by whose figures. */
  critical: Sample['source'] | undefined
  /** An alert that stands. */
  lookHangs: boolean
  /** A checkpoint that is being written: on a disk that hangs it is not waited for. */
  saving: Promise<void> | undefined
}

/**
 * The mind of one volume, as an async iterable of steps. Acts on nothing until `dryRun` is false, and then only below
 * `roots`. Iterating takes the state directory and gives it back at the end; one iteration at a time.
 * @throws BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT; on iteration BTRMIND_ERR_LOCKED, BTRMIND_ERR_STATE,
 * BTRMIND_ERR_ROOT, BTRMIND_ERR_WRONG_VOLUME; BtrfsError ENOENT, ENOTDIR (a root)
 * @example
 * await using fs = await openFilesystem('/mnt/pool')
 * const mind = new Btrmind({ filesystem: fs, roots: { temp: ['/mnt/pool/tmp'] }, signal })
 * for await (const step of mind) console.log(step.sample.usedPercent, step.decision.action, step.reward)
 */
export class Btrmind implements AsyncIterable<Step> {
  readonly #options: v.InferOutput<typeof options>
  #running = false

  constructor(given: BtrmindOptions) {
    this.#options = check('Btrmind', options, given)
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Step, void> {
    if (this.#running) throw new BtrmindError('BTRMIND_ERR_LOCKED', 'this Btrmind is being iterated already')
    this.#running = true
    const { clock, intervalMs, signal: given } = this.#options
    const signal = given ?? new AbortController().signal
    try {
      if (signal.aborted) return
      const room = await this.#open(signal).catch((error: unknown) => {
        if (!signal.aborted) throw error
      })
      if (room === undefined) return
      try {
        for (let index = 0, dueMs = clock.elapsedMs(); !signal.aborted; index++) {
          const step = await this.#stepOrWarning(room, index)
          if (step !== undefined) yield step
          if (signal.aborted) break
          if (index % SAVE_EVERY_STEPS === SAVE_EVERY_STEPS - 1) await this.#save(room)
          await this.#lookForCandidates(room)
          // Counted from the start, so that it does not drift; what comes too late is left out.
          dueMs += intervalMs * Math.max(1, Math.ceil((clock.elapsedMs() - dueMs) / intervalMs))
          const restMs = Math.max(0, dueMs - clock.elapsedMs())
          // On abort a clock may resolve or reject.
          await (clock.sleep?.(restMs, signal) ?? sleep(restMs, undefined, { signal })).catch((error: unknown) => {
            if (!signal.aborted) throw error
          })
        }
      } finally {
        await this.#save(room)
        await room.executor.close().catch((error: unknown) => this.#warn(error))
        await room.monitor.close()
      }
    } finally {
      this.#running = false
    }
  }

  async #open(signal: AbortSignal): Promise<Room> {
    const { filesystem, roots, actions, stateDir, intervalMs, timeoutMs, clock, seed } = this.#options
    const onWarning = (warning: Error) => this.#warn(warning)
    // Before anything is made: roots that are refused leave no state directory behind.
    await resolveRoots(filesystem, roots, stateDir, { signal })
    const monitor = new Monitor({ filesystem, stateDir, intervalMs, timeoutMs, clock, onWarning })
    let executor: Executor | undefined
    try {
      // First: it holds the lock on the state directory.
      await monitor.open()
      executor = await Executor.open(filesystem, { ...roots, ...actions, stateDir, clock, timeoutMs, signal })
      const policy = this.#options.policy ?? new DqnPolicy({ seed })
      for (const problem of executor.problems) this.#warn(new BtrmindError('BTRMIND_ERR_STATE_CORRUPT', problem))
      for (const { action, begun, paths } of executor.unfinished) {
        const where = paths.length > 0 ? ` at '${paths[0]}'` : ''
        const what = begun ? 'was under way' : 'was about to begin'
        this.#warn(new BtrmindError('BTRMIND_ERR_UNFINISHED', `'${action}' ${what}${where} when the process ended`))
      }
      if (stateDir !== undefined) for (const problem of (await policy.restore?.(stateDir)) ?? []) this.#warn(problem)
      const room: Room = {
        ...{ monitor, executor, policy, signal },
        ...{ pending: undefined, critical: undefined, lookHangs: false, saving: undefined },
      }
      await this.#lookForCandidates(room)
      return room
    } catch (error) {
      await executor?.close().catch((second: unknown) => this.#warn(second))
      await monitor.close()
      throw error
    }
  }

  /** A volume that does not answer is no reason to end. */
  async #stepOrWarning(room: Room, index: number): Promise<Step | undefined> {
    try {
      return await this.#step(room, index)
    } catch (error) {
      if (room.signal.aborted) return undefined
      if (!(error instanceof BtrmindError && error.code === 'BTRMIND_ERR_SAMPLE')) throw error
      this.#warn(error)
      return undefined
    }
  }

  async #step(room: Room, index: number): Promise<Step> {
    const { monitor, executor, signal } = room
    const { clock, dryRun } = this.#options
    const startMs = clock.elapsedMs()

    const sample = await monitor.sample({ signal })
    const sampledMs = clock.elapsedMs()
    const state = monitor.state(sample)
    const vector = stateVector(state)
    const verdicts = executor.verdicts(sample)
    const before = utilisationPercent(sample)
    const alerts = this.#alerts(room, sample, before)
    for (const { action, items, durationMs, error, warnings } of executor.takeEnded()) {
      const came = error === undefined ? '' : `, then ${error.message}`
      const counts = `${items.done} done, ${items.failed} failed${came}`
      alerts.push(warning('action', `${action} came back after ${Math.round(durationMs / 1000)} s: ${counts}`))
      for (const text of warnings) alerts.push(warning('state', text))
    }

    // Not by statfs's figures: it calls a volume full that has room, and what is deleted is gone.
    const emergency = before >= EMERGENCY_PERCENT && sample.source === 'kernel'
    let decision: Decision
    let outcome = emergency ? await executor.forceDeleteTemp({ sample, dryRun, signal }) : undefined
    let decidedMs = sampledMs
    if (outcome !== undefined && goesNoFurther(outcome, alerts)) {
      const reason = `${before.toFixed(1)} % used: temporary files go at once; ${outcome.explanation}`
      decision = { action: 'temp', policy: 'emergency', reason }
    } else {
      decision = await this.#decide(room, { sample, state: vector, verdicts }, alerts)
      decidedMs = clock.elapsedMs()
      const plan = executor.plan(decision.action, sample, { emergency })
      outcome = plan.allowed ? await executor.execute(plan, { sample, dryRun, signal }) : refused(plan, dryRun)
    }
    if (outcome.error !== undefined) alerts.push(warning('action', `${outcome.action}: ${outcome.error.message}`))
    for (const text of outcome.warnings) alerts.push(warning('state', text))
    if (outcome.utilisation !== undefined && outcome.utilisation.afterPercent < CLEAR_PERCENT) room.critical = undefined
    const executedMs = clock.elapsedMs()

    const reward = rewardOf(before, sample, outcome)
    // Statfs's utilisation is another feature: neither a state to learn from nor the next one.
    const known = sample.source === 'kernel'
    if (known) await this.#learn(room, vector, verdicts)
    // A dry run of an action shows nothing of what the action does.
    const shows = known && (!dryRun || outcome.action === 'none') && outcome.refusal === undefined
    const teaches = shows && reward !== undefined
    room.pending = teaches ? { state: vector, action: outcome.action, reward } : undefined
    const endMs = clock.elapsedMs()

    return {
      index,
      sample,
      state,
      decision: { ...decision, verdicts, emergency },
      outcome,
      reward,
      alerts,
      critical: room.critical !== undefined,
      stagesMs: {
        sample: sampledMs - startMs,
        decide: decidedMs - sampledMs,
        execute: executedMs - decidedMs,
        learn: endMs - executedMs,
        total: endMs - startMs,
        monitorToAction: outcome.firstActMs === undefined ? undefined : outcome.firstActMs - startMs,
      },
    }
  }

  /** When the policy fails, the rules go on, and say so. */
  async #decide(room: Room, context: Parameters<Policy['decide']>[0], alerts: Alert[]): Promise<Decision> {
    try {
      const decision = await room.policy.decide(context)
      if (!ACTIONS.some(({ name }) => name === decision.action)) {
        throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `there is no action ${quote(decision.action)}`)
      }
      if (decision.fallback !== undefined) alerts.push(warning('policy', decision.fallback))
      return decision
    } catch (error) {
      const message = `policy '${room.policy.name}' failed, the rules decide: ${(error as Error).message}`
      alerts.push(warning('policy', message))
      const decision = RULES.decide(context)
      return { ...decision, reason: `${decision.reason} (${message})` }
    }
  }

  /** The step before is learned from now that its next state is known. */
  async #learn(room: Room, nextState: Float32Array, nextVerdicts: readonly Verdict[]): Promise<void> {
    if (room.pending === undefined) return
    try {
      await room.policy.learn?.({ ...room.pending, nextState, nextVerdicts })
    } catch (error) {
      this.#warn(error)
    }
  }

  #alerts(room: Room, sample: Sample, usedPercent: number): Alert[] {
    const alerts: Alert[] = []
    const { source } = sample
    if (usedPercent >= EMERGENCY_PERCENT && room.critical !== 'kernel' && room.critical !== source) {
      room.critical = source
      const unsure = source === 'kernel' ? '' : ' by statfs alone: nothing is deleted at once until the kernel says so'
      alerts.push({
        level: 'critical',
        code: 'full',
        message: `the volume is ${usedPercent.toFixed(1)} % full${unsure}`,
      })
    } else if (usedPercent < CLEAR_PERCENT && (source === 'kernel' || room.critical === 'statfs')) {
      room.critical = undefined
    }
    if (sample.fallbackReason !== undefined) {
      alerts.push(warning('no-answer', `statfs answered instead: ${sample.fallbackReason}`))
    }
    const { hangingLook } = room.executor
    if (hangingLook !== undefined && !room.lookHangs) {
      alerts.push(warning('no-answer', `${hangingLook}; nothing acts until it ends`))
    }
    room.lookHangs = hangingLook !== undefined
    return alerts
  }

  async #lookForCandidates({ executor, signal }: Room): Promise<void> {
    try {
      for (const problem of await executor.refresh({ signal, prepare: !this.#options.dryRun }))
        this.#warn(new Error(problem))
    } catch (error) {
      if (!signal.aborted) this.#warn(error)
    }
  }

  /** Waited for as long as a query is; none is begun while one is under way. */
  async #save(room: Room): Promise<void> {
    const { stateDir, timeoutMs } = this.#options
    const { policy } = room
    if (stateDir === undefined || policy.save === undefined) return
    const save = async () => {
      try {
        await policy.save?.(stateDir)
      } catch (error) {
        this.#warn(error)
      }
      room.saving = undefined
    }
    const first = room.saving === undefined
    room.saving ??= save()
    if ((await within(room.saving, timeoutMs)) !== undefined || !first) return
    this.#warn(new BtrmindError('BTRMIND_ERR_STATE', `'${stateDir}': the disk does not answer within ${timeoutMs} ms`))
  }

  #warn(warning: unknown): void {
    const { onWarning = (error: Error) => process.emitWarning(error) } = this.#options
    onWarning(warning instanceof Error ? warning : new Error(String(warning)))
  }
}

const RULES = new RulePolicy()

function warning(code: Alert['code'], message: string): Alert {
  return { level: 'warning', code, message }
}

/** Of an emergency deletion: it helped, or is stuck in the kernel. Else whatever is left may help, and it is said why. */
function goesNoFurther({ dryRun, items, error, explanation, warnings }: Outcome, alerts: Alert[]): boolean {
  const stuck = error instanceof BtrmindError && error.code === 'BTRMIND_ERR_UNDER_WAY'
  if (stuck || items.done > 0 || (dryRun && items.planned > 0)) return true
  const why = error?.message ?? items.failures[0]?.code ?? explanation
  alerts.push(warning('action', `the emergency deletion freed nothing: ${why}`))
  for (const text of warnings) alerts.push(warning('state', text))
  return false
}

function rewardOf(before: number, sample: Sample, outcome: Outcome): number | undefined {
  if (outcome.action === 'none' || outcome.dryRun || outcome.refusal) {
    return sample.source === 'kernel' ? calculateReward(before, before) : undefined
  }
  const { utilisation } = outcome
  return utilisation && calculateReward(utilisation.beforePercent, utilisation.afterPercent)
}
