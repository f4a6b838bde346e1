import { spawn } from 'node:child_process'
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { crc32 } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { encodeLine } from '../../src/jsonl.js'
import { readHistory } from '../../src/monitor/history.js'
import { lockStateDirectory } from '../../src/monitor/lock.js'
import { Monitor, type MonitorOptions } from '../../src/monitor/monitor.js'
import type { Reading } from '../../src/monitor/sample.js'
import { openFiles } from '../helpers/open-files.js'
import { cannotMount, makeVolume, run } from '../helpers/volume.js'
import { FakeClock, FakeVolume, MEASURED, settle } from './fake.js'

const START_MS = new FakeClock().nowMs

let base: string
let stateDir: string
let clock: FakeClock
let filesystem: FakeVolume
let warnings: Error[]
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'btrmind-history-'))
  stateDir = join(base, 'state')
  clock = new FakeClock()
  filesystem = new FakeVolume()
  warnings = []
})
afterEach(() => rmSync(base, { recursive: true, force: true }))

const start = (options: Partial<MonitorOptions> = {}) =>
  new Monitor({ filesystem, clock, stateDir, onWarning: (warning) => warnings.push(warning), ...options })

/** Takes samples a minute apart; the utilisation rises by 0.1 points each. */
async function take(monitor: Monitor, count: number) {
  filesystem.measured = async () => ({ ...MEASURED, liveUsedPercent: 20 + (clock.nowMs - START_MS) / 600_000 })
  let sample = await monitor.sample()
  for (let i = 1; i < count; i++) {
    clock.nowMs += 60_000
    sample = await monitor.sample()
  }
  return sample
}

async function onDisk(): Promise<Reading[]> {
  const readings: Reading[] = []
  await readHistory(stateDir, (reading) => readings.push(reading))
  return readings
}

describe('history across restarts', () => {
  it('comes back with its columns and trends', async () => {
    const first = start()
    const before = await take(first, 30)
    await first.close()
    clock.nowMs += 60_000

    await using second = start()
    await second.open()
    expect(second.history.length).toBe(30)
    for (const name of ['timeMs', 'usedPercent', 'liveUsedPercent', 'freeBytes', 'fragmentationRatio'] as const) {
      expect(second.history.column(name)).toEqual(first.history.column(name))
    }
    expect(second.history.column('timeMs').at(-1)).toBe(before.timeMs)
    const after = await second.sample()
    expect(after.slopePercentPerHour).toBeCloseTo(6, 9)
    expect(before.slopePercentPerHour).toBeCloseTo(6, 9)
    expect(after.unavailable).toEqual([])
    expect(warnings).toEqual([])
  })

  it('writes all that was read, and keeps what is not known apart from 0', async () => {
    await using monitor = start()
    filesystem.measured = async () => ({ ...MEASURED, fragmentationRatio: undefined })
    const { unavailable: _, freeDeltaMBPerHour: _f, slopePercentPerHour: _s, ...sample } = await monitor.sample()
    await vi.waitFor(() => expect(monitor.history.unsaved).toBe(0))
    expect(await onDisk()).toEqual([{ ...sample, unavailable: [] }])
    expect(monitor.history.column('fragmentationRatio')).toEqual(Float64Array.of(Number.NaN))
    expect(statSync(join(stateDir, 'history.jsonl')).mode & 0o777).toBe(0o600)
  })

  it('keeps the last 20,160 readings in memory, and reads 11 days of lines from each file', async () => {
    const line = (i: number) =>
      encodeLine({
        timeMs: clock.nowMs + i * 60_000,
        source: 'kernel',
        usedPercent: i % 100,
        sizeBytes: 1,
        freeBytes: 1,
        durationMs: 0.5,
      })
    mkdirSync(stateDir)
    writeFileSync(join(stateDir, 'history.jsonl.1'), Array.from({ length: 16_000 }, (_, i) => line(i)).join(''))
    writeFileSync(join(stateDir, 'history.jsonl'), Array.from({ length: 9_000 }, (_, i) => line(16_000 + i)).join(''))
    await using monitor = start()
    await monitor.open()
    const { history } = monitor
    expect(history.length).toBe(20_160)
    expect([...history.column('timeMs')]).toEqual(
      Array.from({ length: 20_160 }, (_, i) => clock.nowMs + (25_000 - 20_160 + i) * 60_000),
    )
    clock.nowMs += 25_000 * 60_000
    await monitor.sample()
    expect([history.length, history.column('timeMs').at(-1)]).toEqual([20_160, clock.nowMs])
  })

  it('goes on after a torn last line and a damaged one, and says so', async () => {
    const path = join(stateDir, 'history.jsonl')
    const first = start()
    await take(first, 10)
    await first.close()
    const whole = readFileSync(path, 'utf8')
    writeFileSync(path, whole.slice(0, -20))
    const second = start()
    await take(second, 1)
    await second.close()
    expect(second.history.length).toBe(10)
    expect(warnings.map(({ message }) => message)).toEqual([
      `BTRMIND_ERR_STATE_CORRUPT: '${path}' ended in a torn line, which was dropped`,
    ])

    warnings = []
    writeFileSync(path, readFileSync(path, 'utf8').replace('"usedPercent":60', '"usedPercent":61'))
    await using third = start()
    await third.open()
    expect(third.history.length).toBe(9)
    expect(warnings).toMatchObject([{ code: 'BTRMIND_ERR_STATE_CORRUPT' }])
    expect(warnings[0]!.message).toContain(`'${path}' was damaged (1 of 10 lines); it was set aside as '${path}.corr`)
  })

  it('says so by process.emitWarning where nobody listens', async () => {
    mkdirSync(stateDir)
    writeFileSync(join(stateDir, 'history.jsonl'), 'torn')
    const emitted = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    await using monitor = start({ onWarning: undefined })
    await monitor.open()
    expect(emitted.mock.calls).toEqual([[expect.objectContaining({ code: 'BTRMIND_ERR_STATE_CORRUPT' })]])
    emitted.mockRestore()
  })

  it('without a state directory is in memory only', async () => {
    await using monitor = start({ stateDir: undefined })
    await take(monitor, 3)
    expect([monitor.history.length, monitor.history.unsaved]).toEqual([3, 0])
  })
})

