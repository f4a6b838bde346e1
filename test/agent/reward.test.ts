import { describe, expect, it } from 'vitest'
import { calculateReward } from '../../src/agent/index.js'

describe('calculateReward', () => {
  it.each([
    [95, 92, 20],
    [99, 99, -65],
    [91, 91, -15],
    [92, 90.5, 0],
    [90, 90.01, -15.1],
    [50, 47.9, 26],
    // either side of each threshold
    [90, 90, 0],
    [98.5, 98.99, -19.9],
    [99, 98.75, -12.5],
    [98.75, 99, -67.5],
    [52, 50, 20],
    [52.25, 50, 27.5],
    [0, 100, -1065],
    [100, 0, 1005],
  ])('%f %% → %f %% is worth %f', (previous, current, reward) => {
    expect(Math.abs(calculateReward(previous, current) - reward)).toBeLessThanOrEqual(1e-9)
  })

  it('is exact where the figures are', () => {
    expect(calculateReward(92, 90.5)).toBe(0)
    expect(calculateReward(99, 99)).toBe(-65)
    expect(calculateReward(95, 92)).toBe(20)
  })
})
