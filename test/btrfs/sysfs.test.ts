/** statistics(), reclaimSettings(), setReclaimSettings() against the files themselves. */
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, it } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { parseChecksum, parseCommits, parsePolicy } from '../../src/btrfs/statistics.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount } from '../helpers/volume.js'

describe('what sysfs writes', () => {
  it('is read, and what is not known is undefined', () => {
    const text = 'commits 3\ncur_commit_ms 0\nlast_commit_ms 2\nmax_commit_ms 5\ntotal_commit_ms 9'
    expect(parseCommits(text)).toEqual({ count: 3, currentMs: 0, lastMs: 2, maxMs: 5, totalMs: 9 })
    for (const bad of [undefined, '', 'commits 3', text.replace('9', '-9'), text.replace('5', 'many')])
      expect(parseCommits(bad)).toBeUndefined()
    expect(parseChecksum('crc32c (crc32c-lib)')).toEqual({ algorithm: 'crc32c', implementation: 'crc32c-lib' })
    expect(parseChecksum('sha256')).toEqual({ algorithm: 'sha256', implementation: undefined })
    expect(parseChecksum('a b c')).toBeUndefined()
    expect(parsePolicy('pid [round-robin:262144] devid:1')).toEqual({
      active: 'round-robin:262144',
      supported: ['pid', 'round-robin:262144', 'devid:1'],
    })
    expect(parsePolicy('pid')).toBeUndefined()
  })
})

describe.skipIf(cannotMount)('sysfs', () => {
  const { volume, fs } = useVolume({ mountOptions: 'discard=async' })
  const at = (name: string) => `/sys/fs/btrfs/${fs.uuid}/${name}`
  const read = (name: string) => readFileSync(at(name), 'utf8').trim()
  /** What this kernel has. */
  const has = (name: string) => existsSync(at(name))
  beforeAll(async () => {
    for (const path of [volume.directory, volume.path]) chmodSync(path, 0o755)
  })

  it('statistics() counts commits, and names what is absent', async () => {
    const before = await fs.statistics()
    for (let i = 0; i < 3; i++) {
      writeFileSync(join(volume.path, 'file'), Buffer.alloc(200_000, `${i}`))
      await fs.sync()
    }
    const after = await fs.statistics()
    expect(has('commit_stats')).toBe(after.commits !== undefined)
    if (after.commits !== undefined) {
      expect(after.commits.count - before.commits!.count).toBeGreaterThanOrEqual(3)
      expect(after.commits.totalMs).toBeGreaterThanOrEqual(after.commits.maxMs)
      const capabilities = /^CapEff:\s+(\w+)/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]
      const mayReset = (BigInt(`0x${capabilities}`) >> 24n) & 1n // CAP_SYS_RESOURCE
      if (mayReset) {
        await fs.resetCommitStatistics()
        const { commits } = await fs.statistics()
        expect(commits).toMatchObject({ count: after.commits.count, maxMs: 0, totalMs: after.commits.totalMs })
      } else {
        const refused = { code: 'EPERM', hint: 'needs CAP_SYS_RESOURCE' }
        await expect(fs.resetCommitStatistics()).rejects.toMatchObject(refused)
      }
    }
    expect(after.generation).toBe(has('generation') ? (await fs.info()).generation : undefined)
    expect(after.checksum?.algorithm).toBe((await fs.info()).checksum)
    expect(after.exclusiveOperation).toBe('none')
    expect(read('read_policy')).toContain(`[${after.readPolicy?.active}]`)
    expect(after.discard).toMatchObject({
      limitPerSecond: Number(read('discard/iops_limit')),
      limitBytesPerSecond: Number(read('discard/kbps_limit')) * 1024,
      maxRequestBytes: Number(read('discard/max_discard_size')),
    })
    expect(after.temporaryUuid).toBe(has('temp_fsid') ? false : undefined)
    for (const { field, reason } of after.unavailable) expect([field, reason]).toEqual([field, expect.any(String)])
    expect(after.unavailable.some(({ field }) => field === 'generation')).toBe(!has('generation'))
  })

  it('reclaimSettings() are what the files say, and change with them', async () => {
    const now = await fs.reclaimSettings()
    expect(Object.keys(now.types)).toEqual(
      ['data', 'metadata', 'system'].filter((type) => readdirSync(at('allocation')).includes(type)),
    )
    expect(now.zonedThresholdPercent).toBe(Number(read('bg_reclaim_threshold')))
    writeFileSync(at('allocation/metadata/bg_reclaim_threshold'), '33')
    await fs.setReclaimSettings({ data: { thresholdPercent: 42, periodic: true }, zonedThresholdPercent: 80 })
    const changed = await fs.reclaimSettings()
    expect(changed.types.data).toEqual({
      thresholdPercent: 42,
      dynamic: false,
      periodic: true,
      reclaimed: 0,
      reclaimedBytes: 0,
      errors: 0,
    })
    expect(changed.types.metadata?.thresholdPercent).toBe(33)
    expect(changed.zonedThresholdPercent).toBe(80)
    expect(changed.unavailable).toEqual([])
    expect(read('allocation/data/bg_reclaim_threshold')).toBe('42')
    await fs.setReclaimSettings({ data: { dynamic: true, periodic: false } })
    expect([read('allocation/data/dynamic_reclaim'), read('allocation/data/periodic_reclaim')]).toEqual(['1', '0'])
  })

  it('setReclaimSettings() sets all or nothing, and says what is wrong', async () => {
    const before = read('allocation/system/bg_reclaim_threshold')
    // This volume has no mixed block groups: by then the first one is set.
    const both = { system: { thresholdPercent: 77 }, 'data+metadata': { thresholdPercent: 5 } }
    await expect(fs.setReclaimSettings(both)).rejects.toMatchObject({
      code: 'ENOENT',
      hint: expect.stringContaining('reclaimSettings()'),
    })
    expect(read('allocation/system/bg_reclaim_threshold')).toBe(before)
    for (const [bad, text] of [
      [{ data: { thresholdPercent: 101 } }, '101'],
      [{ data: { thresholdPercent: 1.5 } }, '1.5'],
      [{ data: { dynamic: 1 } }, '1'],
      [{ zonedThresholdPercent: 50 }, '50'],
      [{ data: { threshold: 5 } }, "'data.threshold'"],
      [{ dat: {} }, "did you mean 'data'"],
      [{ data: {} }, 'got nothing'],
    ] as const)
      await expect(fs.setReclaimSettings(bad as never)).rejects.toThrow(text)
  })

  it('lets everybody read, and root alone set', () => {
    const script = fileURLToPath(new URL('../helpers/sysfs-as-nobody.ts', import.meta.url))
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', script, volume.path], {
      encoding: 'utf8',
    })
    expect(status, stderr).toBe(0)
    const told = JSON.parse(stdout)
    expect(told.statistics).toMatchObject({ exclusiveOperation: 'none' })
    expect(told.reclaim.types.data).toBeDefined()
    for (const refused of [told.set, told.reset]) expect(refused).toEqual({ code: 'EACCES', hint: 'needs root' })
  })

  it('fails with EBADF after close()', async () => {
    const other = await openFilesystem(volume.path)
    await other.close()
    await expect(other.statistics()).rejects.toMatchObject({ code: 'EBADF' })
    await expect(other.reclaimSettings()).rejects.toMatchObject({ code: 'EBADF' })
  })
})
