import { join } from 'node:path'
import * as v from 'valibot'
import type { Verdict } from '../actions/guard.js'
import { ACTIONS, type ActionId, type ActionName, actionId, actionName } from '../actions/table.js'
import { loadCheckpoint, saveCheckpoint } from '../agent/checkpoint.js'
import { Dqn } from '../agent/dqn.js'
import { BtrmindError, check } from '../errors.js'
import { utilisationPercent } from '../monitor/sample.js'
import { usedPercentOf } from '../monitor/state.js'
import type { Decision, DecisionContext, Policy, Transition } from './policy.js'
import { RulePolicy } from './rules.js'

const percent = (fallback: number) => v.optional(v.pipe(v.number(), v.minValue(0), v.maxValue(100)), fallback)

const dqnPolicyOptions = v.strictObject({
  /** Default: a new one. */
  dqn: v.optional(v.instance(Dqn)),
  /** Of the new one. */
  seed: v.optional(v.pipe(v.number(), v.integer('an integer')), 1),
  /** The rules decide, and the network learns from them, until it has taken so many training steps. */
  warmUpSteps: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0)), 1440),
  /** The shield, and what decides after a model error. */
  rules: v.optional(v.instance(RulePolicy)),
  /** Without it the network decides at any utilisation. */
  shield: v.optional(v.boolean(), true),
  /** From here the rules act where the network would do nothing. */
  shieldMayPercent: percent(88.5),
  /** From here the rules decide. */
  shieldMustPercent: percent(90),
  /** Below this the network may not delete: nothing is gained by it, and it cannot be undone. */
  deletesFromPercent: percent(70),
  /** False: decide only. */
  learns: v.optional(v.boolean(), true),
})
const DELETING: ReadonlySet<ActionName> = new Set(['temp', 'snapshots'])

/** Below the state directory: sets of checkpoint files. */
const MODEL_DIRECTORY = 'model'

export type DqnPolicyOptions = v.InferInput<typeof dqnPolicyOptions>

/**
 * The network behind its shield. An online DQN on these features does not converge in a week, so that near the top the
 * rules have the last word; and when the model gives no usable answer they go on, and the decision says so. A network
 * that has learned nothing yet decides nothing: the rules do, for the first `warmUpSteps`.
 * @example
 * const policy = new DqnPolicy({ seed: 7 })
 */
export class DqnPolicy implements Policy {
  readonly name = 'dqn'
  #dqn: Dqn
  readonly #options: v.InferOutput<typeof dqnPolicyOptions>
  readonly #rules: RulePolicy
  #modelError: Error | undefined
  #learnError: Error | undefined

  /** @throws BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT */
  constructor(options: DqnPolicyOptions = {}) {
    this.#options = check('DqnPolicy', dqnPolicyOptions, options)
    this.#dqn = this.#options.dqn ?? new Dqn({ seed: this.#options.seed, actions: ACTIONS.length })
    this.#rules = this.#options.rules ?? new RulePolicy()
  }

  get dqn(): Dqn {
    return this.#dqn
  }

  /** What the model failed with when it was last asked or taught; undefined when it works. */
  get modelError(): Error | undefined {
    return this.#modelError ?? this.#learnError
  }

  decide(context: DecisionContext): Decision {
    // Asked every time: its hysteresis needs to see each sample.
    const rule = this.#rules.decide(context)
    try {
      const choice = this.dqn.act(context.state, this.#mask(context.verdicts, utilisationPercent(context.sample)))
      this.#modelError = undefined
      const action = actionName(choice.action as ActionId)
      const q = [...choice.q]
      const value = q[choice.action]!.toFixed(3)
      const why = choice.explored
        ? `explores (ε ${choice.epsilon.toFixed(3)})`
        : `highest Q of what is allowed: ${value}`
      const fallback = this.#learnError === undefined ? undefined : `did not learn: ${this.#learnError.message}`
      const reason = fallback === undefined ? why : `${why}; ${fallback}`
      const { warmUpSteps } = this.#options
      if (this.dqn.steps < warmUpSteps) {
        const learned = `warm-up, ${this.dqn.steps} of ${warmUpSteps} steps learned`
        return { ...rule, q, fallback, reason: `${rule.reason} (${learned}; the network would take ${action})` }
      }
      const proposed = { action, policy: this.name, reason, q, explored: choice.explored, fallback }
      return this.#shield(proposed, rule, context)
    } catch (error) {
      this.#modelError = error as Error
      const fallback = `model error, the rules decide: ${(error as Error).message}`
      return { ...rule, reason: `${rule.reason} (${fallback})`, fallback }
    }
  }

  /** By action id: what the guard refuses, and what deletes without need, leaves the argmax and the target's max. */
  #mask(verdicts: readonly Verdict[], usedPercent: number): boolean[] {
    const deletes = !this.#options.shield || usedPercent >= this.#options.deletesFromPercent
    return ACTIONS.map(({ id, name }) => verdicts[id]?.allowed === true && (deletes || !DELETING.has(name)))
  }

  #shield(proposed: Decision, rule: Decision, { sample }: DecisionContext): Decision {
    const { shield, shieldMayPercent, shieldMustPercent } = this.#options
    const used = utilisationPercent(sample)
    const must = used >= shieldMustPercent
    const may = used >= shieldMayPercent && proposed.action === 'none'
    if (!shield || rule.action === proposed.action || !(must || may)) return proposed
    const why = `shield from ${must ? shieldMustPercent : shieldMayPercent} %`
    const { q, fallback } = proposed
    const reason = `${why} (the network proposed ${proposed.action}); ${rule.reason}`
    return { ...rule, q, fallback, shielded: true, reason }
  }

  /** One transition to the replay, one training step. A failure is shown by the next decision, and changes no weight. */
  learn({ state, action, reward, nextState, nextVerdicts }: Transition): void {
    if (!this.#options.learns) return
    this.#learnError = undefined
    try {
      const nextMask = this.#mask(nextVerdicts, usedPercentOf(nextState))
      this.dqn.remember({ state, action: actionId(action), reward, nextState, nextMask })
      this.dqn.learn()
    } catch (error) {
      this.#learnError = error as Error
    }
  }

  /** Goes on from the newest whole checkpoint. Damaged ones are named; nothing on the disk is changed. */
  async restore(stateDir: string): Promise<Error[]> {
    const { snapshot, problems: damaged } = await loadCheckpoint(join(stateDir, MODEL_DIRECTORY))
    const problems = [...damaged]
    if (snapshot !== undefined) {
      const [features, actions] = [snapshot.sizes[0], snapshot.sizes.at(-1)]
      const [ours, table] = [this.dqn.network.sizes[0], ACTIONS.length]
      if (features === ours && actions === table) this.#dqn = Dqn.restore(snapshot)
      else problems.push(`the saved network is ${features} → ${actions}, not ${ours} → ${table}; it begins anew`)
    }
    return problems.map((problem) => new BtrmindError('BTRMIND_ERR_STATE_CORRUPT', problem))
  }

  /** @throws BtrmindError BTRMIND_ERR_STATE */
  async save(stateDir: string): Promise<void> {
    await saveCheckpoint(join(stateDir, MODEL_DIRECTORY), this.dqn.snapshot())
  }
}
