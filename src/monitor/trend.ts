import { HOUR_MS } from '../units.js'

/** Fewer points than this give no trend. */
export const TREND_POINTS = 5
/** A clock set back by no more than this is waited out; by more, the window begins anew. */
const STEP_BACK_MS = 60_000
/** At most so many points in a window: 24 hours at 660 ms. Beyond, the oldest leave early. */
const MAX_POINTS = 1 << 17

/** Count, means and centred sums of a set of points; times in hours since the slope's origin. */
interface Moments {
  n: number
  t: number
  v: number
  tt: number
  tv: number
}

/** `into` becomes the moments of both sets (Chan, Golub and LeVeque 1979). Nothing is ever subtracted, so no drift. */
function merge(into: Moments, n: number, t: number, v: number, tt: number, tv: number): void {
  if (n === 0) return
  const total = into.n + n
  const dt = t - into.t
  const dv = v - into.v
  const weight = (into.n * n) / total
  into.tt += tt + dt * dt * weight
  into.tv += tv + dt * dv * weight
  into.t += (dt * n) / total
  into.v += (dv * n) / total
  into.n = total
}

/**
 * Least-squares slope per hour over a sliding window of time, O(1) amortised a point.
 *
 *   slope = Σ (tᵢ − t̄)(vᵢ − v̄) / Σ (tᵢ − t̄)²
 *
 * A queue made of two stacks: the older points carry the moments of themselves and all that follow up to `mid`, the
 * newer ones are summed up in one set. Points leave by moving `head`; when the older ones are used up, all that is
 * left becomes the older part (each point once, hence O(1)).
 */
export class SlidingSlope {
  readonly #windowMs: number
  #timesMs = new Float64Array(64)
  #values = new Float64Array(64)
  // Moments of [i, mid) at ring index i, for i in [head, mid); the count is mid − i.
  #t = new Float64Array(64)
  #v = new Float64Array(64)
  #tt = new Float64Array(64)
  #tv = new Float64Array(64)
  // Counters that only grow; the ring index is counter & (capacity − 1).
  #head = 0
  #mid = 0
  #tail = 0
  #newer: Moments = { n: 0, t: 0, v: 0, tt: 0, tv: 0 }
  #originMs = 0

  constructor(windowMs: number) {
    this.#windowMs = windowMs
  }

  get points(): number {
    return this.#tail - this.#head
  }

  /** Per hour; undefined below {@link TREND_POINTS} points. */
  get slope(): number | undefined {
    if (this.points < TREND_POINTS) return undefined
    const all = { ...this.#newer }
    if (this.#head < this.#mid) {
      const i = this.#head & this.#mask
      merge(all, this.#mid - this.#head, this.#t[i]!, this.#v[i]!, this.#tt[i]!, this.#tv[i]!)
    }
    return all.tv / all.tt
  }

  push(timeMs: number, value: number): void {
    if (!this.advance(timeMs)) return
    if (this.points === MAX_POINTS) this.#drop()
    if (this.points > this.#mask) this.#grow()
    if (this.points === 0) this.#originMs = timeMs
    const i = this.#tail++ & this.#mask
    this.#timesMs[i] = timeMs
    this.#values[i] = value
    merge(this.#newer, 1, (timeMs - this.#originMs) / HOUR_MS, value, 0, 0)
  }

  /**
   * Lets go of what is older than the window at that time. False when time stands still or is being waited for: the
   * clock was set back a little.
   */
  advance(timeMs: number): boolean {
    if (this.points > 0) {
      const newestMs = this.#timesMs[(this.#tail - 1) & this.#mask]!
      if (newestMs < timeMs - this.#windowMs || timeMs < newestMs - STEP_BACK_MS) this.reset()
      else if (timeMs <= newestMs) return false
    }
    while (this.points > 0 && this.#timesMs[this.#head & this.#mask]! < timeMs - this.#windowMs) this.#drop()
    return true
  }

  reset(): void {
    this.#head = this.#mid = this.#tail
    this.#newer = { n: 0, t: 0, v: 0, tt: 0, tv: 0 }
  }

  get #mask(): number {
    return this.#timesMs.length - 1
  }

  #drop(): void {
    if (this.#head === this.#mid) this.#turn()
    this.#head++
  }

  /** What was newer becomes the older part, with a fresh origin. */
  #turn(): void {
    this.#originMs = this.#timesMs[this.#head & this.#mask]!
    const sum: Moments = { n: 0, t: 0, v: 0, tt: 0, tv: 0 }
    for (let at = this.#tail - 1; at >= this.#head; at--) {
      const i = at & this.#mask
      merge(sum, 1, (this.#timesMs[i]! - this.#originMs) / HOUR_MS, this.#values[i]!, 0, 0)
      this.#t[i] = sum.t
      this.#v[i] = sum.v
      this.#tt[i] = sum.tt
      this.#tv[i] = sum.tv
    }
    this.#mid = this.#tail
    this.#newer = { n: 0, t: 0, v: 0, tt: 0, tv: 0 }
  }

  #grow(): void {
    const grown = (old: Float64Array) => {
      const next = new Float64Array(old.length * 2)
      for (let at = this.#head; at < this.#tail; at++) next[at & (next.length - 1)] = old[at & (old.length - 1)]!
      return next
    }
    const [timesMs, values, t, v, tt, tv] = [this.#timesMs, this.#values, this.#t, this.#v, this.#tt, this.#tv].map(
      grown,
    )
    this.#timesMs = timesMs!
    this.#values = values!
    this.#t = t!
    this.#v = v!
    this.#tt = tt!
    this.#tv = tv!
  }
}
