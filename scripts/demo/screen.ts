/** Draws the demo: a live view on a terminal, a line a second elsewhere, and the summary at the end. */
import { chart, percentile } from '../../src/cli/chart.js'
import type { ActionName, Step } from '../../src/index.js'
import { utilisationPercent } from '../../src/monitor/sample.js'
import { formatBytes } from '../../src/units.js'
import type { Stage } from './stage.js'

const REDRAW_MS = 250
const SUMMARY_WIDTH = 79
/** The rules' thresholds, docs/policies.md. */
const MARKS: Readonly<Record<number, string>> = { 75: 'temp', 80: 'compress', 85: 'snapshots' }
const GUTTER = 16
/** Actions as the eye finds them again: colour, and a letter below the chart. */
const LOOKS: Readonly<Record<ActionName, { readonly sgr: number; readonly letter: string }>> = {
  none: { sgr: 0, letter: ' ' },
  temp: { sgr: 36, letter: 't' },
  compress: { sgr: 35, letter: 'c' },
  balance: { sgr: 33, letter: 'b' },
  snapshots: { sgr: 34, letter: 's' },
}

const terminal = process.stdout.isTTY === true && process.env.TERM !== 'dumb'
const colours = terminal && process.stdout.hasColors()
/** Text, with how it looks (SGR; 1: bold). */
type Part = string | readonly [sgr: number, text: string]

interface Shown {
  readonly step: Step
  /** Since the loop began. */
  readonly atMs: number
  /** What the writer wrote between the sample and the end of the step. */
  readonly takenBytes: number
}

export class Screen {
  readonly #seconds: number
  readonly #shown: Shown[] = []
  #stage: Stage | undefined
  #learning: () => string = () => ''
  #startMs = 0
  #timer: NodeJS.Timeout | undefined
  #nextLineMs = 0
  #unsaid: string[] = []

  constructor(seconds: number) {
    this.#seconds = seconds
    process.once('exit', () => this.leave())
  }

  /** Takes the terminal: the other screen, no cursor, no wrapping. `learning`: who decides, in one line. */
  enter(stage: Stage, learning: () => string): void {
    this.#stage = stage
    this.#learning = learning
    this.#startMs = performance.now()
    if (!terminal) return
    process.stdout.write('\x1b[?1049h\x1b[?25l\x1b[?7l')
    this.#timer = setInterval(() => this.#draw(), REDRAW_MS)
    this.#draw()
  }

