/**
 * What was about to be done, and what came of it: intent (on disk) → act → outcome (on disk). An intent without an
 * outcome was cut off by a crash or a power cut, and is reported at the next start.
 */
import { join } from 'node:path'
import type { Clock } from '../clock.js'
import { BtrmindError } from '../errors.js'
import { type JsonLines, openJsonLines } from '../jsonl.js'
import { ACTIONS, type ActionName } from './table.js'

export interface Intent {
  readonly kind: 'intent'
  /** Of the plan: an action that touches much has several intents, each with the paths that come next. */
  readonly id: string
  readonly timeMs: number
  readonly action: ActionName
  readonly emergency: boolean
  /** Absolute; bytes that are not UTF-8 as U+FFFD. */
  readonly paths: readonly string[]
}

export interface Concluded {
  readonly kind: 'outcome'
  readonly id: string
  readonly timeMs: number
  readonly action: ActionName
  readonly done: number
  readonly failed: number
  readonly predictedBytes?: number | undefined
  readonly freedBytes?: number | undefined
  readonly error?: string | undefined
}

export type JournalRecord = Intent | Concluded

/** An action that was under way when the process ended. */
export interface Unfinished {
  readonly action: ActionName
  readonly timeMs: number
  readonly emergency: boolean
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
  return kind === 'intent' ? Array.isArray(paths) : kind === 'outcome' && typeof done === 'number'
}

export class Journal {
  readonly #file: JsonLines<JournalRecord> | undefined
  readonly #clock: Clock
  #plans = 0

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
      if (record.kind === 'outcome') {
        const last = outcomes.get(record.action)!
        last.push(record)
        if (last.length > REMEMBERED) last.shift()
        open.delete(record.id)
      } else {
        const { action, timeMs, emergency, paths } = record
        const before = open.get(record.id)
        if (before === undefined) open.set(record.id, { action, timeMs, emergency, paths: [...paths] })
        else before.paths.push(...paths)
      }
    }
    const opened = await openJsonLines(join(stateDir, 'journal.jsonl'), { isRecord, onRecord, maxBytes: MAX_BYTES })
    const journal = new Journal(opened.file, clock, outcomes, [...open.values()], opened.problems)
    for (const [id, { action }] of open) {
      await journal.conclude(id, action, { done: 0, failed: 0, error: 'cut off: the process ended under way' })
    }
    return journal
  }

  /** An id for one plan's records; no other plan has had it. */
  newId(): string {
    this.#plans++
    return `${this.#clock.wallMs()}-${process.pid}-${this.#plans}`
  }

  /**
   * @param durable wait until it is on the disk
   * @throws BtrmindError BTRMIND_ERR_STATE, `cause.code` is the errno name
   */
  async intend(id: string, intent: Pick<Intent, 'action' | 'emergency' | 'paths'>, durable: boolean): Promise<void> {
    await this.#file?.append({ kind: 'intent', id, timeMs: this.#clock.wallMs(), ...intent }, { sync: durable })
  }

  /** @throws BtrmindError BTRMIND_ERR_STATE */
  async conclude(
    id: string,
    action: ActionName,
    outcome: Pick<Concluded, 'done' | 'failed' | 'predictedBytes' | 'freedBytes' | 'error'>,
  ): Promise<void> {
    await this.#file?.append({ kind: 'outcome', id, timeMs: this.#clock.wallMs(), action, ...outcome }, { sync: true })
  }

  async close(): Promise<void> {
    await this.#file?.close()
  }
}

/** Was it for want of space that the journal could not be written? Then freeing some comes first. */
export function isOutOfSpace(error: unknown): boolean {
  if (!(error instanceof BtrmindError)) return false
  const code = (error.cause as { code?: unknown } | undefined)?.code
  return code === 'ENOSPC' || code === 'EDQUOT'
}
