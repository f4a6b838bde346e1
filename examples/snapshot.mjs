// Takes a read-only snapshot of a subvolume, keeps the newest few, and says what the deleted ones gave back.
// node examples/snapshot.mjs /mnt/pool/projects /mnt/pool/snapshots [keep]
import { basename, join } from 'node:path'
import { BtrfsError, formatBytes, openFilesystem } from 'btrmind-native'

const [source = '/mnt/pool/projects', directory = '/mnt/pool/snapshots', keep = '3'] = process.argv.slice(2)

try {
  // What is none would keep none.
  if (!/^[1-9]\d*$/.test(keep)) throw new RangeError(`keep: expected a whole number of 1 or more, got '${keep}'`)
  const fs = await openFilesystem(source)
  const { uuid } = await fs.subvolume(source)
  const parent = await fs.directory(directory)
  const name = `${basename(source)}-${new Date().toISOString().replaceAll(':', '')}`
  await fs.snapshot(source, join(directory, name), { readonly: true })
  console.log(`made ${name}`)

  // Snapshots of it may lie elsewhere too: only those directly in this directory are ours to delete.
  const ours = []
  for await (const subvolume of fs.subvolumes()) {
    const { parentUuid, readonly, parentId, directoryInode } = subvolume
    const here = parentId === parent.subvolumeId && directoryInode === parent.inode
    if (here && parentUuid === uuid && readonly) ours.push(subvolume)
  }
  ours.sort((a, b) => b.createdAt - a.createdAt || b.id - a.id)
  for (const { id, path } of ours.slice(Number(keep))) {
    const { freeBytes } = await fs.statfs()
    await fs.deleteSubvolume(join(directory, basename(path)), { id, parent, waitUntilFreed: true })
    const freed = (await fs.statfs()).freeBytes - freeBytes
    console.log(`deleted ${basename(path)}: ${formatBytes(freed)} free again`)
  }
  await fs.close()
} catch (error) {
  if (!(error instanceof BtrfsError || error instanceof RangeError)) throw error
  console.error(error.message)
  process.exitCode = 1
}
