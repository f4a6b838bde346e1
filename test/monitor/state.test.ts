import { describe, expect, it } from 'vitest'
import type { Sample } from '../../src/monitor/sample.js'
import { missingFeatures, type State, stateOf, stateVector } from '../../src/monitor/state.js'

const sample: Sample = {
  timeMs: 0,
  source: 'kernel',
  usedPercent: 40,
  liveUsedPercent: 50,
  sizeBytes: 1,
  freeBytes: 1,
  metadataOverheadRatio: 0.04,
  fragmentationRatio: 0.25,
  slopePercentPerHour: -3,
  durationMs: 1,
  unavailable: [],
}

describe('State', () => {
  it('takes the live utilisation, else the flushed one', () => {
    expect(stateOf(sample)).toEqual({
      utilisation: 0.5,
      slopePercentPerHour: -3,
      metadataOverhead: 0.04,
      fragmentation: 0.25,
    })
    expect(stateOf({ ...sample, liveUsedPercent: undefined }).utilisation).toBe(0.4)
    // Delayed allocation and rounding can count a little more than there is.
    expect(stateOf({ ...sample, liveUsedPercent: 100.2 }).utilisation).toBe(1)
  })

  it('scales each feature to −1 … 1', () => {
    const vector = (state: Partial<State>) => [...stateVector({ ...stateOf(sample), ...state })]
    expect(vector({})).toEqual([0, -0.75, Math.fround(-0.6), -0.5])
    expect(vector({ utilisation: 1, slopePercentPerHour: 1, metadataOverhead: 1, fragmentation: 1 })).toEqual([
      1, 0.5, 1, 1,
    ])
    expect(vector({ utilisation: 0, slopePercentPerHour: -1e9, metadataOverhead: 0, fragmentation: 0 })).toEqual([
      -1, -1, -1, -1,
    ])
  })

  it('gives 0 for what is missing, and says what that is', () => {
    const state = stateOf({ ...sample, slopePercentPerHour: undefined, fragmentationRatio: undefined })
    expect([...stateVector(state)]).toEqual([0, 0, Math.fround(-0.6), 0])
    expect(missingFeatures(state)).toEqual(['slopePercentPerHour', 'fragmentation'])
    expect(missingFeatures(stateOf(sample))).toEqual([])
  })
})
