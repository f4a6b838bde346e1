import { readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { useFreshVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

describe.skipIf(cannotMount)('settings', () => {
  const { volume, fs } = useFreshVolume()

  it('the label', async () => {
    const label = 'ünï pool'
    await fs.setLabel(label)
    expect((await fs.info()).label).toBe(label)
    expect(run('btrfs', 'filesystem', 'label', volume.path).trim()).toBe(label)
    await fs.setLabel('x'.repeat(255))
    expect((await fs.info()).label).toHaveLength(255)
    await expect(fs.setLabel('x'.repeat(256))).rejects.toThrow(/255 bytes/)
    await expect(fs.setLabel('a\nb')).rejects.toThrow(/line breaks/)
    await fs.setLabel('')
    expect((await fs.info()).label).toBe('')
    run('mount', '-o', 'remount,ro', volume.path)
    await expect(fs.setLabel('no')).rejects.toMatchObject({ code: 'EROFS' })
  })

  it('features are those that sysfs lists; one can be turned on, not every one off', async () => {
    const sysfs = (directory: string) =>
      readdirSync(directory).filter((name) => statSync(join(directory, name)).isFile())
    const { inUse, supported, settable } = await fs.features()
    // sysfs leaves out what is not a bit of the superblock, and a state of the free space tree that is none of it.
    const bits = (names: string[]) => names.filter((name) => name !== 'free_space_tree_valid').sort()
    expect(bits([...inUse])).toEqual(
      expect.arrayContaining(
        bits(sysfs(`/sys/fs/btrfs/${fs.uuid}/features`)).filter((name) => supported.includes(name)),
      ),
    )
    expect(inUse.every((name) => supported.includes(name))).toBe(true)
    expect(settable).toContain('extended_iref')
    await fs.setFeatures({ extended_iref: true })
    await expect(fs.setFeatures({ mixed_groups: true })).rejects.toMatchObject({
      code: expect.stringMatching(/EOPNOTSUPP|ENOTSUP|EPERM/),
    })
    await expect(fs.setFeatures({ raid57: true } as never)).rejects.toThrow(/raid57/)
    for (const wrong of [undefined, null, 7, 'raid56'])
      await expect(fs.setFeatures(wrong as never)).rejects.toMatchObject({ code: 'BTRMIND_ERR_ARGUMENT' })
    expect((await fs.features()).inUse).toEqual(inUse)
  })

  it('commits in two steps', async () => {
    const { generation } = await fs.subvolume('.')
    await fs.createSubvolume('a')
    const transaction = await fs.startSync()
    expect(transaction).toBeGreaterThan(generation)
    await fs.waitSync(transaction)
    expect((await fs.subvolume('.')).generation).toBeGreaterThanOrEqual(transaction)
    await fs.waitSync()
    await expect(fs.waitSync(transaction + 1_000_000)).rejects.toMatchObject({
      code: 'EINVAL',
      hint: expect.stringContaining(`transaction ${transaction + 1_000_000} is still to come`),
    })
    await expect(fs.waitSync(-1)).rejects.toThrow(/transaction/)
  })

  it('the default subvolume is what is mounted, and cannot be deleted', async () => {
    expect(await fs.defaultSubvolume()).toBe(5)
    await fs.createSubvolume('root')
    writeFileSync(join(volume.path, 'root/inside'), '')
    const { id } = await fs.subvolume('root')
    await fs.setDefaultSubvolume(id)
    expect(await fs.defaultSubvolume()).toBe(id)
    expect(run('btrfs', 'subvolume', 'get-default', volume.path)).toContain(`ID ${id} `)
    await expect(fs.deleteSubvolume('root')).rejects.toThrow(/default/)
    const none = { code: 'ENOENT', hint: 'there is no subvolume 9999' }
    await expect(fs.setDefaultSubvolume(9999)).rejects.toMatchObject(none)
    await expect(fs.setDefaultSubvolume(1)).rejects.toThrow(/id/)
    await fs.setDefaultSubvolume(5)
    await fs.deleteSubvolume('root')
  })
})
