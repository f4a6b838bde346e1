/**
 * Started by subvolumes.test.ts under strace, which holds each ioctl on `<volume>/<names>` up before it is in the
 * kernel: deletes `it` by its id, and meanwhile `bystander` takes its name. Prints what is left, and how it ended.
 */
import { readdirSync, readFileSync, renameSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { openFilesystem } from '../../src/btrfs/filesystem.js'

const [volume, names] = process.argv.slice(2) as [string, string]
/** BTRFS_IOC_SNAP_DESTROY_V2 and the one before it, as /proc/self/task/<id>/syscall has them. */
const DESTROY = / 0x500094[30]f /
const isHeldUp = () =>
  readdirSync('/proc/self/task').some((id) => {
    try {
      return DESTROY.test(readFileSync(`/proc/self/task/${id}/syscall`, 'utf8'))
    } catch {
      return false // A thread that has ended.
    }
  })

await using fs = await openFilesystem(volume)
process.chdir(`${volume}/${names}`)
const make = async (name: string) => {
  await fs.createSubvolume(`${names}/${name}`)
  return (await fs.subvolume(`${names}/${name}`)).id
}
for (let round = 0, inTime = false; round < 20 && !inTime; round++) {
  for (const left of readdirSync('.')) await fs.deleteSubvolume(`${names}/${left}`)
  const bystander = await make('bystander')
  const id = await make('it')
  let ended = false
  const deleting = fs.deleteSubvolume(`${names}/it`, { id }).finally(() => {
    ended = true
  })
  while (!ended && !isHeldUp()) await sleep(1)
  if (!ended) {
    renameSync('it', 'away')
    renameSync('bystander', 'it')
    // Else the kernel may have been at it already, and the round shows nothing.
    inTime = isHeldUp()
  }
  await deleting
  if (inTime) {
    const spared = (await fs.subvolume(`${names}/it`)).id === bystander
    process.stdout.write(JSON.stringify({ left: readdirSync('.'), spared }))
  }
}
