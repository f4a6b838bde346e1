/** BTRFS_ERROR_DEV_*: what the kernel refuses with a positive number in the place of an errno, and what to do then. */
import { afterEach, describe, expect, it } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { HINTS } from '../../src/errors.js'
import { cannotMount, makeVolume, type TestVolume } from '../helpers/volume.js'

describe.skipIf(cannotMount)('a device that may not go', () => {
  let volume: TestVolume
  afterEach(() => volume?.[Symbol.dispose]())

  const LEAST = { raid1: 2, raid1c3: 3, raid1c4: 4, raid5: 2, raid6: 3, raid10: 2 }
  it.each(Object.entries(LEAST))('%s on %i devices', async (profile, devices) => {
    volume = makeVolume({ devicesMiB: Array(devices).fill(256), data: profile, metadata: profile })
    await using fs = await openFilesystem(volume.path)
    const code = `BTRFS_ERROR_DEV_${profile.toUpperCase()}_MIN_NOT_MET`
    await expect(fs.removeDevice(devices)).rejects.toMatchObject({
      code,
      ioctl: 'BTRFS_IOC_RM_DEV_V2',
      hint: `too few devices would be left for ${profile}; add one first, or balance to another profile`,
    })
    expect(HINTS).toHaveProperty(code)
    const none = { code, hint: expect.stringContaining('the volume has no device 99 ') }
    await expect(fs.removeDevice(99)).rejects.toMatchObject(none)
    expect(await fs.devices()).toHaveLength(devices)
  })

  it('the only one, and a missing one where none is', async () => {
    volume = makeVolume({ devicesMiB: [256] })
    await using fs = await openFilesystem(volume.path)
    await expect(fs.removeDevice(1)).rejects.toMatchObject({
      code: 'BTRFS_ERROR_DEV_ONLY_WRITABLE',
      hint: expect.stringContaining('add another one first'),
    })
    await expect(fs.removeDevice('missing')).rejects.toMatchObject({
      code: 'BTRFS_ERROR_DEV_MISSING_NOT_FOUND',
      hint: 'no device is missing; see devices()',
    })
  })
})
