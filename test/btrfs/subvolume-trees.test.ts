import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import type { DeleteProgress } from '../../src/btrfs/subvolume-deletion.js'
import { native } from '../../src/native.js'
import { useFreshVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

describe.skipIf(cannotMount)('subvolumes with what is in them', () => {
  const { volume, fs, at } = useFreshVolume()
  const paths = async (below?: string) => {
    const out: string[] = []
    for await (const { path, readonly } of fs.subvolumes(below === undefined ? {} : { below }))
      out.push(`${path}${readonly ? ' ro' : ''}`)
    return out.sort()
  }
  beforeEach(async () => {
    await fs.createSubvolume('a')
    mkdirSync(at('a/dir'))
    await fs.createSubvolume('a/dir/b')
    await fs.createSubvolume('a/dir/b/c')
    await fs.createSubvolume('a/d')
    for (const path of ['a', 'a/dir/b', 'a/dir/b/c', 'a/d']) writeFileSync(at(`${path}/file`), path)
  })

  it('one by its id is the one by its path', async () => {
    await fs.sync() // the root tree is written by a commit
    const byPath = await fs.subvolume('a/dir/b')
    expect(await fs.subvolume(byPath.id)).toEqual(byPath)
    expect(await fs.subvolume(5)).toMatchObject({ id: 5, path: '' })
    await expect(fs.subvolume(99_999)).rejects.toMatchObject({ code: 'ENOENT', path: 'subvolume 99999' })
    await expect(fs.subvolume(-1)).rejects.toThrow(/-1/)
  })

  it('read-only and back, which is refused of a received one', async () => {
    await fs.setReadonly('a', true)
    expect(await fs.subvolume('a')).toMatchObject({ readonly: true })
    expect(() => writeFileSync(at('a/new'), '')).toThrow(/EROFS/)
    await fs.setReadonly('a', false)
    writeFileSync(at('a/new'), '')
    await expect(fs.setReadonly('a/dir', true)).rejects.toMatchObject({ code: 'EINVAL' })
    await expect(fs.setReadonly('a', 'yes' as never)).rejects.toThrow(/readonly/)
    await fs.snapshot('a/d', 'sent', { readonly: true })
    mkdirSync(at('in'))
    run('sh', '-c', `btrfs send -q ${at('sent')} | btrfs receive -q ${at('in')}`)
    await expect(fs.setReadonly('in/sent', false)).rejects.toMatchObject({ code: 'BTRMIND_ERR_GUARD' })
    expect(await fs.subvolume('in/sent')).toMatchObject({ readonly: true })
    await fs.setReadonly('in/sent', false, { force: true })
    expect(await fs.subvolume('in/sent')).toMatchObject({ readonly: false })
  })

  it('snapshots each one in its place', async () => {
    await fs.snapshotTree('a', 'copy')
    await fs.snapshotTree('a', 'still', { readonly: true })
    expect(await paths('copy')).toEqual(['copy/d', 'copy/dir/b', 'copy/dir/b/c'])
    expect(await paths('still')).toEqual(['still/d ro', 'still/dir/b ro', 'still/dir/b/c ro'])
    expect(await fs.subvolume('still')).toMatchObject({ readonly: true, parentUuid: (await fs.subvolume('a')).uuid })
    for (const path of ['', 'd/', 'dir/b/', 'dir/b/c/'])
      expect(readFileSync(at(`still/${path}file`), 'utf8')).toBe(`a/${path}`.slice(0, -1))
    // What cannot be had whole is not there at all.
    const before = await paths()
    await expect(fs.snapshotTree('a', 'no/such/place')).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(fs.snapshotTree('a', 'copy')).rejects.toMatchObject({ code: 'EEXIST' })
    expect(await paths()).toEqual(before)
  })

  it('deletes with what is inside, read-only or not, and waits until all is freed', async () => {
    await fs.snapshotTree('a', 'still', { readonly: true })
    const gone = fs.deleteSubvolumes(['a', 'still'], { recursive: true, intervalMs: 1 })
    const seen: DeleteProgress[] = []
    for await (const progress of gone) seen.push(progress)
    expect(await gone.result).toEqual({ planned: 8, deleted: 8, freed: 8, failures: [] })
    expect(seen.map(({ deleted }) => deleted)).toEqual(seen.map(({ deleted }) => deleted).sort((a, b) => a - b))
    expect(await paths()).toEqual([])
    expect(run('btrfs', 'subvolume', 'list', '-d', volume.path)).toBe('')
  })

  it('deletes by id with what is inside, also outside of what is mounted', async () => {
    await fs.snapshotTree('a', 'still', { readonly: true })
    await fs.createSubvolume('elsewhere')
    await fs.sync()
    const ids = await Promise.all(['a', 'still'].map(async (path) => (await fs.subvolume(path)).id))
    const mount = join(volume.directory, 'part')
    mkdirSync(mount)
    run('mount', '-o', 'subvol=elsewhere', volume.loops[0]!, mount)
    try {
      await using part = await openFilesystem(mount)
      const plain = await part.deleteSubvolumes([ids[0]!, 99_999]).result
      expect(plain).toMatchObject({ planned: 2, deleted: 0 })
      expect(plain.failures).toMatchObject([
        { path: 'subvolume 99999', error: { code: 'ENOENT' } },
        { path: `subvolume ${ids[0]}`, error: { code: 'ENOTEMPTY' } },
      ])
      expect(await part.deleteSubvolumes(ids, { recursive: true }).result).toEqual({
        planned: 8,
        deleted: 8,
        freed: 8,
        failures: [],
      })
    } finally {
      run('umount', mount)
    }
    expect(await paths()).toEqual(['elsewhere'])
    expect(() => fs.deleteSubvolumes([5], { recursive: true })).toThrow('256')
  })

  it('leaves alone what it may not delete, says why, and goes on', async () => {
    await fs.createSubvolume('other')
    await fs.setReadonly('a', true)
    const { failures, ...counts } = await fs.deleteSubvolumes(['a', 'other']).result
    expect(counts).toEqual({ planned: 2, deleted: 1, freed: 1 })
    expect(failures).toMatchObject([{ path: at('a'), error: { code: 'ENOTEMPTY' } }])
    // A mounted one inside: its tree is left whole, and as read-only as it was.
    const mount = join(volume.directory, 'elsewhere')
    mkdirSync(mount)
    run('mount', '-o', 'subvol=a/dir/b/c', volume.loops[0]!, mount)
    try {
      const result = await fs.deleteSubvolumes(['a'], { recursive: true }).result
      expect(result).toMatchObject({ planned: 4, deleted: 0 })
      expect(result.failures).toMatchObject([{ path: at('a/dir/b/c'), error: { code: 'EBUSY' } }])
      expect(await paths()).toEqual(['a ro', 'a/d', 'a/dir/b', 'a/dir/b/c'])
      // Named for itself, one of it goes; not out of a read-only one that stays.
      const parts = await fs.deleteSubvolumes(['a', 'a/d'], { recursive: true }).result
      expect(parts.failures).toMatchObject([
        { path: at('a/dir/b/c'), error: { code: 'EBUSY' } },
        { path: at('a/d'), error: { code: 'EROFS' } },
      ])
      await fs.setReadonly('a', false)
      expect(await fs.deleteSubvolumes(['a', 'a/d'], { recursive: true }).result).toMatchObject({ deleted: 1 })
      expect(await paths()).toEqual(['a', 'a/dir/b', 'a/dir/b/c'])
    } finally {
      run('umount', mount)
    }
    await fs.createSubvolume('last')
    const missing = await fs.deleteSubvolumes(['nowhere', 'a', '/', 'last']).result
    expect(missing).toMatchObject({ planned: 4, deleted: 1 })
    expect(missing.failures).toMatchObject([
      { path: at('nowhere'), error: { code: 'ENOENT' } },
      { path: '/', error: { code: 'BTRMIND_ERR_WRONG_VOLUME' } },
      { path: at('a'), error: { code: 'ENOTEMPTY' } },
    ])
    expect([existsSync(at('a')), existsSync(at('last'))]).toEqual([true, false])
  })

  it('is paced, and stops when told to', async () => {
    for (let i = 0; i < 30; i++) await fs.createSubvolume(`n${i}`)
    const names = Array.from({ length: 30 }, (_, i) => `n${i}`)
    const slow = fs.deleteSubvolumes(names, { perSecond: 20, intervalMs: 5 })
    for await (const { deleted } of slow) if (deleted >= 3) break
    await slow.cancel()
    const error = await slow.result.catch((error) => error)
    expect(error).toMatchObject({ code: 'ECANCELED', progress: { planned: 30 } })
    const { deleted } = error.progress as DeleteProgress
    expect(deleted).toBeLessThan(30)
    expect((await paths()).filter((path) => path.startsWith('n'))).toHaveLength(30 - deleted)
  })

  it('close() half-way leaves no part of a tree, and nothing writable that was read-only', async () => {
    await fs.sync()
    const before = await paths()
    for (const how of ['abort', 'close'] as const) {
      const other = await openFilesystem(volume.path)
      const stop = new AbortController()
      let closed: Promise<void> | undefined
      const make = native.snapshot
      const spy = vi.spyOn(native, 'snapshot').mockImplementation((...args) => {
        const made = make(...args)
        if (how === 'abort') stop.abort()
        else closed = other.close()
        return made
      })
      const taken = other.snapshotTree('a', 'copy', { readonly: true, signal: stop.signal })
      try {
        await expect(taken).rejects.toMatchObject(how === 'abort' ? { name: 'AbortError' } : { code: 'EBADF' })
        await closed
      } finally {
        spy.mockRestore()
        await other.close()
      }
      expect(await paths()).toEqual(before)
    }
    const other = await openFilesystem(volume.path)
    await fs.setReadonly('a', true)
    const slow = other.deleteSubvolumes(['a'], { recursive: true, perSecond: 2, intervalMs: 5 })
    for await (const { deleted } of slow) if (deleted > 0) break
    expect((await fs.subvolume('a')).readonly).toBe(false)
    await other.close()
    await expect(slow.result).rejects.toMatchObject({ code: 'ECANCELED', progress: { deleted: 1, failures: [] } })
    expect((await fs.subvolume('a')).readonly).toBe(true)
  })

  it('a subvolume with a file open for writing cannot become read-only', async () => {
    const fd = openSync(at('a/file'), 'r+')
    try {
      await fs.setReadonly('a', true).catch((error) => expect(error).toMatchObject({ code: 'ETXTBSY' }))
    } finally {
      closeSync(fd)
    }
  })
})
