/** Subvolumes that their path does not lead to: covered by a mount, named in bytes that are no UTF-8, too deep. */
import { spawn } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmdirSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { useFreshVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

describe.skipIf(cannotMount)('subvolumes that their path does not lead to', () => {
  const undo: (() => void)[] = []
  const { volume, fs, at } = useFreshVolume({ devicesMiB: [512] })
  // Before the volume is taken away.
  const mounted = (...args: string[]) => {
    run('mount', ...args)
    undo.push(() => run('umount', args.at(-1)!))
  }
  afterEach(() => {
    for (const step of undo.splice(0).reverse()) step()
  })

  const noise = () => run('head', '-c', '300000', '/dev/urandom')
  /** a with `small` inside, and `other`, which is larger. */
  async function nested() {
    for (const path of ['a', 'a/small', 'other']) await fs.createSubvolume(path)
    writeFileSync(at('a/small/mine'), noise())
    writeFileSync(at('other/theirs'), noise() + noise() + noise())
    await fs.sync()
  }

  it.each(['a subvolume', 'a tmpfs'])('snapshotTree() takes what lies under %s that is mounted there', async (what) => {
    await nested()
    const content = readFileSync(at('a/small/mine'))
    if (what === 'a tmpfs') mounted('-t', 'tmpfs', 'tmpfs', at('a/small'))
    else mounted('-o', 'subvol=other', volume.loops[0]!, at('a/small'))
    await fs.snapshotTree('a', 'copy', { readonly: true })
    expect(readdirSync(at('copy/small'))).toEqual(['mine'])
    expect(readFileSync(at('copy/small/mine')).equals(content)).toBe(true)
  })

  it.each(['a subvolume', 'a tmpfs'])('reports read what lies under %s that is mounted there', async (what) => {
    await nested()
    const reports = async () => {
      const nestedToo = { subvolume: 'a', nested: true } as const
      const { subvolumes, files, diskBytes } = await fs.compression(nestedToo).result
      const { totalBytes } = await fs.du(nestedToo).result
      const fragmentation = await fs.fragmentation({ ...nestedToo, consistent: true }).result
      return { subvolumes, files, diskBytes, totalBytes, pieces: fragmentation.extents }
    }
    const before = await reports()
    expect(before.subvolumes).toBe(2)
    if (what === 'a tmpfs') mounted('-t', 'tmpfs', 'tmpfs', at('a/small'))
    else mounted('-o', 'subvol=other', volume.loops[0]!, at('a/small'))
    expect(await reports()).toEqual(before)
  })

  it('names that are no UTF-8 are told in bytes, reported and snapshotted', async () => {
    await fs.createSubvolume('a')
    const odd = Buffer.concat([Buffer.from(at('a/')), Buffer.from([0x6f, 0xff, 0x64])])
    run('sh', '-c', `btrfs subvolume create "$(printf '${at('a')}/o\\377d')"`)
    writeFileSync(Buffer.concat([odd, Buffer.from('/file')]), noise())
    await fs.sync()
    const found = []
    for await (const row of fs.subvolumes()) found.push(row)
    expect(found.map(({ path, absolutePath }) => [path, absolutePath])).toEqual([
      ['a', at('a')],
      ['a/o\uFFFDd', undefined],
    ])
    expect(found[0]!.pathBytes).toBeUndefined()
    expect(Buffer.from(found[1]!.pathBytes!)).toEqual(Buffer.from('a/o\xffd', 'latin1'))
    const report = await fs.compression({ subvolume: 'a', nested: true }).result
    expect(report).toMatchObject({ subvolumes: 2, skippedSubvolumes: 0, files: 1 })
    await fs.snapshotTree('a', 'copy')
    expect(readdirSync(at('copy'), { encoding: 'buffer' })).toEqual([Buffer.from('o\xffd', 'latin1')])
    const copied = Buffer.concat([Buffer.from(at('copy/')), Buffer.from('o\xffd/file', 'latin1')])
    expect(readFileSync(copied)).toEqual(readFileSync(Buffer.concat([odd, Buffer.from('/file')])))
  })

  it('a path of more than 4 KiB is no hindrance to id and report', async () => {
    const name = 'n'.repeat(200)
    await fs.createSubvolume('deep')
    // The kernel mounts none that is too deep itself: the second half is made from a mount of the first.
    const half = Array.from({ length: 12 }, () => name)
    const make = async (top: string) => {
      for (let depth = 1; depth <= half.length; depth++) await fs.createSubvolume(join(top, ...half.slice(0, depth)))
      return fs.subvolume(join(top, ...half))
    }
    const { id: middle } = await make(at('deep'))
    const mount = `${volume.directory}/middle`
    mkdirSync(mount)
    undo.push(() => rmdirSync(mount))
    mounted('-o', `subvolid=${middle}`, volume.loops[0]!, mount)
    const { id } = await make(mount)
    await fs.sync()
    const deepest = await fs.subvolume(id)
    expect(deepest.path).toBe(join('deep', ...half, ...half))
    expect(deepest.path.length).toBeGreaterThan(4096)
    expect(await fs.compression({ nested: true }).result).toMatchObject({ subvolumes: 26, skippedSubvolumes: 0 })
    for (const step of undo.splice(0).reverse()) step()
    await fs.deleteSubvolume(id, { waitUntilFreed: true })
    await expect(fs.subvolume(id)).rejects.toMatchObject({ code: 'ENOENT' })
  })

  it('one that is being renamed is in the list once, and so is what lies in it', async () => {
    for (const path of ['here', 'here/inner', 'still']) await fs.createSubvolume(path)
    const go = at('go')
    writeFileSync(go, '')
    const script = `while [ -e ${go} ]; do mv -T ${at('here')} ${at('there')}; mv -T ${at('there')} ${at('here')}; done`
    const renaming = spawn('sh', ['-c', script])
    const ended = new Promise((resolve) => renaming.once('exit', resolve))
    try {
      for (let i = 0; i < 1_500; i++) {
        const paths = []
        for await (const { path } of fs.subvolumes()) paths.push(path)
        expect(paths.join(' ')).toMatch(/^(t?here) \1\/inner still$/)
      }
    } finally {
      unlinkSync(go)
      await ended
    }
  })

  it('absolutePath leads there by the mount that was opened, or is not told', async () => {
    for (const path of ['projects', 'projects/work', 'work', 'projects/work/inner']) await fs.createSubvolume(path)
    mkdirSync(at('data'))
    const mount = `${volume.directory}/second`
    mkdirSync(mount)
    undo.push(() => rmdirSync(mount))
    mounted('-o', 'subvol=projects', volume.loops[0]!, mount)
    const paths = async (from: typeof fs) => {
      const out: Record<string, string | undefined> = {}
      for await (const { path, absolutePath } of from.subvolumes()) out[path] = absolutePath
      return out
    }
    await using second = await openFilesystem(mount)
    expect(await paths(second)).toEqual({
      projects: mount,
      'projects/work': join(mount, 'work'),
      'projects/work/inner': join(mount, 'work/inner'),
      work: undefined,
    })
    expect((await second.subvolume('work')).absolutePath).toBe(join(mount, 'work'))
    await using inner = await openFilesystem(at('data'))
    for (const [path, absolutePath] of Object.entries(await paths(inner))) expect(absolutePath).toBe(at(path))
    expect((await fs.subvolume(5)).absolutePath).toBe(volume.path)
  })
})
