/** Long work that is stopped at any moment, in every way there is: it stops, leaves nothing behind, and says so. */
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { type KernelFilesystem, openFilesystem } from '../../src/btrfs/filesystem.js'
import type { Operation } from '../../src/btrfs/operation.js'
import { native } from '../../src/native.js'
import { createRandom } from '../../src/random.js'
import { MIB } from '../../src/units.js'
import { openFiles } from '../helpers/open-files.js'
import { cannotMount, makeVolume, run, type TestVolume } from '../helpers/volume.js'

type Work = Operation<unknown, unknown>
type Begin = (fs: KernelFilesystem, signal: AbortSignal | undefined) => Work | Promise<Work>

describe.skipIf(cannotMount)('random stops', () => {
  let volume: TestVolume
  let sums: string[]
  const files = Array.from({ length: 60 }, (_, i) => `tree/${i % 6}/file-${i}`)
  const at = (path: string) => join(volume.path, path)
  const checksums = () =>
    files.map((file) =>
      createHash('sha1')
        .update(readFileSync(at(file)))
        .digest('hex'),
    )
  const intervalMs = 1

  /** Each with enough to do for some 10 ms at least. */
  const OPERATIONS: Readonly<Record<string, Begin>> = {
    balance: (fs, signal) => fs.balance({ data: {}, signal, intervalMs }),
    resumeBalance: async (fs, signal) => {
      const balance = fs.balance({ data: {} })
      await setTimeout(5)
      await balance.pause!()
      return fs.resumeBalance({ signal, intervalMs })
    },
    reclaimDataBlockGroups: (fs, signal) => fs.reclaimDataBlockGroups({ maxUsagePercent: 100, signal, intervalMs }),
    scrub: (fs, signal) => fs.scrub({ readonly: true, bytesPerSecond: 64 * MIB, signal, intervalMs }),
    defragment: (fs, signal) =>
      fs.defragment('tree', {
        recursive: true,
        skipCompressed: false,
        compress: 'lzo',
        sliceBytes: 128 << 10,
        signal,
        intervalMs,
      }),
    deduplicate: (fs, signal) => {
      const to = files.slice(1).map((path) => ({ path }))
      return fs.deduplicate(files[0]!, {}, to, { signal, intervalMs })
    },
    trim: (fs, signal) => fs.trim({ signal, intervalMs }),
    replaceDevice: async (fs, signal) => {
      const [source] = await fs.devices()
      const inUse = (await fs.devices()).map(({ path }) => path)
      const target = volume.loops.find((loop) => !inUse.includes(loop))!
      return fs.replaceDevice(source!.devid, target, { force: true, signal, intervalMs })
    },
    deleteSubvolumes: async (fs, signal) => {
      const names: string[] = []
      for await (const { path } of fs.subvolumes({ below: 'snapshots' })) names.push(path)
      for (let i = names.length; i < 6; i++) {
        const name = `snapshots/${Math.random()}`
        await fs.snapshot('tree', name)
        names.push(name)
      }
      return fs.deleteSubvolumes(names, { signal, intervalMs })
    },
    compression: (fs, signal) => fs.compression({ nested: true, signal, intervalMs }),
    fragmentation: (fs, signal) => fs.fragmentation({ nested: true, consistent: true, signal, intervalMs }),
    du: (fs, signal) => fs.du({ nested: true, signal, intervalMs }),
  }

  /** After each of these it has ended. */
  const STOPS: Readonly<Record<string, (work: Work, fs: KernelFilesystem, stop: AbortController) => Promise<unknown>>> =
    {
      'cancel()': (work) => work.cancel(),
      'an aborted signal': (work, _, stop) => {
        stop.abort()
        return work.result.catch(() => {})
      },
      'close()': (_, fs) => fs.close(),
      'the end of its scope': async (work) => {
        await using scoped = work
        for await (const _ of scoped) break
      },
      'one after the other': (work, fs, stop) => {
        stop.abort()
        return Promise.all([work.cancel(), fs.close(), work.cancel()])
      },
    }

  beforeAll(async () => {
    volume = makeVolume({ devicesMiB: [640, 640], sparesMiB: [640], data: 'single', metadata: 'raid1' })
    await using fs = await openFilesystem(volume.path)
    for (const path of ['tree', 'snapshots']) await fs.createSubvolume(path)
    const random = createRandom(1)
    const noise = Buffer.from(Uint32Array.from({ length: MIB / 4 }, () => Math.floor(random.next() * 2 ** 32)).buffer)
    for (let i = 0; i < 6; i++) run('mkdir', at(`tree/${i}`))
    // In pieces that are the same for all, and alike for none.
    for (const [i, file] of files.entries()) {
      const content = Buffer.concat([noise.subarray(i * 4096), noise.subarray(0, i * 4096), Buffer.alloc(MIB, 'text')])
      writeFileSync(at(file), content)
    }
    await fs.sync()
    sums = checksums()
  })
  afterAll(() => volume?.[Symbol.dispose]())

  it('every method that gives an operation is among them', () => {
    const api = readFileSync(fileURLToPath(new URL('../../docs/api.md', import.meta.url)), 'utf8')
    const told = [...api.matchAll(/^fs\.(\w+)\(.*\): Operation</gm)].map(([, name]) => name!)
    expect(told.length).toBeGreaterThan(10)
    expect(Object.keys(OPERATIONS).sort()).toEqual(told.sort())
  })

  it.each(Object.entries(OPERATIONS))('%s does not begin where the signal was aborted already', async (name, begin) => {
    await using fs = await openFilesystem(volume.path)
    const reason = new Error('changed my mind')
    const work = await begin(fs, AbortSignal.abort(reason))
    await expect(work.result).rejects.toBe(reason)
    await expect(work[Symbol.asyncIterator]().next()).rejects.toBe(reason)
    expect(await work.progress()).toBeUndefined()
    await work.cancel()
    if (name === 'resumeBalance') {
      expect(await fs.balanceStatus()).toMatchObject({ state: 'paused' })
      await fs.cancelBalance()
    }
    expect(await fs.exclusiveOperation()).toBe('none')
  })

  it.each(['balance', 'scrub', 'trim'])('%s lets go of the volume before close() is done', async (name) => {
    for (let i = 0; i < 30; i++) {
      const fs = await openFilesystem(volume.path)
      const work = await OPERATIONS[name]!(fs, undefined)
      work.result.catch(() => {})
      await fs.close()
      expect(openFiles().filter((path) => path.startsWith(volume.path))).toEqual([])
      await work.result.catch(() => {})
    }
  })

  it('what an operation has of its own on the volume is closed without waiting for the volume', async () => {
    await using fs = await openFilesystem(volume.path)
    const close = native.close
    let asked = 0
    const spy = vi.spyOn(native, 'close').mockImplementation((handle) => {
      const isHeld = close(handle)
      return () => {
        asked++
        return isHeld()
      }
    })
    try {
      await fs.snapshotTree('tree', 'snapshots/0.1')
      await fs.deleteSubvolumes(['snapshots/0.1'], { waitUntilFreed: false }).result
      expect(spy).toHaveBeenCalledTimes(2)
      expect(asked).toBe(0)
    } finally {
      spy.mockRestore()
    }
  })

  it('close() waits for calls that were aborted and are in the kernel still', async () => {
    for (let i = 0; i < 30; i++) {
      const fs = await openFilesystem(volume.path)
      const stop = new AbortController()
      const reading = (async () => {
        for await (const _ of fs.walk(volume.path, { signal: stop.signal }));
      })().catch(() => {})
      await setTimeout(i % 5)
      stop.abort()
      await reading
      await fs.close()
      expect(openFiles().filter((path) => path.startsWith(volume.path))).toEqual([])
    }
  })

  it.each(Object.entries(OPERATIONS).map(([name, begin], index) => ({ name, begin, index })))(
    '$name',
    async ({ name, begin, index }) => {
      const random = createRandom(1000 + index)
      const opened = () =>
        openFiles().filter((path) => path.startsWith(volume.directory) || path.startsWith('/dev/loop'))
      const before = opened().sort()
      let stopped = 0
      for (const [how, halt] of Object.entries(STOPS)) {
        for (const mostMs of [0, 5, 60]) {
          const delayMs = random.next() * mostMs
          const where = `${name}, ${how}, after ${delayMs.toFixed(1)} ms`
          const stop = new AbortController()
          const fs = await openFilesystem(volume.path)
          const work = await begin(fs, stop.signal)
          let end: unknown
          const settled = work.result.then(
            (value) => ({ value }),
            (error: unknown) => ({ error }),
          )
          void settled.then((value) => {
            end = value
          })
          if (mostMs > 0) await setTimeout(delayMs)
          await halt(work, fs, stop).catch((error) => {
            // Iterating to the end throws what the result does.
            if (how !== 'the end of its scope') throw error
          })
          await setTimeout(0)
          expect(end, `${where}: settled`).toBeDefined()
          const { error } = end as { error?: Error & { code?: string } }
          if (error !== undefined && error === stop.signal.reason)
            stopped++ // nothing had begun
          else if (error !== undefined) {
            const idle = name === 'resumeBalance' ? ['ENOTCONN'] : []
            expect(['ECANCELED', 'EBADF', ...idle], `${where}: ${error.stack}`).toContain(error.code)
            expect(error.name).toBe('BtrfsError')
            if (error.code === 'ECANCELED') stopped++
          }
          await work.cancel()
          expect(await work.progress(), where).toBeUndefined()
          await fs.close()

          await using watcher = await openFilesystem(volume.path)
          // It had not gone on yet: as it was.
          if (name === 'resumeBalance' && (await watcher.balanceStatus())?.state === 'paused') {
            expect(error, where).toBeDefined()
            await watcher.cancelBalance()
          }
          expect(await watcher.exclusiveOperation(), where).toBe('none')
          expect(await watcher.balanceStatus(), where).toBeUndefined()
          expect((await watcher.replaceStatus()).state, where).not.toBe('running')
          const { handle } = await native.open(0, volume.path)
          for (const { devid } of await watcher.devices())
            expect(await native.scrubProgress(0, handle, devid), where).toBeUndefined()
          native.close(handle)
          await watcher.close()
          expect(opened().sort(), where).toEqual(before)
        }
      }
      // Some of them in its middle, or before.
      expect(stopped).toBeGreaterThan(0)
      await using watcher = await openFilesystem(volume.path)
      for await (const { path } of watcher.subvolumes()) expect(path).toMatch(/^(tree|snapshots(\/0\.\d+)?)$/)
      await watcher.close()
      run('umount', volume.path)
      run('mount', volume.loops[1]!, volume.path)
      expect(checksums()).toEqual(sums)
    },
    60_000,
  )
})
