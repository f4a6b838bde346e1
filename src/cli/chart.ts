/** Line charts for a terminal, out of eighth blocks. Pure: values in, lines of text out. */

const EIGHTHS = ['', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'] as const

export interface ChartOptions {
  readonly width: number
  readonly height: number
  readonly min: number
  readonly max: number
}

/** One column a value, newest at the right; the last `width` are shown. Undefined leaves a gap. */
export function chart(values: readonly (number | undefined)[], options: ChartOptions): string[] {
  const { width, height, min, max } = options
  const shown = values.slice(-width)
  const lines: string[] = []
  for (let row = height - 1; row >= 0; row--) {
    let line = ''
    for (const value of shown) {
      const level = value === undefined ? 0 : ((value - min) / (max - min)) * height * 8 - row * 8
      line += EIGHTHS[Math.max(0, Math.min(8, Math.round(level)))] || ' '
    }
    lines.push(line.padStart(width))
  }
  return lines
}

/** Nearest-rank percentile of unsorted values; undefined when there are none. */
export function percentile(values: readonly number[], percent: number): number | undefined {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)]
}
