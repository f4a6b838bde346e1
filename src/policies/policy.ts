/** Whatever wants to act on a volume is a policy: it proposes; the guard and the executor do the rest. */
import type { Verdict, VolumeFacts } from '../actions/guard.js'
import type { ActionName } from '../actions/table.js'

export interface DecisionContext {
  readonly sample: VolumeFacts
  /** Float32Array, [4], about −1 … 1: the monitor's stateVector(). */
  readonly state: Float32Array
  /** By action id: what the guard refuses is not to be proposed. */
  readonly verdicts: readonly Verdict[]
}

export interface Decision {
  readonly action: ActionName
  /** Who decided: the policy's name, or 'rules' where a shield or a fallback did. */
  readonly policy: string
  /** One sentence for people. */
  readonly reason: string
  /** Q value by action id, where there is a network. */
  readonly q?: readonly number[] | undefined
  /** Taken to explore, not because it looked best. */
  readonly explored?: boolean | undefined
  /** The network proposed something else, and the shield had the last word. */
  readonly shielded?: boolean | undefined
  /** What went wrong with the policy: why somebody else decided, or that it does not learn. Raised as a warning. */
  readonly fallback?: string | undefined
}

/** What came of a decision. A restart is a truncation, not an end: there are no terminal states. */
export interface Transition {
  readonly state: Float32Array
  readonly action: ActionName
  readonly reward: number
  readonly nextState: Float32Array
  /** By action id, in the next state. */
  readonly nextVerdicts: readonly Verdict[]
}

export interface Policy {
  readonly name: string
  /** Proposes an allowed action; 'none' always is. */
  decide(context: DecisionContext): Decision | Promise<Decision>
  learn?(transition: Transition): void | Promise<void>
  /**
   * Goes on from what an earlier run left in the state directory, if it left anything; before the first decision.
   * @returns what was found damaged and set aside
   */
  restore?(stateDir: string): Promise<Error[]>
  /** Keeps what was learned; now and then, and at the end. */
  save?(stateDir: string): Promise<void>
}
