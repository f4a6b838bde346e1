/** What is open while the loop runs, and the work beside its steps: looking for candidates, saving what was learned. */
import { Executor } from '../actions/executor.js'
import { resolveRoots } from '../actions/roots.js'
import { within } from '../clock.js'
import { BtrmindError } from '../errors.js'
import { Monitor } from '../monitor/monitor.js'
import { DqnPolicy } from '../policies/dqn.js'
import type { Policy, Transition } from '../policies/policy.js'
import { Standing } from './alerts.js'
import type { Settings } from './options.js'

export class Room {
  readonly monitor: Monitor
  readonly executor: Executor
  readonly policy: Policy
  readonly signal: AbortSignal
  readonly standing = new Standing()
  /** Waits for the next state, to be learned from. */
  pending: Omit<Transition, 'nextState' | 'nextVerdicts'> | undefined
  readonly #settings: Settings
  /** A checkpoint that is being written: on a disk that hangs it is not waited for. */
  #saving: Promise<void> | undefined

  private constructor(settings: Settings, monitor: Monitor, executor: Executor, policy: Policy, signal: AbortSignal) {
    this.#settings = settings
    this.monitor = monitor
    this.executor = executor
    this.policy = policy
    this.signal = signal
  }

  /** Takes the state directory, and has looked for candidates once. */
  static async open(settings: Settings, signal: AbortSignal): Promise<Room> {
    const { filesystem, roots, actions, stateDir, intervalMs, timeoutMs, clock, seed } = settings
    const onWarning = (warning: unknown) => warn(settings, warning)
    // Before anything is made: roots that are refused leave no state directory behind.
    await resolveRoots(filesystem, roots, stateDir, { signal })
    const monitor = new Monitor({ filesystem, stateDir, intervalMs, timeoutMs, clock, onWarning })
    let executor: Executor | undefined
    try {
      // First: it holds the lock on the state directory.
      await monitor.open()
      executor = await Executor.open(filesystem, { ...roots, ...actions, stateDir, clock, timeoutMs, signal })
      const policy = settings.policy ?? new DqnPolicy({ seed })
      for (const problem of executor.problems) onWarning(new BtrmindError('BTRMIND_ERR_STATE_CORRUPT', problem))
      for (const { action, begun, paths } of executor.unfinished) {
        const where = paths.length > 0 ? ` at '${paths[0]}'` : ''
        const what = begun ? 'was under way' : 'was about to begin'
        onWarning(new BtrmindError('BTRMIND_ERR_UNFINISHED', `'${action}' ${what}${where} when the process ended`))
      }
      if (stateDir !== undefined) for (const problem of (await policy.restore?.(stateDir)) ?? []) onWarning(problem)
      const room = new Room(settings, monitor, executor, policy, signal)
      await room.look()
      return room
    } catch (error) {
      await executor?.close().catch(onWarning)
      await monitor.close()
      throw error
    }
  }

  /** For candidates of the actions. */
  async look(): Promise<void> {
    const { executor, signal } = this
    try {
      for (const problem of await executor.refresh({ signal, prepare: !this.#settings.dryRun }))
        this.warn(new Error(problem))
    } catch (error) {
      if (!signal.aborted) this.warn(error)
    }
  }

  /** Waited for as long as a query is; none is begun while one is under way. */
  async save(): Promise<void> {
    const { stateDir, timeoutMs } = this.#settings
    const { policy } = this
    if (stateDir === undefined || policy.save === undefined) return
    const save = async () => {
      try {
        await policy.save?.(stateDir)
      } catch (error) {
        this.warn(error)
      }
      this.#saving = undefined
    }
    const first = this.#saving === undefined
    this.#saving ??= save()
    if ((await within(this.#saving, timeoutMs)) !== undefined || !first) return
    this.warn(new BtrmindError('BTRMIND_ERR_STATE', `'${stateDir}': the disk does not answer within ${timeoutMs} ms`))
  }

  /** Saves, and gives the state directory back. */
  async close(): Promise<void> {
    await this.save()
    await this.executor.close().catch((error: unknown) => this.warn(error))
    await this.monitor.close()
  }

  warn(warning: unknown): void {
    warn(this.#settings, warning)
  }
}

function warn({ onWarning = (error) => process.emitWarning(error) }: Settings, warning: unknown): void {
  onWarning(warning instanceof Error ? warning : new Error(String(warning)))
}
