/** Commands that read a whole tree. */
import { type Command, Option } from 'commander'
import { number, size, whole } from './arguments.js'
import { note } from './help.js'
import type { Io } from './output.js'

export function addTreeCommands(root: Command, io: Io): void {
  root
    .command('scan')
    .description('every file of a subvolume: counts, sizes, the largest')
    .argument('<path>', 'a subvolume, or a directory in one')
    .option('--since <generation>', 'only what changed in this generation or later', whole(0, 2 ** 53 - 1))
    .option('--extents', 'count extents and compressed bytes')
    .option('--sharing', 'also what is shared with snapshots and clones (slower)')
    .option('--consistent', 'of one moment, through a temporary snapshot; not with --sharing')
    .option('--largest <n>', 'so many of the largest (default: 10); with --json only these', whole(0, 1e6))
    .option('--json', 'JSON lines, one a name')
    .action(async (path: string, options) => (await import('./scan.js')).scan(io, path, options))

  root
    .command('du')
    .description('what the files of a tree take, and what only they have')
    .argument('<path>', 'a subvolume, or a directory in one')
    .option('--depth <n>', 'sums of their own for directories so far down', whole(0, 65_536), 1)
    .option('--nested', 'also the subvolumes in it')
    .option('--json', 'one JSON document')
    .action(async (path: string, options) => (await import('./reports.js')).du(io, path, options))

  root
    .command('fragmentation')
    .description('how scattered the files of a tree are, and which most')
    .argument('<path>', 'a subvolume, or a directory in one')
    .option('--worst <n>', 'so many of the most scattered', whole(0, 1000), 10)
    .option('--nested', 'also the subvolumes in it')
    .option('--consistent', 'of one moment, through a temporary snapshot')
    .option('--json', 'one JSON document')
    .addHelpText(
      'after',
      note(`
A new piece begins where the data does not lie on disk right behind that before it in the file. Data behind a hole
begins none, wherever it lies: a sparse file may be counted as one piece.`),
    )
    .action(async (path: string, options) => (await import('./reports.js')).fragmentation(io, path, options))

  root
    .command('changed')
    .description('what changed in a subvolume since a generation or snapshot')
    .argument('<path>', 'a subvolume, or a directory in one')
    .addOption(
      new Option(
        '--since <generation|snapshot>',
        'the path of a snapshot, or a generation, not a subvolume’s id',
      ).makeOptionMandatory(),
    )
    .option('--json', 'JSON lines, one a name')
    .option('-0, --null', 'paths end with NUL, byte for byte')
    .action(async (path: string, options) => (await import('./finders.js')).changed(io, path, options))

  root
    .command('inactive')
    .description('files that nobody has read, written or changed for so long')
    .argument('<path>', 'a subvolume, or a directory in one')
    .option('--days <n>', 'by the youngest of their times', number(0, 36_500), 30)
    .option('--minimum <size>', 'only files of this size or larger, like 10MiB', size, 0)
    .option('--json', 'JSON lines, one a file')
    .option('-0, --null', 'paths end with NUL, byte for byte')
    .action(async (path: string, options) => (await import('./finders.js')).inactive(io, path, options))
}
