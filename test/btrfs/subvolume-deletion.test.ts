/** deleteSubvolume(): by path, by id, with its space. */
import { execFileSync } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

describe.skipIf(cannotMount)('deleteSubvolume()', () => {
  const { volume, fs, at } = useVolume()
  const usedBytes = () => Number(/Used:\s+(\d+)/.exec(run('btrfs', 'filesystem', 'usage', '-b', volume.path))?.[1])

  it('deletes, and with waitUntilFreed the space is free when it resolves', async () => {
    await fs.createSubvolume('big')
    run('dd', 'if=/dev/urandom', `of=${at('big/data')}`, 'bs=1M', 'count=24', 'status=none')
    await fs.sync()
    const full = usedBytes()
    const { id } = await fs.subvolume('big')
    await fs.deleteSubvolume('big', { waitUntilFreed: true })
    expect(full - usedBytes()).toBeGreaterThanOrEqual(24 * 1024 ** 2)
    expect(run('btrfs', 'subvolume', 'list', '-d', volume.path)).not.toContain(`ID ${id} `)
    expect(existsSync(at('big'))).toBe(false)
    await fs.createSubvolume('small')
    await fs.deleteSubvolume('small')
    expect(existsSync(at('small'))).toBe(false)
  })

  it('waiting for the space ends with the signal or the timeout; the subvolume is gone all the same', async () => {
    await fs.createSubvolume('held')
    writeFileSync(at('held/file'), 'x')
    const held = openSync(at('held/file'), 'r') // the cleaner leaves it alone while this is open
    try {
      const abort = new AbortController()
      const waiting = fs.deleteSubvolume('held', { waitUntilFreed: true, signal: abort.signal })
      while (existsSync(at('held'))) await setImmediate()
      abort.abort()
      await expect(waiting).rejects.toMatchObject({ name: 'AbortError' })
      await fs.createSubvolume('held')
      const again = openSync(at('held'), 'r')
      try {
        await expect(fs.deleteSubvolume('held', { waitUntilFreed: true, timeoutMs: 1_000 })).rejects.toMatchObject({
          code: 'ETIMEDOUT',
          operation: 'deleteSubvolume',
        })
      } finally {
        closeSync(again)
      }
      expect(existsSync(at('held'))).toBe(false)
    } finally {
      closeSync(held)
    }
  })

  it('deletes by id alone, also what no mount shows; what is mounted, the default, or has children explains itself', async () => {
    await fs.createSubvolume('by-id')
    await fs.createSubvolume('by-id/inner')
    const outer = await fs.subvolume('by-id')
    const inner = await fs.subvolume('by-id/inner')
    const elsewhere = join(volume.directory, 'by-id-elsewhere')
    mkdirSync(elsewhere)
    run('mount', '-o', 'subvol=by-id/inner', volume.loops[0]!, elsewhere)
    try {
      await expect(fs.deleteSubvolume(outer.id)).rejects.toMatchObject({
        code: 'EBUSY',
        hint: expect.stringContaining(elsewhere),
      })
      await expect(fs.deleteSubvolume(inner.id)).rejects.toMatchObject({ code: 'EBUSY' })
      await fs.createSubvolume('hidden')
      const { id } = await fs.subvolume('hidden')
      await using other = await openFilesystem(elsewhere)
      await other.deleteSubvolume(id, { waitUntilFreed: true })
      expect(existsSync(at('hidden'))).toBe(false)
    } finally {
      run('umount', elsewhere)
    }
    await expect(fs.deleteSubvolume(outer.id)).rejects.toMatchObject({ code: 'ENOTEMPTY' })
    await fs.setDefaultSubvolume(inner.id)
    await expect(fs.deleteSubvolume(inner.id)).rejects.toMatchObject({
      code: 'EPERM',
      hint: expect.stringContaining('default'),
    })
    await fs.setDefaultSubvolume(5)
    await fs.deleteSubvolume(inner.id)
    await fs.deleteSubvolume(outer.id)
    expect(existsSync(at('by-id'))).toBe(false)
    await expect(fs.deleteSubvolume(outer.id)).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(fs.deleteSubvolume(1)).rejects.toThrow(/id.*1/)
    await expect(fs.deleteSubvolume(300, { id: 300 })).rejects.toThrow(/`id`/)
  })

  it('deletes by id, from a directory that is reached through no symlink', async () => {
    await fs.createSubvolume('kept')
    mkdirSync(at('kept-in'))
    await fs.snapshot('kept', 'kept-in/s', { readonly: true })
    symlinkSync('kept-in', at('way'))
    const { id } = await fs.subvolume('kept-in/s')
    const { id: kept } = await fs.subvolume('kept')
    const deleting = (path: string, options: object) => expect(fs.deleteSubvolume(path, options)).rejects
    await deleting('way/s', { id }).toMatchObject({ code: 'ELOOP' })
    await deleting('kept-in/s', { id: kept }).toThrow(`could not find subvolume ${kept} there, but subvolume ${id}; `)
    const elsewhere = join(volume.directory, 'elsewhere')
    mkdirSync(elsewhere)
    run('mount', '-o', 'subvol=kept-in/s', volume.loops[0]!, elsewhere)
    try {
      await deleting('kept-in/s', { id }).toMatchObject({ code: 'EBUSY' })
    } finally {
      run('umount', elsewhere)
    }
    await fs.createSubvolume('kept/inner')
    await deleting('kept', { id: kept }).toMatchObject({ code: 'ENOTEMPTY', ioctl: 'BTRFS_IOC_SNAP_DESTROY_V2' })
    await fs.deleteSubvolume('kept/inner')
    run('btrfs', 'subvolume', 'set-default', at('kept'))
    const hint = "it is the volume's default subvolume; set another one first"
    await deleting('kept', { id: kept }).toMatchObject({ code: 'EPERM', hint })
    run('btrfs', 'subvolume', 'set-default', '5', volume.path)
    await fs.deleteSubvolume('kept-in/s', { id })
    await fs.deleteSubvolume('kept', { id: kept })
    expect(existsSync(at('kept-in/s')) || existsSync(at('kept'))).toBe(false)
  })

  it.skipIf(run('sh', '-c', 'command -v strace || true') === '')(
    'by id: spares the bystander that takes its name after it was compared',
    () => {
      const names = mkdtempSync(at('names-'))
      const slow = ['-f', '-qq', '-o', '/dev/null', '-P', names, '-e', 'trace=ioctl']
      const inject = ['-e', 'inject=ioctl:delay_enter=500ms']
      const helper = fileURLToPath(new URL('../helpers/delete-swapped.ts', import.meta.url))
      const child = [process.execPath, '--import', 'tsx', helper, volume.path, basename(names)]
      // LeakSanitizer cannot work under ptrace.
      const env = { ...process.env, ASAN_OPTIONS: `${process.env.ASAN_OPTIONS ?? ''}:detect_leaks=0` }
      const said = execFileSync('strace', [...slow, ...inject, ...child], { encoding: 'utf8', env })
      expect(JSON.parse(said)).toEqual({ left: ['it'], spared: true })
    },
  )
})
