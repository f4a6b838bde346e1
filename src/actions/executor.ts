/** Carries out what the guard allows, and nothing else. */
import * as v from 'valibot'
import type { Filesystem } from '../btrfs/interface.js'
import { type Clock, MAX_TIMER_MS, systemClock, within } from '../clock.js'
import { BtrmindError, check } from '../errors.js'
import type { Actor, ActorContext } from './actor.js'
import { BalanceActor } from './balance.js'
import { Beside } from './beside.js'
import { CompressActor } from './compress.js'
import { Execution } from './execution.js'
import { type Fullness, fullnessBefore, measureFreed } from './freed.js'
import {
  type GuardFacts,
  guard,
  type LastActed,
  type Refusal,
  type Verdict,
  type VolumeFacts,
  verdicts,
} from './guard.js'
import { Journal, type Unfinished } from './journal.js'
import { type Acted, Looks } from './looks.js'
import { type ActionOptions, actionOptions } from './options.js'
import type { Outcome, Plan } from './plan.js'
import { type Roots, resolveRoots, rootOptions } from './roots.js'
import { SnapshotsActor } from './snapshots.js'
import type { ActionName } from './table.js'
import { TempActor } from './temp.js'

const executorOptions = v.strictObject({
  ...actionOptions.entries,
  ...rootOptions.entries,
  /** Where the journal is kept; there, and locked by the caller. Default: it is not kept. */
  stateDir: v.optional(v.string()),
  clock: v.optional(
    v.custom<Clock>((value) => typeof value === 'object' && value !== null, 'a clock'),
    systemClock,
  ),
  /** How long a call that is usually quick may take before it counts as hanging. */
  timeoutMs: v.optional(v.pipe(v.number(), v.minValue(1), v.maxValue(MAX_TIMER_MS)), 5_000),
  signal: v.optional(v.instance(AbortSignal)),
})
export type ExecutorOptions = v.InferInput<typeof executorOptions>

export interface ExecuteOptions {
  /** The sample that the plan rests on: what is freed is measured from its live used bytes. */
  readonly sample: VolumeFacts
  /** Say what would be done, and do nothing. */
  readonly dryRun: boolean
  readonly signal?: AbortSignal | undefined
}

const NO_ITEMS = { planned: 0, done: 0, failed: 0, failures: [] }
const NO_STAGES = { journal: 0, act: 0, settle: 0 }

/**
 * Plans from candidates that were found before, acts, waits until the space is really free, and measures.
 * @example
 * await using executor = await Executor.open(fs, { temp: ['/mnt/pool/tmp'], stateDir: '/var/lib/btrmind' })
 * await executor.refresh()
 * const plan = executor.plan('temp', sample)
 * if (plan.allowed) console.log(await executor.execute(plan, { sample, dryRun: true }))
 */
export class Executor implements AsyncDisposable {
  readonly roots: Roots
  readonly options: ActionOptions
  readonly #filesystem: Filesystem
  readonly #clock: Clock
  readonly #journal: Journal
  readonly #actors: Readonly<Record<Acted, Actor>>
  readonly #temp: TempActor
  readonly #balance: BalanceActor
  readonly #snapshots: SnapshotsActor
  readonly #lastActed: Partial<Record<ActionName, LastActed>> = {}
  readonly #timeoutMs: number
  readonly #looks: Looks
  readonly #acting = new Beside()
  readonly #ended: Outcome[] = []

  private constructor(
    filesystem: Filesystem,
    clock: Clock,
    timeoutMs: number,
    options: ActionOptions,
    roots: Roots,
    journal: Journal,
  ) {
    this.#filesystem = filesystem
    this.#timeoutMs = timeoutMs
    this.#clock = clock
    this.options = options
    this.roots = roots
    this.#journal = journal
    const context: ActorContext = { filesystem, clock, options, roots, dataRatio: () => this.#looks.dataRatio }
    for (const [action, outcomes] of journal.outcomes) {
      const last = outcomes.at(-1)
      if (last !== undefined) this.#lastActed[action] = { timeMs: last.timeMs, fruitless: last.fruitless === true }
    }
    const deleted = journal.outcomes.get('snapshots') ?? []
    const freed = deleted.flatMap(({ done, freedBytes }) => (done > 0 && freedBytes !== undefined ? [freedBytes] : []))
    this.#temp = new TempActor(context)
    this.#balance = new BalanceActor(context)
    this.#snapshots = new SnapshotsActor(context, freed)
    this.#actors = {
      temp: this.#temp,
      compress: new CompressActor(context),
      balance: this.#balance,
      snapshots: this.#snapshots,
    }
    this.#looks = new Looks(filesystem, this.#actors, options, clock, timeoutMs)
  }

