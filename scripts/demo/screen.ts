/** Draws the demo: a live view on a terminal, a line a second elsewhere, and the summary at the end. */
import { styleText } from 'node:util'
import { chart, percentile } from '../../src/cli/chart.js'
import type { Step } from '../../src/index.js'
import { formatBytes } from '../../src/units.js'

const WIDTH = 72
const HEIGHT = 9
const terminal = process.stdout.isTTY === true

export class Screen {
  readonly #steps: Step[] = []
  #drawn = 0
  #lastPlainMs = 0

  constructor(readonly title: string) {}

  /** One step more; `clock` is "12 s of 50 s", `writer` what fills the volume. */
  show(step: Step, clock: string, writer: string): void {
    this.#steps.push(step)
    if (terminal) this.#redraw([...this.#head(clock), ...this.#plot(), ...this.#now(step, writer), ...this.#actions()])
    else this.#plain(step, clock)
  }

  summary(): string {
    const steps = this.#steps
    const used = steps.map((step) => step.sample.liveUsedPercent ?? step.sample.usedPercent)
    let total = 0
    const reward = steps.map((step) => {
      total += step.reward ?? 0
      return total
    })
    const latency = steps.flatMap((step) => step.stagesMs.monitorToAction ?? [])
    const worst = Math.max(...used)
    const ms = (value: number | undefined) => (value === undefined ? 'none' : `${value.toFixed(2)} ms`)
    return [
      '',
      bold('Utilisation over the run, %'),
      ...axis(thin(used, WIDTH), Math.floor(Math.min(...used) - 1), Math.ceil(worst + 1)),
      bold('Reward, summed'),
      ...axis(thin(reward, WIDTH), Math.floor(Math.min(0, ...reward)), Math.ceil(Math.max(1, ...reward))),
      bold('Actions'),
      ...this.#totals(),
      '',
      `${bold('Monitor to action')}  p50 ${ms(percentile(latency, 50))}, p99 ${ms(percentile(latency, 99))} over ${latency.length} actions (target < 500 ms)`,
      `${bold('Highest utilisation')}  ${worst.toFixed(1)} %, ${steps.length} steps, reward ${total.toFixed(1)}`,
      '',
    ].join('\n')
  }

  #totals(): string[] {
    const sums = new Map<string, { times: number; predicted: number; freed: number }>()
    for (const { outcome } of this.#steps) {
      if (outcome.action === 'none') continue
      const sum = sums.get(outcome.action) ?? { times: 0, predicted: 0, freed: 0 }
      sum.times++
      sum.predicted += outcome.predictedBytes ?? 0
      sum.freed += outcome.freedBytes ?? 0
      sums.set(outcome.action, sum)
    }
    if (sums.size === 0) return ['  none was needed']
    return [...sums].map(
      ([name, { times, predicted, freed }]) =>
        `  ${name.padEnd(10)} ${String(times).padStart(3)} times   predicted ${formatBytes(predicted).padStart(11)}   freed ${formatBytes(freed).padStart(11)}`,
    )
  }

  #head(clock: string): string[] {
    return [`${bold(this.title)}${clock.padStart(Math.max(1, WIDTH + 7 - this.title.length))}`, '']
  }

  #plot(): string[] {
    return axis(this.#steps.map((step) => step.sample.liveUsedPercent ?? step.sample.usedPercent).slice(-WIDTH), 0, 100)
  }

  #now({ sample, decision }: Step, writer: string): string[] {
    const used = sample.liveUsedPercent ?? sample.usedPercent
    const tint = used >= 99 ? 'red' : used >= 90 ? 'yellow' : 'green'
    return [
      '',
      `used ${styleText(tint, `${used.toFixed(1)} %`)} live   free ${formatBytes(sample.freeBytes)}   ${writer}`,
      `${decision.policy} says ${bold(decision.action)}: ${decision.reason}`.slice(0, WIDTH + 20),
      '',
    ]
  }

  #actions(): string[] {
    const acted = this.#steps.filter((step) => step.decision.action !== 'none').slice(-6)
    const lines = acted.map(({ index, decision, outcome, reward }) => {
      const freed = outcome.freedBytes === undefined ? 'unknown' : formatBytes(outcome.freedBytes)
      return `  step ${String(index).padEnd(4)} ${decision.action.padEnd(10)} freed ${freed.padStart(11)}   reward ${reward === undefined ? 'unknown' : reward.toFixed(1)}`
    })
    return [bold('Last actions'), ...lines, ...Array<string>(6 - lines.length).fill('')]
  }

  #redraw(lines: readonly string[]): void {
    const up = this.#drawn > 0 ? `\x1b[${this.#drawn}A` : ''
    process.stdout.write(`${up}${lines.map((line) => `\x1b[2K${line}`).join('\n')}\n`)
    this.#drawn = lines.length
  }

  #plain(step: Step, clock: string): void {
    const now = performance.now()
    const acted = step.decision.action !== 'none'
    if (!acted && now - this.#lastPlainMs < 1000) return
    this.#lastPlainMs = now
    const used = step.sample.liveUsedPercent ?? step.sample.usedPercent
    const freed = acted ? `, freed ${formatBytes(step.outcome.freedBytes ?? 0)}` : ''
    process.stdout.write(`${clock}  used ${used.toFixed(1)} %  ${step.decision.action}${freed}\n`)
  }
}

function bold(text: string): string {
  return terminal ? styleText('bold', text) : text
}

function axis(values: readonly number[], min: number, max: number): string[] {
  const lines = chart(values, { width: WIDTH, height: HEIGHT, min, max })
  return lines.map((line, row) => {
    const value = max - ((max - min) * row) / HEIGHT
    return `${value.toFixed(0).padStart(6)} ┤${line}`
  })
}

/** At most `width` values, spread evenly. */
function thin(values: readonly number[], width: number): number[] {
  if (values.length <= width) return [...values]
  return Array.from({ length: width }, (_, i) => values[Math.floor((i * (values.length - 1)) / (width - 1))]!)
}
