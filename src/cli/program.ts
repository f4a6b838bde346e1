/** Every command with its options; what it does is loaded when it is called. */
import { readFileSync } from 'node:fs'
import { Command, Option } from 'commander'
import { BtrmindError, quote } from '../errors.js'
import { list, number, position, whole } from './arguments.js'
import { addBalanceCommands } from './balance-commands.js'
import { addDeviceCommands } from './device-commands.js'
import { addExtentsCommands } from './extents-commands.js'
import { explain, note } from './help.js'
import type { Io } from './output.js'
import { addQuotaCommands, addSubvolumeCommands } from './subvolume-commands.js'
import { addTreeCommands } from './tree-commands.js'
import { addFilesystemCommands, addInspectCommands } from './volume-commands.js'

export const EXIT = { done: 0, failed: 1, usage: 2, critical: 3, interrupted: 130 } as const

const version = (
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
).version

export function program(io: Io, exit: (code: number) => void): Command {
  const root = new Command('btrmind')
    .description('btrfs at ioctl speed, and a mind that keeps a volume from filling up')
    .version(version)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      writeErr: (text) => void io.stderr.write(text),
      outputError: () => {}, // main() has one form for all errors.
    })
    .configureHelp({ subcommandTerm: (command) => command.name() })
    .usage('<command> …')
    .showSuggestionAfterError()
    .enablePositionalOptions() // an option belongs to the command that it follows
    .addHelpText(
      'after',
      note(`
Each command’s --help has what it takes, the privilege that it needs, and an example.

With --json a failure is JSON on stderr: {"error":{code,message,path,hint,…}}.

Exit codes: 0 done, 1 failed, 2 bad arguments, 3 a critical alert stands, 130 interrupted.`),
    )

  root
    .command('usage')
    .description('space: sizes, block groups, devices, what is not flushed')
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

  addTreeCommands(root, io)

  const scrub = root
    .command('scrub')
    .description('check everything against its checksums and repair it')
    .argument('<path>', 'any directory on the volume')
    .option('-r, --read-only', 'check only')
    .option('--device <id>', 'only this one', whole(1, 2 ** 53 - 1))
    .option('--limit <MiB/s>', 'of each device', number(0.001, 1e6))
    .option('--start <id:bytes>', 'where to go on (repeatable)', position)
    .option('--json', 'one JSON document')
    .addHelpText(
      'after',
      note(
        'Exit code 1 when errors were found that are not repaired, or another process cancelled it; 130 after Ctrl-C.',
      ),
    )
    .action(async (path: string, { readOnly, ...options }) => {
      const sound = await (await import('./scrub.js')).scrub(io, path, { ...options, readonly: readOnly })
      if (!sound) exit(EXIT.failed)
    })
  for (const [name, description, json] of [
    ['status', 'whether one runs, whoever started it, and how far it is', 'one JSON document; null when there is none'],
    ['cancel', 'stop whichever run, also another process’s', 'null'],
  ] as const)
    scrub
      .command(name)
      .description(description)
      .argument('<path>', 'any directory on the volume')
      .option('--json', json)
      .action(async (path: string, options: { json?: boolean }) =>
        (await import('./scrub.js'))[name](io, path, options),
      )

  const failed = () => exit(EXIT.failed)
  addExtentsCommands(root, io, failed)
  addBalanceCommands(root, io, failed)
  addDeviceCommands(root, io, failed)

  addSubvolumeCommands(root, io, () => exit(EXIT.failed))
  addQuotaCommands(root, io)
  addFilesystemCommands(root, io)
  addInspectCommands(root, io)

  root
    .command('run')
    .summary('watch a volume and keep it from filling up')
    .description('watch a volume and keep it from filling up; only says what it would do until --apply is given')
    .argument('[path]', 'the volume; inactive files below it may be compressed')
    .option('--path <dir>', 'the same')
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
    .action(async (path: string | undefined, options) => {
      const { critical } = await (await import('./run.js')).run(io, { ...options, path: oneOf(path, options.path) })
      if (critical) exit(EXIT.critical)
    })

  for (const command of root.commands) command.helpGroup(groupOf(command.name()))
  root.addHelpCommand(
    new Command('help').argument('[command]').description('the help of a command').helpGroup(groupOf('help')),
  )
  explain(root)
  return root
}

function oneOf(path: string | undefined, option: string | undefined): string {
  if ((path === undefined) !== (option === undefined)) return (path ?? option)!
  const got = path === undefined ? 'none' : `${quote(path)} and --path ${quote(option)}`
  throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `run: expected one path, like btrmind run /mnt/pool; got ${got}`)
}

/** What the help of the root puts together; what changes nothing is not named. */
const GROUPS: Readonly<Record<string, readonly string[]>> = {
  'Keep it in shape:': ['scrub', 'balance', 'reclaim', 'defragment', 'deduplicate', 'run'],
  'Change it:': ['device', 'subvolume', 'quota', 'filesystem', 'compression', 'attributes', 'clone', 'encoded'],
}
const groupOf = (name: string) =>
  Object.keys(GROUPS).find((group) => GROUPS[group]!.includes(name)) ?? 'See what is there:'
