/**
 * What was about to be done, and what came of it: intent (on disk) → act → outcome (on disk). An intent without an
 * outcome was cut off by a crash or a power cut, and is reported at the next start.
 *
 * An fsync takes from one to many milliseconds, so what comes next is put on disk between steps ("prepared"): the step
 * then waits for nothing.
 */
import { join } from 'node:path'
import type { Clock } from '../clock.js'
import { type JsonLines, openJsonLines } from '../jsonl.js'
import { ACTIONS, type ActionName } from './table.js'

export interface Intent {
  readonly kind: 'intent'
  /** Of the plan: an action that touches much has several intents, each with the paths that come next. */
  readonly id: string
  readonly timeMs: number
  readonly action: ActionName
  readonly emergency: boolean
  /** Not begun yet; another one of the same id takes its place. */
  readonly prepared?: boolean
  /** Absolute; bytes that are not UTF-8 as U+FFFD. */
  readonly paths: readonly string[]
}

/** What was prepared will not be done. */
export interface Dropped {
  readonly kind: 'dropped'
  readonly id: string
  readonly timeMs: number
  readonly action: ActionName
}

export interface Concluded {
  readonly kind: 'outcome'
  readonly id: string
  readonly timeMs: number
  readonly action: ActionName
  readonly done: number
  readonly failed: number
  /** It achieved nothing, and would not a minute later. */
  readonly fruitless?: boolean | undefined
  readonly predictedBytes?: number | undefined
  readonly freedBytes?: number | undefined
  readonly error?: string | undefined
}

export type JournalRecord = Intent | Concluded | Dropped

/** An action that was under way when the process ended. */
export interface Unfinished {
  readonly action: ActionName
  readonly timeMs: number
  readonly emergency: boolean
  /** False: it was prepared, and after a power cut nobody can say whether it had begun. */
  readonly begun: boolean
  /** What it may have touched: at least the first, perhaps all. */
  readonly paths: readonly string[]
}

/** Of the file and of the one before it: some ten thousand deleted paths each. */
const MAX_BYTES = 4 * 1024 ** 2
/** Outcomes of each action that a start looks back on. */
const REMEMBERED = 16

const NAMES: readonly string[] = ACTIONS.map(({ name }) => name)

function isRecord(value: unknown): value is JournalRecord {
  if (typeof value !== 'object' || value === null) return false
  const { kind, id, timeMs, action, paths, done } = value as Record<string, unknown>
  if (typeof id !== 'string' || typeof timeMs !== 'number' || !NAMES.includes(action as string)) return false
  if (kind === 'intent') return Array.isArray(paths)
  return kind === 'outcome' ? typeof done === 'number' : kind === 'dropped'
}

export class Journal {
  readonly #file: JsonLines<JournalRecord> | undefined
  readonly #clock: Clock
  #plans = 0
  readonly #prepared = new Map<ActionName, { readonly id: string; readonly paths: ReadonlySet<string> }>()

  private constructor(
    file: JsonLines<JournalRecord> | undefined,
    clock: Clock,
    /** The last outcomes of each action, oldest first. */
    readonly outcomes: ReadonlyMap<ActionName, readonly Concluded[]>,
    readonly unfinished: readonly Unfinished[],
    /** Damage found in the file, one sentence each. */
    readonly problems: readonly string[],
  ) {
    this.#file = file
    this.#clock = clock
  }

