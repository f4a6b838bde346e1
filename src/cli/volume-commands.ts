/** Commands for the volume as a whole, and for what lies where; what they do is loaded when they are called. */
import { type Command, Option } from 'commander'
import { list, onOff, size, tree, treeKey, whole } from './arguments.js'
import { note } from './help.js'
import type { Io } from './output.js'

const VOLUME = ['<path>', 'any directory on the volume'] as const
const JSON_DOCUMENT = ['--json', 'one JSON document'] as const
const id = whole(1, 2 ** 53 - 1)

export function addFilesystemCommands(root: Command, io: Io): void {
  const work = () => import('./filesystem.js')
  const group = root.command('filesystem').description('label, features, trim and settings of a volume')

  group
    .command('label')
    .description('the name of the volume; with a second argument, name it so')
    .argument(...VOLUME)
    .argument('[label]', "'' takes the name away")
    .option(...JSON_DOCUMENT)
    .action(async (path: string, text: string | undefined, options) => (await work()).label(io, path, text, options))
  group
    .command('features')
    .description('on-disk features: in use, known to the kernel, and what can be changed while mounted')
    .argument(...VOLUME)
    .option('--enable <feature>', 'turn it on (repeatable)', list)
    .option('--disable <feature>', 'turn it off (repeatable)', list)
    .option(...JSON_DOCUMENT)
    .action(async (path: string, options) => (await work()).features(io, path, options))
  group
    .command('sync')
    .description('write out and commit what is in memory')
    .argument(...VOLUME)
    .option('--json', 'null')
    .action(async (path: string, options) => (await work()).sync(io, path, options))
  group
    .command('trim')
    .description('tell the devices what is free; progress on a terminal')
    .argument(...VOLUME)
    .option('-o, --start <size>', 'from here on, of the volume’s addresses', size)
    .option('-l, --length <size>', 'so much from there', size)
    .option('-m, --minimum <size>', 'only free pieces that are as large', size)
    .option(...JSON_DOCUMENT)
    .action(async (path: string, options) => (await work()).trim(io, path, options))
  group
    .command('statistics')
    .description('what the kernel counts since the mount: commits, discards')
    .argument(...VOLUME)
    .option('-z, --reset', 'show it and set the longest commit to zero; the rest counts on')
    .option(...JSON_DOCUMENT)
    .action(async (path: string, options) => (await work()).statistics(io, path, options))
  group
    .command('reclaim-settings')
    .description('when the kernel reclaims block groups by itself; with options, change it until the unmount')
    .argument(...VOLUME)
    .addOption(
      new Option('--type <type>', 'of which block groups')
        .choices(['data', 'metadata', 'system', 'data+metadata'])
        .default('data'),
    )
    .option('--threshold <percent>', 'those that fall below it; 0: none', whole(0, 100))
    .option('--dynamic <on|off>', 'let the kernel work the threshold out', onOff)
    .option('--periodic <on|off>', 'look also when nothing is freed', onOff)
    .option(...JSON_DOCUMENT)
    .action(async (path: string, options) => (await work()).reclaimSettings(io, path, options))
}

export function addInspectCommands(root: Command, io: Io): void {
  const work = () => import('./inspect.js')
  const group = root.command('inspect').description('what lies where: addresses, inodes, block groups, trees')

  group
    .command('logical')
    .description('which files have their data at an address, as the kernel’s log names it')
    .argument(...VOLUME)
    .argument('<address>', 'logical, in bytes', whole(0, 2 ** 53 - 1))
    .option('--whole-extent', 'whoever uses any part of the extent there')
    .option(...JSON_DOCUMENT)
    .action(async (path: string, address: number, options) => (await work()).logical(io, path, address, options))
  group
    .command('inode')
    .description('every name of an inode')
    .argument('<path>', 'any directory in its subvolume')
    .argument('<inode>', 'its number', id)
    .option('--subvolume <id>', 'in this one instead', id)
    .option(...JSON_DOCUMENT)
    .action(async (path: string, inode: number, options) => (await work()).inode(io, path, inode, options))
  group
    .command('subvolume')
    .description('the path of the subvolume that an id names')
    .argument(...VOLUME)
    .argument('<id>', 'its number; 5 is the top of the volume', id)
    .option('--json', 'one JSON document: all that is known of it')
    .action(async (path: string, id: number, options) => (await work()).subvolume(io, path, id, options))
  group
    .command('chunks')
    .description('every block group: where, how full, on which devices')
    .argument(...VOLUME)
    .option(...JSON_DOCUMENT)
    .action(async (path: string, options) => (await work()).chunks(io, path, options))
  group
    .command('tree')
    .description('the items of any tree')
    .argument(...VOLUME)
    .argument(
      '<tree>',
      'root, extent, chunk, dev, fs, csum, quota, uuid, free-space, block-group, raid-stripe, or an id',
      tree,
    )
    .option('--min <key>', 'the first, as objectid:type:offset', treeKey)
    .option('--max <key>', 'the last, as objectid:type:offset', treeKey)
    .option('--since <generation>', 'only leaves written in this generation or later', whole(0, 2 ** 53 - 1))
    .option('--json', 'JSON lines, one an item; 64-bit fields and bytes (hexadecimal) are strings')
    .addHelpText('after', note('An item that cannot be decoded has no `fields`; `unavailable` says why.'))
    .action(async (path: string, name: string | number, options) => (await work()).tree(io, path, name, options))
}
