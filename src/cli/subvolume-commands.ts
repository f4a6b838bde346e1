/** Commands for subvolumes and quota groups; what they do is loaded when they are called. */
import type { Command } from 'commander'
import { BtrmindError } from '../errors.js'
import { list, number, onOff, sizeOrNone, whole } from './arguments.js'
import { note } from './help.js'
import type { Io } from './output.js'
import type { Change } from './quota.js'

const JSON_DOCUMENT = ['--json', 'one JSON document'] as const

/** @param failed makes the exit code 1 */
export function addSubvolumeCommands(root: Command, io: Io, failed: () => void): void {
  const work = () => import('./subvolume.js')
  const group = root.command('subvolume').description('make, delete and change subvolumes; `subvolumes` lists them')

  group
    .command('create')
    .description('make an empty subvolume')
    .argument('<path>', 'where; its directory must exist')
    .option('-i, --inherit <qgroup>', 'a quota group that it belongs to, like 1/100 (repeatable)', list)
    .option(...JSON_DOCUMENT)
    .action(async (path: string, options) => (await work()).create(io, path, options))
  group
    .command('snapshot')
    .description('take a snapshot of a subvolume')
    .argument('<source>', 'a subvolume')
    .argument('<destination>', 'where; must not exist, its directory must')
    .option('-r, --read-only', 'nothing can be changed in it')
    .option('-R, --recursive', 'of every subvolume in it too, each in its place')
    .option('-i, --inherit <qgroup>', 'a quota group that it belongs to, like 1/100 (repeatable)', list)
    .option(...JSON_DOCUMENT)
    .action(async (source: string, destination: string, options) =>
      (await work()).snapshot(io, source, destination, options),
    )
  group
    .command('delete')
    .description('delete subvolumes with all that is in them, and wait until their space is free; cannot be undone')
    .argument('<paths...>', 'subvolumes of one volume; with --id any directory on it')
    .option('-i, --id <n>', 'the one with this number, also where no path leads to it', whole(256, 2 ** 53 - 1))
    .option('-R, --recursive', 'also the subvolumes in them; else those are left alone')
    .option('--per-second <n>', 'at most so many, so that others are not held up', number(0.001, 1e6))
    .option('--no-wait', 'do not wait for the space')
    .option(...JSON_DOCUMENT)
    .addHelpText(
      'after',
      note(
        'Exit code 1 when one could not be deleted. The others are, but not those of its tree where that was known before.',
      ),
    )
    .action(async (paths: string[], options) => {
      if (!(await (await work()).remove(io, paths, options))) failed()
    })
  group
    .command('show')
    .description('all that is known of one')
    .argument('<path>', 'a subvolume')
    .option(...JSON_DOCUMENT)
    .action(async (path: string, options) => (await work()).show(io, path, options))
  group
    .command('readonly')
    .description('whether it is read-only; with on or off, make it so')
    .argument('<path>', 'a subvolume')
    .argument('[state]', 'on or off', onOff)
    .option('--force', 'make a received one writable: incremental receives on it fail from then on')
    .option(...JSON_DOCUMENT)
    .action(async (path: string, state: boolean | undefined, options) =>
      (await work()).readonly(io, path, state, options),
    )
  group
    .command('default')
    .description('the subvolume that is mounted where none is named')
    .argument('<path>', 'any directory on the volume; with --set the subvolume')
    .option('--set', 'from now on this one')
    .option(...JSON_DOCUMENT)
    .action(async (path: string, options) => (await work()).standard(io, path, options))
}

export function addQuotaCommands(root: Command, io: Io): void {
  const work = () => import('./quota.js')
  const group = root
    .command('quota')
    .enablePositionalOptions()
    .description('quota groups: what they count, limits, who belongs to whom')
    .argument('<path>', 'any directory on the volume')
    .option('--json', 'one JSON document; null when quota is off')
    .action(async (path: string, options: { json?: boolean }) => (await work()).quota(io, path, options))
  const volume = ['<path>', 'any directory on the volume'] as const
  const qgroup = ['<qgroup>', 'level/id, like 0/257 or 1/100'] as const
  const change = async (path: string, options: { json?: boolean }, run: Change) =>
    (await work()).change(io, path, options, run)
  const json = ['--json', 'one JSON document: quota then; null when it is off'] as const

  group
    .command('enable')
    .description('turn quota on, and wait for the first count')
    .argument(...volume)
    .option('-s, --simple', 'count each extent for the subvolume that wrote it (Linux 6.7)')
    .option(...json)
    .action(async (path: string, options) =>
      change(path, options, async (fs, signal) => {
        await fs.enableQuota({ simple: options.simple, signal })
        if (!options.simple) await fs.rescanQuota({ signal })
      }),
    )
  group
    .command('disable')
    .description('turn quota off; all groups and limits are forgotten')
    .argument(...volume)
    .option(...json)
    .action(async (path: string, options) => change(path, options, (fs, signal) => fs.disableQuota({ signal })))
  group
    .command('rescan')
    .description('count everything anew')
    .argument(...volume)
    .option('-w, --wait', 'until it is done')
    .option(...json)
    .action(async (path: string, { wait = false, json }) =>
      change(path, { json }, (fs, signal) => fs.rescanQuota({ wait, signal })),
    )
  group
    .command('create')
    .description('make an empty quota group')
    .argument(...volume)
    .argument(...qgroup)
    .option(...json)
    .action(async (path: string, id: string, options) =>
      change(path, options, (fs, signal) => fs.createQgroup(id, { signal })),
    )
  group
    .command('destroy')
    .description('take a quota group away')
    .argument(...volume)
    .argument(...qgroup)
    .option(...json)
    .action(async (path: string, id: string, options) =>
      change(path, options, (fs, signal) => fs.destroyQgroup(id, { signal })),
    )
  for (const [name, call, what] of [
    ['assign', 'assignQgroup', 'let a quota group belong to another of a higher level'],
    ['unassign', 'unassignQgroup', 'take a quota group out of another'],
  ] as const) {
    group
      .command(name)
      .description(`${what}; counts anew where that is needed`)
      .argument(...volume)
      .argument(...qgroup)
      .argument('<parent>', 'the other one')
      .option(...json)
      .action(async (path: string, id: string, parent: string, options) =>
        change(path, options, async (fs, signal) => {
          if (await fs[call](id, parent, { signal })) await fs.rescanQuota({ signal })
        }),
      )
  }
  group
    .command('limit')
    .description('how much a quota group may count; writing beyond it fails')
    .argument(...volume)
    .argument(...qgroup)
    .option('--referenced <size>', 'of all that it can reach, like 10GiB; none: no limit', sizeOrNone)
    .option('--exclusive <size>', 'of what nobody else has; none: no limit', sizeOrNone)
    .option(...json)
    .action(async (path: string, id: string, { referenced, exclusive, json }) => {
      if (referenced === undefined && exclusive === undefined)
        throw new BtrmindError('BTRMIND_ERR_OPTION', 'no limit is given; expected --referenced, --exclusive or both')
      const limit = (given: number | 'none' | undefined) => (given === 'none' ? null : given)
      const limits = { referencedBytes: limit(referenced), exclusiveBytes: limit(exclusive) }
      return change(path, { json }, (fs, signal) => fs.limitQgroup(id, { ...limits, signal }))
    })
}
