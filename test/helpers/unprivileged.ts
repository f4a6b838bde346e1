/**
 * Started by subvolumes.test.ts: becomes nobody, tries everything on the volume given, prints what came of it.
 * `unprivileged.ts <volume> remove`: only deletes its own, by id.
 */
import { openFilesystem } from '../../src/btrfs/filesystem.js'

const refused = async (promise: Promise<unknown>) => {
  try {
    await promise
    return 'permitted'
  } catch (error) {
    const { code, hint, message } = error as { code: string; hint: string; message: string }
    return { code, hint, message }
  }
}

process.setgroups?.([])
process.setgid?.(65_534)
process.setuid?.(65_534)
await using fs = await openFilesystem(process.argv[2]!)
if (process.argv[3] === 'remove') {
  const { id } = await fs.subvolume('users/mine')
  process.stdout.write(JSON.stringify(await refused(fs.deleteSubvolume('users/mine', { id }))))
  process.exit()
}
await fs.createSubvolume('users/mine')
const paths = async (below?: string) => {
  const out: string[] = []
  for await (const row of fs.subvolumes(below === undefined ? {} : { below })) out.push(row.path)
  return out
}
const result = {
  listed: await paths(),
  own: await fs.subvolume('users/mine'),
  below: await paths('users'),
  create: await refused(fs.createSubvolume('a/x')),
  delete: await refused(fs.deleteSubvolume('users/mine')),
  deleteManyAndWait: await refused(fs.deleteSubvolumes(['users/mine']).result),
  deleteAndWait: await refused(fs.deleteSubvolume('users/mine', { waitUntilFreed: true })),
}
process.stdout.write(JSON.stringify(result))
