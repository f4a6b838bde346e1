#!/usr/bin/env node
/**
 * `btrmind`. Exit codes: 0 done · 1 it failed (the error says why) · 2 bad arguments · 3 a critical alert stands · 130
 * interrupted (`run`, which is to run until then: 0).
 */
import { realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { CommanderError } from 'commander'
import { BtrfsError, BtrmindError } from '../errors.js'
import { type Io, paint } from './output.js'
import { EXIT, program } from './program.js'

/** Runs one command line and gives the exit code; never throws. */
export async function main(argv: readonly string[], io: Io): Promise<number> {
  let code: number = EXIT.done
  const untilThen = argv[0] === 'run'
  try {
    await program(io, (given) => {
      code = given
    }).parseAsync([...argv], { from: 'user' })
    return code === EXIT.done && !untilThen && io.signal.aborted ? EXIT.interrupted : code
  } catch (error) {
    const { name, code: why } = error as { name?: string; code?: string }
    if (io.signal.aborted && (error === io.signal.reason || name === 'AbortError' || why === 'ECANCELED'))
      return untilThen ? EXIT.done : EXIT.interrupted
    // Help was shown, because it was asked for or because nothing was.
    if (error instanceof CommanderError && /help|version/.test(error.code)) {
      return error.exitCode === 0 ? EXIT.done : EXIT.usage
    }
    const known = error instanceof CommanderError ? asOurs(error) : error
    const ours = known instanceof BtrfsError || known instanceof BtrmindError
    const text = ours ? known.message : known instanceof Error ? (known.stack ?? known.message) : String(known)
    io.stderr.write(`${paint({ ...io, stdout: io.stderr }, 'red', 'btrmind:')} ${text}\n`)
    const bad = known instanceof BtrmindError && /_(ARGUMENT|OPTION)$/.test(known.code)
    return bad ? EXIT.usage : EXIT.failed
  }
}

/** What commander says, in one line, with a code and a hint as everything else. */
function asOurs({ code, message }: CommanderError): BtrmindError {
  const [, what = message, suggestion] = /^(?:error: )?([\s\S]*?)\.?(?:\s*\((Did you mean .*)\))?$/.exec(message) ?? []
  const unknown = code === 'commander.unknownOption' || code === 'commander.unknownCommand'
  const text = what.replace('is invalid. e', 'is invalid: e')
  return new BtrmindError(unknown ? 'BTRMIND_ERR_OPTION' : 'BTRMIND_ERR_ARGUMENT', text, {
    hint: suggestion === undefined ? 'see --help' : `d${suggestion.slice(1)}`,
  })
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort())
  // A reader that went away (`| head`) is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))
  process.exitCode = await main(process.argv.slice(2), {
    stdout: process.stdout,
    stderr: process.stderr,
    signal: stop.signal,
  })
}
