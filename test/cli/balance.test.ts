/** balance, reclaim, device. */
import { randomBytes } from 'node:crypto'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { beforeAll, describe, expect, it, vi } from 'vitest'
import { parseFilters } from '../../src/cli/balance.js'
import { MIB } from '../../src/units.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, makeVolume, run } from '../helpers/volume.js'
import { asNobody, btrmind } from './helper.js'

describe('filters as btrfs balance has them', () => {
  it('become those of the library', () => {
    const text =
      'usage=10..50,limit=5,profiles=raid1|single,devid=2,drange=0..4096,vrange=5..,stripes=..3,convert=dup,soft'
    expect(parseFilters(text)).toEqual({
      usagePercent: { min: 10, max: 50 },
      limit: 5,
      profiles: ['raid1', 'single'],
      devid: 2,
      drange: { startBytes: 0, endBytes: 4096 },
      vrange: { startBytes: 5, endBytes: undefined },
      stripes: { max: 3 },
      convert: 'dup',
      soft: true,
    })
    expect([parseFilters(true), parseFilters(undefined)]).toEqual([{}, undefined])
    expect(() => parseFilters('usag=5')).toThrow("did you mean 'usage'?")
    expect(() => parseFilters('usage=30,soft,usage=40')).toThrow(
      "BTRMIND_ERR_ARGUMENT: filter 'usage' is named twice: 'usage=30', 'usage=40'",
    )
    expect(() => parseFilters('usage=half')).toThrow("'usage=half': expected a whole number")
    expect(() => parseFilters('vrange=..')).toThrow("'vrange=..': expected a range")
  })
})

