/** What the executor knows of each action; the guard's rules are not in here. */
import { join } from 'node:path'
import type { Filesystem } from '../btrfs/interface.js'
import type { Usage } from '../btrfs/usage.js'
import type { Clock } from '../clock.js'
import { DAY_MS, HOUR_MS } from '../units.js'
import type { CandidateFacts, GuardFacts, VolumeFacts } from './guard.js'
import type { ActionOptions } from './options.js'
import type { Plan } from './plan.js'
import type { Roots } from './roots.js'
import type { Candidate, FileScan } from './scan.js'

export interface ActorContext {
  readonly filesystem: Filesystem
  readonly clock: Clock
  readonly options: ActionOptions
  readonly roots: Roots
  /** Raw bytes a logical byte of data takes, as far as known. */
  dataRatio(): number | undefined
}

export interface FactsRequest {
  readonly sample: VolumeFacts
  readonly emergency: boolean
}
export interface PlanRequest extends FactsRequest {
  readonly facts: GuardFacts
}
export type Draft = Omit<Plan, 'allowed' | 'action' | 'emergency'>

export interface Actor {
  /** Undefined: not looked yet. No system call. */
  facts(request: FactsRequest): CandidateFacts | undefined
  /**
   * Looks for candidates, within bounds, between steps; gives back what it could not look at.
   * @param signal gives up what is stuck in the kernel
   * @param usage undefined: it could not be read
   */
  refresh(signal: AbortSignal, usage: Usage | undefined): Promise<readonly string[]>
  /** What cannot be undone: the paths that it would touch first, in an emergency too. */
  next?(): readonly string[]
  /** From what is known already: no system call. */
  plan(request: PlanRequest): Draft
  close(): Promise<void>
}

/** How many paths a plan and an outcome show. */
export const SHOWN = 20

/** Absolute, for people; bytes that are not UTF-8 become U+FFFD. */
export function pathOf({ root, file }: Pick<Candidate, 'root' | 'file'>): string {
  return join(root.path, Buffer.from(file.path).toString())
}

/** "1 file", "12,345 files". Without Intl, whose first use costs a step some 100 ms. */
export function count(items: number, noun: string): string {
  const digits = String(items).replace(/\B(?=(\d{3})+$)/g, ',')
  return `${digits} ${noun}${items === 1 ? '' : 's'}`
}

/** "10 days", "5.5 h", "10 min". */
export function formatAge(ms: number): string {
  if (ms >= 2 * DAY_MS) return `${Math.floor(ms / DAY_MS)} days`
  return ms >= HOUR_MS ? `${(ms / HOUR_MS).toFixed(1)} h` : `${Math.round(ms / 60_000)} min`
}

/** What a scan could not look at, as the end of a sentence. */
export function unseen({ problems }: FileScan): string {
  const [first] = problems
  if (first === undefined) return ''
  return `; could not look at ${count(problems.size, 'directory').replace('directorys', 'directories')}, the first '${first[0]}': ${first[1]}`
}
