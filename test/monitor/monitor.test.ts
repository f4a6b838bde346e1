import { setImmediate as turn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Measurement } from '../../src/btrfs/measure.js'
import type { Statfs } from '../../src/btrfs/statfs.js'
import { BtrmindError } from '../../src/errors.js'
import { Monitor } from '../../src/monitor/monitor.js'
import { FakeClock, FakeVolume, failure, MEASURED, settle } from './fake.js'

const never = <T>() => new Promise<T>(() => {})

describe('Monitor.sample()', () => {
  it('maps one measurement, field by field', async () => {
    const filesystem = new FakeVolume()
    const clock = new FakeClock()
    await using monitor = new Monitor({ filesystem, clock })
    expect(await monitor.sample()).toEqual({
      timeMs: clock.nowMs,
      source: 'kernel',
      usedPercent: 60,
      liveUsedPercent: 65,
      sizeBytes: 1_000_000_000,
      freeBytes: 380_000_000,
      unallocatedBytes: 300_000_000,
      metadataOverheadRatio: 0.2,
      metadataSlackBytes: 55_000_000,
      fragmentationRatio: 0.1,
      deviceErrors: MEASURED.deviceErrors,
      missingDevices: 0,
      devices: 1,
      exclusiveOperation: 'none',
      readOnly: false,
      freeDeltaMBPerHour: undefined,
      slopePercentPerHour: undefined,
      durationMs: 0,
      unavailable: [
        { field: 'freeDeltaMBPerHour', reason: 'needs 5 samples in its window' },
        { field: 'slopePercentPerHour', reason: 'needs 5 samples in its window' },
      ],
    })
    expect(filesystem.asked).toEqual({ measure: 1, statfs: 0 })
  })

  it('passes on what is unavailable', async () => {
    const filesystem = new FakeVolume()
    const missing = { field: 'fragmentationRatio', reason: 'EPERM: needs root (CAP_SYS_ADMIN)' }
    filesystem.measured = async () => ({ ...MEASURED, fragmentationRatio: undefined, unavailable: [missing] })
    await using monitor = new Monitor({ filesystem })
    const sample = await monitor.sample()
    expect(sample.unavailable).toContainEqual(missing)
    expect(monitor.state(sample).fragmentation).toBeUndefined()
    filesystem.measured = async () => ({ ...MEASURED, metadataAllocatedBytes: 0, metadataUsedBytes: 0 })
    const mixed = await monitor.sample()
    expect(mixed.metadataSlackBytes).toBeUndefined()
    expect(mixed.unavailable.map(({ field }) => field)).toContain('metadataSlackBytes')
  })

  it('gives the slope of the live utilisation over 24 h, and of the free megabytes over 1 h', async () => {
    const filesystem = new FakeVolume()
    const clock = new FakeClock()
    let minutes = 0
    filesystem.measured = async () => ({
      ...MEASURED,
      usedPercent: 99, // not this one
      liveUsedPercent: minutes < 120 ? 40 : 40 + (minutes - 120) / 60,
      freeBytes: 5e9 - minutes * 1e6,
    })
    await using monitor = new Monitor({ filesystem, clock })
    let sample = await monitor.sample()
    for (minutes = 1; minutes <= 240; minutes++) {
      clock.nowMs += 60_000
      sample = await monitor.sample()
      if (minutes === 120) expect(sample.slopePercentPerHour).toBe(0)
    }
    expect(sample.freeDeltaMBPerHour).toBeCloseTo(-60, 9)
    // 2 h flat, then 2 h at 1 %/h: the line through all of it.
    expect(sample.slopePercentPerHour).toBeCloseTo(0.5, 2)
    expect(sample.unavailable).toEqual([])
    expect(monitor.state(sample).slopePercentPerHour).toBe(sample.slopePercentPerHour)
  })

  it('lets simultaneous calls take turns', async () => {
    const filesystem = new FakeVolume()
    let under = 0
    let most = 0
    filesystem.measured = async () => {
      most = Math.max(most, ++under)
      await turn()
      under--
      return MEASURED
    }
    await using monitor = new Monitor({ filesystem })
    await Promise.all([monitor.sample(), monitor.sample(), monitor.sample()])
    expect([filesystem.asked.measure, most]).toEqual([3, 1])
  })

  it('refuses nonsense options', () => {
    const filesystem = new FakeVolume()
    const bad = (options: object) => () => new Monitor({ filesystem, ...options } as never)
    expect(bad({ interval: 5 })).toThrow("BTRMIND_ERR_OPTION: Monitor: unknown option 'interval'; did you mean 'inter")
    expect(bad({ timeoutMs: 0 })).toThrow("Monitor: option 'timeoutMs': expected")
    expect(bad({ retries: 4 })).toThrow("option 'retries': expected")
    expect(bad({ filesystem: '/mnt' })).toThrow("option 'filesystem': expected a Filesystem, got '/mnt'")
    expect(bad({ clock: {} })).toThrow('a Clock')
    expect(bad({ stateDir: '' })).toThrow('a path')
    expect(() => new Monitor({ filesystem }).sample({ timeoutMs: 5 } as never)).toThrow("unknown option 'timeoutMs'")
  })

  it('ends with EBADF when it is closed, before and during', async () => {
    const filesystem = new FakeVolume()
    filesystem.measured = never
    const monitor = new Monitor({ filesystem })
    const during = monitor.sample()
    const refused = expect(during).rejects.toMatchObject({ code: 'EBADF', path: '/fake' })
    await settle()
    await monitor.close()
    await refused
    await monitor.close()
    await expect(monitor.sample()).rejects.toMatchObject({ code: 'EBADF' })
    expect(monitor.outstandingQueries).toBe(0)
  })

  it('hands on the errors of a filesystem that was closed, and errors that are not the kernel’s', async () => {
    const filesystem = new FakeVolume()
    await using monitor = new Monitor({ filesystem })
    filesystem.measured = () => Promise.reject(failure('EBADF'))
    await expect(monitor.sample()).rejects.toMatchObject({ code: 'EBADF' })
    filesystem.measured = () => Promise.reject(new TypeError('a bug'))
    await expect(monitor.sample()).rejects.toThrow('a bug')
    expect(filesystem.asked.statfs).toBe(0)
  })
})