describe.skipIf(cannotMount)('balance, reclaim', () => {
  const { volume, fs } = useVolume({ devicesMiB: [1024] })
  const noise = randomBytes(8 * MIB)
  beforeAll(async () => {
    for (let i = 0; i < 60; i++) writeFileSync(join(volume.path, `${i}`), noise)
    await fs.sync()
    for (let i = 0; i < 60; i++) if (i % 4 > 0 && i < 44) rmSync(join(volume.path, `${i}`))
    await fs.sync()
  })

  it('plan, then start, which moves as many', async () => {
    const planned = await btrmind(['balance', 'plan', volume.path, '--data', 'usage=60,limit=2', '--json'])
    expect([planned.code, planned.err]).toEqual([0, ''])
    const plan = JSON.parse(planned.out)
    expect(plan).toMatchObject({ fits: true, blockGroups: [{ type: 'data' }, { type: 'data' }] })
    const text = (await btrmind(['balance', 'plan', volume.path, '--data', 'usage=60,limit=2'])).out
    expect(text).toMatch(/^data single +2 +\S+ MiB +\S+ MiB$/m)
    expect(text).toMatch(/^unallocated: \S+ MiB now, \S+ \S+ to \S+ MiB after$/m)
    const started = await btrmind(['balance', 'start', volume.path, '--data', 'usage=60,limit=2', '--json'])
    expect(JSON.parse(started.out).expected).toBe(2)
    const refused = await btrmind(['balance', 'plan', volume.path, '--metadata', 'convert=single'])
    expect(refused.code).toBe(1)
    expect(refused.out).toMatch(/does not fit: metadata would lose its redundancy \(dup to single\)/)
  })

  it('pause, status, resume, cancel', async () => {
    expect(await btrmind(['balance', 'status', volume.path])).toEqual({
      code: 0,
      out: 'no balance runs or is paused\n',
      err: '',
    })
    expect((await btrmind(['balance', 'status', volume.path, '--json'])).out).toBe('null\n')
    let paused = ''
    await vi.waitFor(
      async () => {
        const ran = btrmind(['balance', 'start', volume.path, '--data', '--metadata', 'usage=99'], { isTTY: true })
        await vi.waitFor(
          async () => {
            const { code } = await btrmind(['balance', 'pause', volume.path])
            if (code !== 0 && (await Promise.race([ran, Promise.resolve(undefined)])) === undefined)
              throw new Error('not yet')
          },
          { interval: 1, timeout: 30_000 },
        )
        paused = (await ran).out
        expect((await fs.balanceStatus())?.state).toBe('paused')
      },
      { timeout: 30_000 },
    )
    expect(paused).toMatch(/^\d+ of \d+ block groups moved.*\nstopped: another process cancelled or paused it/)
    const status = await btrmind(['balance', 'status', volume.path])
    expect(status.out).toMatch(/^paused: \d+ of about \d+ block groups moved/)
    expect(status.out).toMatch(/^data: all$/m)
    expect(status.out).toMatch(/^system: usagePercent 99$/m)
    const other = await btrmind(['balance', 'start', volume.path, '--data'])
    expect(other).toMatchObject({ code: 1, err: expect.stringContaining('a balance is paused: resumeBalance()') })
    expect((await btrmind(['balance', 'resume', volume.path, '--json'])).code).toBe(0)
    expect(await btrmind(['balance', 'cancel', volume.path])).toMatchObject({
      code: 1,
      err: expect.stringMatching(/ENOTCONN/),
    })
    expect(await btrmind(['balance', 'start', volume.path])).toMatchObject({ code: 2 })
    const btrfs = await btrmind(['balance', 'plan', '-dusage=7', '-musage=8', volume.path, '--json'])
    expect(btrfs).toMatchObject({ code: 0, err: '' })
    expect(await btrmind(['balance', 'plan', '-dusage=7', '-dusage=8', volume.path])).toMatchObject({
      code: 2,
      err: expect.stringContaining("'usage' is named twice"),
    })
    expect(await btrmind(['balance', 'start', volume.path, '--data', 'drange=0..5'])).toMatchObject({ code: 2 })
  })

  it('Ctrl-C cancels, and leaves nothing behind', async () => {
    for (let cut = false; !cut; ) {
      const stop = new AbortController()
      let over = false
      const ran = btrmind(['balance', 'start', volume.path, '--data'], { signal: stop.signal }).finally(() => {
        over = true
      })
      while (!over && (await fs.balanceStatus()) === undefined) await setTimeout(1)
      stop.abort()
      const { code, out } = await ran
      expect(code).toBe(130)
      expect(await fs.balanceStatus()).toBeUndefined()
      // Again when it was over before.
      cut = /^stopped: /m.test(out)
    }
  })

  it('reclaim gives back until nothing is gained, and says why it ended', async () => {
    const one = await btrmind(['reclaim', volume.path, '--max', '1', '--usage', '95', '--json'])
    expect(JSON.parse(one.out)).toMatchObject({ stopped: expect.any(String) })
    const { code, out } = await btrmind(['reclaim', volume.path], { isTTY: true })
    expect(code).toBe(0)
    expect(out).toMatch(
      /block groups given back, .* moved\nunallocated: .* gained\nended: (moving further|no other|what is in)/,
    )
    expect((await btrmind(['reclaim', volume.path, '--usage', '0'])).code).toBe(2)
    const enough = await btrmind(['reclaim', volume.path, '--target', '1.5MiB', '--json'])
    expect(JSON.parse(enough.out)).toMatchObject({ blockGroups: 0, stopped: 'target' })
    for (const target of ['0', 'much'])
      expect(await btrmind(['reclaim', volume.path, '--target', target])).toMatchObject({ code: 2 })
  })

  it('needs root, and says so', () => {
    run('chmod', '755', volume.directory)
    for (const words of [
      ['balance', 'start', '--data'],
      ['balance', 'plan', '--data'],
      ['reclaim'],
      ['balance', 'status'],
    ]) {
      const { status, stderr } = asNobody(
        ...words.slice(0, 2).filter((word) => word !== '--data'),
        volume.path,
        ...words.filter((word) => word === '--data'),
      )
      expect([status, stderr]).toEqual([1, expect.stringMatching(/EPERM.*needs root/)])
    }
  })
})

