import { styleText } from 'node:util'

/** Where a command writes; tests pass their own. */
export interface Io {
  readonly stdout: NodeJS.WritableStream & { isTTY?: boolean; columns?: number }
  readonly stderr: NodeJS.WritableStream & { isTTY?: boolean }
  /** Aborted on Ctrl-C, SIGTERM and SIGHUP, and when nobody takes what is written. */
  readonly signal: AbortSignal
}

type Style = Parameters<typeof styleText>[0]

/** Colour on a terminal only; NO_COLOR and FORCE_COLOR are obeyed. */
export function paint(io: Io, style: Style, text: string): string {
  return colours(io) ? styleText(style, text, { validateStream: false }) : text
}

function colours(io: Io): boolean {
  if (process.env.FORCE_COLOR !== undefined) return process.env.FORCE_COLOR !== '0'
  return io.stdout.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb'
}

/** What does not keep the command from being done. */
export function warn(io: Io, text: string): void {
  io.stderr.write(`${paint({ ...io, stdout: io.stderr }, 'yellow', 'warning:')} ${text}\n`)
}

/** A name as one line shows it: control characters could do things to a terminal, or look like another row. */
export function printable(name: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not get through
  return name.replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`
  })
}

/** As a shell takes it for one word. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}

/** Columns padded to their widest cell; numbers to the right. Cells are plain text: paint whole lines. */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  right: readonly number[] = [],
): string {
  const all = [head, ...rows].map((row) => row.map(printable))
  const widths = head.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)))
  const line = (row: readonly string[]) =>
    widths
      .map((width, column) => {
        const cell = row[column] ?? ''
        return right.includes(column) ? cell.padStart(width) : cell.padEnd(width)
      })
      .join('  ')
      .trimEnd()
  return `${all.map(line).join('\n')}\n`
}

export function printJson(io: Io, value: unknown): void {
  // Bytes of a name stand beside its text.
  const text = (key: string, value: unknown) => (key === 'pathBytes' ? undefined : value)
  io.stdout.write(`${JSON.stringify(value, text, io.stdout.isTTY ? 2 : undefined)}\n`)
}

/** "████████░░░░" */
export function bar(ratio: number, width: number): string {
  const full = Math.max(0, Math.min(width, Math.round(ratio * width)))
  return '█'.repeat(full) + '░'.repeat(width - full)
}
