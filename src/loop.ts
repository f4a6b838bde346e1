/**
 * The loop, read from top to bottom: sample → state → decide → guard → execute → measure → reward → learn.
 * Start here.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { refused } from './actions/executor.js'
import type { Verdict } from './actions/guard.js'
import type { Outcome } from './actions/plan.js'
import { ACTIONS } from './actions/table.js'
import { calculateReward } from './agent/reward.js'
import { BtrmindError, check, quote } from './errors.js'
import { type Alert, EMERGENCY_PERCENT, warning } from './loop/alerts.js'
import { type BtrmindOptions, btrmindOptions, type Settings } from './loop/options.js'
import { Room } from './loop/room.js'
import { type Sample, utilisationPercent } from './monitor/sample.js'
import { type State, stateVector } from './monitor/state.js'
import type { Decision, Policy } from './policies/policy.js'
import { RulePolicy } from './policies/rules.js'

/** What the policy learned is written so often; and at the end. */
const SAVE_EVERY_STEPS = 60

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
  readonly #options: Settings
  #running = false

  constructor(given: BtrmindOptions) {
    this.#options = check('Btrmind', btrmindOptions, given)
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Step, void> {
    if (this.#running) throw new BtrmindError('BTRMIND_ERR_LOCKED', 'this Btrmind is being iterated already')
    this.#running = true
    const { clock, intervalMs, signal: given } = this.#options
    const signal = given ?? new AbortController().signal
    try {
      if (signal.aborted) return
      const room = await Room.open(this.#options, signal).catch((error: unknown) => {
        if (!signal.aborted) throw error
      })
      if (room === undefined) return
      try {
        for (let index = 0, dueMs = clock.elapsedMs(); !signal.aborted; index++) {
          const step = await this.#stepOrWarning(room, index)
          if (step !== undefined) yield step
          if (signal.aborted) break
          if (index % SAVE_EVERY_STEPS === SAVE_EVERY_STEPS - 1) await room.save()
          await room.look()
          // Counted from the start, so that it does not drift; what comes too late is left out.
          dueMs += intervalMs * Math.max(1, Math.ceil((clock.elapsedMs() - dueMs) / intervalMs))
          const restMs = Math.max(0, dueMs - clock.elapsedMs())
          // On abort a clock may resolve or reject.
          await (clock.sleep?.(restMs, signal) ?? sleep(restMs, undefined, { signal })).catch((error: unknown) => {
            if (!signal.aborted) throw error
          })
        }
      } finally {
        await room.close()
      }
    } finally {
      this.#running = false
    }
  }

  /** A volume that does not answer is no reason to end. */
  async #stepOrWarning(room: Room, index: number): Promise<Step | undefined> {
    try {
      return await this.#step(room, index)
    } catch (error) {
      if (room.signal.aborted) return undefined
      if (!(error instanceof BtrmindError && error.code === 'BTRMIND_ERR_SAMPLE')) throw error
      room.warn(error)
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
    const alerts = room.standing.raise(sample, before, executor.hangingLook)
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
    if (outcome.utilisation !== undefined) room.standing.freed(outcome.utilisation.afterPercent)
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
      critical: room.standing.critical,
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
      room.warn(error)
    }
  }
}

const RULES = new RulePolicy()

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
