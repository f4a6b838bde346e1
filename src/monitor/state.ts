import { type Sample, utilisationPercent } from './sample.js'

/** What the agent sees of a volume: the four features. */
export interface State {
  /** 0–1, live where it is known; from statfs in a fallback sample. */
  readonly utilisation: number
  /** Percentage points an hour over 24 hours, unbounded; undefined until there are enough samples. */
  readonly slopePercentPerHour: number | undefined
  /** 0–1, raw metadata and system allocated / device size; undefined in a fallback sample. */
  readonly metadataOverhead: number | undefined
  /** 0–1, docs/fragmentation.md; undefined without privilege and in a fallback sample. */
  readonly fragmentation: number | undefined
}

export const STATE_FEATURES = ['utilisation', 'slopePercentPerHour', 'metadataOverhead', 'fragmentation'] as const

export function stateOf(sample: Sample): State {
  return {
    utilisation: Math.min(1, Math.max(0, utilisationPercent(sample) / 100)),
    slopePercentPerHour: sample.slopePercentPerHour,
    metadataOverhead: sample.metadataOverheadRatio,
    fragmentation: sample.fragmentationRatio,
  }
}

/** The features that a state lacks; {@link stateVector} gives 0 for them. */
export function missingFeatures(state: State): (keyof State)[] {
  return STATE_FEATURES.filter((feature) => state[feature] === undefined)
}

/**
 * The network's input.
 *
 * | i | from | formula | range |
 * |---|---|---|---|
 * | 0 | utilisation u | 2u − 1 | −1 … 1 |
 * | 1 | slope s, %/h | s / (1 + \|s\|) | −1 … 1; ±0.5 at ±1 %/h |
 * | 2 | metadata overhead m | 2√m − 1 | −1 … 1; the root spreads the usual 0.1–10 % over −0.94 … −0.37 |
 * | 3 | fragmentation f | 2f − 1 | −1 … 1 |
 *
 * A missing feature is 0: it adds nothing to the first layer, whatever the weights.
 * @returns Float32Array, [4], in the order of {@link STATE_FEATURES}
 */
export function stateVector(state: State): Float32Array {
  const { utilisation: u, slopePercentPerHour: s, metadataOverhead: m, fragmentation: f } = state
  return Float32Array.of(
    2 * u - 1,
    s === undefined ? 0 : s / (1 + Math.abs(s)),
    m === undefined ? 0 : 2 * Math.sqrt(m) - 1,
    f === undefined ? 0 : 2 * f - 1,
  )
}

/** 0–100: the utilisation that a {@link stateVector} was made from. */
export function usedPercentOf(vector: Float32Array): number {
  return 50 * (vector[0]! + 1)
}
