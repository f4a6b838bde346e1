import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, makeVolume, run } from '../helpers/volume.js'

describe.skipIf(cannotMount)('directory()', () => {
  const { volume, fs } = useVolume()

  it('finds the directory behind symlinks, and its subvolume', async () => {
    run('btrfs', 'subvolume', 'create', join(volume.path, 'sub'))
    mkdirSync(join(volume.path, 'sub/dir'))
    symlinkSync('sub/dir', join(volume.path, 'link'))
    const id = Number(run('btrfs', 'inspect-internal', 'rootid', join(volume.path, 'sub')).trim())
    expect(await fs.directory(volume.path)).toEqual({
      path: volume.path,
      inode: 256,
      subvolumeId: 5,
      subvolumeTop: true,
    })
    expect(await fs.directory(join(volume.path, 'sub'))).toMatchObject({ subvolumeId: id, subvolumeTop: true })
    expect(await fs.directory(join(volume.path, 'link/'))).toEqual({
      path: join(volume.path, 'sub/dir'),
      inode: 257,
      subvolumeId: id,
      subvolumeTop: false,
    })
  })

  it('refuses what is not a directory of this volume', async () => {
    using other = makeVolume()
    writeFileSync(join(volume.path, 'file'), '')
    symlinkSync('loop', join(volume.path, 'loop'))
    symlinkSync(other.path, join(volume.path, 'away'))
    await expect(fs.directory(join(volume.path, 'file'))).rejects.toMatchObject({ code: 'ENOTDIR' })
    await expect(fs.directory(join(volume.path, 'none'))).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(fs.directory(join(volume.path, 'loop'))).rejects.toMatchObject({ code: 'ELOOP' })
    await expect(fs.directory('/proc')).rejects.toMatchObject({ code: 'ENOTTY', path: '/proc' })
    await expect(fs.directory(join(volume.path, 'away'))).rejects.toMatchObject({ code: 'BTRMIND_ERR_WRONG_VOLUME' })
    await expect(fs.directory('')).rejects.toThrow("directory: path: expected a path, got ''")
  })
})
