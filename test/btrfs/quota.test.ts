import { spawnSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import type { Qgroup } from '../../src/btrfs/quota.js'
import { btrmind } from '../cli/helper.js'
import { useFreshVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

describe.skipIf(cannotMount)('quota', () => {
  const { volume, fs, at } = useFreshVolume()
  const write = (path: string, mib: number) =>
    spawnSync('dd', ['if=/dev/urandom', `of=${at(path)}`, 'bs=1M', `count=${mib}`, 'conv=fsync'], { encoding: 'utf8' })
  const ours = (groups: readonly Qgroup[]) =>
    groups
      .map(({ id, referencedBytes, exclusiveBytes, limits }) => {
        const row = [
          id,
          referencedBytes,
          exclusiveBytes,
          limits.referencedBytes ?? 'none',
          limits.exclusiveBytes ?? 'none',
        ]
        return `${row.join(' ')}`
      })
      .join('\n')
  /** Id, referenced, exclusive, both limits, as `btrfs qgroup show` has them. */
  const progs = () =>
    [
      ...run('btrfs', 'qgroup', 'show', '--raw', '-re', volume.path).matchAll(
        /^(\d+\/\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s+(\S+)/gm,
      ),
    ]
      .map(([, ...columns]) => columns.join(' '))
      .join('\n')

  it('off: undefined, and what needs it says so', async () => {
    expect(await fs.quota()).toBeUndefined()
    await expect(fs.createQgroup('1/1')).rejects.toMatchObject({
      code: 'ENOTCONN',
      hint: expect.stringContaining('quota is off'),
    })
    await expect(fs.limitQgroup('0/5', { referencedBytes: 1 })).rejects.toMatchObject({ code: 'ENOTCONN' })
    await expect(fs.rescanQuota()).rejects.toBeInstanceOf(Error)
    await fs.disableQuota()
    expect(await fs.quota()).toBeUndefined()
  })

  it('names the quota group that is not there', async () => {
    await fs.enableQuota()
    const error = { code: 'ENOENT', hint: 'there is no quota group 1/7' }
    await expect(fs.destroyQgroup('1/7')).rejects.toMatchObject(error)
    await expect(fs.limitQgroup('1/7', { referencedBytes: 1 })).rejects.toMatchObject(error)
    const relation = { code: 'ENOENT', hint: expect.stringMatching(/^0\/5, 1\/7: no such quota groups/) }
    await expect(fs.unassignQgroup('0/5', '1/7')).rejects.toMatchObject(relation)
  })

  it('counts what btrfs-progs shows, with limits and who belongs to whom', async () => {
    await fs.createSubvolume('a')
    await fs.createSubvolume('b')
    write('a/file', 8)
    await fs.snapshot('a', 'snap', { readonly: true })
    write('a/more', 4)
    await fs.sync()
    await fs.enableQuota()
    await fs.rescanQuota()
    await fs.createQgroup('1/100')
    const id = `0/${(await fs.subvolume('a')).id}`
    if (await fs.assignQgroup(id, '1/100')) await fs.rescanQuota()
    await fs.limitQgroup(id, { referencedBytes: 100 << 20, exclusiveBytes: 50 << 20 })
    await fs.sync()
    const quota = (await fs.quota())!
    expect(quota).toMatchObject({ mode: 'classic', inconsistent: false, rescanning: false })
    expect(ours(quota.qgroups)).toBe(progs())
    const group = (id: string) => quota.qgroups.find((group) => group.id === id)
    expect(group(id)).toMatchObject({
      path: 'a',
      parents: ['1/100'],
      children: [],
      limits: { referencedBytes: 100 << 20 },
    })
    expect(group('1/100')).toMatchObject({ subvolumeId: undefined, children: [id], parents: [] })
    expect(group('0/5')).toMatchObject({ path: '' })
    expect(group(id)!.exclusiveBytes).toBeGreaterThanOrEqual(4 << 20)

    await fs.limitQgroup(id, { referencedBytes: null })
    await fs.sync()
    expect((await fs.quota())!.qgroups.find((group) => group.id === id)!.limits).toEqual({
      referencedBytes: undefined,
      exclusiveBytes: 50 << 20,
    })
    await fs.unassignQgroup(id, '1/100')
    await fs.destroyQgroup('1/100')
    await fs.rescanQuota()
    await fs.sync()
    expect(ours((await fs.quota())!.qgroups)).toBe(progs())
    await fs.disableQuota()
    expect(await fs.quota()).toBeUndefined()
  })

  it('a limit is kept', async () => {
    await fs.createSubvolume('a')
    await fs.enableQuota()
    await fs.rescanQuota()
    await fs.limitQgroup(`0/${(await fs.subvolume('a')).id}`, { referencedBytes: 4 << 20 })
    expect(write('a/file', 2).status).toBe(0)
    expect(write('a/file2', 8).stderr).toContain('quota exceeded')
  })

  it('a new subvolume and a snapshot belong from the start to the groups that are named', async () => {
    const inherit = ['1/5', '2/6']
    await expect(fs.createSubvolume('early', { inherit })).rejects.toMatchObject({
      code: 'ENOTCONN',
      hint: 'quota is off; see enableQuota()',
    })
    await fs.enableQuota()
    await fs.rescanQuota()
    for (const id of inherit) await fs.createQgroup(id)
    await fs.createSubvolume('made', { inherit })
    await fs.snapshot('made', 'taken', { readonly: true, inherit: ['1/5'] })
    await fs.createSubvolume('free')
    await fs.sync()
    const groups = (await fs.quota())!.qgroups
    const parents = async (path: string) => {
      const { id } = await fs.subvolume(path)
      return groups.find(({ subvolumeId }) => subvolumeId === id)?.parents
    }
    expect([await parents('made'), await parents('taken'), await parents('free')]).toEqual([inherit, ['1/5'], []])
    for (const make of [
      (ids: string[]) => fs.createSubvolume('none', { inherit: ids }),
      (ids: string[]) => fs.snapshot('made', 'none', { inherit: ids }),
    ]) {
      const missing = { code: 'ENOENT', hint: 'there is no quota group 1/9' }
      await expect(make(['1/5', '1/9'])).rejects.toMatchObject(missing)
      await expect(make(['0/5'])).rejects.toThrow("a quota group of level 1 or more, like '1/100', got '0/5'")
      await expect(make(['team'])).rejects.toThrow("'team'")
    }
    await expect(fs.subvolume('none')).rejects.toMatchObject({ code: 'ENOENT' })
  })

  it('in simple mode', async () => {
    await fs.createSubvolume('a')
    await fs.enableQuota({ simple: true })
    write('a/file', 2)
    await fs.sync()
    const quota = (await fs.quota())!
    expect(quota).toMatchObject({ mode: 'simple', rescanning: false })
    expect(quota.qgroups.find(({ path }) => path === 'a')!.exclusiveBytes).toBeGreaterThanOrEqual(2 << 20)
    const never = { code: 'EINVAL', hint: 'simple mode never counts anew' }
    await expect(fs.rescanQuota()).rejects.toMatchObject(never)
  })

  it('in the other mode is not turned on without a word', async () => {
    for (const simple of [true, false]) {
      await fs.enableQuota({ simple })
      await fs.enableQuota({ simple })
      const mode = simple ? 'simple' : 'classic'
      await expect(fs.enableQuota({ simple: !simple })).rejects.toMatchObject({
        code: 'EEXIST',
        message: expect.stringContaining(`quota is on in ${mode} mode`),
        hint: expect.stringContaining('disableQuota() first'),
      })
      expect((await fs.quota())!.mode).toBe(mode)
      if (simple) {
        const { code, err } = await btrmind(['quota', 'enable', volume.path])
        expect([code, err]).toEqual([1, expect.stringContaining('quota is on in simple mode')])
        expect((await btrmind(['quota', volume.path])).out).toMatch(/^simple mode: /)
      }
      await fs.disableQuota()
    }
  })

  it('a deleted subvolume’s group has no path', async () => {
    await fs.createSubvolume('a')
    await fs.enableQuota()
    await fs.rescanQuota()
    const { id } = await fs.subvolume('a')
    await fs.createSubvolume('b')
    await fs.deleteSubvolume('a', { waitUntilFreed: true })
    await fs.sync()
    const left = (await fs.quota())!.qgroups.find((group) => group.subvolumeId === id)
    expect(left === undefined || left.path === undefined).toBe(true)
    expect(ours((await fs.quota())!.qgroups)).toBe(progs())
  })

  it('bad input: what is wrong is said', async () => {
    for (const id of ['', '257', '0/', '70000/1', 'a/b', '0/1/2', '-1/1'])
      await expect(fs.createQgroup(id)).rejects.toThrow(`'${id}'`)
    await expect(fs.limitQgroup('0/5', { referencedBytes: -1 })).rejects.toThrow(/referencedBytes/)
    await expect(fs.limitQgroup('0/5', { referenced: 1 } as never)).rejects.toThrow(/referenced/)
    await fs.enableQuota()
    await fs.rescanQuota()
    await expect(fs.destroyQgroup('1/7')).rejects.toMatchObject({ code: 'ENOENT' })
    await fs.createQgroup('1/7')
    await expect(fs.createQgroup('1/7')).rejects.toMatchObject({ code: 'EEXIST', hint: 'there is a quota group 1/7' })
    const upward = { code: 'EINVAL', hint: expect.stringContaining('1/7 cannot be in 0/5') }
    await expect(fs.assignQgroup('1/7', '0/5')).rejects.toMatchObject(upward)
    await fs.assignQgroup('0/5', '1/7')
    const again = { code: 'EEXIST', hint: '0/5 is in 1/7 already' }
    await expect(fs.assignQgroup('0/5', '1/7')).rejects.toMatchObject(again)
    const busy = { code: 'EBUSY', hint: expect.stringContaining('quota group 1/7 has others in it') }
    await expect(fs.destroyQgroup('1/7')).rejects.toMatchObject(busy)
  })
})