  /**
   * @param stateDir a directory that is there, locked by the caller; undefined: nothing is kept
   * @throws BtrmindError BTRMIND_ERR_STATE
   */
  static async open(stateDir: string | undefined, clock: Clock): Promise<Journal> {
    if (stateDir === undefined) return new Journal(undefined, clock, new Map(), [], [])
    const outcomes = new Map<ActionName, Concluded[]>(ACTIONS.map(({ name }) => [name, []]))
    const open = new Map<string, Unfinished & { paths: string[] }>()
    const onRecord = (record: JournalRecord) => {
      const { id, action, timeMs } = record
      if (record.kind === 'intent') {
        const before = open.get(id)
        const begun = record.prepared !== true
        if (begun && before?.begun === true) before.paths.push(...record.paths)
        else open.set(id, { action, timeMs, emergency: record.emergency, begun, paths: [...record.paths] })
        return
      }
      open.delete(id)
      if (record.kind === 'dropped') return
      const last = outcomes.get(action)!
      last.push(record)
      if (last.length > REMEMBERED) last.shift()
    }
    const opened = await openJsonLines(join(stateDir, 'journal.jsonl'), { isRecord, onRecord, maxBytes: MAX_BYTES })
    const journal = new Journal(opened.file, clock, outcomes, [...open.values()], opened.problems)
    for (const [id, { action, begun }] of open) {
      if (!begun) await journal.#drop(id, action)
      else await journal.#conclude(id, action, { done: 0, failed: 0, error: 'cut off: the process ended under way' })
    }
    return journal
  }

  /**
   * Puts on disk what an action would touch first, so that it can begin at once. To be called between steps.
   * @throws BtrmindError BTRMIND_ERR_STATE
   */
  async prepare(action: ActionName, paths: readonly string[]): Promise<void> {
    const before = this.#prepared.get(action)
    const now = new Set(paths)
    if (before === undefined ? now.size === 0 : isSame(before.paths, now)) return
    const id = before?.id ?? this.#newId()
    await this.#append({ kind: 'intent', id, action, emergency: false, prepared: true, paths }, true)
    this.#prepared.set(action, { id, paths: now })
  }

  /** Begins the record of one plan. */
  begin(action: ActionName, emergency: boolean): PlanRecord {
    const prepared = this.#prepared.get(action)
    this.#prepared.delete(action)
    const id = prepared?.id ?? this.#newId()
    const late: unknown[] = []
    return {
      late,
      intend: async (paths, durable) => {
        const known = prepared !== undefined && paths.every((path) => prepared.paths.has(path))
        const written = this.#append({ kind: 'intent', id, action, emergency, paths }, durable && !known)
        // These paths are on disk already: an action need not wait for the line that says that it begins.
        if (known) written.catch((error: unknown) => late.push(error))
        else await written
      },
      conclude: (outcome) => this.#conclude(id, action, outcome),
    }
  }

  #conclude(id: string, action: ActionName, outcome: Counts): Promise<void> {
    return this.#append({ kind: 'outcome', id, action, ...outcome }, true)
  }

  #drop(id: string, action: ActionName): Promise<void> {
    return this.#append({ kind: 'dropped', id, action }, false)
  }

  async #append(record: DistributiveOmit<JournalRecord, 'timeMs'>, sync: boolean): Promise<void> {
    await this.#file?.append({ ...record, timeMs: this.#clock.wallMs() }, { sync })
  }

  /** No other plan has it. */
  #newId(): string {
    this.#plans++
    return `${this.#clock.wallMs()}-${process.pid}-${this.#plans}`
  }

  /** Idempotent. */
  async close(): Promise<void> {
    for (const [action, { id }] of this.#prepared) await this.#drop(id, action).catch(() => undefined)
    this.#prepared.clear()
    await this.#file?.close()
  }
}

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never
type Counts = Omit<Concluded, 'kind' | 'id' | 'timeMs' | 'action'>

/** The lines of one plan. */
export interface PlanRecord {
  /** Lines that failed after nobody waited for them. */
  readonly late: readonly unknown[]
  /**
   * @param durable on disk before it resolves
   * @throws BtrmindError BTRMIND_ERR_STATE, `cause.code` is the errno name
   */
  intend(paths: readonly string[], durable: boolean): Promise<void>
  /** On disk before it resolves. @throws BtrmindError BTRMIND_ERR_STATE */
  conclude(outcome: Counts): Promise<void>
}

function isSame(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  return a.size === b.size && [...a].every((path) => b.has(path))
}