describe.skipIf(cannotMount)('device', () => {
  it('add, resize, stats, redundancy, replace, remove, scan, ready, forget', async () => {
    using volume = makeVolume({ devicesMiB: [512], sparesMiB: [512, 600] })
    const [first, second, third] = volume.loops as [string, string, string]
    writeFileSync(join(volume.path, 'file'), randomBytes(8 * MIB), { flush: true })
    const json = async (...words: string[]) => {
      const { code, out, err } = await btrmind([...words, '--json'])
      return { code, err, out: out === '' ? undefined : JSON.parse(out) }
    }
    run('dd', 'if=/dev/urandom', `of=${second}`, 'bs=4096', 'count=1', 'conv=fsync', 'status=none')
    expect(await json('device', 'add', volume.path, second)).toMatchObject({
      code: 1,
      err: expect.stringMatching(/EEXIST.*--force/),
    })
    expect(await json('device', 'add', volume.path, second, '--force')).toMatchObject({
      code: 0,
      out: [{}, { devid: 2 }],
    })
    const resized = async (...size: string[]) =>
      (await json('device', 'resize', volume.path, '2', ...size)).out[1].sizeBytes / MIB
    expect(await resized(String(300 * MIB))).toBe(300)
    expect(await resized('384MiB')).toBe(384)
    expect(await resized('+64MiB')).toBe(448)
    const smaller = await btrmind(['device', 'resize', '--json', volume.path, '2', '--', '-32MiB'])
    expect(JSON.parse(smaller.out)[1].sizeBytes).toBe(416 * MIB)
    expect((await json('device', 'resize', volume.path, '2', 'max')).out[1].sizeBytes).toBe(512 * MIB)
    expect(await json('device', 'resize', volume.path, '2', 'most')).toMatchObject({ code: 2 })
    expect(await json('device', 'resize', volume.path, '7', 'max')).toMatchObject({
      code: 1,
      err: expect.stringMatching(/ENODEV.*no device 7; it has 1, 2/),
    })
    const zero = { write: 0, read: 0, flush: 0, corruption: 0, generation: 0 }
    expect((await json('device', 'stats', volume.path, '--reset')).out).toEqual([
      { devid: 1, path: first, errors: zero },
      { devid: 2, path: second, errors: zero },
    ])
    expect((await btrmind(['device', 'stats', volume.path])).out).toMatch(/^ *2 +\S+ +0 +0 +0 +0 +0$/m)
    expect((await json('device', 'redundancy', volume.path)).out).toMatchObject({ degraded: false, spareDevices: 0 })
    expect((await btrmind(['device', 'redundancy', volume.path])).out).toMatch(/^data +single +0 .*\n/m)
    expect((await btrmind(['device', 'replace-status', volume.path])).out).toBe('none was ever begun\n')
    expect((await json('device', 'replace', volume.path, '2', third)).out).toMatchObject({
      state: 'finished',
      ratio: 1,
    })
    expect((await btrmind(['device', 'replace-status', volume.path])).out).toMatch(
      /^finished, 100\.0 %, 0 write errors/,
    )
    const removed = await btrmind(['device', 'remove', volume.path, '2'], { isTTY: true })
    expect(removed).toMatchObject({
      code: 0,
      err: expect.not.stringContaining('btrmind:'),
      // A name of its own: /dev/loop1 is the beginning of /dev/loop12.
      out: expect.not.stringMatching(new RegExp(`${third}\\b`)),
    })
    expect(await btrmind(['device', 'remove', volume.path, '2'])).toMatchObject({
      code: 1,
      err: expect.stringMatching(/ENOENT.*no device 2/),
    })
    expect((await json('device', 'ready', first)).out).toBe(true)
    expect((await json('device', 'scan', first)).out).toEqual([first])
    expect(await json('device', 'ready', third)).toMatchObject({ code: 1, err: expect.stringMatching(/EINVAL/) })
    expect(await json('device', 'forget', first)).toMatchObject({ code: 1, err: expect.stringMatching(/EBUSY/) })
    expect(await json('device', 'forget', third)).toMatchObject({ code: 0 })
  })

  it('a device that is missing', async () => {
    using volume = makeVolume({ devicesMiB: [512, 512], data: 'raid1', metadata: 'raid1' })
    run('umount', volume.path)
    run('wipefs', '--all', volume.loops[1]!)
    run('btrfs', 'device', 'scan', '--forget')
    expect((await btrmind(['device', 'ready', volume.loops[0]!])).code).toBe(1)
    run('mount', '-o', 'degraded', volume.loops[0]!, volume.path)
    const { code, out } = await btrmind(['device', 'redundancy', volume.path])
    expect([code, out]).toEqual([1, expect.stringMatching(/^missing: 2; all data is there$/m)])
    // Nobody knows that it had no errors.
    const stats = await btrmind(['device', 'stats', volume.path])
    expect([stats.code, stats.out]).toEqual([1, expect.stringMatching(/^ *2 +MISSING( +\?){5}$/m)])
    expect((await btrmind(['device', 'stats', volume.path, '--reset'])).code).toBe(1)
  })
})
