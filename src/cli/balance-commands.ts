/** Commands that move block groups; what they do is loaded when they are called. */
import type { Command } from 'commander'
import { size, whole } from './arguments.js'
import { note } from './help.js'
import type { Io } from './output.js'

const FILTERS = `
Filters are given as to btrfs balance, with commas between: usage=30, usage=10..50, limit=5, limit=2..5,
profiles=raid1|single, devid=1, drange=0..1073741824, vrange=0..1073741824, stripes=1..2, convert=raid1, soft.
Without any, all block groups of the type are taken. --metadata takes system along with the same filters.`

const some = whole(1, 2 ** 53 - 1)
/** Given twice, an option has the filters of both. */
const joined = (text: string, before: string | true | undefined) =>
  typeof before === 'string' ? `${before},${text}` : text

/** @param failed makes the exit code 1 */
export function addBalanceCommands(root: Command, io: Io, failed: () => void): void {
  const balance = root.command('balance').description('rewrite block groups, to give space back or change profiles')
  const withTypes = (command: Command) =>
    command
      .argument('<path>', 'any directory on the volume')
      .option('-d, --data [filters]', 'block groups of data', joined)
      .option('-m, --metadata [filters]', 'block groups of metadata; what is free in them is needed: see plan', joined)
      .option('-s, --system [filters]', 'block groups of the chunk tree', joined)
      .option('-f, --force', 'let a conversion take copies away from metadata or system')
      .option('--json', 'one JSON document')
      .addHelpText('after', note(FILTERS))

  withTypes(balance.command('start').description('balance, with progress on a terminal'))
    .addHelpText(
      'after',
      note(`Ctrl-C cancels after the block group that it is at, and leaves nothing behind: what was moved stays moved. To go on
later with the same filters, balance pause from another terminal; it then holds the volume until resume or cancel.
Exit code 1 when another process cancelled or paused it, 130 after Ctrl-C.`),
    )
    .action(async (path: string, options) => {
      if (!(await (await import('./balance.js')).start(io, path, options))) failed()
    })
  withTypes(balance.command('plan').description('what start would take, move and give back; nothing is done'))
    .addHelpText('after', note('Exit code 1 when it does not fit.'))
    .action(async (path: string, options) => {
      if (!(await (await import('./balance.js')).plan(io, path, options))) failed()
    })
  const simple = (name: 'status' | 'pause' | 'cancel' | 'resume', description: string, json: string) =>
    balance
      .command(name)
      .description(description)
      .argument('<path>', 'any directory on the volume')
      .option('--json', json)
      .action(async (path: string, options: { json?: boolean }) => {
        if ((await (await import('./balance.js'))[name](io, path, options)) === false) failed()
      })
  simple('status', 'whether one runs or is paused, whoever started it', 'one JSON document; null when there is none')
  simple('pause', 'pause the one that runs, also another process’s', 'one JSON document: its status then')
  simple('cancel', 'stop the one that runs or is paused', 'null')
  simple('resume', 'go on with a paused one; Ctrl-C cancels it for good', 'one JSON document')

  root
    .command('reclaim')
    .description('give thinly used data block groups back, least used first')
    .argument('<path>', 'any directory on the volume')
    .option('--target <size>', 'until so much is unallocated, like 10GiB', size)
    .option('--max <n>', 'at most so many block groups', some)
    .option('--usage <percent>', 'only those used less than that', whole(1, 100))
    .option('--json', 'one JSON document')
    .addHelpText(
      'after',
      note(
        'It ends by itself where nothing is to be gained. Ctrl-C stops it after the block group that it is at; what was moved stays moved.',
      ),
    )
    .action(async (path: string, options) => {
      if (!(await (await import('./reclaim.js')).reclaim(io, path, options))) failed()
    })
}
