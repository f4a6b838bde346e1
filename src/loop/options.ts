/** What the loop is told. */
import * as v from 'valibot'
import { type ActionSettings, actionOptions } from '../actions/options.js'
import { type RootOptions, rootOptions } from '../actions/roots.js'
import type { Filesystem } from '../btrfs/interface.js'
import { type Clock, systemClock } from '../clock.js'
import type { Policy } from '../policies/policy.js'

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
export const btrmindOptions = v.strictObject({
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

/** Checked, with the defaults. */
export type Settings = v.InferOutput<typeof btrmindOptions>