describe('the ladder of fallbacks', () => {
  afterEach(() => void vi.useRealTimers())

  it('asks again after a timeout; an answer to either query counts', async () => {
    for (const answering of [0, 1]) {
      vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
      const filesystem = new FakeVolume()
      const answers: ((value: Measurement) => void)[] = []
      filesystem.measured = () => new Promise((resolve) => answers.push(resolve))
      await using monitor = new Monitor({ filesystem, timeoutMs: 1_000 })
      const pending = monitor.sample()
      await settle()
      expect(answers).toHaveLength(1)
      vi.advanceTimersByTime(1_000)
      expect(answers).toHaveLength(2)
      answers[answering]!(MEASURED)
      expect((await pending).source).toBe('kernel')
      expect(filesystem.asked).toEqual({ measure: 2, statfs: 0 })
      expect(monitor.outstandingQueries).toBe(1)
      vi.useRealTimers()
    }
  })

  it('falls back to statfs, marked so, and never lets stuck queries pile up', async () => {
    const filesystem = new FakeVolume()
    const clock = new FakeClock()
    const answers: ((value: Measurement) => void)[] = []
    filesystem.measured = () => new Promise((resolve) => answers.push(resolve))
    await using monitor = new Monitor({ filesystem, clock, timeoutMs: 5 })
    const first = await monitor.sample()
    expect(first).toMatchObject({ source: 'statfs', usedPercent: 60, sizeBytes: 900, freeBytes: 360 })
    expect(first.fallbackReason).toBe(
      "ETIMEDOUT: no answer to any of 2 queries within 10 ms, measure '/fake'; the kernel did not answer in time; the call may still complete",
    )
    expect(first.unavailable.map(({ field }) => field)).toEqual(
      expect.arrayContaining(['liveUsedPercent', 'metadataOverheadRatio', 'fragmentationRatio', 'readOnly']),
    )
    expect(monitor.state(first)).toEqual({
      utilisation: 0.6,
      slopePercentPerHour: undefined,
      metadataOverhead: undefined,
      fragmentation: undefined,
    })
    for (let i = 0; i < 100; i++) {
      clock.nowMs += 60_000
      expect((await monitor.sample()).source).toBe('statfs')
    }
    expect(filesystem.asked).toEqual({ measure: 2, statfs: 101 })
    expect(monitor.outstandingQueries).toBe(2)
    expect((await monitor.sample()).fallbackReason).toContain('the last query has been stuck in the kernel for 6000 s')

    // One came back: the other is still out. Both: the full query is asked again.
    answers[0]!(MEASURED)
    await settle()
    expect((await monitor.sample()).source).toBe('statfs')
    answers[1]!(MEASURED)
    await settle()
    filesystem.measured = async () => MEASURED
    expect((await monitor.sample()).source).toBe('kernel')
    expect(monitor.outstandingQueries).toBe(0)
  })

  it('keeps the event loop free while queries are stuck', async () => {
    const filesystem = new FakeVolume()
    filesystem.measured = never
    await using monitor = new Monitor({ filesystem, timeoutMs: 30, retries: 3 })
    let turns = 0
    let done = false
    const pending = monitor.sample().finally(() => {
      done = true
    })
    while (!done) {
      await turn()
      turns++
    }
    expect((await pending).source).toBe('statfs')
    expect(filesystem.asked.measure).toBe(4)
    expect(turns).toBeGreaterThan(10)
  })

  it('falls back at once on an error of the kernel', async () => {
    const filesystem = new FakeVolume()
    filesystem.measured = () => Promise.reject(failure('EIO'))
    await using monitor = new Monitor({ filesystem })
    const sample = await monitor.sample()
    expect(sample).toMatchObject({ source: 'statfs', fallbackReason: expect.stringContaining('EIO') })
    expect(filesystem.asked).toEqual({ measure: 1, statfs: 1 })
  })

  it('rejects with both reasons when statfs fails too, and asks a stuck statfs only once', async () => {
    const filesystem = new FakeVolume()
    await using monitor = new Monitor({ filesystem, timeoutMs: 5, retries: 0 })
    filesystem.measured = () => Promise.reject(failure('EIO'))
    filesystem.stated = never
    const error = await monitor.sample().catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(BtrmindError)
    expect(error).toMatchObject({
      code: 'BTRMIND_ERR_SAMPLE',
      message: expect.stringContaining("no reading of '/fake': ETIMEDOUT: no answer within 5 ms, statfs '/fake'"),
      cause: { errors: [{ code: 'EIO' }, { code: 'ETIMEDOUT' }] },
    })
    await expect(monitor.sample()).rejects.toMatchObject({ code: 'BTRMIND_ERR_SAMPLE' })
    expect(filesystem.asked).toEqual({ measure: 2, statfs: 1 })
    filesystem.measured = async () => MEASURED
    expect((await monitor.sample()).source).toBe('kernel')
  })

  it('keeps statfs out of the slope and in the free bytes’ trend', async () => {
    const filesystem = new FakeVolume()
    const clock = new FakeClock()
    await using monitor = new Monitor({ filesystem, clock })
    let free = 380_000_000
    const sample = () => {
      clock.nowMs += 60_000
      free -= 1_000_000
      return monitor.sample()
    }
    filesystem.measured = async () => ({ ...MEASURED, freeBytes: free })
    filesystem.stated = async (): Promise<Statfs> => ({ sizeBytes: 9e8, freeBytes: free, usedPercent: 3 })
    for (let i = 0; i < 5; i++) await sample()
    const { measured } = filesystem
    filesystem.measured = () => Promise.reject(failure('EIO'))
    for (let i = 0; i < 5; i++) {
      const fallback = await sample()
      expect(fallback.slopePercentPerHour).toBe(0)
      expect(fallback.freeDeltaMBPerHour).toBeCloseTo(-60, 9)
    }
    filesystem.measured = measured
    expect((await sample()).slopePercentPerHour).toBe(0)
    clock.nowMs += 25 * 3_600_000
    filesystem.measured = () => Promise.reject(failure('EIO'))
    expect((await sample()).slopePercentPerHour).toBeUndefined()
  })

  it('rejects with the reason of an aborted signal, at once, and counts what is still out', async () => {
    const filesystem = new FakeVolume()
    let answer = (_: Measurement) => {}
    filesystem.measured = () =>
      new Promise((resolve) => {
        answer = resolve
      })
    await using monitor = new Monitor({ filesystem })
    await expect(monitor.sample({ signal: AbortSignal.abort(new Error('no')) })).rejects.toThrow('no')
    expect(filesystem.asked.measure).toBe(0)
    const stop = new AbortController()
    const pending = monitor.sample({ signal: stop.signal })
    const refused = expect(pending).rejects.toThrow('enough')
    await settle()
    stop.abort(new Error('enough'))
    await refused
    expect(monitor.outstandingQueries).toBe(1)
    expect((await monitor.sample()).source).toBe('statfs')
    answer(MEASURED)
    await settle()
    expect(monitor.outstandingQueries).toBe(0)
  })
})

