/** Carries out what the guard allows, and nothing else. */
import * as v from 'valibot'
import type { Filesystem } from '../btrfs/types.js'
import { type Clock, systemClock } from '../clock.js'
import { check } from '../errors.js'
import { utilisationPercent } from '../monitor/sample.js'
import type { Actor, ActorContext } from './actor.js'
import { BalanceActor } from './balance.js'
import { CompressActor } from './compress.js'
import { Execution } from './execution.js'
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
import { type ActionOptions, actionOptions } from './options.js'
import type { Outcome, Plan } from './plan.js'
import { type Roots, resolveRoots, rootOptions } from './roots.js'
import { SnapshotsActor } from './snapshots.js'
import { ACTIONS, type ActionName } from './table.js'
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

type Acted = Exclude<ActionName, 'none'>
const ACTED = ACTIONS.map(({ name }) => name).filter((name): name is Acted => name !== 'none')
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
  #dataRatio: number | undefined
  /** Why the last look for its candidates failed. */
  readonly #blind: Partial<Record<ActionName, string>> = {}

  private constructor(filesystem: Filesystem, clock: Clock, options: ActionOptions, roots: Roots, journal: Journal) {
    this.#filesystem = filesystem
    this.#clock = clock
    this.options = options
    this.roots = roots
    this.#journal = journal
    const context: ActorContext = { filesystem, clock, options, roots, dataRatio: () => this.#dataRatio }
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
  }

  /**
   * Resolves the roots and opens the journal. Changes nothing on the volume.
   * @throws BtrmindError BTRMIND_ERR_ROOT, BTRMIND_ERR_WRONG_VOLUME, BTRMIND_ERR_STATE, BTRMIND_ERR_OPTION,
   * BTRMIND_ERR_ARGUMENT; BtrfsError ENOENT, ENOTDIR, EACCES (a root)
   */
  static async open(filesystem: Filesystem, options: ExecutorOptions = {}): Promise<Executor> {
    const checked = check('Executor', executorOptions, options)
    const { temp, compress, snapshots, stateDir, clock, signal, ...actions } = checked
    const roots = await resolveRoots(filesystem, { temp, compress, snapshots }, stateDir, { signal })
    return new Executor(filesystem, clock, actions, roots, await Journal.open(stateDir, clock))
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
   * Looks for candidates, a bounded while; to be called between steps, so that none waits for it.
   * @param options.prepare also journal what would be deleted next, so that a step can begin at once. Not in a dry run.
   * @returns what could not be looked at, one sentence each
   */
  async refresh(
    options: { readonly signal?: AbortSignal | undefined; readonly prepare?: boolean | undefined } = {},
  ): Promise<string[]> {
    const { signal, prepare } = options
    const problems: string[] = []
    const attempt = async (what: string, work: () => Promise<void>) => {
      try {
        await work()
      } catch (error) {
        signal?.throwIfAborted()
        const { message } = error as Error
        problems.push(`${what}: ${message}`)
        if (what in this.#actors) this.#blind[what as Acted] = message
      }
    }
    await attempt('usage', () => this.#readProfile(signal))
    for (const name of ACTED) {
      const actor = this.#actors[name]
      await attempt(name, async () => {
        this.#blind[name] = undefined
        for (const complaint of await actor.refresh(signal)) problems.push(`${name}: ${complaint}`)
        if (prepare === true && actor.next !== undefined) await this.#journal.prepare(name, actor.next())
      })
    }
    return problems
  }

  async #readProfile(signal: AbortSignal | undefined): Promise<void> {
    this.#dataRatio = (await this.#filesystem.usage({ signal })).dataRatio
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
      blind: this.#blind,
      lastActed: this.#lastActed,
      options: this.options,
      emergency,
    }
  }

  /** Does it, waits until the space is really free, and measures. Failures are values: `error`, `items.failures`. */
  async execute(plan: Plan, options: ExecuteOptions): Promise<Outcome> {
    const { sample, dryRun, signal } = options
    const startMs = this.#clock.elapsedMs()
    const { action, emergency, predictedBytes, explanation, touches } = plan
    const base = { action, emergency, predictedBytes, explanation, touches, dryRun }
    const items = { ...NO_ITEMS, planned: plan.items }
    if (dryRun || action === 'none') {
      const durationMs = this.#clock.elapsedMs() - startMs
      const nothing = { freedBytes: action === 'none' ? 0 : undefined, firstActMs: undefined, stagesMs: NO_STAGES }
      return { ...base, ...nothing, items, warnings: [], durationMs }
    }
    const run = new Execution(
      plan,
      this.#journal.begin(action, emergency),
      this.#clock,
      startMs + this.options.stepMs,
      signal,
    )
    let error: Error | undefined
    try {
      await plan.perform(run)
    } catch (cause) {
      error = cause instanceof Error ? cause : new Error(String(cause))
    }
    const actedMs = this.#clock.elapsedMs()
    const freedBytes = run.firstActMs === undefined ? undefined : await this.#measureFreed(sample, run)
    const settledMs = this.#clock.elapsedMs()
    const { doneItems, failedItems } = run
    const fruitless = doneItems === 0 && (failedItems > 0 || error !== undefined) && signal?.aborted !== true
    await run.conclude({ freedBytes, fruitless, error: error?.message })
    this.#lastActed[action] = { timeMs: sample.timeMs, fruitless }
    if (action === 'snapshots' && doneItems > 0 && freedBytes !== undefined) this.#snapshots.learn(freedBytes)
    const endMs = this.#clock.elapsedMs()
    return {
      ...base,
      explanation: [explanation, ...run.notes].join('; '),
      freedBytes,
      items: { planned: plan.items, done: doneItems, failed: failedItems, failures: run.failures },
      error,
      warnings: run.warnings,
      firstActMs: run.firstActMs,
      durationMs: endMs - startMs,
      stagesMs: {
        journal: run.journalMs + (endMs - settledMs),
        act: actedMs - startMs - run.journalMs,
        settle: settledMs - actedMs,
      },
    }
  }

  /**
   * Emergency: deletes temporary files, oldest first, until the volume is less full than `emergencyTargetPercent`.
   * Only below the temporary directories, and none younger than `emergencyAgeMinutes`.
   */
  async forceDeleteTemp(options: ExecuteOptions): Promise<Outcome> {
    let plan = this.plan('temp', options.sample, { emergency: true })
    if (!plan.allowed && (plan.code === 'not-looked-yet' || plan.code === 'nothing-to-do')) {
      await this.#temp.lookNow(options.signal)
      plan = this.plan('temp', options.sample, { emergency: true })
    }
    return plan.allowed ? this.execute(plan, options) : refused(plan, options.dryRun, true)
  }

  /** Raw bytes. The sync frees what was unlinked; a deleted snapshot was waited for already. */
  async #measureFreed(before: VolumeFacts, run: Execution): Promise<number | undefined> {
    try {
      await this.#filesystem.sync({ signal: run.signal })
      const after = await this.#filesystem.measure({ signal: run.signal })
      const usedPercent = after.liveUsedPercent ?? after.usedPercent
      const usedBytes = (usedPercent / 100) * after.deviceSizeBytes
      return Math.round((utilisationPercent(before) / 100) * before.sizeBytes - usedBytes)
    } catch (error) {
      run.warnings.push(`what was freed is not known: ${(error as Error).message}`)
      return undefined
    }
  }

  /** Ends the looks and the journal. Idempotent. */
  async close(): Promise<void> {
    for (const actor of Object.values(this.#actors)) await actor.close()
    await this.#journal.close()
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