describe('the state directory', () => {
  it('belongs to one monitor, and is free when that one is closed', async () => {
    const first = start()
    await first.sample()
    await using second = start()
    await expect(second.sample()).rejects.toMatchObject({ code: 'BTRMIND_ERR_LOCKED' })
    expect(filesystem.asked.measure).toBe(1)
    await first.close()
    expect((await second.sample()).source).toBe('kernel')
  })

  it('belongs to one volume', async () => {
    const first = start()
    await first.open()
    await first.close()
    expect(JSON.parse(readFileSync(join(stateDir, 'volume.json'), 'utf8'))).toEqual({ uuid: filesystem.uuid })
    const other = new FakeVolume()
    Object.assign(other, { uuid: '99999999-2222-3333-4444-555555555555' })
    await using second = start({ filesystem: other })
    await expect(second.open()).rejects.toMatchObject({
      code: 'BTRMIND_ERR_WRONG_VOLUME',
      message: expect.stringContaining(`'${stateDir}' is the state of volume ${filesystem.uuid}, not ${other.uuid}`),
    })
    writeFileSync(join(stateDir, 'volume.json'), 'garbage')
    await expect(second.open()).rejects.toMatchObject({ code: 'BTRMIND_ERR_STATE_CORRUPT' })
    // Refused is not taken: the lock is free.
    ;(await lockStateDirectory(stateDir)).release()
  })

  it('gives the lock back when the history cannot be opened', async () => {
    mkdirSync(join(stateDir, 'history.jsonl'), { recursive: true })
    await using monitor = start()
    await expect(monitor.open()).rejects.toMatchObject({
      code: 'BTRMIND_ERR_STATE',
      message: expect.stringContaining(`'${join(stateDir, 'history.jsonl')}': EISDIR`),
    })
    ;(await lockStateDirectory(stateDir)).release()
  })
})

const CHILD = `
  import { Monitor } from '${join(import.meta.dirname, '../../src/monitor/monitor.ts')}'
  import { FakeVolume, MEASURED } from '${join(import.meta.dirname, 'fake.ts')}'
  const filesystem = new FakeVolume()
  const monitor = new Monitor({ filesystem, stateDir: process.argv[1] })
  await monitor.open()
  let next = monitor.history.length
  filesystem.measured = async () => ({ ...MEASURED, usedPercent: next++ / 1000 })
  for (;;) {
    await monitor.sample()
    while (monitor.history.unsaved > 20) await new Promise(setImmediate)
  }
`

