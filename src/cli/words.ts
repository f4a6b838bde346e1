/** The words of the command line: for those of the library, and for those of btrfs that are others here. */

/** What messages and hints call by the library's names. */
const PHRASES: readonly (readonly [RegExp | string, string])[] = [
  [/\benableQuota\(\)/g, 'btrmind quota enable'],
  [/\busage\(\)/g, 'btrmind usage'],
  [/\bdevices\(\)/g, 'btrmind devices'],
  [/\binfo\(\)/g, 'btrmind usage --json'],
  ['`recursive`', '--recursive (-r)'],
  ['`waitUntilFreed: false`', '--no-wait'],
  ['`create`', '--create'],
  ['`force`', '--force'],
  ['`consistent`', '--consistent'],
  ['`level`', '--level'],
  ['`nocompress` needs', '--uncompressed needs'],
  [
    /\bbalance(Plan)?: expected at least one of data, metadata, system; got none/,
    'expected at least one of --data (-d), --metadata (-m), --system (-s); got none',
  ],
]
export const inCommands = (text: string): string =>
  PHRASES.reduce((told, [theirs, ours]) => told.replace(theirs, ours), text)

/** What is typed by habit, and what it is here. */
const HABITS: Readonly<Record<string, string>> = {
  df: 'usage',
  snapshot: 'subvolume snapshot',
  list: 'subvolumes',
  qgroup: 'quota',
  check: 'scrub',
  'subvolume list': 'subvolumes',
  'subvolume get-default': 'subvolume default',
  'subvolume set-default': 'subvolume default --set',
  'subvolume find-new': 'changed --since',
  'filesystem usage': 'usage',
  'filesystem df': 'usage',
  'filesystem du': 'du',
  'filesystem show': 'devices',
  'filesystem defragment': 'defragment',
  'filesystem defrag': 'defragment',
  'filesystem resize': 'device resize',
  'filesystem balance': 'balance start',
  'device usage': 'usage',
  'device delete': 'device remove',
  'property get': 'compression get',
  'property set': 'compression set',
  'property list': 'compression get',
  'qgroup show': 'quota',
  'qgroup create': 'quota create',
  'qgroup destroy': 'quota destroy',
  'qgroup assign': 'quota assign',
  'qgroup remove': 'quota unassign',
  'qgroup limit': 'quota limit',
  'replace start': 'device replace',
  'replace status': 'device replace-status',
  'inspect-internal logical-resolve': 'inspect logical',
  'inspect-internal inode-resolve': 'inspect inode',
  'inspect-internal subvolid-resolve': 'inspect subvolume',
  'inspect-internal dump-tree': 'inspect tree',
}
const GROUPS = ['subvolume', 'filesystem', 'device', 'property', 'qgroup', 'replace', 'inspect-internal']

/**
 * "btrmind subvolumes" for `subvolume list`, which btrfs lets abbreviate.
 * @param commandsOf the commands of a group
 */
export function meant(argv: readonly string[], commandsOf: (group: string) => readonly string[]): string | undefined {
  const [first = '', second = ''] = argv.filter((word) => !word.startsWith('-'))
  const group = (first.length < 2 ? undefined : GROUPS.find((name) => name.startsWith(first))) ?? first
  const exactly = HABITS[`${group} ${second}`] ?? HABITS[group]
  if (exactly !== undefined) return `btrmind ${exactly}`
  if (group === 'scrub') return 'btrmind scrub <path>, which shows its progress until it ends'
  if (group === 'balance' && /[./]/.test(second)) return 'btrmind balance start <path>'
  const known = second.length < 2 ? undefined : commandsOf(group).find((name) => name.startsWith(second))
  return known === undefined ? undefined : `btrmind ${group} ${known}`
}
