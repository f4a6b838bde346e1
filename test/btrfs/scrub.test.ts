import { execFile } from 'node:child_process'
import { closeSync, openSync, readFileSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { promisify } from 'node:util'
import { describe, expect, it, vi } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import type { ScrubProgress } from '../../src/btrfs/scrub-progress.js'
import { native } from '../../src/native.js'
import { useOwnVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

const MARK = 'BTRMIND-SCRUB-MARK-BTRMIND-SCRUB-MARK-'

/** Where `text` is in a file, in steps of a block. */
function find(path: string, text: string): number[] {
  const found: number[] = []
  const fd = openSync(path, 'r')
  const chunk = Buffer.alloc(1 << 20)
  try {
    for (let at = 0; ; at += chunk.length) {
      const length = readSync(fd, chunk, 0, chunk.length, at)
      if (length === 0) return found
      for (let block = 0; block < length; block += 4096)
        if (chunk.subarray(block, block + text.length).toString('latin1') === text) found.push(at + block)
    }
  } finally {
    closeSync(fd)
  }
}

function damage(image: string, offset: number): void {
  const fd = openSync(image, 'r+')
  writeSync(fd, Buffer.alloc(64, 'x'), 0, 64, offset)
  closeSync(fd)
}

describe.skipIf(cannotMount)('scrub()', () => {
  const { volume, fs, at, make } = useOwnVolume()
  /** A file of marked blocks, on disk. */
  function fill(name: string, mib: number) {
    const block = Buffer.alloc(4096, 'random enough not to be compressed')
    block.write(MARK, 0, 'latin1')
    writeFileSync(at(name), Buffer.concat(Array<Buffer>(256 * mib).fill(block)))
    run('sync', '-f', volume.path)
    run('sync')
  }

  it('of a healthy volume counts what btrfs-progs counts, on each device', async () => {
    await make({ devicesMiB: [512, 512], data: 'raid1', metadata: 'raid1' })
    fill('file', 8)
    const result = await fs.scrub({ readonly: true }).result
    expect(result.devices.map(({ devid, state, ratio }) => [devid, state, ratio])).toEqual([
      [1, 'finished', 1],
      [2, 'finished', 1],
    ])
    run('btrfs', 'scrub', 'start', '-B', '-r', volume.path)
    const raw = run('btrfs', 'scrub', 'status', '-R', volume.path)
    const field = (name: string) => Number(new RegExp(`${name}: (\\d+)`).exec(raw)![1])
    expect(result.dataBytes).toBe(field('data_bytes_scrubbed'))
    expect(result.treeBytes).toBe(field('tree_bytes_scrubbed'))
    expect(result.dataExtents).toBe(field('data_extents_scrubbed'))
    expect(result.dataBytes).toBe(16 << 20)
    expect(result).toMatchObject({ checksumErrors: 0, correctedErrors: 0, correctableErrors: 0, remainingMs: 0 })
    expect((await fs.scrub({ devid: 2 }).result).devices).toMatchObject([{ devid: 2, state: 'finished' }])
  })

  it('calls correctable what it only could correct, then corrects it', async () => {
    await make({ devicesMiB: [512, 512], data: 'raid1', metadata: 'raid1' })
    fill('file', 1)
    const places = find(volume.images[0]!, MARK)
    expect(places.length).toBeGreaterThanOrEqual(256)
    for (const at of [places[3]!, places[77]!]) damage(volume.images[0]!, at)
    const checked = await fs.scrub({ readonly: true }).result
    expect(checked).toMatchObject({
      checksumErrors: 2,
      correctableErrors: 2,
      correctedErrors: 0,
      uncorrectableErrors: 0,
    })
    expect(checked.devices[1]).toMatchObject({ checksumErrors: 0 })
    const repaired = await fs.scrub().result
    expect(repaired).toMatchObject({
      checksumErrors: 2,
      correctableErrors: 0,
      correctedErrors: 2,
      uncorrectableErrors: 0,
    })
    run('sync')
    const image = readFileSync(volume.images[0]!)
    expect(image.subarray(places[3], places[3]! + MARK.length).toString()).toBe(MARK)
    expect(await fs.scrub().result).toMatchObject({ checksumErrors: 0, correctedErrors: 0 })
  })

  it('says what no copy can repair', async () => {
    await make({ devicesMiB: [512], data: 'single' })
    fill('file', 1)
    damage(volume.images[0]!, find(volume.images[0]!, MARK)[9]!)
    expect(await fs.scrub().result).toMatchObject({ checksumErrors: 1, uncorrectableErrors: 1, correctedErrors: 0 })
  })

  it('is held to a speed, shows how far it is, stops when told, and goes on from there', async () => {
    await make({ devicesMiB: [1024], data: 'single' })
    fill('file', 64)
    const limit = `/sys/fs/btrfs/${fs.uuid}/devinfo/1/scrub_speed_max`
    const before = readFileSync(limit, 'utf8')
    const scrub = fs.scrub({ intervalMs: 20, bytesPerSecond: 8 << 20 })
    const seen: ScrubProgress[] = []
    for await (const progress of scrub) {
      seen.push(progress)
      if (progress.dataBytes > 8 << 20) break
    }
    expect(readFileSync(limit, 'utf8').trim()).toBe(String(8 << 20))
    await expect(fs.scrub({ bytesPerSecond: 1 << 20 }).result).rejects.toMatchObject({
      code: 'EINPROGRESS',
      hint: expect.stringContaining('another scrub'),
    })
    expect(readFileSync(limit, 'utf8').trim()).toBe(String(8 << 20))
    await scrub.cancel()
    const error = await scrub.result.catch((error) => error)
    expect(error).toMatchObject({ code: 'ECANCELED', progress: { devices: [{ state: 'cancelled' }] } })
    expect(readFileSync(limit, 'utf8')).toBe(before)
    const last = seen.at(-1)!
    expect(last.remainingMs).toBeGreaterThan(0)
    expect(last.ratio).toBeGreaterThan(0)
    expect(last.ratio).toBeLessThan(1)
    const [first] = (error.progress as ScrubProgress).devices
    const rest = await fs.scrub({ start: { 1: first!.lastPhysicalBytes } }).result
    expect(rest.devices).toMatchObject([{ state: 'finished', ratio: 1 }])
    // The kernel begins again with the block group that it was in.
    expect(rest.dataBytes).toBeGreaterThanOrEqual((64 << 20) - first!.dataBytes)
    expect(rest.dataBytes).toBeLessThanOrEqual(64 << 20)
    const beyond = await fs.scrub({ devid: 1, start: rest.devices[0]!.lastPhysicalBytes }).result
    expect(beyond).toMatchObject({ dataBytes: 0, ratio: 1 })
    expect(await scrub.progress()).toBeUndefined()
  })

  /** What it has said against what it came to at its end. */
  async function estimates(start?: number) {
    const scrub = fs.scrub({ intervalMs: 15, bytesPerSecond: 32 << 20, readonly: true, ...(start && { start }) })
    const seen: ScrubProgress[] = []
    for await (const progress of scrub) seen.push(progress)
    const end = await scrub.result
    const checked = ({ dataBytes, treeBytes }: ScrubProgress) => dataBytes + treeBytes
    expect(end).toMatchObject({ ratio: 1, remainingMs: 0 })
    const ratios = seen.map(({ ratio }) => ratio)
    expect(ratios).toEqual([...ratios].sort((a, b) => a - b))
    return seen.map((progress) => {
      const { ratio, elapsedMs, remainingMs } = progress
      const byTime = remainingMs === undefined ? undefined : elapsedMs / (elapsedMs + remainingMs)
      return { ratio, byTime, truth: checked(progress) / checked(end) }
    })
  }
  const wrong = (seen: Awaited<ReturnType<typeof estimates>>) =>
    seen.filter(({ ratio, truth }) => Math.abs(ratio - truth) > 0.05)

  it('tells how far it is by what is used, where much more is allocated; also from a start', async () => {
    await make({ devicesMiB: [1536], data: 'single', metadata: 'dup' })
    // Block groups full at first; then only the last ones keep anything.
    for (let i = 0; i < 20; i++) writeFileSync(at(`file ${i}`), Buffer.alloc(32 << 20, 'x'))
    run('sync', '-f', volume.path)
    for (let i = 0; i < 19; i++) rmSync(at(`file ${i}`))
    run('sync', '-f', volume.path)
    run('btrfs', 'filesystem', 'sync', volume.path)
    const seen = await estimates()
    expect(seen.length).toBeGreaterThan(5)
    expect(wrong(seen)).toEqual([])
    // Of one device the rest of the time is as the rest of the bytes.
    for (const { ratio, byTime } of seen) if (byTime !== undefined) expect(byTime).toBeCloseTo(ratio, 5)
    const groups = (await fs.blockGroups()).filter(({ type }) => type === 'data')
    const last = Math.max(...groups.map(({ stripes }) => stripes[0]!.offsetBytes))
    expect(wrong(await estimates(last + 4096))).toEqual([])
    // Where the use cannot be read it goes by what is allocated.
    const spy = vi.spyOn(native, 'blockGroups').mockImplementation(() => {
      return Promise.reject({ failure: true, code: 'EIO', errno: -5, text: 'I/O error' })
    })
    try {
      expect(wrong(await estimates()).length).toBeGreaterThan(0)
    } finally {
      spy.mockRestore()
    }
  })

  it.each(['raid1', 'raid0', 'raid10', 'raid5', 'raid6'])(
    'tells how far it is on several devices: %s',
    async (data) => {
      await make({ devicesMiB: [512, 512, 512, 512], data, metadata: 'raid1' })
      fill('file', 64)
      expect(wrong(await estimates())).toEqual([])
    },
  )

  it('one that was begun elsewhere is seen and stopped', async () => {
    await make({ devicesMiB: [512, 512], data: 'raid1', metadata: 'raid1' })
    fill('file', 64)
    expect(await fs.scrubStatus()).toBeUndefined()
    await expect(fs.cancelScrub()).rejects.toMatchObject({ code: 'ENOTCONN', hint: 'no scrub runs' })
    const limit = `/sys/fs/btrfs/${fs.uuid}/devinfo/1/scrub_speed_max`
    writeFileSync(limit, String(4 << 20))
    const elsewhere = promisify(execFile)('btrfs', ['scrub', 'start', '-B', '-r', volume.path]).catch((error) => error)
    await vi.waitFor(async () => expect((await fs.scrubStatus())?.devices[0]?.dataBytes).toBeGreaterThan(0), 10_000)
    const { devices } = (await fs.scrubStatus())!
    expect(devices[0]).toMatchObject({ devid: 1, checksumErrors: 0, correctedOrCorrectableErrors: 0 })
    expect(devices[0]!.lastPhysicalBytes).toBeGreaterThan(0)
    // The kernel's cancel would stop a replacement as well.
    const spy = vi.spyOn(native, 'deviceReplaceStatus').mockImplementation(async () => ({
      state: 'running',
      ratio: 0,
      startedSeconds: 0,
      stoppedSeconds: 0,
      writeErrors: 0,
      readErrors: 0,
    }))
    try {
      await expect(fs.cancelScrub()).rejects.toMatchObject({ code: 'BTRMIND_ERR_GUARD' })
      expect(await fs.scrubStatus()).toBeUndefined()
    } finally {
      spy.mockRestore()
    }
    expect(await fs.scrubStatus()).toBeDefined()
    await fs.cancelScrub()
    expect(await fs.scrubStatus()).toBeUndefined()
    expect((await elsewhere).stdout + (await elsewhere).stderr).toMatch(/abort|cancel/i)
    await expect(fs.scrubStatus({ signa: 1 } as never)).rejects.toThrow(/signal/)
  })

  it('ends with the signal and with close(), and nothing goes on', async () => {
    await make({ devicesMiB: [1024], data: 'single' })
    fill('file', 64)
    const status = () => run('btrfs', 'scrub', 'status', '-R', volume.path)
    for (const end of ['abort', 'close'] as const) {
      const controller = new AbortController()
      const other = await openFilesystem(volume.path)
      const scrub = other.scrub({ intervalMs: 10, bytesPerSecond: 4 << 20, signal: controller.signal })
      for await (const _ of scrub) break
      if (end === 'abort') controller.abort()
      await (end === 'close' ? other.close() : scrub.result.catch(() => {}))
      await expect(scrub.result).rejects.toMatchObject({ code: 'ECANCELED' })
      await other.close()
      // The device is free for another one.
      await fs.scrub({ readonly: true, end: 1 << 20 }).result
    }
    expect(status()).not.toContain('running')
  })

  it('bad input: what is wrong is said', async () => {
    await make({ devicesMiB: [128] })
    await expect(fs.scrub({ devid: 9 }).result).rejects.toThrow(/ENODEV.*no device 9 of its own/)
    expect(() => fs.scrub({ devid: 0 })).toThrow(/devid.*0/)
    expect(() => fs.scrub({ start: -1 })).toThrow(/start/)
    expect(() => fs.scrub({ device: 1 } as never)).toThrow(/devi/)
    run('mount', '-o', 'remount,ro', volume.path)
    const unrepaired = { code: 'EROFS', hint: expect.stringContaining('`readonly: true`') }
    await expect(fs.scrub().result).rejects.toMatchObject(unrepaired)
    expect(await fs.scrub({ readonly: true }).result).toMatchObject({ checksumErrors: 0 })
    await fs.close()
    await expect(fs.scrub().result).rejects.toMatchObject({ code: 'EBADF' })
  })
})