describe('Monitor.watch()', () => {
  it('samples at once and then at its interval, hands failures over, and ends on abort', async () => {
    const filesystem = new FakeVolume()
    const warnings: Error[] = []
    await using monitor = new Monitor({ filesystem, intervalMs: 5, onWarning: (warning) => warnings.push(warning) })
    const stop = new AbortController()
    let samples = 0
    for await (const sample of monitor.watch({ signal: stop.signal })) {
      expect(sample.source).toBe('kernel')
      if (++samples === 3) filesystem.measured = () => Promise.reject(failure('EIO'))
      if (samples === 3) filesystem.stated = () => Promise.reject(failure('EIO', 'statfs'))
      if (samples === 3) setTimeout(() => Object.assign(filesystem, new FakeVolume()), 40)
      if (samples === 6) stop.abort()
    }
    expect(samples).toBe(6)
    expect(warnings.length).toBeGreaterThan(0)
    expect(warnings[0]).toMatchObject({ code: 'BTRMIND_ERR_SAMPLE' })
  })

  it('keeps to its interval from the start, and leaves out what comes too late', async () => {
    const clock = new FakeClock()
    const stop = new AbortController()
    const start = clock.nowMs
    const times: number[] = []
    const sleep = async (ms: number) => {
      clock.nowMs += ms
    }
    const own = { wallMs: clock.wallMs, elapsedMs: clock.elapsedMs, sleep }
    await using monitor = new Monitor({ filesystem: new FakeVolume(), intervalMs: 1_000, clock: own })
    for await (const sample of monitor.watch({ signal: stop.signal })) {
      times.push(sample.timeMs - start)
      clock.nowMs += times.length === 2 ? 2_500 : 300 // what is done with it takes time
      if (times.length === 5) stop.abort()
    }
    expect(times).toEqual([0, 1_000, 4_000, 5_000, 6_000])
  })

  it('ends when a timeout signal fires that nobody else keeps', async () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const collecting = setInterval(collect, 5)
    try {
      await using monitor = new Monitor({ filesystem: new FakeVolume(), intervalMs: 3_600_000 })
      let samples = 0
      for await (const _ of monitor.watch({ signal: AbortSignal.timeout(300) })) samples++
      expect(samples).toBe(1)
    } finally {
      clearInterval(collecting)
    }
  })

  it('ends on close()', async () => {
    const monitor = new Monitor({ filesystem: new FakeVolume() })
    let samples = 0
    for await (const _ of monitor.watch()) {
      samples++
      void monitor.close()
    }
    expect(samples).toBe(1)
  })
})
