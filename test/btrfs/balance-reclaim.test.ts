/** reclaimDataBlockGroups(), exclusiveOperation(), redundancy(). */
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import type { ReclaimProgress } from '../../src/btrfs/balance-reclaim.js'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import type { BlockGroup } from '../../src/btrfs/inspect.js'
import { redundancyOf } from '../../src/btrfs/redundancy.js'
import { hasRoom, hasSizeClasses } from '../../src/btrfs/size-classes.js'
import { createRandom } from '../../src/random.js'
import { MIB } from '../../src/units.js'
import { useFreshVolume } from '../helpers/use-volume.js'
import { cannotMount, makeVolume, run } from '../helpers/volume.js'

const FILES = 40
const noise = randomBytes(8 * MIB)
const stays = (i: number) => (i * 7) % 23 <= i / 3
const failure = (result: Promise<unknown>) =>
  result.then(
    () => undefined,
    (error) => error,
  )

describe('size classes', () => {
  it('are there since Linux 6.3', () => {
    expect(['5.15.0', '6.2.16-generic', '6.3.0-rc1', '6.18.44', '7.0'].map((kernel) => hasSizeClasses(kernel))).toEqual(
      [false, false, true, true, true],
    )
  })
  it('each needs room among its own, or in an empty block group', () => {
    const small = { classes: [5, 0, 0], freeBytes: 10 } as const
    const mixed = { classes: [1, 1, 0], freeBytes: 4 } as const
    expect(hasRoom([14, 0, 0], [small, mixed])).toBe(true)
    expect(hasRoom([15, 0, 0], [small, mixed])).toBe(false)
    expect(hasRoom([1, 4, 0], [small, mixed])).toBe(true)
    expect(hasRoom([0, 0, 1], [small, mixed])).toBe(false)
    expect(hasRoom([0, 0, 1], [small, { classes: [0, 0, 0], freeBytes: 1 }])).toBe(true)
    expect(hasRoom([0, 0, 0], [])).toBe(true)
  })
})

