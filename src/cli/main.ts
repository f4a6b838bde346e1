#!/usr/bin/env node
/** `btrmind`. Exit codes: 0 done · 1 it failed (the error says why) · 2 bad arguments · 3 a critical alert stands. */
import { readFileSync, realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { BtrfsError, BtrmindError } from '../errors.js'
import { type Io, paint } from './output.js'

export const EXIT = { done: 0, failed: 1, usage: 2, critical: 3 } as const

const version = (
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
).version

const number = (least: number, most: number) => (text: string) => {
  const value = Number(text)
  if (text.trim() === '' || !(value >= least && value <= most))
    throw new InvalidArgumentError(`expected a number from ${least} to ${most}.`)
  return value
}
const whole = (least: number, most: number) => (text: string) => {
  const value = number(least, most)(text)
  if (!Number.isInteger(value)) throw new InvalidArgumentError('expected a whole number.')
  return value
}
const position = (text: string, before: [number, number][] | undefined) => {
  const [, devid, bytes] = /^(\d+):(\d+)$/.exec(text) ?? []
  if (devid === undefined) throw new InvalidArgumentError('expected a device id and bytes, like 1:4096.')
  return [...(before ?? []), [Number(devid), Number(bytes)]] as [number, number][]
}
const list = (text: string, before: string[] | undefined) => [...(before ?? []), text]

function program(io: Io, exit: (code: number) => void): Command {
  const root = new Command('btrmind')
    .description('btrfs at ioctl speed, and a mind that keeps a volume from filling up')
    .version(version)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      writeErr: (text) => void io.stderr.write(text),
      outputError: () => {}, // main() has one form for all errors.
    })
    .showSuggestionAfterError()
    .addHelpText('after', '\nExit codes: 0 done, 1 failed, 2 bad arguments, 3 a critical alert stands.')

  root
    .command('usage')
    .description('space: sizes, block groups, devices, and data that is not flushed yet')
    .argument('<path>', 'any directory on the volume')
    .option('--json', 'one JSON document with every figure in bytes')
    .action(async (path: string, options: { json?: boolean }) => (await import('./usage.js')).usage(io, path, options))

  root
    .command('devices')
    .description('devices with sizes, slack and error counters')
    .argument('<path>', 'any directory on the volume')
    .option('--json', 'one JSON document')
    .action(async (path: string, options: { json?: boolean }) =>
      (await import('./devices.js')).devices(io, path, options),
    )

  root
    .command('subvolumes')
    .description('subvolumes and snapshots')
    .argument('<path>', 'any directory on the volume')
    .option('--json', 'JSON lines, one a subvolume')
    .action(async (path: string, options: { json?: boolean }) =>
      (await import('./subvolumes.js')).subvolumes(io, path, options),
    )

  root
    .command('scan')
    .description('every file of a subvolume: counts, sizes, the largest')
    .argument('<path>', 'a subvolume, or a directory in one')
    .option('--since <generation>', 'only what changed in this generation or later', whole(0, 2 ** 53 - 1))
    .option('--extents', 'count extents and compressed bytes')
    .option('--sharing', 'also what is shared with snapshots and clones (slower)')
    .option('--consistent', 'of one moment, through a temporary snapshot')
    .option('--largest <n>', 'so many of the largest', whole(0, 1e6), 10)
    .option('--json', 'JSON lines, one a name')
    .action(async (path: string, options) => (await import('./scan.js')).scan(io, path, options))

  root
    .command('scrub')
    .description('check everything against its checksums and repair it; progress on a terminal')
    .argument('<path>', 'any directory on the volume')
    .option('--read-only', 'check only')
    .option('--device <id>', 'only this one', whole(1, 2 ** 53 - 1))
    .option('--limit <MiB/s>', 'of each device', number(0.001, 1e6))
    .option('--start <id:bytes>', 'where to go on (repeatable)', position)
    .option('--json', 'one JSON document')
    .addHelpText('after', '\nExit code 1 when errors were found that are not repaired.')
    .action(async (path: string, { readOnly, ...options }) => {
      const sound = await (await import('./scrub.js')).scrub(io, path, { ...options, readonly: readOnly })
      if (!sound) exit(EXIT.failed)
    })

  root
    .command('quota')
    .description('quota groups: what they count, limits, who belongs to whom')
    .argument('<path>', 'any directory on the volume')
    .option('--json', 'one JSON document; null when quota is off')
    .action(async (path: string, options: { json?: boolean }) => (await import('./quota.js')).quota(io, path, options))

  root
    .command('run')
    .description('watch a volume and keep it from filling up; only says what it would do until --apply is given')
    .requiredOption('--path <dir>', 'the volume; inactive files below it may be compressed')
    .option('--temp <dir>', 'a directory whose old files may be deleted (repeatable)', list)
    .option('--snapshots <dir>', 'a directory whose oldest snapshots may be deleted (repeatable)', list)
    .option('--inactive-days <n>', 'files untouched for so long may be compressed', number(0, 36_500), 30)
    .option('--temp-hours <n>', 'files in --temp untouched for so long may be deleted', number(0, 876_000), 240)
    .option('--keep-snapshots <n>', 'never fewer snapshots than this in a --snapshots directory', whole(1, 1e6), 3)
    .option('--dry-run', 'say what would be done and do nothing (the default)')
    .addOption(new Option('--apply', 'really do it').conflicts('dryRun'))
    .option('--once', 'one step, then exit')
    .option('--interval <seconds>', 'time between samples', number(0.05, 86_400), 60)
    .option(
      '--state-dir <dir>',
      'history, journal and model are kept here. Without it a dry run keeps nothing; --apply takes $STATE_DIRECTORY, ' +
        'else /var/lib/btrmind/<uuid> as root, else $XDG_STATE_HOME or ~/.local/state, below it btrmind/<uuid>',
    )
    .addOption(
      new Option('--policy <name>', 'dqn learns, behind the safety rules').choices(['dqn', 'rules']).default('dqn'),
    )
    .option('--seed <n>', 'seed of the network and its exploration', whole(0, 2 ** 32 - 1), 1)
    .option('--json', 'JSON lines, one a step')
    .action(async (options) => {
      const { critical } = await (await import('./run.js')).run(io, options)
      if (critical) exit(EXIT.critical)
    })

  return root
}

/** Runs one command line and gives the exit code; never throws. */
export async function main(argv: readonly string[], io: Io): Promise<number> {
  let code: number = EXIT.done
  try {
    await program(io, (given) => {
      code = given
    }).parseAsync([...argv], { from: 'user' })
    return code
  } catch (error) {
    if (io.signal.aborted && error === io.signal.reason) return EXIT.done
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