  /** Gives it back. Idempotent. */
  leave(): void {
    if (this.#timer === undefined) return
    clearInterval(this.#timer)
    this.#timer = undefined
    process.stdout.write('\x1b[?7h\x1b[?25h\x1b[?1049l')
  }

  show(step: Step): void {
    const now = Date.now()
    const takenBytes = this.#stage?.takenBytes(now - step.stagesMs.total, now) ?? 0
    this.#shown.push({ step, atMs: performance.now() - this.#startMs, takenBytes })
    if (this.#timer !== undefined) this.#draw()
    else if (!terminal) this.#line(step)
  }

  #clock(): string {
    const passed = Math.min(this.#seconds, (performance.now() - this.#startMs) / 1000)
    return `${passed.toFixed(0)} s of ${this.#seconds} s`
  }

  #line(step: Step): void {
    const { action, freedBytes } = step.outcome
    if (action !== 'none') this.#unsaid.push(`${action} freed ${bytes(freedBytes)}`)
    const now = performance.now()
    if (now < this.#nextLineMs) return
    this.#nextLineMs = now + 1000
    const acted = this.#unsaid.splice(0).join(', ') || 'nothing to do'
    const used = `used ${utilisationPercent(step.sample).toFixed(1)} %`
    process.stdout.write(`${this.#clock()}  ${used}  ${acted}  [${this.#stage?.writer()}]\n`)
  }

  #draw(): void {
    const stage = this.#stage
    if (stage === undefined) return
    // One column stays free: a full line would leave the cursor beside the screen.
    const width = Math.max(20, (process.stdout.columns || 80) - 1)
    const rows = Math.max(8, process.stdout.rows || 24)
    const height = rows >= 38 ? 20 : rows >= 24 ? 10 : 5
    const step = this.#shown.at(-1)?.step
    const clock = this.#clock()
    const lines: Part[][] = [
      [[1, stage.title.padEnd(width - clock.length)], clock],
      ['writer   ', [33, stage.writer()]],
      ['mind     ', this.#learning()],
      ...this.#plot(this.#shown, width, height),
      ...this.#now(step),
    ]
    const room = rows - lines.length - 2
    const acted = this.#shown.filter(({ step }) => step.decision.action !== 'none')
    if (room > 0) {
      lines.push([], [[1, ' at     action      predicted        freed  writer took       reward']])
      for (const shown of acted.slice(-room)) lines.push(actionLine(shown))
    }
    const text = lines.slice(0, rows).map((line) => `${paint(line, width)}\x1b[K`)
    process.stdout.write(`\x1b[?2026h\x1b[H${text.join('\r\n')}\x1b[J\x1b[?2026l`)
  }

  /** The whole run from left to right, with the rules' thresholds at the side and what was done below. */
  #plot(shown: readonly Shown[], width: number, height: number, from = 50): Part[][] {
    const columns = Math.max(10, width - GUTTER)
    const used: (number | undefined)[] = Array.from({ length: columns }, () => undefined)
    const acted: ActionName[] = Array.from({ length: columns }, () => 'none' as const)
    for (const { step, atMs } of shown) {
      const column = Math.min(columns - 1, Math.floor((atMs / (this.#seconds * 1000)) * columns))
      used[column] = Math.max(used[column] ?? 0, utilisationPercent(step.sample))
      if (step.decision.action !== 'none') acted[column] = step.decision.action
    }
    // A step that takes long leaves no holes.
    const end = used.findLastIndex((value) => value !== undefined)
    for (let column = 1; column < end; column++) used[column] ??= used[column - 1]
    const least = Math.min(from, ...used.map((value) => value ?? 100))
    const min = Math.floor(least / 10) * 10
    const lines = chart(used, { width: columns, height, min, max: 100 })
    const rows = lines.map((line, row): Part[] => {
      const top = 100 - ((100 - min) * row) / height
      const label = Number.isInteger(top) ? `${MARKS[top] ?? ''} ${top}` : ''
      const bottom = top - (100 - min) / height
      return [`${label.padStart(GUTTER - 3)} ┤ `, [bottom >= 95 ? 31 : bottom >= 85 ? 33 : 32, line]]
    })
    const below = acted.map((name): Part => (name === 'none' ? ' ' : [LOOKS[name].sgr, LOOKS[name].letter]))
    return [...rows, ['acted'.padStart(GUTTER - 3), '   ', ...below]]
  }

  #now(step: Step | undefined): Part[][] {
    if (step === undefined) return [['the first sample is being taken'], []]
    const { sample, decision } = step
    const used = utilisationPercent(sample)
    const reason = decision.reason.replace(/ \(warm-up, .*$/, '')
    return [
      ['used     ', [used >= 95 ? 31 : 1, `${used.toFixed(1)} %`], `   free ${formatBytes(sample.freeBytes)}`],
      ['decides  ', `${decision.policy}: `, [LOOKS[decision.action].sgr, decision.action], ` — ${reason}`],
    ]
  }

  /** Fits on 80 × 24. */
  summary(): string {
    const shown = this.#shown
    const stage = this.#stage
    if (shown.length === 0 || stage === undefined) return 'It ended before the first sample.'
    const used = shown.map(({ step }) => utilisationPercent(step.sample))
    let total = 0
    const reward = shown.map(({ step }) => {
      total += step.reward ?? 0
      return total
    })
    const latency = shown.flatMap(({ step }) => step.stagesMs.monitorToAction ?? [])
    const ms = (value: number | undefined) => (value === undefined ? 'none' : `${value.toFixed(2)} ms`)
    const percent = (value: number | undefined) => `${value?.toFixed(1)} %`
    const lines: Part[][] = [
      [[1, stage.title], `: ${shown.length} steps`],
      [
        'Utilisation  ',
        `${percent(used[0])} at first, ${percent(Math.max(...used))} at most, ${percent(used.at(-1))} at last`,
      ],
      ...this.#plot(shown, SUMMARY_WIDTH, 5),
      ['Reward       ', `${total.toFixed(1)} in all: `, [32, sparkline(reward, 48)]],
      [],
      ...totals(shown),
      [],
      ['Decided by   ', deciders(shown)],
      [
        'Monitor to action  ',
        [1, `p50 ${ms(percentile(latency, 50))}, p99 ${ms(percentile(latency, 99))}`],
        ` over ${latency.length} actions (< 500 ms)`,
      ],
      ...(stage.latencyNote === undefined ? [] : [[stage.latencyNote]]),
    ]
    return lines.map((line) => paint(line, SUMMARY_WIDTH)).join('\n')
  }
}

function actionLine({ step, atMs, takenBytes }: Shown): Part[] {
  const { action, predictedBytes, freedBytes } = step.outcome
  const at = `${(atMs / 1000).toFixed(1)} s`.padStart(7)
  const reward = step.reward === undefined ? 'unknown' : step.reward.toFixed(1)
  return [
    `${at} `,
    [LOOKS[action].sgr, action.padEnd(10)],
    bytes(predictedBytes).padStart(11),
    bytes(freedBytes).padStart(13),
    bytes(takenBytes).padStart(13),
    reward.padStart(13),
  ]
}

/** What each action predicted and freed, and what the writer took while it was measured. */
function totals(shown: readonly Shown[]): Part[][] {
  const names = [...new Set(shown.map(({ step }) => step.outcome.action))].filter((name) => name !== 'none')
  if (names.length === 0) return [['No action was needed.']]
  const rows = names.map((name): Part[] => {
    const all = shown.filter(({ step }) => step.outcome.action === name && step.outcome.freedBytes !== undefined)
    const sum = (of: (one: Shown) => number) => all.reduce((total, one) => total + of(one), 0)
    const unknown = all.filter(({ step }) => step.outcome.predictedBytes === undefined).length
    const freed = sum(({ step }) => step.outcome.freedBytes ?? 0)
    const taken = sum(({ takenBytes }) => takenBytes)
    const predicted =
      unknown === all.length ? 'unknown' : formatBytes(sum(({ step }) => step.outcome.predictedBytes ?? 0))
    const but = unknown > 0 && unknown < all.length ? `  (${unknown} not predicted)` : ''
    return [
      [LOOKS[name].sgr, name.padEnd(10)],
      String(all.length).padStart(6),
      predicted.padStart(14),
      formatBytes(freed).padStart(14),
      formatBytes(taken).padStart(14),
      but,
    ]
  })
  return [
    [[1, 'Action     times     predicted         freed  writer took']],
    ...rows,
    ['Freed is what the volume gained while the writer took its share: add the two.'],
  ]
}

function deciders(shown: readonly Shown[]): string {
  const counts = { network: 0, rules: 0, shield: 0, emergency: 0 }
  for (const { decision } of shown.map(({ step }) => step)) {
    if (decision.policy === 'emergency') counts.emergency++
    else if (decision.shielded) counts.shield++
    else if (decision.policy === 'rules') counts.rules++
    else counts.network++
  }
  return Object.entries(counts)
    .map(([name, count]) => `${name} ${count}`)
    .join(', ')
}

function sparkline(values: readonly number[], width: number): string {
  const thinned = Array.from({ length: Math.min(width, values.length) }, (_, index) => {
    const last = Math.min(width, values.length) - 1
    return values[last === 0 ? 0 : Math.round((index * (values.length - 1)) / last)]!
  })
  const [min, max] = [Math.min(0, ...values), Math.max(1, ...values)]
  return chart(thinned, { width: thinned.length, height: 1, min, max })[0]!
}

function bytes(value: number | undefined): string {
  return value === undefined ? 'unknown' : formatBytes(value)
}

/** At most `width` characters, colours not counted. */
function paint(parts: readonly Part[], width: number): string {
  let left = width
  let line = ''
  for (const part of parts) {
    const [sgr, whole] = typeof part === 'string' ? [0, part] : part
    const text = whole.slice(0, left)
    left -= text.length
    line += colours && sgr > 0 ? `\x1b[${sgr}m${text}\x1b[0m` : text
  }
  return line
}
