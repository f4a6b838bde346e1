/** Every tree against `btrfs inspect-internal dump-tree`: which items there are, and what stands in them. */
import { linkSync, mkdirSync, writeFileSync } from 'node:fs'
import { beforeAll, describe, expect, it } from 'vitest'
import { type KernelFilesystem, openFilesystem } from '../../src/btrfs/filesystem.js'
import { type DecodedItem, decode } from '../../src/btrfs/items/types.js'
import type { TreeItem, TreeSearchOptions } from '../../src/btrfs/tree-search.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

async function all(fs: KernelFilesystem, options: TreeSearchOptions): Promise<TreeItem[]> {
  const items: TreeItem[] = []
  for await (const item of fs.treeSearch(options)) items.push(item)
  return items
}
type Kind = DecodedItem['kind']
/** Whole, as an older kernel wrote it. */
const OLDER: Readonly<Record<string, number>> = { ROOT_ITEM: 239, QGROUP_STATUS: 32 }
/** One whose kind may be K, as K. */
type As<K, D = DecodedItem> = D extends { kind: infer Kinds } ? (K extends Kinds ? D & { kind: K } : never) : never
const of = <K extends Kind>(items: readonly TreeItem[], kind: K) =>
  items.flatMap((item) => {
    const decoded = item.decode()
    return decoded?.kind === kind ? [{ ...item, ...(decoded as unknown as As<K>) }] : []
  })
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString()

