import { describe, expect, it } from 'vitest'
import { SlidingSlope, TREND_POINTS } from '../../src/monitor/trend.js'
import { DAY_MS, HOUR_MS } from '../../src/units.js'

/** mulberry32: the tests' own seeded generator. */
function random(seed: number): () => number {
  let a = seed
  return () => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/** The textbook's fit, in two passes around the means; also the scale that its rounding is relative to. */
function leastSquares(points: readonly (readonly [number, number])[]): { slope: number; scale: number } {
  const n = points.length
  const first = points[0]![0]
  const hours = points.map(([timeMs]) => (timeMs - first) / HOUR_MS)
  const meanT = hours.reduce((sum, t) => sum + t, 0) / n
  const meanV = points.reduce((sum, [, value]) => sum + value, 0) / n
  let [tt, tv, absolute] = [0, 0, 0]
  for (const [i, t] of hours.entries()) {
    const product = (t - meanT) * (points[i]![1] - meanV)
    tt += (t - meanT) ** 2
    tv += product
    absolute += Math.abs(product)
  }
  return { slope: tv / tt, scale: absolute / tt }
}

const START_MS = 1_790_000_000_000

describe('SlidingSlope', () => {
  it('is undefined until there are enough points, then exact on a straight line', () => {
    const slope = new SlidingSlope(DAY_MS)
    for (let i = 0; i < 3_000; i++) {
      slope.push(START_MS + i * 60_000, 40 + (i / 60) * 0.25)
      if (i + 1 < TREND_POINTS) expect(slope.slope).toBeUndefined()
      else expect(slope.slope).toBeCloseTo(0.25, 12)
      expect(slope.points).toBe(Math.min(i + 1, 1_441))
    }
  })

  it('equals a direct fit over 100,000 irregular points with gaps, bursts and clock steps', () => {
    const next = random(42)
    const slope = new SlidingSlope(DAY_MS)
    let window: [number, number][] = []
    let timeMs = START_MS
    let value = 50
    let compared = 0
    let worst = 0
    for (let i = 0; i < 100_000; i++) {
      const dice = next()
      if (dice < 0.0005)
        timeMs += Math.floor(next() * 1.5 * DAY_MS) // asleep, sometimes past the whole window
      else if (dice < 0.0006)
        timeMs -= Math.floor(60_001 + next() * HOUR_MS) // set back
      else if (dice < 0.001)
        timeMs -= Math.floor(next() * 60_000) // stepped back a little
      else if (dice < 0.3)
        timeMs += 1 + Math.floor(next() * 300) // a fast tick
      else timeMs += Math.floor(55_000 + next() * 10_000)
      value = Math.min(100, Math.max(0, value + (next() - 0.5) * 2))
      slope.push(timeMs, value)

      const newest = window.at(-1)?.[0]
      if (newest !== undefined && timeMs < newest - 60_000) window = []
      if (newest === undefined || timeMs > newest || window.length === 0) window.push([timeMs, value])
      if (i % 97 !== 0 && dice > 0.001) continue
      window = window.filter(([at]) => at >= Math.max(timeMs, window.at(-1)![0]) - DAY_MS)
      expect(slope.points).toBe(window.length)
      if (window.length < TREND_POINTS) continue
      const direct = leastSquares(window)
      worst = Math.max(worst, Math.abs(slope.slope! - direct.slope) / direct.scale)
      compared++
    }
    expect(compared).toBeGreaterThan(1_000)
    expect(worst).toBeLessThan(1e-9)
  })

  it('stays exact when one far point leaves and a dense cluster is left', () => {
    const slope = new SlidingSlope(DAY_MS)
    slope.push(START_MS, 99)
    const points: [number, number][] = []
    for (let i = 0; i < 20; i++) {
      points.push([START_MS + DAY_MS + i * 50, 50 + Math.sin(i)])
      slope.push(...points[i]!)
    }
    expect(slope.points).toBe(20)
    const direct = leastSquares(points)
    expect(Math.abs(slope.slope! - direct.slope) / direct.scale).toBeLessThan(1e-9)
  })

  it('waits a small step back out, and begins anew after a large one or a gap longer than the window', () => {
    const slope = new SlidingSlope(HOUR_MS)
    const fill = (fromMs: number) => {
      for (let i = 0; i < 10; i++) slope.push(fromMs + i * 60_000, i)
    }
    fill(START_MS)
    slope.push(START_MS + 9 * 60_000, 1_000) // the same moment again
    slope.push(START_MS + 8.5 * 60_000, 1_000)
    expect([slope.points, slope.slope]).toEqual([10, expect.closeTo(60, 10)])
    slope.push(START_MS, 5)
    expect([slope.points, slope.slope]).toEqual([1, undefined])
    fill(START_MS + 60_000)
    slope.push(START_MS + 2 * HOUR_MS, 0)
    expect(slope.points).toBe(1)
  })

  it('forgets what is too old also while nothing is pushed', () => {
    const slope = new SlidingSlope(HOUR_MS)
    for (let i = 0; i < 10; i++) slope.push(START_MS + i * 60_000, i)
    slope.advance(START_MS + HOUR_MS + 5.5 * 60_000)
    expect([slope.points, slope.slope]).toEqual([4, undefined])
  })

  it('holds a bounded number of points', () => {
    const slope = new SlidingSlope(DAY_MS)
    for (let i = 0; i < 140_000; i++) slope.push(START_MS + i * 10, i * 10)
    expect(slope.points).toBe(2 ** 17)
    expect(slope.slope! / HOUR_MS).toBeCloseTo(1, 9)
  })
})
