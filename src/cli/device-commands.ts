/** Commands that change devices; what they do is loaded when they are called. */
import { type Command, InvalidArgumentError } from 'commander'
import { newSize, whole } from './arguments.js'
import { note } from './help.js'
import type { Io } from './output.js'

const id = whole(1, 2 ** 53 - 1)
const idOr = (word: string) => (text: string) => {
  if (text === word) return word
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError(`expected a whole number or ${word}.`)
  return id(text)
}

/** @param failed makes the exit code 1 */
export function addDeviceCommands(root: Command, io: Io, failed: () => void): void {
  const device = root.command('device').description('add, remove, replace, resize; errors; what is missing')
  const path = 'any directory on the volume'
  device
    .command('add')
    .description('take a block device into the volume')
    .argument('<path>', path)
    .argument('<device>', 'a whole block device or partition')
    .option('-f, --force', 'also when something is on it: that is lost')
    .option('--json', 'one JSON document: the devices then')
    .addHelpText('after', note('What is there already stays where it is until a balance.'))
    .action(async (path: string, name: string, options) => (await import('./device.js')).add(io, path, name, options))
  device
    .command('remove')
    .description('move what is on a device to the others and take it out')
    .argument('<path>', path)
    .argument('<id>', 'as `btrmind devices` says; or missing, the first of those that are gone', idOr('missing'))
    .option('--json', 'one JSON document: the devices then')
    .addHelpText(
      'after',
      note(`It cannot be undone: at the end the device's superblocks are wiped. Until then Ctrl-C stops it, and the device stays in
the volume; what was moved off it stays where it is.`),
    )
    .action(async (path: string, devid, options) => (await import('./device.js')).remove(io, path, devid, options))
  device
    .command('replace')
    .description('copy a device, or what the others know of a missing one, to a new one in its place')
    .argument('<path>', path)
    .argument('<id>', 'what goes, as `btrmind devices` says', id)
    .argument('<target>', 'the block device that comes, at least as large')
    .option('-f, --force', 'also when something is on the target: that is lost')
    .option('-r, --avoid-source', 'read from the other copies where there are any: the old device is failing')
    .option('--json', 'one JSON document')
    .addHelpText(
      'after',
      note('Until it is done Ctrl-C stops it, and the volume is as it was; then the old device is out.'),
    )
    .action(async (path: string, devid: number, target: string, options) =>
      (await import('./device.js')).replace(io, path, devid, target, options),
    )
  device
    .command('replace-status')
    .description('the replacement that runs, or how the last one ended')
    .argument('<path>', path)
    .option('--json', 'one JSON document')
    .action(async (path: string, options) => (await import('./device.js')).replaceStatus(io, path, options))
  device
    .command('resize')
    .description('set how much of a device the volume uses')
    .argument('<path>', path)
    .argument('<id>', 'as `btrmind devices` says', id)
    .argument('<size>', 'like 10GiB, +1GiB, max; to make it smaller by: -- -1GiB', newSize)
    .option('--json', 'one JSON document: the devices then')
    .addHelpText('after', note('Shrinking moves what lies beyond the new end; Ctrl-C stops that, and the size stays.'))
    .action(async (path: string, devid: number, size, options) =>
      (await import('./device.js')).resize(io, path, devid, size, options),
    )
  device
    .command('stats')
    .description('error counters of each device')
    .argument('<path>', path)
    .option('-z, --reset', 'show them and set them to zero')
    .option('--json', 'one JSON document')
    .addHelpText(
      'after',
      note('Exit code 1 when one is not zero, or cannot be read: of a missing device nothing is known.'),
    )
    .action(async (path: string, options) => {
      if (!(await (await import('./device.js')).stats(io, path, options))) failed()
    })
  device
    .command('redundancy')
    .description('whether a device is missing, and what each profile bears')
    .argument('<path>', path)
    .option('--json', 'one JSON document')
    .addHelpText('after', note('Exit code 1 when a device is missing.'))
    .action(async (path: string, options) => {
      if (!(await (await import('./device.js')).redundancy(io, path, options))) failed()
    })
  device
    .command('scan')
    .description('tell the kernel of devices, so that a volume of several can be mounted')
    .argument('<devices...>', 'block devices')
    .option('--json', 'one JSON document: what it was told of')
    .action(async (names: string[], options) => (await import('./device.js')).scan(io, names, options))
  device
    .command('forget')
    .description('let the kernel forget devices that are not mounted')
    .argument('[device]', 'a block device; without it all of those')
    .option('--json', 'null')
    .action(async (name: string | undefined, options) => (await import('./device.js')).forget(io, name, options))
  device
    .command('ready')
    .description('whether the kernel knows every device of the volume that this one belongs to')
    .argument('<device>', 'a block device')
    .option('--json', 'true or false')
    .addHelpText('after', note('Exit code 1 when one is missing.'))
    .action(async (name: string, options) => {
      if (!(await (await import('./device.js')).ready(io, name, options))) failed()
    })
}
