/** What the help of a command has beside its options: notes, who may call it, a line to begin with. */
import { type Command, Help } from 'commander'

const COLUMNS = 80

/** For addHelpText: paragraphs, as wide as an ordinary terminal. */
export function note(text: string): string {
  const paragraphs = text.trim().split('\n\n')
  return `\n${paragraphs.map((paragraph) => new Help().boxWrap(paragraph.replaceAll('\n', ' '), COLUMNS)).join('\n\n')}`
}

const NOBODY = 'no privilege'
const ROOT = 'root (CAP_SYS_ADMIN)'
const READ = 'read permission'
const WRITE = 'write permission'
const OWNER = 'to be its owner, or root'

/** By the command's words: what it needs, and an example. */
const COMMANDS: Readonly<Record<string, readonly [needs: string, example: string]>> = {
  usage: [`${NOBODY}; for figures of each device and of RAID5/6 ${ROOT}`, 'usage /mnt/pool'],
  devices: [NOBODY, 'devices /mnt/pool --json'],
  subvolumes: [`${NOBODY} for those below the path; for all ${ROOT}`, 'subvolumes /mnt/pool'],
  scan: [
    `${NOBODY}: it walks; faster, with --extents, --sharing and --since ${ROOT}`,
    'scan /mnt/pool/data --largest 20',
  ],
  du: [ROOT, 'du /mnt/pool --depth 2 --nested'],
  fragmentation: [ROOT, 'fragmentation /mnt/pool/data --worst 20'],
  changed: [ROOT, 'changed /mnt/pool/data --since /mnt/pool/data-yesterday'],
  inactive: [`${NOBODY}: it walks; faster ${ROOT}`, 'inactive /mnt/pool/data --days 90 --minimum 10MiB'],
  scrub: [ROOT, 'scrub /mnt/pool --read-only --limit 200'],
  'scrub status': [ROOT, 'scrub status /mnt/pool'],
  'scrub cancel': [ROOT, 'scrub cancel /mnt/pool'],
  extents: [READ, 'extents /mnt/pool/data/disk.img'],
  defragment: [`${WRITE}; for sizes on disk ${ROOT}`, 'defragment /mnt/pool/data -r -c zstd'],
  deduplicate: [`${READ}, and of the destinations ${WRITE} or to be their owner`, 'deduplicate a.iso copy-of-a.iso'],
  clone: [`${READ}, and of the destination ${WRITE}`, 'clone base.img machine-7.img --create'],
  'encoded read': [ROOT, 'encoded read /mnt/pool/log > log.encoded'],
  'encoded write': [ROOT, 'encoded write /mnt/other/log < log.encoded'],
  'compression report': [ROOT, 'compression report /mnt/pool --nested'],
  'compression get': [READ, 'compression get /mnt/pool/data'],
  'compression set': [WRITE, 'compression set /mnt/pool/data zstd:3'],
  'compression clear': [WRITE, 'compression clear /mnt/pool/data'],
  'attributes get': [READ, 'attributes get /mnt/pool/data'],
  'attributes set': [
    `${OWNER}; for immutable and appendOnly root (CAP_LINUX_IMMUTABLE)`,
    'attributes set /mnt/pool/machines nocow=on',
  ],
  'balance start': [ROOT, 'balance start /mnt/pool -dusage=30,limit=10'],
  'balance plan': [ROOT, 'balance plan /mnt/pool --data convert=raid1,soft'],
  'balance status': [ROOT, 'balance status /mnt/pool'],
  'balance pause': [ROOT, 'balance pause /mnt/pool'],
  'balance cancel': [ROOT, 'balance cancel /mnt/pool'],
  'balance resume': [ROOT, 'balance resume /mnt/pool'],
  reclaim: [ROOT, 'reclaim /mnt/pool --target 50GiB'],
  'device add': [ROOT, 'device add /mnt/pool /dev/sdc'],
  'device remove': [ROOT, 'device remove /mnt/pool 2'],
  'device replace': [ROOT, 'device replace /mnt/pool 2 /dev/sdd'],
  'device replace-status': [ROOT, 'device replace-status /mnt/pool'],
  'device resize': [ROOT, 'device resize /mnt/pool 1 max'],
  'device stats': [`${NOBODY}; for --reset ${ROOT}`, 'device stats /mnt/pool'],
  'device redundancy': [`${NOBODY}; for counts of block groups ${ROOT}`, 'device redundancy /mnt/pool'],
  'device scan': [ROOT, 'device scan /dev/sdc /dev/sdd'],
  'device forget': [ROOT, 'device forget /dev/sdc'],
  'device ready': [ROOT, 'device ready /dev/sdc'],
  'subvolume create': [`${WRITE} to its directory`, 'subvolume create /mnt/pool/work'],
  'subvolume snapshot': [
    `to be the source’s owner, or root; ${WRITE} to the directory`,
    'subvolume snapshot -r /mnt/pool/work /mnt/pool/work-today',
  ],
  'subvolume delete': [
    `${ROOT}; with --no-wait the mount option user_subvol_rm_allowed will do`,
    'subvolume delete /mnt/pool/work-today /mnt/pool/work-old',
  ],
  'subvolume show': [NOBODY, 'subvolume show /mnt/pool/work'],
  'subvolume readonly': [`to change it ${OWNER}`, 'subvolume readonly /mnt/pool/work on'],
  'subvolume default': [ROOT, 'subvolume default /mnt/pool/work --set'],
  quota: [ROOT, 'quota /mnt/pool'],
  'quota enable': [ROOT, 'quota enable /mnt/pool --simple'],
  'quota disable': [ROOT, 'quota disable /mnt/pool'],
  'quota rescan': [ROOT, 'quota rescan /mnt/pool --wait'],
  'quota create': [ROOT, 'quota create /mnt/pool 1/100'],
  'quota destroy': [ROOT, 'quota destroy /mnt/pool 1/100'],
  'quota assign': [ROOT, 'quota assign /mnt/pool 0/257 1/100'],
  'quota unassign': [ROOT, 'quota unassign /mnt/pool 0/257 1/100'],
  'quota limit': [ROOT, 'quota limit /mnt/pool 0/257 --referenced 10GiB'],
  'filesystem label': [`${NOBODY}; to change it ${ROOT}`, 'filesystem label /mnt/pool archive'],
  'filesystem features': [`${NOBODY}; to change them ${ROOT}`, 'filesystem features /mnt/pool'],
  'filesystem sync': [NOBODY, 'filesystem sync /mnt/pool'],
  'filesystem trim': [ROOT, 'filesystem trim /mnt/pool --minimum 1MiB'],
  'filesystem statistics': [`${NOBODY}; for --reset root (CAP_SYS_RESOURCE)`, 'filesystem statistics /mnt/pool'],
  'filesystem reclaim-settings': [
    `${NOBODY}; to change them root`,
    'filesystem reclaim-settings /mnt/pool --threshold 30',
  ],
  'inspect logical': [ROOT, 'inspect logical /mnt/pool 1103101952'],
  'inspect inode': [ROOT, 'inspect inode /mnt/pool/data 257'],
  'inspect subvolume': [ROOT, 'inspect subvolume /mnt/pool 256'],
  'inspect chunks': [ROOT, 'inspect chunks /mnt/pool'],
  'inspect tree': [ROOT, 'inspect tree /mnt/pool chunk --json'],
  run: [
    `${ROOT} for all that it can do; without, it says what it cannot`,
    'run --path /mnt/pool --temp /mnt/pool/tmp --once',
  ],
}

/** Tells each command's help who may call it, with an example. */
export function explain(root: Command): void {
  const below = (command: Command, before: readonly string[]): void => {
    for (const one of command.commands) {
      const words = [...before, one.name()]
      const [needs, example] = COMMANDS[words.join(' ')] ?? []
      if (needs !== undefined) one.addHelpText('after', `${note(`Needs ${needs}.`)}\nExample: btrmind ${example}`)
      below(one, words)
    }
  }
  below(root, [])
}
