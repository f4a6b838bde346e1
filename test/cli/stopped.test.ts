/** What was done is told when a command is stopped: by Ctrl-C (130), or by another process (1). */
import { randomFillSync } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { Deduplicated } from '../../src/btrfs/sharing.js'
import type { TrimProgress } from '../../src/btrfs/trim.js'
import { MIB } from '../../src/units.js'
import { cannotMount, makeVolume, run, type TestVolume } from '../helpers/volume.js'
import { btrmind, type Ran } from './helper.js'

describe.skipIf(cannotMount)('a command that is stopped', () => {
  let volume: TestVolume
  const at = (path: string) => join(volume.path, path)
  beforeAll(() => {
    volume = makeVolume({ devicesMiB: [1024], metadata: 'single' })
    const content = randomFillSync(Buffer.alloc(64 * MIB))
    for (const name of ['a', 'b', 'c', 'd']) writeFileSync(at(name), content)
    run('sync', '-f', volume.path)
  })
  afterAll(() => volume?.[Symbol.dispose]())

  /** Stopped after a moment; again and later while it had not begun, sooner once it was over. */
  async function stopped(argv: readonly string[], caught: (ran: Ran) => boolean): Promise<Ran> {
    for (let ms = 1; ; ms = ms > 40 ? 1 : ms * 1.2) {
      const stop = new AbortController()
      const ran = btrmind(argv, { signal: stop.signal })
      await setTimeout(ms)
      stop.abort()
      const result = await ran
      expect(result.err).toBe('')
      if (result.out !== '' && caught(result)) return result
    }
  }

  it('trim', { timeout: 60_000 }, async () => {
    const trim = ['filesystem', 'trim', volume.path]
    const { code, out } = await stopped(trim, ({ out }) => out.includes('stopped'))
    expect(code).toBe(130)
    expect(out).toMatch(/^\d.*B trimmed; stopped after \d+ of \d+ block groups\n$/)
    const part = (ran: Ran) => JSON.parse(ran.out) as TrimProgress
    const json = await stopped([...trim, '--json'], (ran) => part(ran).blockGroups < part(ran).totalBlockGroups)
    expect(json.code).toBe(130)
  })

  it('deduplicate', { timeout: 60_000 }, async () => {
    const deduplicate = ['deduplicate', at('a'), at('b'), at('c'), at('d')]
    const { code, out } = await stopped(deduplicate, ({ out }) => out.includes('stopped; '))
    expect(code).toBe(130)
    expect(out).toMatch(/^stopped +\S+ M?i?B +\S+\/d$/m)
    expect(out).toMatch(/^stopped; what is shared by now stays shared$/m)
    const last = (ran: Ran) => (JSON.parse(ran.out) as Deduplicated[]).at(-1)!
    const json = await stopped([...deduplicate, '--json'], (ran) => last(ran).code === 'ECANCELED')
    expect([json.code, last(json)]).toMatchObject([130, { path: at('d'), outcome: 'failed' }])
  })

  it('scrub, by another process: 1, and how to go on', { timeout: 60_000 }, async () => {
    const uuid = run('findmnt', '-no', 'UUID', volume.path).trim()
    const limit = `/sys/fs/btrfs/${uuid}/devinfo/1/scrub_speed_max`
    for (const json of [[], ['--json']]) {
      let ran = btrmind(['scrub', volume.path, '--limit', '4', ...json])
      await vi.waitFor(() => expect(readFileSync(limit, 'utf8').trim()).toBe(String(4 * MIB)))
      await vi.waitFor(() => run('btrfs', 'scrub', 'cancel', volume.path), { timeout: 10_000, interval: 20 })
      const { code, out, err } = await ran
      expect([code, err]).toEqual([1, ''])
      if (json.length === 0)
        expect(out).toMatch(/^another process cancelled it; to go on: btrmind scrub \S+ --limit 4 --start 1:\d+$/m)
      else expect(JSON.parse(out)).toMatchObject({ devices: [{ state: 'cancelled' }] })
      ran = btrmind(['scrub', '--help'])
      expect((await ran).out).toMatch(/another\s+process\s+cancelled\s+it/)
    }
  })

  it('balance, by another process: 1', { timeout: 60_000 }, async () => {
    let out = ''
    await vi.waitFor(
      async () => {
        const ran = btrmind(['balance', 'start', volume.path, '--data'])
        let over = false
        void ran.finally(() => {
          over = true
        })
        while (!over && (await btrmind(['balance', 'cancel', volume.path])).code !== 0) await setTimeout(1)
        const { code, ...rest } = await ran
        out = rest.out
        expect(code).toBe(1)
      },
      { timeout: 30_000 },
    )
    expect(out).toMatch(/^stopped: another process cancelled or paused it \(see balance status\)/m)
  })
})
