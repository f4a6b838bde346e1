import * as v from 'valibot'
import { ACTIONS, type ActionId, actionId, actionName } from '../actions/table.js'
import { Dqn } from '../agent/dqn.js'
import { check } from '../errors.js'
import { utilisationPercent } from '../monitor/sample.js'
import type { Decision, DecisionContext, Policy, Transition } from './policy.js'
import { RulePolicy } from './rules.js'

const percent = (fallback: number) => v.optional(v.pipe(v.number(), v.minValue(0), v.maxValue(100)), fallback)

const dqnPolicyOptions = v.strictObject({
  dqn: v.instance(Dqn),
  /** The shield, and what decides after a model error. */
  rules: v.optional(v.instance(RulePolicy)),
  /** Without it the network decides at any utilisation. */
  shield: v.optional(v.boolean(), true),
  /** From here the rules act where the network would do nothing. */
  shieldMayPercent: percent(88.5),
  /** From here the rules decide. */
  shieldMustPercent: percent(90),
  /** False: decide only. */
  learns: v.optional(v.boolean(), true),
})
export type DqnPolicyOptions = v.InferInput<typeof dqnPolicyOptions>

/**
 * The network behind its shield. An online DQN on these features does not converge in a week, so that near the top the
 * rules have the last word; and when the model gives no usable answer they go on, and the decision says so.
 * @example
 * const policy = new DqnPolicy({ dqn: new Dqn({ seed: 7 }) })
 */
export class DqnPolicy implements Policy {
  readonly name = 'dqn'
  readonly dqn: Dqn
  readonly #options: v.InferOutput<typeof dqnPolicyOptions>
  readonly #rules: RulePolicy
  #modelError: Error | undefined
  #learnError: Error | undefined

  /** @throws BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT */
  constructor(options: DqnPolicyOptions) {
    this.#options = check('DqnPolicy', dqnPolicyOptions, options)
    this.dqn = this.#options.dqn
    this.#rules = this.#options.rules ?? new RulePolicy()
  }

  /** What the model failed with when it was last asked or taught; undefined when it works. */
  get modelError(): Error | undefined {
    return this.#modelError ?? this.#learnError
  }

  decide(context: DecisionContext): Decision {
    // Asked every time: its hysteresis needs to see each sample.
    const rule = this.#rules.decide(context)
    try {
      const choice = this.dqn.act(
        context.state,
        ACTIONS.map(({ id }) => context.verdicts[id]?.allowed === true),
      )
      this.#modelError = undefined
      const action = actionName(choice.action as ActionId)
      const q = [...choice.q]
      const value = q[choice.action]!.toFixed(3)
      const why = choice.explored
        ? `explores (ε ${choice.epsilon.toFixed(3)})`
        : `highest Q of what is allowed: ${value}`
      const reason = this.#learnError === undefined ? why : `${why}; did not learn: ${this.#learnError.message}`
      return this.#shield({ action, policy: this.name, reason, q, explored: choice.explored }, rule, context)
    } catch (error) {
      this.#modelError = error as Error
      return { ...rule, reason: `model error: ${(error as Error).message}; ${rule.reason}` }
    }
  }

  #shield(proposed: Decision, rule: Decision, { sample }: DecisionContext): Decision {
    const { shield, shieldMayPercent, shieldMustPercent } = this.#options
    const used = utilisationPercent(sample)
    const must = used >= shieldMustPercent
    const may = used >= shieldMayPercent && proposed.action === 'none'
    if (!shield || rule.action === proposed.action || !(must || may)) return proposed
    const why = `shield from ${must ? shieldMustPercent : shieldMayPercent} %`
    return { ...rule, q: proposed.q, reason: `${why} (the network proposed ${proposed.action}); ${rule.reason}` }
  }

  /** One transition to the replay, one training step. A failure is shown by the next decision, and changes no weight. */
  learn({ state, action, reward, nextState, nextVerdicts }: Transition): void {
    if (!this.#options.learns) return
    this.#learnError = undefined
    try {
      const nextMask = ACTIONS.map(({ id }) => nextVerdicts[id]?.allowed === true)
      this.dqn.remember({ state, action: actionId(action), reward, nextState, nextMask })
      this.dqn.learn()
    } catch (error) {
      this.#learnError = error as Error
    }
  }
}