describe.skipIf(cannotMount)('reclaimDataBlockGroups()', () => {
  const { volume, fs } = useFreshVolume({ devicesMiB: [576] })
  beforeEach(async () => {
    // Five block groups and more, from nearly empty to nearly full.
    for (let i = 0; i < FILES; i++) writeFileSync(at(i), noise.subarray(4096 * i))
    await fs.sync()
    for (let i = 0; i < FILES; i++) if (!stays(i)) rmSync(at(i))
    await fs.sync()
  })

  const at = (i: number) => join(volume.path, `${i}`)
  const digest = () =>
    Array.from({ length: FILES }, (_, i) => i)
      .filter(stays)
      .map((i) =>
        createHash('sha1')
          .update(readFileSync(at(i)))
          .digest('hex'),
      )
  const data = async () =>
    (await fs.blockGroups())
      .filter(({ type }) => type === 'data')
      .sort((a, b) => a.usedBytes! / a.sizeBytes - b.usedBytes! / b.sizeBytes)
  const unallocated = async () => (await fs.devices())[0]!.unallocatedBytes

  it('takes the least used first, as many as asked for, and loses nothing', async () => {
    const before = await data()
    const free = await unallocated()
    const content = digest()
    const taken: NonNullable<ReclaimProgress['current']>[] = []
    const reclaim = fs.reclaimDataBlockGroups({ maxBlockGroups: 2, intervalMs: 1 })
    for await (const { current } of reclaim)
      if (current !== undefined && taken.at(-1)?.logicalBytes !== current.logicalBytes) taken.push(current)
    const result = await reclaim.result
    expect(result).toMatchObject({ blockGroups: 2, stopped: 'limit', current: undefined })
    // One that went too fast may not be seen.
    expect(taken.length).toBeGreaterThan(0)
    const least = before[0]!.usedBytes! / before[0]!.sizeBytes
    const shares = taken.map(({ usedBytes, sizeBytes }) => usedBytes / sizeBytes)
    expect([least, ...shares]).toEqual([least, ...shares].sort((a, b) => a - b))
    expect(await data()).not.toContainEqual(before[0])
    expect(result.movedBytes).toBeGreaterThanOrEqual(before.slice(0, 2).reduce((sum, row) => sum + row.usedBytes!, 0))
    expect(result.gainedBytes).toBe((await unallocated()) - free)
    expect(result.gainedBytes).toBeGreaterThan(0)
    expect(digest()).toEqual(content)
    expect(await reclaim.progress()).toBeUndefined()
  })

  it('stops at its target, and by itself where nothing is to be gained', async () => {
    const free = await unallocated()
    const target = await fs.reclaimDataBlockGroups({ targetUnallocatedBytes: free + 50 * MIB }).result
    expect(target.stopped).toBe('target')
    expect(target.unallocatedBytes).toBeGreaterThanOrEqual(free + 50 * MIB)
    expect(await fs.reclaimDataBlockGroups({ targetUnallocatedBytes: free + 50 * MIB }).result).toMatchObject({
      blockGroups: 0,
      stopped: 'target',
    })
    const rest = await fs.reclaimDataBlockGroups({ maxUsagePercent: 100 }).result
    expect(['no gain', 'none left']).toContain(rest.stopped)
    // What is left would fill all but one of them.
    const again = await fs.reclaimDataBlockGroups({ maxUsagePercent: 100 }).result
    expect(['no gain', 'none left']).toContain(again.stopped)
    expect(again.gainedBytes).toBeGreaterThanOrEqual(0)
    for (const { usedBytes, sizeBytes } of await data())
      if (again.stopped === 'none left') expect(usedBytes).toBe(sizeBytes)
    expect(await fs.reclaimDataBlockGroups({ maxUsagePercent: 1 }).result).toMatchObject({ stopped: 'none left' })
  })

  it('leaves alone what would only change its place: another run moves nothing', async () => {
    // Of every size class: the kernel keeps them apart while it can make block groups.
    for (let i = 0; i < 4; i++) writeFileSync(join(volume.path, `small${i}`), noise.subarray(0, 50_000))
    for (let i = 0; i < 2; i++) run('fallocate', '--length', '9MiB', join(volume.path, `large${i}`))
    await fs.sync()
    const first = await fs.reclaimDataBlockGroups({ maxUsagePercent: 100 }).result
    expect(first.gainedBytes).toBeGreaterThan(0)
    const before = await data()
    const again = await fs.reclaimDataBlockGroups({ maxUsagePercent: 100 }).result
    expect(again).toMatchObject({ blockGroups: 0, movedBytes: 0 })
    expect(await data()).toEqual(before)
  })

  it.each(['cancel()', 'a signal', 'close()'])('%s at any moment leaves no balance behind', async (how) => {
    const random = createRandom(how.length)
    let cut = 0
    for (let round = 0; round < 6; round++) {
      const other = await openFilesystem(volume.path)
      const stop = new AbortController()
      const reclaim = other.reclaimDataBlockGroups({ maxUsagePercent: 100, signal: stop.signal })
      await setTimeout(random.integer(40))
      if (how === 'cancel()') await reclaim.cancel()
      if (how === 'a signal') stop.abort()
      if (how === 'close()') await other.close()
      const error = await failure(reclaim.result)
      expect(await fs.balanceStatus()).toBeUndefined()
      expect(await fs.exclusiveOperation()).toBe('none')
      await other.close()
      if (error === undefined) continue
      cut++
      if (error instanceof DOMException || error.code === 'EBADF') continue // before it began
      expect(error).toMatchObject({ code: 'ECANCELED', operation: 'reclaimDataBlockGroups' })
      if (error.progress === undefined) continue // before it began
      const { blockGroups, gainedBytes, current } = error.progress as ReclaimProgress
      expect([blockGroups >= 0, Number.isFinite(gainedBytes), current]).toEqual([true, true, undefined])
    }
    expect(cut).toBeGreaterThan(0)
  })

  it('says who is in its way, and refuses nonsense', async () => {
    let paused = false
    while (!paused) {
      const operation = fs.balance({ data: {} })
      await vi.waitFor(async () => expect(await fs.balanceStatus()).toBeDefined(), { interval: 1 }).catch(() => {})
      await operation.pause!()
      paused = (await failure(operation.result)) !== undefined && (await fs.balanceStatus())?.state === 'paused'
    }
    expect(await fs.exclusiveOperation()).toBe('balance paused')
    const hint = 'a balance is paused: resumeBalance() or cancelBalance()'
    const refused = await Promise.all([
      failure(fs.reclaimDataBlockGroups({ maxBlockGroups: 1 }).result),
      failure(fs.balance({ data: {} }).result),
      failure(fs.resizeDevice(1, 1000 * MIB)),
      failure(fs.removeDevice(1)),
    ])
    for (const error of refused) {
      expect(['EINPROGRESS', 'BTRFS_ERROR_DEV_EXCL_RUN_IN_PROGRESS']).toContain(error.code)
      expect(error.hint, error.operation).toBe(hint)
    }
    expect(refused[0].progress).toMatchObject({ blockGroups: 0, gainedBytes: 0 })
    await fs.cancelBalance()

    expect(() => fs.reclaimDataBlockGroups({})).toThrow('at least one of targetUnallocatedBytes')
    expect(() => fs.reclaimDataBlockGroups({ maxUsagePercent: 0 })).toThrow("option 'maxUsagePercent'")
    expect(() => fs.reclaimDataBlockGroups({ maxBlockGroup: 1 } as never)).toThrow("did you mean 'maxBlockGroups'?")
    await fs.close()
    await expect(fs.exclusiveOperation()).rejects.toMatchObject({ code: 'EBADF' })
    expect(await failure(fs.reclaimDataBlockGroups({ maxBlockGroups: 1 }).result)).toMatchObject({ code: 'EBADF' })
  })
})

