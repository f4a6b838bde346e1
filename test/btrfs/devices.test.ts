import { describe, expect, it } from 'vitest'
import { devicesReady, forgetDevice, scanDevice } from '../../src/btrfs/devices.js'
import { useOwnVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

describe.skipIf(cannotMount)('devices', () => {
  const { volume, fs, at, make, open } = useOwnVolume()
  const write = (name: string, mib: number) =>
    run('dd', 'if=/dev/urandom', `of=${at(name)}`, 'bs=1M', `count=${mib}`, 'conv=fsync', 'status=none')
  const sum = (name: string) => run('sha256sum', at(name))
  const ids = async () => (await fs.devices()).map(({ devid, path }) => [devid, path])

  it('adds one and takes it out again, with what lay on it moved', async () => {
    await make({ devicesMiB: [512], sparesMiB: [512] })
    const [first, second] = volume.loops as [string, string]
    write('file', 100)
    const before = sum('file')
    await fs.addDevice(second)
    expect(await ids()).toEqual([
      [1, first],
      [2, second],
    ])
    await fs.balance({ data: {} }).result
    expect((await fs.devices()).find(({ devid }) => devid === 2)!.allocatedBytes).toBeGreaterThan(0)
    await fs.removeDevice(2)
    expect(await ids()).toEqual([[1, first]])
    expect(sum('file')).toBe(before)
    // It was wiped, so it may come again.
    await fs.addDevice(second)
    await fs.removeDevice(2)
    expect(run('btrfs', 'filesystem', 'show', volume.path)).toMatch(/Total devices 1 /)
  })

  it('refuses what is in use, what is not empty, and what is no block device, and changes nothing there', async () => {
    await make({ devicesMiB: [256], sparesMiB: [256] })
    const spare = volume.loops[1]!
    run('mkfs.ext4', '-q', spare)
    const before = run('sha256sum', spare)
    await expect(fs.addDevice(spare)).rejects.toMatchObject({ code: 'EEXIST', path: spare, hint: /force/ })
    await expect(fs.replaceDevice(1, spare).result).rejects.toMatchObject({ code: 'EEXIST' })
    expect(run('sha256sum', spare)).toBe(before)
    await expect(fs.addDevice(volume.loops[0]!, { force: true })).rejects.toMatchObject({ code: 'EBUSY' })
    await expect(fs.addDevice('/dev/null', { force: true })).rejects.toMatchObject({ code: 'ENOTBLK' })
    await expect(fs.addDevice(volume.images[1]!)).rejects.toMatchObject({ code: 'ENOTBLK' })
    // A FIFO that nobody writes to.
    run('mkfifo', at('fifo'))
    await expect(fs.addDevice(at('fifo'))).rejects.toMatchObject({ code: 'ENOTBLK', path: at('fifo') })
    await expect(fs.replaceDevice(1, at('fifo')).result).rejects.toMatchObject({ code: 'ENOTBLK' })
    await expect(fs.addDevice('/dev/not-there')).rejects.toMatchObject({ code: 'ENOENT' })
    run('dd', 'if=/dev/zero', `of=${spare}`, 'bs=1M', 'count=1', 'conv=fsync', 'status=none')
    run('sh', '-c', `printf 'EFI PART' | dd of=${spare} bs=512 seek=$((256 * 2048 - 1)) conv=notrunc,fsync status=none`)
    await expect(fs.addDevice(spare)).rejects.toThrow(`at byte ${(256 << 20) - 512}`)
    await fs.addDevice(spare, { force: true })
    expect(await ids()).toHaveLength(2)
  })

  it('replaces one while it is used, shows how far it is, and can be told to stop', async () => {
    await make({ devicesMiB: [512], sparesMiB: [512, 600] })
    const [, second, third] = volume.loops as [string, string, string]
    write('file', 150)
    const before = sum('file')
    expect(await fs.replaceStatus()).toMatchObject({ state: 'never', startedAt: undefined })
    const replacement = fs.replaceDevice(1, second, { intervalMs: 1 })
    const seen: number[] = []
    const states: string[] = []
    for await (const { ratio, state } of replacement) {
      states.push(state)
      seen.push(ratio)
    }
    expect(states.pop()).toBe('finished')
    expect(new Set(states)).toEqual(new Set(['running']))
    expect(await replacement.result).toMatchObject({ state: 'finished', ratio: 1, writeErrors: 0 })
    expect(seen).toEqual([...seen].sort((a, b) => a - b))
    expect(await ids()).toEqual([[1, second]])
    expect(sum('file')).toBe(before)

    const stopped = fs.replaceDevice(1, third)
    await stopped.cancel()
    const error = await stopped.result.catch((error) => error)
    // On a quick machine it was done first.
    if (error instanceof Error) {
      expect(error).toMatchObject({ code: 'ECANCELED' })
      expect(await ids()).toEqual([[1, second]])
    } else expect(error).toMatchObject({ state: 'finished' })
    expect(sum('file')).toBe(before)
  })

  it('one that is told to stop before it began leaves the one that runs alone', async () => {
    await make({ devicesMiB: [1024], sparesMiB: [1024, 1024] })
    const [, second, third] = volume.loops as [string, string, string]
    write('file', 400)
    const running = fs.replaceDevice(1, second)
    while ((await fs.replaceStatus()).state === 'never') await new Promise((resolve) => setTimeout(resolve, 1))
    for (let i = 0; i < 12; i++) {
      const other = fs.replaceDevice(1, third)
      await other.cancel()
      const error = await other.result.catch((error) => error)
      expect(['ECANCELED', 'BTRFS_ERROR_DEV_EXCL_RUN_IN_PROGRESS', 'EINPROGRESS']).toContain(error.code)
    }
    expect(await running.result).toMatchObject({ state: 'finished' })
  })

  it('replaces and takes out what is missing', async () => {
    await make({ devicesMiB: [512, 512, 512], sparesMiB: [512], data: 'raid1', metadata: 'raid1' })
    write('file', 40)
    const before = sum('file')
    const [first, second, , spare] = volume.loops as [string, string, string, string]
    await fs.close()
    run('umount', volume.path)
    run('wipefs', '-a', second)
    await forgetDevice()
    run('btrfs', 'device', 'scan', first, volume.loops[2]!)
    expect(await devicesReady(first)).toBe(false)
    run('mount', '-o', 'degraded', first, volume.path)
    await open()
    expect((await fs.devices()).filter(({ missing }) => missing)).toMatchObject([{ devid: 2, path: undefined }])
    expect(await fs.resetDeviceErrors(2)).toBeUndefined()
    await fs.replaceDevice(2, spare).result
    expect(sum('file')).toBe(before)
    expect(await ids()).toContainEqual([2, spare])
    await fs.close()
    run('umount', volume.path)
    run('wipefs', '-a', spare)
    await forgetDevice()
    run('btrfs', 'device', 'scan', first, volume.loops[2]!)
    run('mount', '-o', 'degraded', first, volume.path)
    await open()
    await fs.removeDevice('missing')
    expect((await ids()).map(([devid]) => devid)).toEqual([1, 3])
    expect(sum('file')).toBe(before)
    await expect(fs.removeDevice('missing')).rejects.toBeInstanceOf(Error)
  })

  it('is told of devices, forgets them, and knows whether all are there', async () => {
    await make({ devicesMiB: [256, 256] })
    const [first, second] = volume.loops as [string, string]
    await expect(forgetDevice(first)).rejects.toMatchObject({ code: 'EBUSY' })
    await fs.close()
    run('umount', volume.path)
    await forgetDevice(first)
    await forgetDevice(first)
    await forgetDevice(second)
    await expect(forgetDevice('/dev/not-there')).rejects.toMatchObject({ code: 'ENOENT' })
    expect(await devicesReady(first)).toBe(false)
    await scanDevice(second)
    expect(await devicesReady(first)).toBe(true)
    run('mount', first, volume.path)
    await expect(scanDevice('/dev/null')).rejects.toMatchObject({ path: '/dev/null' })
    await expect(scanDevice('loop0')).rejects.toThrow(/'loop0'/)
  })

  it('sets error counters back, and says what they were', async () => {
    await make({ devicesMiB: [256] })
    await fs.resetDeviceErrors(1)
    expect(await fs.resetDeviceErrors(1)).toEqual({ write: 0, read: 0, flush: 0, corruption: 0, generation: 0 })
    const none = { code: 'ENODEV', hint: expect.stringContaining('the volume has no device 7 ') }
    await expect(fs.resetDeviceErrors(7)).rejects.toMatchObject(none)
    await expect(fs.resizeDevice(7, 2 ** 30)).rejects.toMatchObject(none)
    await expect(fs.removeDevice(7)).rejects.toMatchObject({ code: 'ENOENT', hint: 'the volume has no device 7' })
    await expect(fs.removeDevice(1)).rejects.toMatchObject({ code: expect.stringContaining('BTRFS_ERROR') })
    await expect(fs.removeDevice(0)).rejects.toThrow(/devid/)
  })
})
