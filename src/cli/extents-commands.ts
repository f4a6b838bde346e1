/** Commands for the data of files; what they do is loaded when they are called. */
import { type Command, Option } from 'commander'
import { attribute, size, whole } from './arguments.js'
import { note } from './help.js'
import type { Io } from './output.js'

/** @param failed makes the exit code 1 */
export function addExtentsCommands(root: Command, io: Io, failed: () => void): void {
  root
    .command('extents')
    .summary('where the data of a file lies')
    .description('where the data of a file lies, and what of it is shared or compressed')
    .argument('<file>', 'a regular file')
    .option('--start <size>', 'from here on', size)
    .option('--length <size>', 'so much from there', size)
    .option('--json', 'JSON lines, one an extent')
    .addHelpText('after', note('Addresses are of the volume, not of a device. Sizes are like 4096 or 10GiB.'))
    .action(async (path: string, options) => (await import('./extents.js')).extents(io, path, options))

  root
    .command('defragment')
    .summary('rewrite files so that their data lies together')
    .description('rewrite files so that their data lies together, or compressed; progress on a terminal')
    .argument('<path>', 'a regular file; with --recursive a directory')
    .option('-r, --recursive', 'every file below it, in its subvolume and mount')
    .addOption(new Option('-c, --compress <algorithm>', 'rewrite it compressed').choices(['zlib', 'lzo', 'zstd']))
    .option('-L, --level <n>', 'zlib 1 to 9, zstd -15 to 15 (Linux 6.15)', whole(-15, 15))
    .addOption(new Option('--uncompressed', 'rewrite it uncompressed (Linux 6.17)').conflicts('compress'))
    .option('--recompress', 'also what is compressed already')
    .option('--unshare', 'also what snapshots and clones have too: it takes its space twice from then on')
    .option('-t, --threshold <size>', 'extents of this size are good as they are (default: 256 KiB)', size)
    .option('-s, --start <size>', 'of each file, from here on', size)
    .option('-l, --length <size>', 'of each file, so much from there', size)
    .option('--json', 'one JSON document')
    .addHelpText('after', note('What is shared or compressed already is left alone, unless asked for, and counted.'))
    .action(async (path: string, options) => (await import('./defragment.js')).defragment(io, path, options))

  root
    .command('deduplicate')
    .summary('let files share the data that they have in common')
    .description(
      'let files share the data of one, where the kernel finds that they hold the same; progress on a terminal',
    )
    .argument('<source>', 'a regular file')
    .argument('<destinations...>', 'files on the same volume')
    .option('--start <size>', 'where to begin in the source (default: 0)', size)
    .option('--length <size>', 'so much from there (default: to its end)', size)
    .option('--destination-start <size>', 'where to begin in each destination (default: 0, whatever --start is)', size)
    .option('--json', 'one JSON document')
    .addHelpText('after', note('Exit code 1 when one failed; that one differs is no failure.'))
    .action(async (source: string, destinations: string[], options) => {
      if (!(await (await import('./extents.js')).deduplicate(io, source, destinations, options))) failed()
    })

  root
    .command('clone')
    .description('put a file’s data into another without copying it')
    .argument('<source>', 'a regular file')
    .argument('<destination>', 'a regular file on the same volume; what is in the range is replaced')
    .option('--create', 'make the destination, which must not be there')
    .option('--source-start <size>', 'where to begin in the source (default: 0)', size)
    .option('--length <size>', 'so much from there (default: to its end)', size)
    .option('--destination-start <size>', 'where it comes to lie (default: 0)', size)
    .option('--json', 'one JSON document')
    .action(async (source: string, destination: string, options) =>
      (await import('./extents.js')).clone(io, source, destination, options),
    )

  const encoded = root.command('encoded').description('a file’s data as it lies on disk, without unpacking it')
  encoded
    .command('read')
    .description('write a file’s data to standard output, compressed as it is')
    .argument('<file>', 'a regular file')
    .option('--json', 'JSON lines: the descriptions without the data')
    .addHelpText(
      'after',
      note(`The stream: a line of JSON with its format; for each piece of at most 128 KiB a line that describes it, and behind it
its data, \`bytes\` long; at the end a line with size and count. Holes have no data. Only data: no owner, times, names.
Each \`crc32\` is of all up to there: of each line without its crc32 and its newline, and of the data behind it.`),
    )
    .action(async (path: string, options) => (await import('./encoded.js')).read(io, path, options))
  encoded
    .command('write')
    .description('make a file of what `encoded read` gave')
    .argument('<file>', 'must not be there')
    .option('--input <file>', 'in place of standard input')
    .option('--json', 'one JSON document')
    .addHelpText(
      'after',
      note(
        'The volume must have sectors of the same size. What is damaged, cut off or longer is refused, and no file is left.',
      ),
    )
    .action(async (path: string, options) => (await import('./encoded.js')).write(io, path, options))

  const compression = root.command('compression').description('how data is compressed, and how new data will be')
  compression
    .command('report')
    .description('how well the files of a tree are compressed, by algorithm; what is shared counts once')
    .argument('<path>', 'a subvolume, or a directory in one')
    .option('--nested', 'also the subvolumes in it')
    .option('--consistent', 'of one moment, through a temporary snapshot')
    .option('--json', 'one JSON document')
    .action(async (path: string, options) => (await import('./reports.js')).compression(io, path, options))
  compression
    .command('get')
    .description('what is set for it')
    .argument('<path>', 'a file or directory')
    .option('--json', 'one JSON document; null when nothing is set')
    .action(async (path: string, options) => (await import('./properties.js')).getCompression(io, path, options))
  compression
    .command('set')
    .description('set it; what is written already stays as it is (see defragment)')
    .argument('<path>', 'a file or directory')
    .argument('<algorithm>', 'lzo, zlib, zstd, with a level if need be (zstd:3); none forbids compression')
    .option('--json', 'one JSON document: what is set now')
    .action(async (path: string, value: string, options) =>
      (await import('./properties.js')).setCompression(io, path, value, options),
    )
  compression
    .command('clear')
    .description('take it away: the mount decides')
    .argument('<path>', 'a file or directory')
    .option('--json', 'one JSON document: what is set now, null')
    .action(async (path: string, options) =>
      (await import('./properties.js')).setCompression(io, path, undefined, options),
    )

  const attributes = root.command('attributes').description('what chattr sets and lsattr shows, by name')
  attributes
    .command('get')
    .description('those that are set')
    .argument('<path>', 'a file or directory')
    .option('--json', 'one JSON document: each, true or false')
    .action(async (path: string, options) => (await import('./properties.js')).getAttributes(io, path, options))
  attributes
    .command('set')
    .description('set or take away some; the others stay')
    .argument('<path>', 'a file or directory')
    .argument(
      '<attributes...>',
      'nocow=on, noatime=off, compress, nocompress, immutable, appendOnly, sync …',
      attribute,
    )
    .option('--json', 'one JSON document: each as it is now, true or false')
    .action(async (path: string, wanted, options) =>
      (await import('./properties.js')).setAttributes(io, path, wanted, options),
    )
}