const sizeOf = (path: string) => statSync(path, { throwIfNoEntry: false })?.size ?? 0

describe('a process that is killed while it writes', () => {
  it('leaves every line before the last intact, each time, and the next one goes on from there', async () => {
    const path = join(stateDir, 'history.jsonl')
    let known = 0
    let size = 0
    for (let round = 0; round < 5; round++) {
      const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', CHILD, stateDir], {
        stdio: ['ignore', 'inherit', 'inherit'],
      })
      const ended = new Promise((resolve) => child.once('exit', resolve))
      await vi.waitFor(() => expect(sizeOf(path)).toBeGreaterThan(size), { timeout: 20_000, interval: 5 })
      await sleep((round * 37) % 60)
      child.kill('SIGKILL')
      await ended

      const lines = readFileSync(path, 'utf8').split('\n')
      lines.pop() // Nothing, or a torn line.
      for (const [i, line] of lines.entries()) {
        const { crc32: sum, record } = JSON.parse(line) as { crc32: string; record: Reading }
        expect(sum).toBe(crc32(JSON.stringify(record)).toString(16).padStart(8, '0'))
        expect(record.usedPercent).toBe(i / 1000)
      }
      expect(lines.length).toBeGreaterThan(known)
      known = lines.length
      size = sizeOf(path)
    }
    await using monitor = start()
    await monitor.open()
    expect(monitor.history.length).toBe(Math.min(known, 20_160))
  })
})

describe.skipIf(cannotMount)('a state directory on a volume of its own', () => {
  it('that is full: the history goes on in memory, says so, and is saved when there is room again', async () => {
    using volume = makeVolume({ devicesMiB: [128], mkfs: ['--mixed'] })
    stateDir = join(volume.path, 'state')
    await using monitor = start()
    await take(monitor, 2)
    await vi.waitFor(() => expect(monitor.history.unsaved).toBe(0))

    const filler = join(volume.path, 'filler')
    for (const size of [1 << 20, 4096]) {
      for (;;) {
        try {
          appendFileSync(filler, Buffer.alloc(size, 1))
        } catch (error) {
          expect((error as NodeJS.ErrnoException).code).toBe('ENOSPC')
          break
        }
      }
      run('sync', '--file-system', volume.path)
    }
    expect(statfsSync(volume.path).bavail).toBeLessThan(1024)
    // Until the last free piece is used up.
    await vi.waitFor(async () => {
      await take(monitor, 50)
      await settle()
      expect(monitor.history.writeError).toMatchObject({ code: 'BTRMIND_ERR_STATE', cause: { code: 'ENOSPC' } })
    }, 20_000)
    await take(monitor, 5)
    expect(monitor.history.unsaved).toBeGreaterThan(0)
    expect(warnings).toMatchObject([{ code: 'BTRMIND_ERR_STATE', message: expect.stringContaining('history.jsonl') }])

    rmSync(filler)
    run('sync', '--file-system', volume.path)
    await vi.waitFor(async () => {
      await take(monitor, 1)
      await sleep(20)
      expect(monitor.history.unsaved).toBe(0)
    }, 20_000)
    expect(monitor.history.writeError).toBeUndefined()
    expect((await onDisk()).map(({ timeMs }) => timeMs)).toEqual([...monitor.history.column('timeMs')])
    await monitor.close()
  })

  it('that is stuck: samples do not wait for it, one write does', async () => {
    using volume = makeVolume({ devicesMiB: [128], mkfs: ['--mixed'] })
    stateDir = join(volume.path, 'state')
    const monitor = start({ timeoutMs: 50 })
    await take(monitor, 2)
    await vi.waitFor(() => expect(monitor.history.unsaved).toBe(0))
    run('fsfreeze', '--freeze', volume.path)
    try {
      await take(monitor, 20)
      expect(monitor.history.unsaved).toBe(20)
      await monitor.close()
      expect(warnings.map(({ message }) => message)).toEqual([
        expect.stringContaining("20 readings were not saved to '"),
      ])
    } finally {
      run('fsfreeze', '--unfreeze', volume.path)
    }
    await vi.waitFor(async () => expect(await onDisk()).toHaveLength(22))
    // So that it can be unmounted.
    await vi.waitFor(() => expect(openFiles().filter((path) => path.startsWith(volume.path))).toEqual([]))
  })
})
