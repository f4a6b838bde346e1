/** What people are told of, and what of it stands. */
import type { Sample } from '../monitor/sample.js'

/** From here on temporary files go at once, and somebody is told. */
export const EMERGENCY_PERCENT = 99
/** An alert that was raised stands until the volume is less full than this. */
const CLEAR_PERCENT = 97

export interface Alert {
  readonly level: 'critical' | 'warning'
  readonly code: 'full' | 'no-answer' | 'policy' | 'state' | 'action'
  /** One sentence for people. */
  readonly message: string
}

export function warning(code: Alert['code'], message: string): Alert {
  return { level: 'warning', code, message }
}

/** An alert that stands is not raised again. */
export class Standing {
  /** The volume is full, by whose figures. */
  #full: Sample['source'] | undefined
  #lookHangs = false

  get critical(): boolean {
    return this.#full !== undefined
  }

  /** What is new. `hangingLook`: what the executor says of one that does not end. */
  raise(sample: Sample, usedPercent: number, hangingLook: string | undefined): Alert[] {
    const alerts: Alert[] = []
    const { source } = sample
    if (usedPercent >= EMERGENCY_PERCENT && this.#full !== 'kernel' && this.#full !== source) {
      this.#full = source
      const unsure = source === 'kernel' ? '' : ' by statfs alone: nothing is deleted at once until the kernel says so'
      alerts.push({
        level: 'critical',
        code: 'full',
        message: `the volume is ${usedPercent.toFixed(1)} % full${unsure}`,
      })
    } else if (usedPercent < CLEAR_PERCENT && (source === 'kernel' || this.#full === 'statfs')) {
      this.#full = undefined
    }
    if (sample.fallbackReason !== undefined) {
      alerts.push(warning('no-answer', `statfs answered instead: ${sample.fallbackReason}`))
    }
    if (hangingLook !== undefined && !this.#lookHangs) {
      alerts.push(warning('no-answer', `${hangingLook}; nothing acts until it ends`))
    }
    this.#lookHangs = hangingLook !== undefined
    return alerts
  }

  /** What an action freed may clear the critical one. */
  freed(usedPercent: number): void {
    if (usedPercent < CLEAR_PERCENT) this.#full = undefined
  }
}
