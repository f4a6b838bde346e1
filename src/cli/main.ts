#!/usr/bin/env node
/**
 * `btrmind`. Exit codes: 0 done · 1 it failed (the error says why) · 2 bad arguments · 3 a critical alert stands · 130
 * interrupted (`run`, which is to run until then: 0).
 */
import { realpathSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type Command, CommanderError } from 'commander'
import { BtrfsError, BtrmindError } from '../errors.js'
import { type Io, paint } from './output.js'
import { EXIT, program } from './program.js'
import { inCommands, meant } from './words.js'

/** Runs one command line and gives the exit code; never throws. */
export async function main(argv: readonly string[], given: Io): Promise<number> {
  const deaf = new AbortController()
  let output: NodeJS.ErrnoException | undefined
  const onError = (error: NodeJS.ErrnoException) => {
    output ??= error
    deaf.abort() // what runs cleans up: a snapshot, half a file
  }
  given.stdout.on('error', onError)
  // Where nobody is told, the work still ends as it should.
  given.stderr.on('error', () => {})
  const { stdout, stderr } = given
  let either: AbortSignal | undefined
  const code = await command(argv, {
    stdout,
    stderr,
    // Asked for by a command that is about to begin.
    get signal() {
      either ??= AbortSignal.any([given.signal, deaf.signal])
      return either
    },
  })
  // An error of the last words comes behind them.
  await setImmediate()
  if (output === undefined || given.signal.aborted) return code
  // A reader that went away (`| head`) is no failure.
  if (output.code === 'EPIPE') return code === EXIT.interrupted ? EXIT.done : code
  const { failed } = await import('./place.js')
  const error = failed('write', output, 'standard output', 'what was written is not whole')
  given.stderr.write(argv.includes('--json') ? asJson(error) : asText(given, error))
  return EXIT.failed
}

async function command(argv: readonly string[], io: Io): Promise<number> {
  let code: number = EXIT.done
  const untilThen = argv[0] === 'run'
  const root = program(io, (given) => {
    code = given
  })
  try {
    await root.parseAsync([...argv], { from: 'user' })
    return code === EXIT.done && !untilThen && io.signal.aborted ? EXIT.interrupted : code
  } catch (error) {
    const { name, code: why } = error as { name?: string; code?: string }
    if (io.signal.aborted && (error === io.signal.reason || name === 'AbortError' || why === 'ECANCELED'))
      return untilThen ? EXIT.done : EXIT.interrupted
    // Help was shown, because it was asked for or because nothing was.
    if (error instanceof CommanderError && /help|version/.test(error.code)) {
      return error.exitCode === 0 ? EXIT.done : EXIT.usage
    }
    const known = error instanceof CommanderError ? asOurs(error, argv, root) : error
    io.stderr.write(argv.includes('--json') ? asJson(known) : asText(io, known))
    const bad = known instanceof BtrmindError && /_(ARGUMENT|OPTION)$/.test(known.code)
    return bad ? EXIT.usage : EXIT.failed
  }
}

function asText(io: Io, error: unknown): string {
  const text = isOurs(error) ? error.message : error instanceof Error ? (error.stack ?? error.message) : String(error)
  return `${paint({ ...io, stdout: io.stderr }, 'red', 'btrmind:')} ${inCommands(text)}\n`
}

const isOurs = (error: unknown) => error instanceof BtrfsError || error instanceof BtrmindError

/** One line; of what is not ours only the message. */
function asJson(error: unknown): string {
  const { message = String(error) } = error as Partial<Error>
  const { name: _, progress: __, ...fields } = isOurs(error) ? { ...(error as Partial<BtrfsError>) } : {}
  const hint = fields.hint === undefined ? {} : { hint: inCommands(fields.hint) }
  return `${JSON.stringify({ error: { ...fields, message: inCommands(message), ...hint } })}\n`
}

/** What commander says, in one line, with a code and a hint as everything else. */
function asOurs({ code, message }: CommanderError, argv: readonly string[], root: Command): BtrmindError {
  const [, what = message, suggestion] = /^(?:error: )?([\s\S]*?)\.?(?:\s*\((Did you mean .*)\))?$/.exec(message) ?? []
  const unknown = code === 'commander.unknownOption' || code === 'commander.unknownCommand'
  const text = what.replace('is invalid. e', 'is invalid: e')
  const commandsOf = (group: string) =>
    (root.commands.find((one) => one.name() === group)?.commands ?? []).map((one) => one.name())
  const isCommand = code === 'commander.unknownCommand' || code === 'commander.excessArguments'
  const wanted = isCommand ? meant(argv, commandsOf) : undefined
  const near = suggestion === undefined ? 'see --help' : `d${suggestion.slice(1)}`
  return new BtrmindError(unknown ? 'BTRMIND_ERR_OPTION' : 'BTRMIND_ERR_ARGUMENT', text, {
    hint: wanted === undefined ? near : `did you mean: ${wanted}`,
  })
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort())
  // The terminal closed: the shell says so, and then the kernel again.
  process.on('SIGHUP', () => stop.abort())
  process.exitCode = await main(process.argv.slice(2), {
    stdout: process.stdout,
    stderr: process.stderr,
    signal: stop.signal,
  })
}
