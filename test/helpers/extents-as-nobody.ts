/** Started by extents.test.ts: becomes nobody, tries everything on the files of the volume given, prints what came of it. */
import { openFilesystem } from '../../src/btrfs/filesystem.js'

process.setgroups?.([])
process.setgid?.(65_534)
process.setuid?.(65_534)
const fs = await openFilesystem(process.argv[2]!)
const tell = async (work: () => unknown) => {
  try {
    const value = await work()
    return value === undefined ? 'permitted' : value
  } catch (error) {
    const { code, hint } = error as { code: string; hint?: string }
    return { code, hint }
  }
}
const rows = async (path: string) => {
  const found = []
  for await (const { lengthBytes } of fs.extents(path)) found.push(lengthBytes)
  return found
}
const figures = async (path: string, recursive = false) => {
  const { files, rewrittenFiles, skipped, diskBytesBefore, unavailable } = await fs.defragment(path, { recursive })
    .result
  return { files, rewrittenFiles, skipped, diskBytesBefore, unavailable }
}
const result: Record<string, unknown> = {}
for (const file of ['own', 'others', 'secret']) {
  const path = `shared/${file}`
  result[file] = {
    extents: await tell(() => rows(path)),
    defragment: await tell(() => figures(path)),
    deduplicate: await tell(() => fs.deduplicate('shared/own', {}, [{ path }]).result),
    clone: await tell(() => fs.clone('shared/own', path)),
    cloneFrom: await tell(() => fs.clone(path, `shared/new-${file}`, { create: true })),
    compression: await tell(() => fs.compressionProperty(path)),
    setCompression: await tell(() => fs.setCompressionProperty(path, 'zstd')),
    attributes: await tell(async () => (await fs.attributes(path)).noatime),
    setAttributes: await tell(() => fs.setAttributes(path, { noatime: true })),
    immutable: await tell(() => fs.setAttributes(path, { immutable: true })),
    readEncoded: await tell(() => fs.readEncoded(path).next()),
    writeEncoded: await tell(() =>
      fs.writeEncoded(path, { data: Buffer.alloc(100), compression: 'zstd', unencodedLengthBytes: 4096 }),
    ),
  }
}
result.tree = await tell(() => figures('shared', true))
process.stdout.write(JSON.stringify(result))
await fs.close()
