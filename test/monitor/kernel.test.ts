import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, it, vi } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { Monitor } from '../../src/monitor/monitor.js'
import { stateVector } from '../../src/monitor/state.js'
import { MIB } from '../../src/units.js'
import { openFiles } from '../helpers/open-files.js'
import { cannotStall, makeStallableVolume } from '../helpers/stall.js'
import { cannotMount, makeVolume, run } from '../helpers/volume.js'

function write(path: string, mib: number) {
  const fd = openSync(path, 'w')
  const block = new Uint8Array(MIB).map((_, index) => (index * 2_654_435_761) >>> 13)
  for (let i = 0; i < mib; i++) writeSync(fd, block)
  closeSync(fd)
}

describe.skipIf(cannotMount)('the monitor on a real volume', () => {
  it('says what btrfs-progs says', async () => {
    using volume = makeVolume({ devicesMiB: [512, 512], data: 'single', metadata: 'raid1' })
    write(join(volume.path, 'file'), 100)
    await using fs = await openFilesystem(volume.path)
    await fs.sync()
    await using monitor = new Monitor({ filesystem: fs })
    const sample = await monitor.sample()
    const usage = run('btrfs', 'filesystem', 'usage', '-b', volume.path)
    const bytes = (pattern: RegExp) => Number(pattern.exec(usage)?.[1])
    const sizeBytes = bytes(/Device size:\s+(\d+)/)
    const metadata = bytes(/Metadata,RAID1: Size:(\d+)/)
    const overhead = 2 * (metadata + bytes(/System,RAID1: Size:(\d+)/))
    expect(sample).toMatchObject({
      source: 'kernel',
      sizeBytes,
      freeBytes: bytes(/Free \(statfs, df\):\s+(\d+)/),
      unallocatedBytes: bytes(/Device unallocated:\s+(\d+)/),
      metadataSlackBytes: metadata - bytes(/Metadata,RAID1: .*Used:(\d+)/) - bytes(/Global reserve:\s+(\d+)/),
      metadataOverheadRatio: overhead / sizeBytes,
      devices: 2,
      missingDevices: 0,
      exclusiveOperation: 'none',
      readOnly: false,
      deviceErrors: { write: 0, read: 0, flush: 0, corruption: 0, generation: 0 },
    })
    expect(sample.usedPercent).toBeCloseTo((100 * (bytes(/Data,single: .*Used:(\d+)/) + overhead)) / sizeBytes, 9)
    expect(sample.liveUsedPercent).toBe(sample.usedPercent)
    expect(sample.unavailable.map(({ field }) => field)).toEqual(['freeDeltaMBPerHour', 'slopePercentPerHour'])
    const state = monitor.state(sample)
    expect(state.utilisation).toBeCloseTo(sample.usedPercent / 100, 12)
    for (const feature of stateVector(state)) expect(Math.abs(feature)).toBeLessThanOrEqual(1)
  })

  it('sees what is written before it is flushed', async () => {
    using volume = makeVolume({ devicesMiB: [512], mountOptions: 'commit=600' })
    await using fs = await openFilesystem(volume.path)
    await using monitor = new Monitor({ filesystem: fs })
    const empty = await monitor.sample()
    write(join(volume.path, 'file'), 100)
    const dirty = await monitor.sample()
    expect(dirty.usedPercent).toBe(empty.usedPercent)
    expect(dirty.liveUsedPercent! - empty.liveUsedPercent!).toBeCloseTo((100 * 100) / 512, 3)
    expect(monitor.state(dirty).utilisation).toBeCloseTo(dirty.liveUsedPercent! / 100, 12)
  })

  it('keeps its state on the volume that it watches, over a restart', async () => {
    using volume = makeVolume({ devicesMiB: [256] })
    await using fs = await openFilesystem(volume.path)
    const stateDir = join(volume.path, 'state')
    {
      await using monitor = new Monitor({ filesystem: fs, stateDir })
      for (let i = 0; i < 5; i++) await monitor.sample()
    }
    await using monitor = new Monitor({ filesystem: fs, stateDir })
    await monitor.open()
    expect(monitor.history.length).toBe(5)
  })

  it('refuses a state directory on a read-only volume', async () => {
    using volume = makeVolume({ devicesMiB: [256] })
    run('mount', '-o', 'remount,ro', volume.path)
    await using fs = await openFilesystem(volume.path)
    const stateDir = join(volume.path, 'state')
    await using monitor = new Monitor({ filesystem: fs, stateDir })
    await expect(monitor.sample()).rejects.toMatchObject({
      code: 'BTRMIND_ERR_STATE',
      message: expect.stringContaining(`'${stateDir}': EROFS; it is on a read-only filesystem`),
    })
  })
})

describe.skipIf(cannotStall)('the monitor on a volume that hangs', () => {
  it('goes on with statfs, adds no query, keeps the event loop free, and recovers', async () => {
    using volume = makeStallableVolume()
    for (let i = 0; i < 2_000; i++) writeFileSync(join(volume.path, `file${i}`), Buffer.alloc(3_000, i))
    volume.remount()
    const directory = mkdtempSync(join(tmpdir(), 'btrmind-stuck-'))
    {
      await using fs = await openFilesystem(volume.path)
      await using monitor = new Monitor({ filesystem: fs, timeoutMs: 100, stateDir: directory })
      await monitor.open()
      volume.stall()
      let turns = 0
      let done = false
      const pending = monitor.sample().finally(() => {
        done = true
      })
      for (; !done; turns++) await turn()
      const first = await pending
      expect(first).toMatchObject({ source: 'statfs', fallbackReason: expect.stringContaining('ETIMEDOUT') })
      expect(turns).toBeGreaterThan(20)
      expect(run('stat', '--file-system', '--format=%a %S', volume.path).trim()).toBe(`${first.freeBytes / 4096} 4096`)
      for (let i = 0; i < 50; i++) {
        const sample = await monitor.sample()
        expect(sample.source).toBe('statfs')
        expect(sample.fallbackReason).toContain('has been stuck in the kernel')
      }
      expect(monitor.outstandingQueries).toBe(2)
      volume.resume()
      await vi.waitFor(() => expect(monitor.outstandingQueries).toBe(0), 20_000)
      const after = await monitor.sample()
      expect(after.source).toBe('kernel')
      expect(after.fragmentationRatio).toBeDefined()
      expect(monitor.history.length).toBe(52)
    }
    rmSync(directory, { recursive: true })
  })

  it('lets itself be closed while a query is stuck', async () => {
    using volume = makeStallableVolume()
    for (let i = 0; i < 2_000; i++) writeFileSync(join(volume.path, `file${i}`), Buffer.alloc(3_000, i))
    volume.remount()
    const fs = await openFilesystem(volume.path)
    const monitor = new Monitor({ filesystem: fs, timeoutMs: 50, retries: 0 })
    volume.stall()
    expect((await monitor.sample()).source).toBe('statfs')
    expect(monitor.outstandingQueries).toBe(1)
    await monitor.close()
    await fs.close()
    await expect(monitor.sample()).rejects.toMatchObject({ code: 'EBADF' })
    // The thread in the kernel still holds the descriptor; only then can the volume be unmounted.
    expect(openFiles()).toContain(volume.path)
    volume.resume()
    await vi.waitFor(() => expect(openFiles()).not.toContain(volume.path), 20_000)
  })
})
