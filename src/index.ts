/** The public surface, nothing else. */

export type { Refusal, RefusalCode, Verdict, VolumeFacts } from './actions/guard.js'
export type { ActionSettings } from './actions/options.js'
export type { Outcome } from './actions/plan.js'
export type { RootOptions } from './actions/roots.js'
export { ACTIONS, type ActionName } from './actions/table.js'
export * from './btrfs/index.js'
export { type Clock, systemClock } from './clock.js'
export { type Alert, Btrmind, type BtrmindOptions, EMERGENCY_PERCENT, type Step } from './loop.js'
export * from './monitor/index.js'
export { DqnPolicy, type DqnPolicyOptions } from './policies/dqn.js'
export type { Decision, DecisionContext, Policy, Transition } from './policies/policy.js'
export { type RuleOptions, RulePolicy } from './policies/rules.js'