describe.skipIf(cannotMount)('reclaimDataBlockGroups() and a swap file', () => {
  it('does not go round and round with one that the kernel leaves where it is', async () => {
    using volume = makeVolume({ devicesMiB: [512] })
    await using fs = await openFilesystem(volume.path)
    const swap = join(volume.path, 'swap')
    writeFileSync(swap, '')
    run('chattr', '+C', swap)
    run('chmod', '600', swap)
    run('dd', 'if=/dev/zero', `of=${swap}`, 'bs=1M', 'count=2', 'conv=fsync', 'status=none')
    const files = Array.from({ length: 60 }, (_, i) => join(volume.path, `${i}`))
    for (const file of files) run('fallocate', '--length', '2MiB', file)
    await fs.sync()
    // The swap file is alone in its block group; the fullest other one takes it twice and more.
    const groups = await fs.blockGroups()
    const home = async (file: string) => {
      let at = 0
      for await (const { physicalBytes = 0 } of fs.extents(file)) at = physicalBytes
      return groups.find(({ logicalBytes, sizeBytes }) => at >= logicalBytes && at < logicalBytes + sizeBytes)!
    }
    const swapped = await home(swap)
    const homes = await Promise.all(files.map(home))
    const others = homes.filter((group) => group !== swapped)
    const count = (group: BlockGroup) => others.filter((other) => other === group).length
    const fullest = others.reduce((a, b) => (count(b) > count(a) ? b : a))
    let left = count(fullest) - 4
    for (const [i, file] of files.entries()) if (homes[i] !== fullest || left-- <= 0) rmSync(file)
    await fs.sync()
    run('mkswap', swap)
    run('swapon', swap)
    try {
      const result = await fs.reclaimDataBlockGroups({ maxUsagePercent: 100 }).result
      expect(result).toMatchObject({ stopped: 'stuck', current: { logicalBytes: swapped.logicalBytes } })
    } finally {
      run('swapoff', swap)
    }
  })
})

describe.skipIf(cannotMount)('exclusiveOperation()', () => {
  it('what cannot be read has the number that belongs to its code', async () => {
    using volume = makeVolume({ devicesMiB: [256] })
    await using fs = await openFilesystem(volume.path)
    expect(await fs.exclusiveOperation()).toBe('none')
    const file = `/sys/fs/btrfs/${fs.uuid}/exclusive_operation`
    run('mount', '--bind', `/proc/${process.pid}/mem`, file)
    try {
      await using other = await openFilesystem(volume.path)
      await expect(other.exclusiveOperation()).rejects.toMatchObject({
        code: 'EIO',
        errno: -5,
        path: file,
      })
    } finally {
      run('umount', file)
    }
  })
})

describe('redundancyOf()', () => {
  it('takes as many block groups as there are', () => {
    const group = { type: 'data', profile: 'raid1', stripes: [{ devid: 1 }, { devid: 2 }] } as unknown as BlockGroup
    const thin = { ...group, profile: 'single', stripes: [{ devid: 1, offsetBytes: 0 }] } as const
    const reading = { devices: [], spaces: [] }
    const many = Array.from({ length: 300_000 }, () => group)
    expect(redundancyOf(reading, many)).toMatchObject({ spareDevices: 1, complete: true })
    expect(redundancyOf(reading, [...many, thin])).toMatchObject({ spareDevices: 0, complete: true })
  })
})

describe.skipIf(cannotMount)('redundancy()', () => {
  it('says what is missing, and whether all data is there', async () => {
    using volume = makeVolume({ devicesMiB: [512, 512, 512], data: 'raid1', metadata: 'raid1c3' })
    writeFileSync(join(volume.path, 'file'), randomBytes(20 * MIB), { flush: true })
    const whole = await openFilesystem(volume.path)
    expect(await whole.redundancy()).toMatchObject({
      degraded: false,
      missingDevids: [],
      complete: true,
      spareDevices: 1,
      unavailable: [],
    })
    await whole.close()
    run('umount', volume.path)
    run('wipefs', '--all', volume.loops[2]!)
    run('btrfs', 'device', 'scan', '--forget', volume.loops[0]!)
    run('mount', '-o', 'degraded', volume.loops[0]!, volume.path)
    await using fs = await openFilesystem(volume.path)
    const groups = await fs.blockGroups()
    const on3 = (type: string) =>
      groups.filter((group) => group.type === type && group.stripes.some(({ devid }) => devid === 3)).length
    const now = await fs.redundancy()
    expect(now).toMatchObject({ degraded: true, missingDevids: [3], complete: true, unavailable: [] })
    expect(now.spareDevices).toBe(on3('data') > 0 ? 0 : 1)
    const rows = Object.fromEntries(now.profiles.map((row) => [row.type, row]))
    expect(rows.data).toMatchObject({ profile: 'raid1', tolerated: 1, degraded: on3('data'), lost: 0 })
    expect(rows.metadata).toMatchObject({ profile: 'raid1c3', tolerated: 2, degraded: on3('metadata'), lost: 0 })
    expect(on3('metadata')).toBeGreaterThan(0)
    expect((await fs.devices()).map(({ missing }) => missing)).toEqual([false, false, true])
  })
})
