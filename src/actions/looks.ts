/** The looks for candidates: one at a time, between steps, and beside them where the disk hangs. */
import type { Filesystem } from '../btrfs/interface.js'
import type { Usage } from '../btrfs/usage.js'
import type { Clock } from '../clock.js'
import type { Actor } from './actor.js'
import { Beside } from './beside.js'
import type { Journal } from './journal.js'
import type { ActionOptions } from './options.js'
import { ACTIONS, type ActionName } from './table.js'
import type { TempActor } from './temp.js'

export type Acted = Exclude<ActionName, 'none'>
const ACTED = ACTIONS.map(({ name }) => name).filter((name): name is Acted => name !== 'none')

export class Looks {
  readonly #filesystem: Filesystem
  readonly #actors: Readonly<Record<Acted, Actor>>
  readonly #bounds: Pick<ActionOptions, 'scanMs' | 'stepMs'>
  readonly #clock: Clock
  readonly #timeoutMs: number
  readonly #look = new Beside()
  readonly #stop = new AbortController()
  #problems: string[] = []
  /** What the last look for each met: told when it is new, not with every look. */
  readonly #met = new Map<string, ReadonlySet<string>>()
  /** Raw bytes a logical byte of data takes, as far as known. */
  dataRatio: number | undefined
  /** Why the last look for its candidates failed. */
  readonly blind: Partial<Record<ActionName, string>> = {}

  constructor(
    filesystem: Filesystem,
    actors: Readonly<Record<Acted, Actor>>,
    bounds: Pick<ActionOptions, 'scanMs' | 'stepMs'>,
    clock: Clock,
    timeoutMs: number,
  ) {
    this.#filesystem = filesystem
    this.#actors = actors
    this.#bounds = bounds
    this.#clock = clock
    this.#timeoutMs = timeoutMs
  }

  /** Unless one is under way. @param journal where what would be deleted next is prepared */
  begin(journal: Journal | undefined): void {
    if (!this.#look.busy) this.#look.start(() => this.#all(journal))
  }

  /** Unless one is under way: for temporary files only, without rest, as long as a step may take. */
  beginNow(temp: TempActor): void {
    const { stepMs } = this.#bounds
    const untilMs = this.#clock.elapsedMs() + stepMs
    const look = async (problems: string[]) => {
      problems.push(...(await temp.lookNow(this.#stop.signal, untilMs)))
    }
    if (!this.#look.busy) this.#look.start(() => this.#part('temp', stepMs + this.#timeoutMs, look))
  }

  /** Until it has ended, hangs, or the signal comes. */
  wait(signal: AbortSignal | undefined): Promise<void> {
    return this.#look.wait(signal)
  }

  get hangs(): boolean {
    return this.#look.hangs
  }
  /** In one sentence. */
  get underWay(): string | undefined {
    return this.#look.busy ? `the look for candidates has been under way ${this.#look.since}` : undefined
  }

  /** What could not be looked at, one sentence each; again only when it was gone meanwhile. */
  takeProblems(): string[] {
    return this.#problems.splice(0)
  }

  async #all(journal: Journal | undefined): Promise<void> {
    const { signal } = this.#stop
    let usage: Usage | undefined
    await this.#part('usage', this.#timeoutMs, async () => {
      usage = await this.#filesystem.usage({ signal })
      this.dataRatio = usage.dataRatio
    })
    for (const name of ACTED) {
      const actor = this.#actors[name]
      // A walk and two rounds of questions, each of scanMs.
      await this.#part(name, 3 * this.#bounds.scanMs + this.#timeoutMs, async (problems) => {
        this.blind[name] = undefined
        problems.push(...(await actor.refresh(signal, usage)))
        if (actor.next !== undefined) await journal?.prepare(name, actor.next())
      })
    }
  }

  async #part(what: Acted | 'usage', patienceMs: number, work: (problems: string[]) => Promise<void>): Promise<void> {
    if (this.#stop.signal.aborted) return
    this.#look.part(what, patienceMs)
    const problems: string[] = []
    try {
      await work(problems)
    } catch (error) {
      if (this.#stop.signal.aborted) return
      const { message } = error as Error
      problems.push(message)
      if (what !== 'usage') this.blind[what] = message
    }
    const before = this.#met.get(what)
    this.#met.set(what, new Set(problems))
    for (const problem of problems) if (!before?.has(problem)) this.#problems.push(`${what}: ${problem}`)
  }

  /** Gives up what is stuck. Idempotent. */
  async close(): Promise<void> {
    this.#stop.abort()
    for (const actor of Object.values(this.#actors)) await actor.close()
  }
}
