/** What every part of the bench shares: the row, and medians of contenders that take turns in one run. */

export interface BenchRow {
  readonly operation: string
  /** Median of ours, in `unit`. */
  readonly ours: number
  /** Median of the peer, in `unit`. */
  readonly peer: number
  readonly peerName: string
  readonly unit: 'ms' | 'µs' | 'MB'
  /** peer / ours: so many times faster. */
  readonly ratio: number
  /** '≥ 80×' */
  readonly target?: string
}

/** A comparison that could not be made here. */
export interface SkippedRow {
  readonly operation: string
  readonly peerName: string
  readonly skipped: string
}

export type Row = BenchRow | SkippedRow

export interface Contender {
  readonly run: () => unknown
  /** Timed calls in each round; give the quick one more. Default 1. */
  readonly times?: number
  /** Once before each round, not timed. */
  readonly prepare?: () => unknown
}

export function median(values: readonly number[]): number {
  const sorted = Float64Array.from(values).sort()
  const middle = sorted.length >> 1
  if (sorted.length === 0) return Number.NaN
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/**
 * Median milliseconds of each contender. They take turns, round by round, so that whatever else the machine does
 * falls on all of them; the first round warms up and is not counted.
 */
export async function medians<const Name extends string>(
  contenders: Readonly<Record<Name, Contender>>,
  rounds = 30,
): Promise<Record<Name, number>> {
  const entries = Object.entries(contenders) as [Name, Contender][]
  const samples = new Map<Name, number[]>(entries.map(([name]) => [name, []]))
  for (let round = 0; round <= rounds; round++) {
    for (const [name, { run, times = 1, prepare }] of entries) {
      await prepare?.()
      for (let i = 0; i < times; i++) {
        const from = performance.now()
        await run()
        const spent = performance.now() - from
        if (round > 0) samples.get(name)!.push(spent)
      }
    }
  }
  return Object.fromEntries(entries.map(([name]) => [name, median(samples.get(name)!)])) as Record<Name, number>
}

/** One row beside a limit, in the limit's unit. */
export function limitRow(operation: string, ours: number, limit: number, unit: BenchRow['unit']): BenchRow {
  return {
    operation,
    ours,
    peer: limit,
    peerName: 'the limit',
    unit,
    ratio: limit / ours,
    target: `≤ ${limit} ${unit}`,
  }
}

/** One row from two medians in milliseconds. */
export function row(
  operation: string,
  peerName: string,
  oursMs: number,
  peerMs: number,
  options: { unit?: 'ms' | 'µs'; target?: string } = {},
): BenchRow {
  const unit = options.unit ?? 'ms'
  const scale = unit === 'ms' ? 1 : 1000
  const base = { operation, ours: oursMs * scale, peer: peerMs * scale, peerName, unit, ratio: peerMs / oursMs }
  return options.target === undefined ? base : { ...base, target: options.target }
}
