import { closeSync, openSync, readdirSync, readlinkSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { cannotMount, makeVolume, run, type TestVolume } from '../helpers/volume.js'
import { startChild } from './start.js'

describe.skipIf(cannotMount)('lifetimes', () => {
  let volume: TestVolume
  beforeAll(() => {
    volume = makeVolume({ devicesMiB: [256] })
    run('btrfs', 'subvolume', 'create', `${volume.path}/there already`)
  })
  afterAll(() => volume?.[Symbol.dispose]())

  const descriptors = () =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).startsWith(volume.path)
      } catch {
        return false
      }
    })

  it('close() waits for the calls in flight, and they are what they would have been', async () => {
    const fs = await openFilesystem(volume.path)
    let settled = 0
    const calls = Array.from({ length: 200 }, () => fs.info().finally(() => settled++))
    const closed = fs.close()
    await expect(fs.info()).rejects.toMatchObject({ code: 'EBADF', hint: 'the filesystem was closed' })
    await closed
    expect(settled).toBe(200)
    expect(new Set((await Promise.all(calls)).map((info) => info.uuid))).toEqual(new Set([fs.uuid]))
    await fs.close()
  })

  it('once close() has returned, the volume can be unmounted', async () => {
    const mounted = `${volume.directory}/again`
    run('mkdir', mounted)
    for (let round = 0; round < 20; round++) {
      run('mount', volume.loops[0]!, mounted)
      const fs = await openFilesystem(mounted)
      const calls = Array.from({ length: 40 }, () => fs.info())
      await fs.close()
      run('umount', mounted) // EBUSY if a lane thread still held the descriptor
      await Promise.all(calls)
    }
  })

  it('never touches a reused descriptor number', async () => {
    using other = makeVolume({ devicesMiB: [128] })
    for (let round = 0; round < 50; round++) {
      const fs = await openFilesystem(volume.path)
      const calls = Array.from({ length: 20 }, () => fs.info())
      const closed = fs.close()
      const taken = Array.from({ length: 20 }, () => openSync(other.path, 'r'))
      try {
        for (const info of await Promise.all(calls)) expect(info.uuid).toBe(fs.uuid)
        await closed
        await expect(fs.info()).rejects.toMatchObject({ code: 'EBADF' })
      } finally {
        for (const fd of taken) closeSync(fd)
      }
    }
    expect(descriptors()).toEqual([])
  })

  it('an open that is aborted or times out leaves no descriptor', async () => {
    for (let round = 0; round < 50; round++) {
      const abort = new AbortController()
      const opening = openFilesystem(volume.path, { signal: abort.signal })
      if (round % 2 === 0) await new Promise(setImmediate)
      abort.abort()
      await opening.then(
        (fs) => fs.close(),
        (error) => expect(error.name).toBe('AbortError'),
      )
    }
    for (let wait = 0; wait < 100 && descriptors().length > 0; wait++) await new Promise((done) => setTimeout(done, 10))
    expect(descriptors()).toEqual([])
  })

  it('exits in flight', async () => {
    expect(await startChild('exit in flight', volume.path).ended).toEqual({
      code: 7,
      signal: null,
      said: 'exiting',
      stderr: '',
    })
    const thrown = await startChild('throw in flight', volume.path).ended
    expect(thrown).toMatchObject({ code: 1, signal: null })
    expect(thrown.stderr).toContain('thrown on purpose')
  })

  it('ends by itself when the calls have ended, not before and not never', async () => {
    expect(await startChild('natural end', volume.path).ended).toMatchObject({
      code: 0,
      said: { settled: 2_000 },
      stderr: '',
    })
  })

  it('closes what was never closed when it is garbage-collected', async () => {
    const { code, said } = await startChild('garbage collection', volume.path).ended
    expect(code).toBe(0)
    expect(said).toEqual({ before: expect.any(Number), after: 0 })
    expect((said as { before: number }).before).toBeGreaterThan(0)
  })

  it('calls in flight outlive the garbage collection of their filesystem', async () => {
    expect((await startChild('garbage collection in flight', volume.path).ended).said).toEqual({
      closed: 0,
      results: 400,
    })
  })

  it('10,000 calls leave nothing behind', async () => {
    const { said, stderr } = await startChild('soak', volume.path).ended
    expect(stderr).toBe('')
    const { first, last } = said as Record<string, { bytes: number; descriptors: number; handles: string[] }>
    expect(last!.descriptors).toBe(1)
    expect(last!.handles).toEqual(first!.handles)
    expect(last!.bytes).toBeLessThan(first!.bytes + 2 * 1024 ** 2)
  })

  it('works in several workers at once', async () => {
    await using fs = await openFilesystem(volume.path)
    const one = { calls: 400, refused: 'EEXIST', uuid: fs.uuid }
    expect(await startChild('workers', volume.path).ended).toEqual({
      code: 0,
      signal: null,
      said: [one, one, one, one],
      stderr: '',
    })
  })

  it('outlives workers that are terminated in mid-call', async () => {
    const { code, signal, said, stderr } = await startChild('terminate workers', volume.path).ended
    expect({ code, signal, said, stderr }).toEqual({
      code: 0,
      signal: null,
      said: { alive: true, after: 0 },
      stderr: '',
    })
  })
})
