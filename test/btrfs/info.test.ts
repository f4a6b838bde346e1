import { readdirSync, readlinkSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { cannotMount, makeVolume, run } from '../helpers/volume.js'

describe.skipIf(cannotMount)('info()', () => {
  it('is what btrfs-progs says', async () => {
    using volume = makeVolume({ mkfs: ['--label', 'pool', '--csum', 'xxhash'] })
    await using fs = await openFilesystem(volume.path)
    const info = await fs.info()
    const dump = run('btrfs', 'inspect-internal', 'dump-super', volume.loops[0]!)
    const field = (name: string) => new RegExp(`^${name}\\s+(\\S+)`, 'm').exec(dump)?.[1]
    expect(info).toMatchObject({ uuid: field('fsid'), label: 'pool', checksum: 'xxhash64', devices: 1 })
    expect(info.nodeSizeBytes).toBe(Number(field('nodesize')))
    expect(info.sectorSizeBytes).toBe(Number(field('sectorsize')))
  })

  it('after close() nothing of it holds the volume', async () => {
    using volume = makeVolume({ devicesMiB: [128] })
    const held = () =>
      readdirSync('/proc/self/fd').filter((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`).startsWith(volume.path)
        } catch {
          return false // the descriptor of this very directory listing
        }
      })
    for (let i = 0; i < 500; i++) {
      const fs = await openFilesystem(volume.path)
      await Promise.all([fs.info(), fs.info()])
      expect(held()).toHaveLength(1)
      await fs.close()
      expect(held()).toEqual([])
    }
  })

  it('after close() every call fails with EBADF', async () => {
    using volume = makeVolume()
    const fs = await openFilesystem(volume.path)
    await fs.close()
    await expect(fs.info()).rejects.toMatchObject({ code: 'EBADF', operation: 'info' })
    await fs.close()
  })
})

describe('openFilesystem()', () => {
  it('says what is wrong with the path', async () => {
    await expect(openFilesystem('/proc')).rejects.toMatchObject({
      code: 'ENOTTY',
      hint: 'not a btrfs filesystem',
      path: '/proc',
    })
    await expect(openFilesystem('/nowhere')).rejects.toMatchObject({ code: 'ENOENT', path: '/nowhere' })
    await expect(openFilesystem('/etc/passwd')).rejects.toMatchObject({ code: 'ENOTDIR' })
    await expect(openFilesystem('')).rejects.toThrow("expected a path, got ''")
    await expect(openFilesystem('/', { uid: 'x' } as never)).rejects.toThrow(
      "unknown option 'uid'; did you mean 'uuid'?",
    )
    await expect(openFilesystem('/', { uuid: 'x' })).rejects.toThrow("option 'uuid': expected a UUID, got 'x'")
  })
})