  /**
   * Resolves the roots and opens the journal. Changes nothing on the volume.
   * @throws BtrmindError BTRMIND_ERR_ROOT, BTRMIND_ERR_WRONG_VOLUME, BTRMIND_ERR_STATE, BTRMIND_ERR_OPTION,
   * BTRMIND_ERR_ARGUMENT; BtrfsError ENOENT, ENOTDIR, EACCES (a root)
   */
  static async open(filesystem: Filesystem, options: ExecutorOptions = {}): Promise<Executor> {
    const checked = check('Executor', executorOptions, options)
    const { temp, compress, snapshots, stateDir, clock, timeoutMs, signal, ...actions } = checked
    const roots = await resolveRoots(filesystem, { temp, compress, snapshots }, stateDir, { signal })
    return new Executor(filesystem, clock, timeoutMs, actions, roots, await Journal.open(stateDir, clock))
  }

  /** Actions that a crash or a power cut stopped under way, found in the journal at the start. */
  get unfinished(): readonly Unfinished[] {
    return this.#journal.unfinished
  }

  /** Damage found in the journal, one sentence each. */
  get problems(): readonly string[] {
    return this.#journal.problems
  }

  /**
   * Looks for candidates, a bounded while; to be called between steps. One that hangs in the kernel is no longer waited
   * for; while it is under way no other is begun, and nothing acts. close() gives it up.
   * @param options.signal ends the waiting
   * @param options.prepare also journal what would be deleted next, so that a step can begin at once. Not in a dry run.
   * @returns what could not be looked at, one sentence each; of a look that hung, once it has ended
   */
  async refresh(
    options: { readonly signal?: AbortSignal | undefined; readonly prepare?: boolean | undefined } = {},
  ): Promise<string[]> {
    const { signal, prepare = false } = options
    if (!this.#acting.busy) this.#looks.begin(prepare ? this.#journal : undefined)
    await this.#looks.wait(signal)
    return this.#looks.takeProblems()
  }

  /** The look for candidates that hangs, in one sentence. */
  get hangingLook(): string | undefined {
    return this.#looks.hangs ? this.#looks.underWay : undefined
  }

  /** What came, late, of actions whose outcome was "still under way"; each once. */
  takeEnded(): Outcome[] {
    return this.#ended.splice(0)
  }

  /** The guard's word on each action, by id: what is refused is masked. No system call. */
  verdicts(sample: VolumeFacts): readonly Verdict[] {
    return verdicts(this.#facts(sample, false))
  }

  /**
   * What the action would do now, or why it may not. No system call.
   * @param options.emergency the volume is about to be full: younger files may go, and nothing rests
   */
  plan(action: ActionName, sample: VolumeFacts, options: { readonly emergency?: boolean } = {}): Plan | Refusal {
    const emergency = options.emergency ?? false
    const facts = this.#facts(sample, emergency)
    const verdict = guard(action, facts)
    if (!verdict.allowed) return verdict
    if (action === 'none') return { ...NOTHING, emergency }
    const draft = this.#actors[action].plan({ sample, emergency, facts })
    return { allowed: true, action, emergency, ...draft }
  }

  #facts(sample: VolumeFacts, emergency: boolean): GuardFacts {
    const { temp, compress, snapshots } = this.#actors
    const paths = (kind: keyof Roots) => this.roots[kind].map(({ path }) => path)
    return {
      sample,
      roots: { temp: paths('temp'), compress: paths('compress'), snapshots: paths('snapshots') },
      candidates: {
        temp: temp.facts({ sample, emergency }),
        compress: compress.facts({ sample, emergency }),
        snapshots: snapshots.facts({ sample, emergency }),
      },
      metadataRatio: this.#balance.metadataRatio,
      metadataGainBytes: this.#balance.gainBytes(sample.sizeBytes),
      blind: this.#looks.blind,
      lastActed: this.#lastActed,
      underWay: this.#underWay(),
      options: this.options,
      emergency,
    }
  }

  #underWay(): string | undefined {
    if (this.#acting.busy) return `an action has been under way ${this.#acting.since}`
    return this.#looks.underWay
  }

  /**
   * Does it, waits until the space is really free, and measures. Failures are values: `error`, `items.failures`. What
   * hangs in the kernel is left there: the outcome says how far it is known to have come, and its end is in takeEnded().
   */
  async execute(plan: Plan, options: ExecuteOptions): Promise<Outcome> {
    const { sample, dryRun, signal } = options
    const { action, emergency, predictedBytes, explanation, touches } = plan
    if (dryRun || action === 'none') {
      const startMs = this.#clock.elapsedMs()
      const items = { ...NO_ITEMS, planned: plan.items }
      const base = { action, emergency, predictedBytes, explanation, touches, dryRun, items, warnings: [] }
      const nothing = { freedBytes: action === 'none' ? 0 : undefined, firstActMs: undefined, stagesMs: NO_STAGES }
      return { ...base, ...nothing, durationMs: this.#clock.elapsedMs() - startMs }
    }
    const underWay = this.#underWay()
    if (underWay !== undefined) {
      return refused({ allowed: false, action, code: 'still-under-way', reason: underWay }, false, emergency)
    }
    const record = this.#journal.begin(action, emergency)
    const run = new Execution(plan, record, this.#clock, this.options.stepMs, signal)
    let late = false
    this.#acting.start(async () => {
      await this.#carryOut(run, sample)
      if (late) this.#ended.push(run.outcome())
    })
    await this.#acting.wait(signal)
    // It was told to stop, and most often can.
    if (signal?.aborted) await this.#acting.end(this.#timeoutMs)
    if (!this.#acting.busy) return run.outcome()
    late = true
    run.abandon()
    const message = `'${action}' has not come back ${this.#acting.since}`
    const hint = 'the disk hangs, or is very slow; nothing else is begun until it ends'
    return run.outcome(new BtrmindError('BTRMIND_ERR_UNDER_WAY', message, { hint }))
  }

  /** Does not reject. */
  async #carryOut(run: Execution, sample: VolumeFacts): Promise<void> {
    const { action } = run.plan
    let before: Fullness | undefined
    try {
      this.#acting.part('before it began', this.#timeoutMs)
      before = await fullnessBefore(this.#filesystem, sample, run)
      this.#acting.part('at work', this.options.stepMs + this.#timeoutMs)
      await run.plan.perform(run)
    } catch (cause) {
      run.error = cause instanceof Error ? cause : new Error(String(cause))
    }
    run.actedMs = this.#clock.elapsedMs()
    // Where its space is not free yet, a disk that is merely slow is given some time.
    this.#acting.part('until its space is free', 2 * this.#timeoutMs)
    if (run.firstActMs !== undefined) await measureFreed(this.#filesystem, before, run)
    run.settledMs = this.#clock.elapsedMs()
    this.#acting.part('writing its outcome to the journal', this.#timeoutMs)
    await run.conclude()
    this.#lastActed[action] = { timeMs: sample.timeMs, fruitless: run.fruitless }
    if (action === 'snapshots' && run.doneItems > 0 && run.freedBytes !== undefined) {
      this.#snapshots.learn(run.freedBytes)
    }
  }

  /**
   * Emergency: deletes temporary files, oldest first, until the volume is less full than `emergencyTargetPercent`.
   * Only below the temporary directories, and none younger than `emergencyAgeMinutes`.
   */
  async forceDeleteTemp(options: ExecuteOptions): Promise<Outcome> {
    let plan = this.plan('temp', options.sample, { emergency: true })
    if (!plan.allowed && (plan.code === 'not-looked-yet' || plan.code === 'nothing-to-do')) {
      this.#looks.beginNow(this.#temp)
      await this.#looks.wait(options.signal)
      plan = this.plan('temp', options.sample, { emergency: true })
    }
    return plan.allowed ? this.execute(plan, options) : refused(plan, options.dryRun, true)
  }

  /**
   * Ends the looks and the journal; what is stuck is left behind. Idempotent.
   * @throws BtrmindError BTRMIND_ERR_UNDER_WAY: the journal could not be closed in time
   */
  async close(): Promise<void> {
    const closed = async () => {
      await this.#looks.close()
      await this.#journal.close()
    }
    if ((await within(closed(), this.#timeoutMs)) !== undefined) return
    throw new BtrmindError('BTRMIND_ERR_UNDER_WAY', `the journal was not closed within ${this.#timeoutMs} ms`)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

const NOTHING = {
  allowed: true,
  action: 'none',
  items: 0,
  predictedBytes: 0,
  explanation: 'nothing is done',
  touches: [],
  perform: async () => {},
} as const

/** The outcome of what the guard did not let through. */
export function refused(refusal: Refusal, dryRun: boolean, emergency = false): Outcome {
  return {
    action: refusal.action,
    dryRun,
    emergency,
    refusal,
    explanation: refusal.reason,
    predictedBytes: undefined,
    freedBytes: undefined,
    items: NO_ITEMS,
    touches: [],
    warnings: [],
    firstActMs: undefined,
    durationMs: 0,
    stagesMs: NO_STAGES,
  }
}
