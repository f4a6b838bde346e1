// Takes a read-only snapshot of a subvolume, keeps the newest few, and says what the deleted ones gave back.
// node examples/snapshot.mjs /mnt/pool/projects /mnt/pool/snapshots [keep]
import { basename, join } from 'node:path'
import { BtrfsError, formatBytes, openFilesystem } from 'btrmind-native'

const [source = '/mnt/pool/projects', directory = '/mnt/pool/snapshots', keep = '3'] = process.argv.slice(2)

try {
  const fs = await openFilesystem(source)
  const { uuid } = await fs.subvolume(source)
  const name = `${basename(source)}-${new Date().toISOString().replaceAll(':', '')}`
  await fs.snapshot(source, join(directory, name), { readonly: true })
  console.log(`made ${name}`)

  const ours = []
  for await (const subvolume of fs.subvolumes()) {
    if (subvolume.parentUuid === uuid && subvolume.readonly) ours.push(subvolume)
  }
  ours.sort((a, b) => b.createdAt - a.createdAt || b.id - a.id)
  for (const old of ours.slice(Number(keep))) {
    const { freeBytes } = await fs.statfs()
    await fs.deleteSubvolume(join(directory, basename(old.path)), { waitUntilFreed: true })
    const freed = (await fs.statfs()).freeBytes - freeBytes
    console.log(`deleted ${basename(old.path)}: ${formatBytes(freed)} free again`)
  }
  await fs.close()
} catch (error) {
  if (!(error instanceof BtrfsError)) throw error
  console.error(error.message)
  process.exitCode = 1
}
