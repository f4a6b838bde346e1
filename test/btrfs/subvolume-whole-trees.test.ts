/** A tree is deleted whole or left whole, as far as that can be known before. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { useFreshVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

describe.skipIf(cannotMount)('deleteSubvolumes({ recursive: true }) leaves a tree whole', () => {
  const { volume, fs, at } = useFreshVolume()
  const TREE = ['srv', 'srv/a', 'srv/b', 'srv/b/inner', 'srv/c']
  const there = async () => {
    const out: string[] = []
    for await (const { path, readonly } of fs.subvolumes()) out.push(`${path}${readonly ? ' ro' : ''}`)
    return out.sort()
  }
  const idOf = async (path: string) => (await fs.subvolume(path)).id
  /** By path and by id: refused with `code` for `member`, and nothing is gone. */
  async function refused(member: string, code: string, hint: RegExp) {
    await fs.sync()
    const before = await there()
    for (const byId of [false, true]) {
      const target = byId ? await idOf('srv') : 'srv'
      const result = await fs.deleteSubvolumes([target], { recursive: true }).result
      expect(await there()).toEqual(before)
      expect(result).toMatchObject({ planned: TREE.length, deleted: 0, freed: 0 })
      const path = byId ? `subvolume ${await idOf(member)}` : at(member)
      expect(result.failures).toMatchObject([{ path, error: { code, hint: expect.stringMatching(hint) } }])
    }
  }
  async function whileMounted(subvolume: string, work: () => Promise<void>) {
    const mount = join(volume.directory, 'elsewhere')
    mkdirSync(mount, { recursive: true })
    run('mount', '-o', `subvol=${subvolume}`, volume.loops[0]!, mount)
    try {
      await work()
    } finally {
      run('umount', mount)
    }
  }
  beforeEach(async () => {
    for (const path of TREE) await fs.createSubvolume(path)
  })

  it('whose parent is mounted elsewhere', async () => {
    await whileMounted('srv', () => refused('srv', 'EBUSY', /elsewhere/))
    expect((await fs.deleteSubvolumes(['srv'], { recursive: true }).result).failures).toEqual([])
    expect(await there()).toEqual([])
  })

  it('of which one is mounted, first or last in the order', async () => {
    for (const member of ['srv/a', 'srv/b/inner', 'srv/c'])
      await whileMounted(member, () => refused(member, 'EBUSY', /elsewhere/))
  })

  it('of which something else is mounted in one', async () => {
    mkdirSync(at('srv/a/dir'))
    run('mount', '-t', 'tmpfs', 'none', at('srv/a/dir'))
    try {
      const before = await there()
      const result = await fs.deleteSubvolumes(['srv'], { recursive: true }).result
      expect(result.failures.map(({ error }) => (error as { code?: string }).code)).toContain('EBUSY')
      expect(await there()).toEqual(before)
    } finally {
      run('umount', at('srv/a/dir'))
    }
  })

  it('of which one is the default subvolume', async () => {
    for (const member of ['srv', 'srv/a']) {
      await fs.setDefaultSubvolume(await idOf(member))
      await refused(member, 'EPERM', /default/)
    }
    await fs.setDefaultSubvolume(5)
  })

  it('that lies in a read-only one, which is not to go', async () => {
    await fs.createSubvolume('outer')
    run('mv', at('srv'), at('outer/srv'))
    await fs.setReadonly('outer', true)
    await fs.sync()
    const before = await there()
    for (const target of ['outer/srv', await idOf('outer/srv')]) {
      const result = await fs.deleteSubvolumes([target], { recursive: true }).result
      expect(result).toMatchObject({ deleted: 0, failures: [{ error: { code: 'EROFS' } }] })
      expect(await there()).toEqual(before)
    }
    // It goes with the read-only one.
    expect((await fs.deleteSubvolumes(['outer'], { recursive: true }).result).failures).toEqual([])
    expect(await there()).toEqual([])
  })

  it('of which one is immutable, or the directory that holds it', async () => {
    run('chattr', '+i', at('srv'))
    const before = await there()
    const result = await fs.deleteSubvolumes(['srv'], { recursive: true }).result
    run('chattr', '-i', at('srv'))
    expect(result.deleted).toBe(0)
    expect(result.failures.map(({ path }) => path)).toContain(at('srv'))
    expect(await there()).toEqual(before)
    run('chattr', '+i', at('srv/a'))
    await refused('srv/a', 'EPERM', /immutable/)
    run('chattr', '-i', at('srv/a'))
  })

  it('of which one has an active swap file', async () => {
    const swap = at('srv/swap')
    run('btrfs', 'filesystem', 'mkswapfile', '--size', '16m', swap)
    run('swapon', swap)
    try {
      await refused('srv', 'EPERM', /swap/)
    } finally {
      run('swapoff', swap)
    }
  })

  it('that is named by a directory inside it', async () => {
    mkdirSync(at('srv/dir'))
    await fs.createSubvolume('srv/dir/deep')
    writeFileSync(at('srv/dir/deep/file'), 'x')
    const result = await fs.deleteSubvolumes(['srv/dir'], { recursive: true }).result
    expect(result.deleted).toBe(0)
    expect(result.failures.map(({ error }) => (error as { code?: string }).code)).toContain('EINVAL')
    expect(await there()).toContain('srv/dir/deep')
  })

  it('while others of the same call go', async () => {
    await fs.createSubvolume('other')
    await fs.createSubvolume('other/inner')
    await whileMounted('srv/c', async () => {
      const result = await fs.deleteSubvolumes(['srv', 'other'], { recursive: true }).result
      expect(result).toMatchObject({ planned: 7, deleted: 2, freed: 2, failures: [{ path: at('srv/c') }] })
      expect(await there()).toEqual(TREE)
    })
  })

  it('and does not give a number of them before it knows one', async () => {
    const gone = fs.deleteSubvolumes(['srv'], { recursive: true })
    expect((await gone.progress())?.planned).toBeUndefined()
    expect(await gone.result).toMatchObject({ planned: TREE.length, deleted: TREE.length })
    await using other = await openFilesystem(volume.path)
    const stop = new AbortController()
    const stopped = other.deleteSubvolumes([], { signal: stop.signal })
    stop.abort()
    await expect(stopped.result).rejects.toThrow()
  })
})
