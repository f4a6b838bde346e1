import { statSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { native } from '../../src/native.js'
import { MIB } from '../../src/units.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

describe.skipIf(cannotMount)('trim()', () => {
  const { volume, fs, at } = useVolume({ devicesMiB: [1024, 1024], data: 'single', metadata: 'raid1' })
  const fill = (name: string, mib: number) =>
    run('dd', 'if=/dev/urandom', `of=${at(name)}`, 'bs=1M', `count=${mib}`, 'conv=fsync', 'status=none')

  it('the backing file has a hole where nothing is; a slice a block group trims what one call does', async () => {
    for (let i = 0; i < 8; i++) fill(`file-${i}`, 40)
    const image = () => volume.images.reduce((sum, path) => sum + statSync(path).blocks * 512, 0)
    const full = image()
    for (let i = 0; i < 8; i += 2) run('rm', at(`file-${i}`))
    await fs.sync()
    const work = fs.trim()
    const first = await work.result
    const groups = await fs.blockGroups()
    expect(first).toMatchObject({ blockGroups: groups.length, totalBlockGroups: groups.length })
    expect(groups.length).toBeGreaterThan(3)
    run('sync')
    expect(full - image()).toBeGreaterThan(140 * MIB)
    // What is in no block group is trimmed once; the same again is the block groups alone.
    const { unallocated } = await fs.usage()
    const free = unallocated.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    const again = await fs.trim().result
    const gone = first.trimmedBytes - again.trimmedBytes
    expect(gone).toBeGreaterThan(0.9 * free)
    expect(gone).toBeLessThanOrEqual(free)
    const { handle } = await native.open(0, volume.path)
    try {
      for (const least of [0, 20 * MIB])
        expect((await fs.trim({ minimumBytes: least }).result).trimmedBytes).toBe(
          await native.trim(0, handle, 0, undefined, least),
        )
      // Ranges that begin or end in a block group, or just beside its border, as the kernel takes them whole.
      const { logicalBytes: border, sizeBytes } = groups.at(-1)!
      for (const [start, length] of [
        [border - 100, 2 * MIB],
        [border - 64 * 1024, 64 * 1024 + 100],
        [border + 100, sizeBytes],
        [0, border + 4096],
        [groups[1]!.logicalBytes + 4096, border - groups[1]!.logicalBytes],
      ] as const)
        expect(
          (await fs.trim({ startBytes: start, lengthBytes: length }).result).trimmedBytes,
          `${start}, ${length}`,
        ).toBe(await native.trim(0, handle, start, length, 0))
    } finally {
      native.close(handle)
    }
    expect(await fs.trim({ minimumBytes: 2 ** 40 }).result).toMatchObject({ trimmedBytes: 0 })
    expect(await fs.trim({ startBytes: 2 ** 52 }).result).toEqual({
      blockGroups: 0,
      totalBlockGroups: 0,
      trimmedBytes: 0,
    })
  })

  it('is stopped between two block groups, and says what it did', async () => {
    const { length } = await fs.blockGroups()
    const work = fs.trim()
    await work.cancel()
    const stopped = { name: 'BtrfsError', code: 'ECANCELED', operation: 'trim', path: volume.path }
    const nothing = { blockGroups: 0, totalBlockGroups: length, trimmedBytes: 0 }
    await expect(work.result).rejects.toMatchObject({ ...stopped, progress: nothing })
    await expect(fs.trim({ signal: AbortSignal.abort() }).result).rejects.toMatchObject({ name: 'AbortError' })
    const other = await openFilesystem(volume.path)
    const cut = other.trim()
    await other.close()
    await expect(cut.result).rejects.toMatchObject({ ...stopped, progress: nothing })
    await expect(other.trim().result).rejects.toMatchObject({ code: 'EBADF', operation: 'trim' })
    const watched = fs.trim({ intervalMs: 1 })
    let last = 0
    for await (const { blockGroups, totalBlockGroups } of watched) {
      expect(totalBlockGroups).toBe(length)
      expect(blockGroups).toBeGreaterThanOrEqual(last)
      last = blockGroups
    }
    expect(await watched.result).toMatchObject({ blockGroups: length })
  })

  it('refuses what is wrong, as the kernel does or before it', async () => {
    expect(() => fs.trim({ minimum: 1 } as never)).toThrow(/minimum/)
    expect(() => fs.trim({ startBytes: -1 })).toThrow(/startBytes.*-1/)
    expect(() => fs.trim({ lengthBytes: 0 })).toThrow(/lengthBytes.*0/)
    await expect(fs.trim({ lengthBytes: 100 }).result).rejects.toMatchObject({ code: 'EINVAL', operation: 'trim' })
  })
})
