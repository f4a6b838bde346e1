import { linkSync, mkdirSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { blockGroupKind } from '../../src/btrfs/space.js'
import { useOwnVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

describe.skipIf(cannotMount)('inspect', () => {
  const { volume, fs, at, make } = useOwnVolume()

  it.each([
    { data: 'single', metadata: 'dup', devicesMiB: [512] },
    { data: 'raid0', metadata: 'raid1', devicesMiB: [512, 512] },
    { data: 'raid10', metadata: 'raid1c3', devicesMiB: [512, 512, 512, 512] },
    { data: 'raid5', metadata: 'raid6', devicesMiB: [512, 512, 512] },
    { data: 'single', metadata: 'single', devicesMiB: [256], mkfs: ['--mixed'] },
  ])('block groups: %o, as the trees have them and as usage() sums them up', async (options) => {
    await make(options)
    run('dd', 'if=/dev/urandom', `of=${at('file')}`, 'bs=1M', 'count=20', 'conv=fsync', 'status=none')
    await fs.sync()
    const groups = await fs.blockGroups()
    const sums = (await fs.usage()).blockGroups.map(({ type, profile, sizeBytes, usedBytes }) => [
      type,
      profile,
      sizeBytes,
      usedBytes,
    ])
    const sum = (type: unknown, profile: unknown, key: 'sizeBytes' | 'usedBytes') =>
      groups
        .filter((group) => group.type === type && group.profile === profile)
        .reduce((total, group) => total + group[key]!, 0)
    expect(
      sums.map(([type, profile]) => [type, profile, sum(type, profile, 'sizeBytes'), sum(type, profile, 'usedBytes')]),
    ).toEqual(sums)
    await fs.close()
    run('umount', volume.path)
    const dump = run('btrfs', 'inspect-internal', 'dump-tree', '-t', 'chunk', volume.loops[0]!)
    run('mount', volume.loops[0]!, volume.path)
    const chunks = [...dump.matchAll(/CHUNK_ITEM (\d+)\)[\s\S]*?length (\d+)[\s\S]*?num_stripes (\d+)/g)].map((m) =>
      m.slice(1, 4).map(Number),
    )
    expect(groups.map((group) => [group.logicalBytes, group.sizeBytes, group.stripes.length])).toEqual(chunks)
    const stripes = [...dump.matchAll(/stripe \d+ devid (\d+) offset (\d+)/g)].map((m) => m.slice(1, 3).map(Number))
    expect(groups.flatMap((group) => group.stripes.map(({ devid, offsetBytes }) => [devid, offsetBytes]))).toEqual(
      stripes,
    )
  })

  it('names of an inode, in any subvolume, and none of what is gone', async () => {
    await make()
    mkdirSync(at('a/b'), { recursive: true })
    writeFileSync(at('a/one'), 'x')
    linkSync(at('a/one'), at('a/b/two'))
    linkSync(at('a/one'), at('three'))
    await fs.createSubvolume('sub')
    mkdirSync(at('sub/in'))
    writeFileSync(at('sub/in/file'), '')
    await fs.sync()
    const { ino } = statSync(at('three'))
    expect((await fs.inodePaths(5, ino)).sort()).toEqual(['a/b/two', 'a/one', 'three'])
    expect(run('btrfs', 'inspect-internal', 'inode-resolve', String(ino), volume.path).trim().split('\n')).toHaveLength(
      3,
    )
    expect(await fs.inodePaths((await fs.subvolume('sub')).id, statSync(at('sub/in/file')).ino)).toEqual(['in/file'])
    expect(await fs.inodePaths(5, 256)).toEqual([''])
    unlinkSync(at('a/one'))
    await fs.sync()
    expect((await fs.inodePaths(5, ino)).sort()).toEqual(['a/b/two', 'three'])
    expect(await fs.inodePaths(5, 99_999)).toEqual([])
    const none = { code: 'ENOENT', path: 'subvolume 9999' }
    await expect(fs.inodePaths(9_999, 257)).rejects.toMatchObject(none)
    await expect(fs.inodePaths(5, 0)).rejects.toThrow(/inode/)
  })

  it('files at a logical address, also in snapshots and clones', async () => {
    await make()
    await fs.createSubvolume('sub')
    run('dd', 'if=/dev/urandom', `of=${at('sub/file')}`, 'bs=64k', 'count=2', 'conv=fsync', 'status=none')
    await fs.snapshot('sub', 'snap', { readonly: true })
    run('cp', '--reflink=always', at('sub/file'), at('sub/clone'))
    await fs.sync()
    // filefrag shows the volume's own addresses, in blocks.
    const [, block] = /^ *0:\s+\d+\.\.\s+\d+:\s+(\d+)\.\./m.exec(run('filefrag', '-v', at('sub/file')))!
    const logical = Number(block) * 4096
    const found = async (address: number, options = {}) =>
      (await fs.logicalFiles(address, options))
        .map(({ subvolumeId, offsetBytes, paths }) => `${subvolumeId} ${offsetBytes} ${paths}`)
        .sort()
    const [sub, snap] = [(await fs.subvolume('sub')).id, (await fs.subvolume('snap')).id]
    const all = [`${sub} 0 clone`, `${sub} 0 file`, `${snap} 0 file`].sort()
    expect(await found(logical)).toEqual(all)
    expect(await found(logical + 8192)).toEqual(all.map((row) => row.replace(' 0 ', ' 8192 ')))
    expect(await found(logical + 8192, { wholeExtent: true })).toHaveLength(3)
    expect(await found(2 ** 50)).toEqual([])
    await expect(fs.logicalFiles(-1)).rejects.toThrow(/logicalBytes/)
  })
})

it('block group flags', () => {
  expect(blockGroupKind(1n)).toEqual({ type: 'data', profile: 'single' })
  expect(blockGroupKind(5n)).toEqual({ type: 'data+metadata', profile: 'single' })
  expect(blockGroupKind(4n | 1024n)).toEqual({ type: 'metadata', profile: 'raid1c4' })
  expect(blockGroupKind(2n | 32n)).toEqual({ type: 'system', profile: 'dup' })
  expect(blockGroupKind(1n | 8n)).toEqual({ type: 'data', profile: 'raid0' })
})