describe.skipIf(cannotMount)('treeSearch()', () => {
  const { volume, fs, at } = useVolume({ devicesMiB: [512, 512], data: 'raid1', metadata: 'raid1' })
  let subvolume: number
  beforeAll(async () => {
    await fs.enableQuota()
    await fs.createSubvolume('sub')
    mkdirSync(at('sub/directory'))
    writeFileSync(at('sub/inline'), 'small')
    writeFileSync(at('sub/regular'), Buffer.alloc(1_000_000, 'x'))
    run('python3', '-c', "import os, sys; os.setxattr(sys.argv[1], 'user.colour', b'blue')", at('sub/regular'))
    run('fallocate', '-l', '2M', at('sub/reserved'))
    for (let i = 0; i < 100; i++) linkSync(at('sub/inline'), at(`sub/directory/${'n'.repeat(240)}${i}`))
    for (let i = 0; i < 3000; i++) writeFileSync(at(`sub/directory/file ${i}`), '')
    await fs.snapshot('sub', 'snapshot', { readonly: true })
    run('cp', '--reflink=always', at('sub/regular'), at('sub/cloned'))
    await fs.createQgroup('1/7')
    subvolume = (await fs.subvolume('sub')).id
    await fs.assignQgroup(`0/${subvolume}`, '1/7')
    await fs.limitQgroup('1/7', { referencedBytes: 1e9 })
    await fs.rescanQuota()
    await fs.sync()
  }, 60_000)

  const dump = (tree: number) => run('btrfs', 'inspect-internal', 'dump-tree', '-t', `${tree}`, volume.images[0]!)

  it.each([
    ['root', 1],
    ['extent', 2],
    ['chunk', 3],
    ['dev', 4],
    ['fs', 5],
    ['csum', 7],
    ['quota', 8],
    ['uuid', 9],
    ['free-space', 10],
    [undefined, 256],
  ] as const)('gives every item of tree %s (%i), as long as dump-tree has it', async (name, id) => {
    const printed = [...dump(id).matchAll(/^\titem \d+ key \((.*) itemoff \d+ itemsize (\d+)$/gm)]
    const sizes = printed.map(([, , size]) => Number(size))
    const types = printed.map(([, key]) => /(\b[A-Z_]{4,}\b|\bUNTYPED\b)(?= \S+\)$)/.exec(key!)?.[1])
    const items = await all(fs, { tree: name ?? id })
    expect(items.length).toBeGreaterThan(0)
    expect(items.map(({ data }) => data.length)).toEqual(sizes)
    const known = items.filter((_, index) => types[index] !== undefined)
    expect(known.length).toBeGreaterThan(items.length / 2)
    expect(known.map((item) => item.typeName)).toEqual(types.filter((type) => type !== undefined))
    for (const item of items) item.decode()
  })

  it('decodes what the files are', async () => {
    const items = await all(fs, { tree: subvolume })
    const named = of(items, 'dir-index').flatMap(({ entries }) => entries)
    const inodeOf = (name: string) => named.find((entry) => text(entry.name) === name)!.location.objectid
    const inodes = of(items, 'inode')
    const regular = inodes.find(({ objectid }) => objectid === inodeOf('regular'))!
    const [mtime, ctime, mode] = run('stat', '-c', '%.9Y %.9Z %f', at('sub/regular')).split(' ')
    expect(regular).toMatchObject({ sizeBytes: 1_000_000, links: 1, uid: 0, mode: Number.parseInt(mode!, 16) })
    expect(regular.mtimeMs).toBeCloseTo(Number(mtime) * 1e3, 2)
    expect(regular.ctimeMs).toBeCloseTo(Number(ctime) * 1e3, 2)
    const extents = of(items, 'file-extent')
    const on = (name: string) => extents.filter(({ objectid }) => objectid === inodeOf(name))
    const inline = on('inline')
    expect(inline).toHaveLength(1)
    expect(inline[0]).toMatchObject({ layout: 'inline', compression: 'none' })
    expect(inline[0]!.layout === 'inline' && text(inline[0]!.data)).toBe('small')
    expect(on('reserved').every(({ layout }) => layout === 'preallocated')).toBe(true)
    const printed = /extent data disk byte (\d+) nr (\d+)\n\t\textent data offset (\d+) nr (\d+) ram (\d+)/
    const key = `key (${inodeOf('regular')} EXTENT_DATA 0)`
    const [, start, bytes, offset, length, ram] = printed.exec(dump(subvolume).split(key)[1]!)!.map(Number)
    expect(on('regular')[0]).toMatchObject({
      layout: 'regular',
      diskLogicalBytes: start,
      diskBytes: bytes,
      offsetBytes: offset,
      lengthBytes: length,
      ramBytes: ram,
    })
    expect(of(items, 'xattr').flatMap(({ entries }) => entries.map((e) => `${text(e.name)}=${text(e.data)}`))).toEqual([
      'user.colour=blue',
    ])
    const refs = of(items, 'inode-ref').filter(({ objectid }) => objectid === inodeOf('inline'))
    const more = of(items, 'inode-extref').filter(({ objectid }) => objectid === inodeOf('inline'))
    expect(more.length).toBeGreaterThan(0)
    expect([...refs, ...more].flatMap(({ names }) => names)).toHaveLength(101)
    expect(new Set(more.flatMap(({ names }) => names.map((n) => n.parent)))).toEqual(new Set([inodeOf('directory')]))
  })

  it('decodes subvolumes, their places and UUIDs', async () => {
    const items = await all(fs, { tree: 'root' })
    for (const path of ['sub', 'snapshot']) {
      const known = await fs.subvolume(path)
      const root = of(items, 'root').find(({ objectid }) => objectid === BigInt(known.id))!
      expect(root).toMatchObject({ flags: known.readonly ? 1n : 0n })
      expect(root.details).toMatchObject({ uuid: known.uuid, parentUuid: known.parentUuid })
      expect(new Date(root.details!.createdMs).getTime()).toBeCloseTo(known.createdAt.getTime(), -1)
      const back = of(items, 'root-backref').find(({ objectid }) => objectid === BigInt(known.id))!
      expect([back.offset, text(back.name)]).toEqual([5n, path])
      const uuids = of(await all(fs, { tree: 'uuid' }), 'uuid-subvolume')
      expect(uuids.find(({ uuid }) => uuid === known.uuid)?.subvolumeIds).toEqual([known.id])
    }
  })

  it('decodes what is where: chunks, devices, block groups, extents, checksums, free space', async () => {
    const chunks = of(await all(fs, { tree: 'chunk' }), 'chunk')
    const groups = await fs.blockGroups()
    expect(
      chunks.map((c) => [Number(c.offset), c.lengthBytes, c.stripes.map((s) => [s.devid, s.offsetBytes])]),
    ).toEqual(groups.map((g) => [g.logicalBytes, g.sizeBytes, g.stripes.map((s) => [s.devid, s.offsetBytes])]))
    const devices = await fs.devices()
    expect(of(await all(fs, { tree: 'chunk' }), 'dev').map((d) => [d.devid, d.sizeBytes, d.uuid])).toEqual(
      devices.map((d) => [d.devid, d.sizeBytes, d.uuid]),
    )
    const parts = of(await all(fs, { tree: 'dev' }), 'dev-extent')
    expect(parts.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)).toBe(
      devices.reduce((sum, { allocatedBytes }) => sum + allocatedBytes, 0),
    )
    const extent = await all(fs, { tree: 'extent' })
    expect(of(extent, 'block-group').map((g) => g.usedBytes)).toEqual(groups.map((g) => g.usedBytes))
    const metadata = of(extent, 'metadata')
    expect(metadata.length).toBeGreaterThan(10)
    expect(metadata.every(({ flags, inlineRefs }) => flags & 2n && inlineRefs.length > 0)).toBe(true)
    const data = of(extent, 'extent').filter(({ flags }) => flags & 1n)
    // By the original and by the clone; the snapshot shares the leaf, as the counters of references do.
    const shared = data.filter(({ inlineRefs }) => inlineRefs.length > 1)
    expect(shared.length).toBeGreaterThan(0)
    for (const { refs, inlineRefs } of data) {
      const counted = inlineRefs.map((ref) => ('count' in ref ? ref.count : 1))
      expect(counted.reduce((sum, count) => sum + count, 0)).toBe(refs)
    }
    const checksums = of(await all(fs, { tree: 'csum' }), 'csum')
    expect(checksums.reduce((sum, { checksums }) => sum + checksums.length, 0)).toBe(4 * Math.ceil(1_000_000 / 4096))
    const free = await all(fs, { tree: 'free-space' })
    // mkfs.btrfs leaves those of block groups behind that it took away again.
    const inGroups = <T extends { objectid: bigint }>(rows: T[]) =>
      rows.filter(({ objectid }) => objectid >= groups[0]!.logicalBytes)
    const infos = inGroups(of(free, 'free-space-info'))
    expect(infos.map(({ objectid }) => Number(objectid))).toEqual(groups.map((g) => g.logicalBytes))
    const extents = inGroups(of(free, 'free-space-extent'))
    expect(infos.map((info) => info.extents).reduce((a, b) => a + b)).toBe(extents.length)
    const bytes = extents.reduce((sum, { lengthBytes }) => sum + Number(lengthBytes), 0)
    expect(bytes).toBe(groups.reduce((sum, g) => sum + g.sizeBytes - g.usedBytes!, 0))
  })

  it('decodes quota groups', async () => {
    const items = await all(fs, { tree: 'quota' })
    const known = (await fs.quota())!.qgroups
    expect(of(items, 'qgroup-info').map((q) => [q.qgroup, q.referencedBytes, q.exclusiveBytes])).toEqual(
      known.map((q) => [q.id, q.referencedBytes, q.exclusiveBytes]),
    )
    expect(of(items, 'qgroup-limit').find((q) => q.qgroup === '1/7')).toMatchObject({
      maxReferencedBytes: 1e9,
      maxExclusiveBytes: undefined,
    })
    expect(of(items, 'qgroup-relation').map((q) => [q.from, q.to])).toEqual([
      [`0/${subvolume}`, '1/7'],
      ['1/7', `0/${subvolume}`],
    ])
    expect(of(items, 'qgroup-status')).toHaveLength(1)
  })

  it('keeps to the range, and to what is asked for at once', async () => {
    const items = await all(fs, { tree: subvolume })
    expect(items.length).toBeGreaterThan(6000)
    const keys = (list: readonly TreeItem[]) => list.map((i) => `${i.objectid} ${i.type} ${i.offset}`)
    const [first, last] = [100, 5000].map((row) => {
      const { objectid, type, offset } = items[row]!
      return { objectid, type, offset }
    })
    expect(keys(await all(fs, { tree: subvolume, min: first, max: last }))).toEqual(keys(items.slice(100, 5001)))
    const { generation } = await fs.subvolume('sub')
    expect(await all(fs, { tree: subvolume, sinceGeneration: generation + 1 })).toEqual([])
    // Tree 0 is the one that was opened.
    await using inner = await openFilesystem(at('sub'))
    expect(keys(await all(inner, { tree: 0, max: { objectid: 256 } }))).toEqual(
      keys(items.filter(({ objectid }) => objectid <= 256n)),
    )
    const search = fs.treeSearch({ tree: subvolume })
    const together = await Promise.all([search.next(), search.next(), search.next()])
    expect(keys(together.map(({ value }) => value))).toEqual(keys(items.slice(0, 3)))
    await search.return!()
    expect(await search.next()).toEqual({ done: true, value: undefined })
  })

  it('refuses what it does not know', async () => {
    expect(() => fs.treeSearch({ tree: 'chunks' as 'chunk' })).toThrow(/one of root, extent, chunk.*'chunks'/)
    expect(() => fs.treeSearch({ tree: 'fs', mim: {} } as never)).toThrow(/did you mean 'min'/)
    expect(() => fs.treeSearch({ tree: 'fs', min: { objectid: -1 } })).toThrow('-1')
    expect(() => fs.treeSearch({ tree: 'fs', min: { type: 256 } })).toThrow('256')
    expect(() => fs.treeSearch({ tree: 'fs', max: { offset: 2n ** 64n } })).toThrow('18446744073709551616n')
    await expect(all(fs, { tree: 99_999 })).rejects.toMatchObject({ code: 'ENOENT', hint: 'there is no tree 99999' })
    await expect(all(fs, { tree: 'fs', signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough')
    const other = await openFilesystem(volume.path)
    const search = other.treeSearch({ tree: 'fs' })
    await other.close()
    await expect(search.next()).rejects.toMatchObject({ code: 'EBADF' })
  })

  it('never makes fields of what is cut short', async () => {
    let cut = 0
    for (const tree of ['root', 'chunk', 'dev', 'quota', 'extent', subvolume] as const) {
      const seen = new Set<number>()
      for (const item of await all(fs, { tree })) {
        if (seen.has(item.type)) continue
        seen.add(item.type)
        const whole = item.decode()
        if (whole === undefined) continue
        for (let length = 0; length < item.data.length; length++) {
          if (OLDER[item.typeName] === length) continue
          let decoded: DecodedItem | undefined
          try {
            decoded = decode(item, item.data.subarray(0, length))
          } catch (error) {
            expect(error).toMatchObject({ code: 'EUCLEAN', message: expect.stringContaining(item.typeName) })
            cut++
            continue
          }
          // A list that ends where an entry ends is a shorter list; else nothing is left out unseen.
          const lists = Object.values(decoded ?? {}).filter(
            (value) => Array.isArray(value) || value instanceof Uint8Array,
          )
          if (lists.length === 0) expect([item.typeName, length, decoded]).toEqual([item.typeName, length, undefined])
        }
      }
    }
    expect(cut).toBeGreaterThan(1000)
  })
})
