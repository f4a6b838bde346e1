import * as v from 'valibot'
import { type ActionName, actionId } from '../actions/table.js'
import { check } from '../errors.js'
import { utilisationPercent } from '../monitor/sample.js'
import type { Decision, DecisionContext, Policy } from './policy.js'

const percent = (fallback: number) => v.optional(v.pipe(v.number(), v.minValue(0), v.maxValue(100)), fallback)

/** The thresholds: utilisation from which each action is taken; docs/policies.md repeats them. */
const ruleOptions = v.strictObject({
  tempPercent: percent(75),
  compressPercent: percent(80),
  /** A balance helps only when chunks are short: less than so much of the devices is unallocated. */
  balanceUnallocatedPercent: percent(5),
  snapshotsPercent: percent(85),
  /** An action that began goes on until the utilisation is so far below where it began. */
  hysteresisPercent: percent(3),
})
export type RuleOptions = v.InferInput<typeof ruleOptions>
type Thresholds = v.InferOutput<typeof ruleOptions>

type Begun = ReadonlySet<ActionName>

/**
 * The cheapest action first: what is deleted is old and temporary, what is rewritten keeps its content, a snapshot goes
 * last. Pure.
 * @param begun what the decision before had begun
 */
export function decideByRules(
  { sample, verdicts }: DecisionContext,
  thresholds: Thresholds,
  begun: Begun,
): { decision: Decision; begun: Begun } {
  const used = utilisationPercent(sample)
  const unallocatedPercent =
    sample.unallocatedBytes === undefined ? 100 : (100 * sample.unallocatedBytes) / sample.sizeBytes
  const ladder: [ActionName, number, string][] = [
    ['temp', thresholds.tempPercent, ''],
    ['compress', thresholds.compressPercent, ''],
    ['balance', thresholds.tempPercent, ` and ${unallocatedPercent.toFixed(1)} % unallocated`],
    ['snapshots', thresholds.snapshotsPercent, ''],
  ]
  const now = new Set<ActionName>()
  const refusals: string[] = []
  let taken: Decision | undefined
  for (const [action, from, more] of ladder) {
    if (action === 'balance' && unallocatedPercent >= thresholds.balanceUnallocatedPercent) continue
    if (used < (begun.has(action) ? from - thresholds.hysteresisPercent : from)) continue
    now.add(action)
    const verdict = verdicts[actionId(action)]
    if (verdict === undefined || !verdict.allowed) refusals.push(`${action}: ${verdict?.reason ?? 'no verdict'}`)
    else taken ??= { action, policy: 'rules', reason: `${used.toFixed(1)} % used${more}, ${action} from ${from} %` }
  }
  const idle = refusals.length > 0 ? `nothing is allowed (${refusals.join('; ')})` : 'no threshold is reached'
  const decision = taken ?? { action: 'none', policy: 'rules', reason: `${used.toFixed(1)} % used, ${idle}` }
  return { decision, begun: now }
}

/**
 * Thresholds with hysteresis: the baseline, the network's shield, and what goes on when the network fails.
 * @example
 * const mind = new Btrmind({ filesystem, policy: new RulePolicy({ snapshotsPercent: 92 }) })
 */
export class RulePolicy implements Policy {
  readonly name = 'rules'
  readonly #thresholds: Thresholds
  #begun: Begun = new Set()

  /** @throws BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT */
  constructor(options: RuleOptions = {}) {
    this.#thresholds = check('RulePolicy', ruleOptions, options)
  }

  decide(context: DecisionContext): Decision {
    const { decision, begun } = decideByRules(context, this.#thresholds, this.#begun)
    this.#begun = begun
    return decision
  }
}
