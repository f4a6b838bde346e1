import { readFileSync, writeFileSync } from 'node:fs'
import { setImmediate, setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { MIB } from '../../src/units.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

describe.skipIf(cannotMount)('resizeDevice()', () => {
  const { volume, fs } = useVolume({ devicesMiB: [1024], data: 'single', metadata: 'single' })
  const sizeBytes = () =>
    Number(/devid\s+1 size (\d+)/.exec(run('btrfs', 'filesystem', 'show', '--raw', volume.path))?.[1])

  it('shrinks and grows', async () => {
    await fs.resizeDevice(1, 700 * MIB)
    expect(sizeBytes()).toBe(700 * MIB)
    await fs.resizeDevice(1, 1024 * MIB)
    expect(sizeBytes()).toBe(1024 * MIB)
  })

  it('says what is wrong, and nothing changes', async () => {
    const ioctl = 'BTRFS_IOC_RESIZE'
    await expect(fs.resizeDevice(9, 700 * MIB)).rejects.toMatchObject({ code: 'ENODEV', ioctl })
    await expect(fs.resizeDevice(1, 2048 * MIB)).rejects.toMatchObject({
      code: 'EFBIG',
      ioctl,
      hint: 'larger than the device itself',
    })
    await expect(fs.resizeDevice(1, 1 * MIB)).rejects.toThrow('sizeBytes: expected at least 256 MiB, got 1048576')
    await expect(fs.resizeDevice(0, 700 * MIB)).rejects.toThrow('devid: expected a device id of 1 or more, got 0')
    await expect(fs.resizeDevice(1.5, 700 * MIB)).rejects.toThrow('expected a device id, got 1.5')
    await expect(fs.resizeDevice(1, 700 * MIB, { force: true } as never)).rejects.toThrow("unknown option 'force'")
    expect(sizeBytes()).toBe(1024 * MIB)
  })

  it("reads the kernel's positive 8 beside a paused balance as an error", async () => {
    for (let file = 0; file < 40; file++) writeFileSync(`${volume.path}/${file}`, Buffer.alloc(8 * MIB, file + 1))
    await fs.sync()
    // Pausing waits for the block group under way; a balance that ended before it could be paused is started again.
    for (let attempt = 0; ; attempt++) {
      run('btrfs', 'balance', 'start', '--full-balance', '--background', volume.path)
      try {
        run('btrfs', 'balance', 'pause', volume.path)
        break
      } catch (error) {
        if (attempt === 20) throw error
        await setTimeout(20)
      }
    }
    const refused = await fs.resizeDevice(1, 900 * MIB).catch((error: unknown) => error)
    run('btrfs', 'balance', 'cancel', volume.path)
    expect(refused).toMatchObject({
      name: 'BtrfsError',
      code: 'BTRFS_ERROR_DEV_EXCL_RUN_IN_PROGRESS',
      errno: 8,
      operation: 'resizeDevice',
      ioctl: 'BTRFS_IOC_RESIZE',
      hint: 'a balance is paused: resumeBalance() or cancelBalance()',
    })
    expect(sizeBytes()).toBe(1024 * MIB)
    await fs.resizeDevice(1, 900 * MIB)
    expect(sizeBytes()).toBe(900 * MIB)
  })

  it('is cancelled in the kernel by close(), which waits until it has stopped', async () => {
    const running = () => readFileSync(`/sys/fs/btrfs/${fs.uuid}/exclusive_operation`, 'utf8').trim() === 'resize'
    let error: { code?: string } | undefined
    // A shrink may be done before it can be cancelled, and now and then finds no room on a busy machine.
    for (let attempt = 0; attempt < 20 && error?.code !== 'ECANCELED'; attempt++) {
      await fs.resizeDevice(1, 1024 * MIB)
      const other = await openFilesystem(volume.path)
      let settled = false
      const shrinking = other
        .resizeDevice(1, 400 * MIB)
        .then(
          () => undefined,
          (reason: { code?: string }) => reason,
        )
        .finally(() => {
          settled = true
        })
      while (!settled && !running()) await setImmediate()
      await other.close()
      expect(running()).toBe(false)
      error = await shrinking
    }
    expect(error).toMatchObject({ code: 'ECANCELED', operation: 'resizeDevice', ioctl: 'BTRFS_IOC_RESIZE' })
    await fs.resizeDevice(1, 1024 * MIB)
    expect(sizeBytes()).toBe(1024 * MIB)
  })
})
