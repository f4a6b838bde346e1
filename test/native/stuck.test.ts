/**
 * A kernel that does not answer: while a volume is frozen (fsfreeze), whatever would write to it sleeps in its ioctl,
 * uninterruptibly, until the thaw. Reading goes on.
 */
import events from 'node:events'
import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type KernelFilesystem, openFilesystem } from '../../src/btrfs/filesystem.js'
import { native } from '../../src/native.js'
import { cannotStall, makeStallableVolume } from '../helpers/stall.js'
import { cannotMount, makeVolume, run, type TestVolume } from '../helpers/volume.js'
import { startChild } from './start.js'

/** Threads of this process that sleep in the kernel where no signal reaches them. */
function stuckThreads(pid: number | 'self' = 'self'): number {
  return readdirSync(`/proc/${pid}/task`).filter((thread) => {
    try {
      return / D /.test(readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8').replace(/^.*\)/, ''))
    } catch {
      return false // it has just ended
    }
  }).length
}

/** Whether this process has anything open below `path`. */
function held(path: string): boolean {
  return readdirSync('/proc/self/fd').some((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(path)
    } catch {
      return false
    }
  })
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2))
}

const codeOf = (error: { code?: string; name: string }) => error.code ?? error.name

describe.skipIf(cannotMount)('a stuck volume', () => {
  let volume: TestVolume
  let fs: KernelFilesystem
  let frozen = false
  const freeze = () => {
    run('fsfreeze', '--freeze', volume.path)
    frozen = true
  }
  const thaw = () => {
    if (frozen) run('fsfreeze', '--unfreeze', volume.path)
    frozen = false
  }
  const create = (index: number, options: { timeoutMs?: number; signal?: AbortSignal }) =>
    fs.createSubvolume(`new${index}`, options)
  const names = () => readdirSync(volume.path).filter((name) => name.startsWith('new'))

  beforeEach(async () => {
    volume = makeVolume({ devicesMiB: [128] })
    fs = await openFilesystem(volume.path)
  })
  afterEach(async () => {
    thaw()
    await fs.close()
    await until(() => !held(volume.path)) // calls that were given up still end
    volume[Symbol.dispose]()
  })

  it('holds up neither its own readings nor the event loop nor other volumes', async () => {
    using healthy = makeVolume({ devicesMiB: [128] })
    await using other = await openFilesystem(healthy.path)
    freeze()
    const stuck = Array.from({ length: 100 }, (_, index) => create(index, {}))
    await until(() => stuckThreads() > 0)
    for (let round = 0; round < 20; round++) {
      expect((await other.info()).uuid).toBe(other.uuid)
      await other.createSubvolume(`round${round}`)
    }
    await using another = await openFilesystem(healthy.path)
    expect(another.uuid).toBe(other.uuid)
    expect(names()).toEqual([])
    thaw()
    await Promise.all(stuck)
    expect(names()).toHaveLength(100)
  })

  it('never takes more than sixteen threads, through however many descriptors', async () => {
    const more = await Promise.all(Array.from({ length: 8 }, () => openFilesystem(volume.path)))
    freeze()
    const stuck = more.flatMap((each, at) =>
      Array.from({ length: 12 }, (_, index) => each.createSubvolume(`new${at}-${index}`)),
    )
    await until(() => stuckThreads() === 16)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(stuckThreads()).toBe(16)
    thaw()
    await Promise.all(stuck)
    expect(names()).toHaveLength(96)
    await Promise.all(more.map((each) => each.close()))
  })

  it('a hundred calls that time out do not pile up: those that had not begun are never begun', async () => {
    freeze()
    const codes = await Promise.all(
      Array.from({ length: 100 }, (_, index) => create(index, { timeoutMs: 200 }).catch(codeOf)),
    )
    expect(new Set(codes)).toEqual(new Set(['ETIMEDOUT']))
    expect(stuckThreads()).toBe(16)
    thaw()
    await until(() => stuckThreads() === 0)
    await fs.sync()
    expect(names().length).toBeGreaterThan(0)
    expect(names().length).toBeLessThanOrEqual(16) // "the call may still complete", says the hint
    await create(1_000, {})
    expect(names()).toContain('new1000')
  })

  it('an abort ends the waiting at once, with its own reason; so does a timeout that comes first', async () => {
    freeze()
    const abort = new AbortController()
    const reason = new Error('enough')
    const waiting = Array.from({ length: 40 }, (_, index) => create(index, { signal: abort.signal, timeoutMs: 60_000 }))
    const outcomes = Promise.allSettled(waiting)
    await until(() => stuckThreads() === 16)
    abort.abort(reason)
    for (const outcome of await outcomes) expect(outcome).toEqual({ status: 'rejected', reason })
    await expect(create(1, { signal: abort.signal })).rejects.toBe(reason)
    const patient = new AbortController()
    await expect(create(2, { signal: patient.signal, timeoutMs: 20 })).rejects.toMatchObject({
      code: 'ETIMEDOUT',
      errno: -110,
      message: `ETIMEDOUT: no answer within 20 ms, createSubvolume '${volume.path}/new2'; the kernel did not answer in time; the call may still complete`,
    })
    patient.abort()
  })

  it('lets a call that is in time be, and its signal alone', async () => {
    const { signal } = new AbortController()
    for (let round = 0; round < 20; round++) await fs.info({ signal, timeoutMs: 60_000 })
    expect(events.getEventListeners(signal, 'abort')).toEqual([])
    expect(process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length).toBeLessThan(20)
  })

  it('close() waits for calls in the kernel, but not for those that were given up', async () => {
    freeze()
    await expect(create(1, { timeoutMs: 50 })).rejects.toMatchObject({ code: 'ETIMEDOUT' })
    await fs.close()
    const again = await openFilesystem(volume.path)
    const pending = again.createSubvolume('pending')
    let closed = false
    const closing = again.close().then(() => {
      closed = true
    })
    await until(() => stuckThreads() === 2)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(closed).toBe(false)
    thaw()
    await closing
    await pending
    expect(readdirSync(volume.path)).toContain('pending')
  })

  it('does not keep a process from ending: it runs its exit handlers, and the kernel lets it go at the thaw', async () => {
    freeze()
    const { child, firstLine, ended } = startChild('exit while stuck', volume.path)
    expect(JSON.parse(await firstLine)).toEqual({ codes: ['ETIMEDOUT'] }) // said by its exit handler
    expect(child.exitCode).toBe(null)
    thaw()
    expect(await ended).toMatchObject({ code: 0, signal: null, stderr: '' })
  })
})

describe.skipIf(cannotStall)('a volume that hangs while it is opened', () => {
  it('holds up only openings of itself, under whatever path', async () => {
    using hung = makeStallableVolume()
    using healthy = makeVolume({ devicesMiB: [128] })
    // More metadata than the mount itself reads.
    for (let index = 0; index < 2_000; index++)
      writeFileSync(join(hung.path, `file${index}`), Buffer.alloc(2_000, index))
    const paths = Array.from({ length: 40 }, (_, index) => join(hung.path, `directory${index}`))
    for (const path of paths) mkdirSync(path)
    hung.remount()
    hung.stall()
    const opening = Promise.all(paths.map((path) => openFilesystem(path)))
    await until(() => stuckThreads() === 16)
    await using opened = await openFilesystem(healthy.path, { timeoutMs: 10_000 })
    native.close(await native.lockFile(0, join(healthy.path, 'lock')))
    expect((await opened.info()).uuid).toBe(opened.uuid)
    expect(stuckThreads()).toBe(16)
    hung.resume()
    for (const each of await opening) await each.close()
  })
})
