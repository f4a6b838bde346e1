import { setImmediate, setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { LongOperation, type Work } from '../../src/btrfs/operation.js'

/** Work that ends when the test says so, or soon after it is asked to stop. */
function makeWork(options: Partial<Work<number, string>> = {}) {
  let resolve!: (result: string) => void
  let reject!: (error: Error) => void
  const promise = new Promise<string>((yes, no) => {
    resolve = yes
    reject = no
  })
  let readings = 0
  let asked: unknown
  const work: Work<number, string> = {
    operation: 'balance',
    path: '/mnt/pool',
    async start(signal) {
      signal.throwIfAborted()
      signal.addEventListener('abort', () => {
        asked = signal.reason
        void setTimeout(20).then(() => reject(new Error('stopped')))
      })
      return promise
    },
    progress: async () => ++readings,
    last: () => undefined,
    intervalMs: 1,
    ...options,
  }
  return { operation: new LongOperation(work), resolve, reject, asked: () => asked, readings: () => readings }
}

describe('LongOperation', () => {
  it('is iterated until the work ends, at once when it does', async () => {
    const { operation, resolve } = makeWork()
    const seen: number[] = []
    for await (const progress of operation) {
      seen.push(progress)
      if (progress === 5) resolve('done')
    }
    expect(seen).toEqual([1, 2, 3, 4, 5])
    expect(await operation.result).toBe('done')
    expect(await operation.progress()).toBeUndefined()
    for await (const _ of operation) expect.unreachable()
    // An hour's interval does not delay the end.
    const slow = makeWork({ intervalMs: 3_600_000 })
    for await (const _ of slow.operation) slow.resolve('done')
    // Nor do two that watch disturb each other.
    const shared = makeWork()
    const watch = async () => {
      for await (const _ of shared.operation) if (shared.readings() > 10) shared.resolve('done')
    }
    await Promise.all([watch(), watch()])
  })

  it('skips readings without counters', async () => {
    let calls = 0
    const { operation, resolve } = makeWork({ progress: async () => (++calls < 3 ? undefined : calls) })
    const seen: number[] = []
    for await (const progress of operation) {
      seen.push(progress)
      resolve('done')
    }
    expect(seen).toEqual([3])
  })

  it('whoever iterates gets the end, too, which the kernel has no counters for any more', async () => {
    const { operation, resolve } = makeWork({ last: (result) => result.length })
    const seen: number[] = []
    for await (const progress of operation) {
      seen.push(progress)
      resolve('hundred')
    }
    expect(seen).toEqual([1, 7])
  })

  it('breaking off the iteration leaves it at work', async () => {
    const { operation, resolve, asked } = makeWork()
    for await (const _ of operation) break
    await setImmediate()
    expect(asked()).toBeUndefined()
    resolve('done')
    expect(await operation.result).toBe('done')
  })

  it('cancel() waits until it has stopped, and may be called again', async () => {
    const { operation, asked } = makeWork()
    let ended = false
    void operation.result.catch(() => {
      ended = true
    })
    await Promise.all([operation.cancel(), operation.cancel()])
    expect(ended).toBe(true)
    expect(asked()).toMatchObject({ name: 'AbortError' })
    await operation.cancel()
    await expect(operation.result).rejects.toThrow('stopped')
    const iterated = async () => {
      for await (const _ of operation) expect.unreachable()
    }
    await expect(iterated()).rejects.toThrow('stopped')
  })

  it('what is cancelled before it has begun ends as what is cancelled after', async () => {
    const { operation } = makeWork({
      start: async (signal) => {
        await setImmediate()
        signal.throwIfAborted()
        return 'done'
      },
    })
    await operation.cancel()
    const error = { name: 'BtrfsError', code: 'ECANCELED', operation: 'balance', path: '/mnt/pool' }
    await expect(operation.result).rejects.toMatchObject(error)
  })

  it('the end of its scope stops it', async () => {
    let result: Promise<string> | undefined
    {
      await using scoped = makeWork().operation
      result = scoped.result
    }
    await expect(result).rejects.toThrow('stopped')
  })

  it('the caller’s signal stops it, with its reason', async () => {
    const controller = new AbortController()
    const { operation, asked } = makeWork({ signal: controller.signal })
    controller.abort(new Error('enough'))
    await expect(operation.result).rejects.toThrow('stopped')
    expect(asked()).toMatchObject({ message: 'enough' })
    const never = makeWork({ signal: controller.signal })
    await expect(never.operation.result).rejects.toThrow('enough')
  })

  it('pause() is there where the work has it, and does nothing after the end', async () => {
    expect(makeWork().operation.pause).toBeUndefined()
    let pauses = 0
    const work = makeWork({
      async pause() {
        pauses++
        work.reject(new Error('paused'))
      },
    })
    await work.operation.pause?.()
    await work.operation.pause?.()
    expect(pauses).toBe(1)
    await expect(work.operation.result).rejects.toThrow('paused')
  })

  it('is no thenable, and its failure is not unhandled when nobody waits', async () => {
    const unhandled: unknown[] = []
    const listen = (reason: unknown) => unhandled.push(reason)
    process.on('unhandledRejection', listen)
    const { operation, reject } = makeWork()
    expect('then' in operation).toBe(false)
    expect(await operation).toBe(operation)
    reject(new Error('nobody waits'))
    await setTimeout(10)
    process.off('unhandledRejection', listen)
    expect(unhandled).toEqual([])
  })
})
