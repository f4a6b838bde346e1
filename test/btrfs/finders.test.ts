import { linkSync, mkdirSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { describe, expect, it, vi } from 'vitest'
import type { FileRow } from '../../src/btrfs/batch.js'
import { native } from '../../src/native.js'
import { createRandom } from '../../src/random.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

async function collect(rows: AsyncIterable<FileRow>): Promise<string[]> {
  const paths: string[] = []
  for await (const { path } of rows) paths.push(path)
  return paths.sort()
}

describe.skipIf(cannotMount)('largest(), inactive(), changed()', () => {
  const { fs, at } = useVolume({ devicesMiB: [1024] })
  const find = (...args: string[]) =>
    run('find', ...args, '-printf', '%P\\n')
      .trimEnd()
      .split('\n')
      .filter((path) => path !== '')
      .sort()

  it('the largest: those that find sorts to the top, hard links once, by either size', async () => {
    const random = createRandom(1)
    mkdirSync(at('sizes/below'), { recursive: true })
    for (let i = 0; i < 500; i++)
      writeFileSync(at('sizes/below', `${i}`), Buffer.alloc(Math.floor(random.next() * 1e5)))
    run('truncate', '-s', '5G', at('sizes/sparse'))
    for (let i = 0; i < 5; i++) linkSync(at('sizes/sparse'), at('sizes', `link ${i}`))
    symlinkSync('sparse', at('sizes/symlink'))
    const sorted = (field: string) =>
      run('find', at('sizes'), '-type', 'f', '-not', '-name', 'link*', '-printf', `${field} %P\\n`)
        .trimEnd()
        .split('\n')
        .map((line) => Number(line.split(' ')[0]))
        .sort((a, b) => b - a)
    const found = await fs.largest(20, { subvolume: 'sizes' })
    expect(found.map(({ sizeBytes }) => sizeBytes)).toEqual(sorted('%s').slice(0, 20))
    expect(found[0]).toMatchObject({ sizeBytes: 5 * 2 ** 30, diskBytes: 0, links: 6 })
    expect(Buffer.from(found[1]!.pathBytes).toString()).toBe(found[1]!.path)
    const taken = await fs.largest(7, { subvolume: 'sizes', by: 'diskBytes' })
    expect(taken.map(({ diskBytes }) => diskBytes / 512)).toEqual(sorted('%b').slice(0, 7))
    expect(await fs.largest(10_000, { subvolume: 'sizes' })).toHaveLength(501)
  })

  it('the inactive: by the youngest of their three times', async () => {
    mkdirSync(at('ages'))
    for (const name of ['a', 'b', 'large']) writeFileSync(at('ages', name), name === 'large' ? Buffer.alloc(5000) : '')
    // Times of content that were set back make no file old: its change time is now.
    utimesSync(at('ages/a'), 0, 0)
    expect(await collect(fs.inactive(60_000, { subvolume: 'ages' }))).toEqual([])
    expect(await collect(fs.inactive(0, { subvolume: 'ages' }))).toEqual(['a', 'b', 'large'])
    expect(await collect(fs.inactive(0, { subvolume: 'ages', minimumBytes: 5000 }))).toEqual(['large'])
    await vi.waitFor(async () => expect(await collect(fs.inactive(150, { subvolume: 'ages' }))).toHaveLength(3))
    run('touch', at('ages/b'))
    expect(await collect(fs.inactive(150, { subvolume: 'ages' }))).not.toContain('b')
  })

  it('what changed since a snapshot: all of it and nothing else', async () => {
    await fs.createSubvolume('home')
    mkdirSync(at('home/dir/deep'), { recursive: true })
    for (let i = 0; i < 200; i++) writeFileSync(at('home/dir', `${i}`), 'x')
    // In the very transaction that takes the snapshot: it has this.
    writeFileSync(at('home/dir/last'), 'y')
    await fs.snapshot('home', 'before', { readonly: true })
    expect(await collect(fs.changed('before', { subvolume: 'home' }))).toEqual([])
    writeFileSync(at('home/dir/7'), 'changed')
    writeFileSync(at('home/dir/deep/new'), '')
    renameSync(at('home/dir/9'), at('home/dir/nine'))
    rmSync(at('home/dir/11'))
    run('chmod', '600', at('home/dir/13'))
    const expected = ['dir', 'dir/13', 'dir/7', 'dir/deep', 'dir/deep/new', 'dir/nine']
    expect(await collect(fs.changed('before', { subvolume: 'home' }))).toEqual(expected)
    const { originGeneration } = await fs.subvolume('before')
    expect(await collect(fs.changed(originGeneration + 1, { subvolume: 'home' }))).toEqual(expected)
    expect(await collect(fs.changed('before', { subvolume: 'home/dir/deep' }))).toEqual(['', 'new'])
    // As find sees it by change times, which taking a snapshot gives the subvolume's own directory too.
    expect(find(at('home'), '-newercc', at('before/dir/last'))).toEqual(expect.arrayContaining(expected))
  })

  it('what changed between two snapshots of the same, also after a balance', async () => {
    await fs.createSubvolume('work')
    for (const name of ['kept', 'changed']) writeFileSync(at('work', name), name)
    await fs.snapshot('work', 'monday', { readonly: true })
    writeFileSync(at('work/changed'), 'differently')
    await fs.snapshot('work', 'tuesday', { readonly: true })
    writeFileSync(at('work/later'), '')
    await fs.balance({ metadata: {} }).result
    expect(await collect(fs.changed('monday', { subvolume: 'tuesday' }))).toEqual(['changed'])
    await expect(collect(fs.changed('tuesday', { subvolume: 'monday' }))).rejects.toThrow(/earlier one.*'tuesday'/)
  })

  it('a generation that is not there yet is refused, and the next one is not', async () => {
    await fs.sync()
    const { generation } = await fs.info()
    expect(await collect(fs.changed(generation! + 1))).toEqual([])
    const scanned: string[] = []
    const scan = async (sinceGeneration: number) => {
      for await (const batch of fs.scan({ sinceGeneration }))
        for (let i = 0; i < batch.length; i++) scanned.push(batch.path(i))
    }
    await scan(generation! + 1)
    expect(scanned).toEqual([])
    const said = new RegExp(`at most ${generation! + 1}, the volume being at ${generation}; got 1000256`)
    await expect(collect(fs.changed(1_000_256))).rejects.toThrow(said)
    await expect(collect(fs.changed(1_000_256))).rejects.toMatchObject({ code: 'BTRMIND_ERR_ARGUMENT' })
    await expect(scan(1_000_256)).rejects.toThrow(said)
    await expect(collect(fs.changed(generation! + 1000))).rejects.toThrow(/since/)
    // A kernel before 5.10 does not say.
    const info = native.info
    const spy = vi.spyOn(native, 'info').mockImplementation(async (...args) => {
      const { generation: _, ...rest } = await info(...args)
      return rest
    })
    try {
      expect(await collect(fs.changed(1_000_256))).toEqual([])
    } finally {
      spy.mockRestore()
    }
  })

  it('bad input: what is wrong is said', async () => {
    await fs.createSubvolume('other')
    await expect(collect(fs.changed('other', { subvolume: 'home' }))).rejects.toThrow(/snapshot of 'home'.*'other'/)
    await expect(collect(fs.changed(-1))).rejects.toThrow(/since.*-1/)
    await expect(collect(fs.changed('nowhere'))).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(fs.largest(0)).rejects.toThrow(/count.*0/)
    await expect(fs.largest(1, { by: 'size' } as never)).rejects.toThrow(/size/)
    expect(() => fs.inactive(Number.NaN)).toThrow(/ageMs.*NaN/)
    expect(() => fs.inactive(1, { batchSize: 3 } as never)).toThrow(/batchSize/)
    await expect(collect(fs.inactive(1, { subvolume: 'nowhere' }))).rejects.toMatchObject({ code: 'ENOENT' })
  })
})
