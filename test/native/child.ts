/**
 * Programs that a test starts as processes of their own, to see how they end: `child.ts <program> <directory>`.
 * Each prints one JSON line of what it found.
 */
import { readdirSync, readlinkSync } from 'node:fs'
import { setImmediate, setTimeout } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { type KernelFilesystem, openFilesystem } from '../../src/btrfs/filesystem.js'

const say = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`)

/** Descriptors of this process that lead to `path` or below. */
function descriptors(path: string): string[] {
  const targets: string[] = []
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`)
      if (target === path || target.startsWith(`${path}/`)) targets.push(target)
    } catch {} // the descriptor of readdir itself
  }
  return targets
}

/** Calls of every kind, many at once; none awaited. */
function storm(fs: KernelFilesystem, calls: number): Promise<unknown>[] {
  return Array.from({ length: calls }, async (_, index) => {
    if (index % 4 === 0) return fs.info()
    if (index % 4 === 1) return fs.subvolume()
    if (index % 4 === 2) return fs.createSubvolume('there already')
    for await (const row of fs.subvolumes()) return row
  }).map((promise) => promise.catch((error: Error & { code?: string }) => error.code))
}

const programs: Record<string, (path: string) => Promise<void>> = {
  async 'exit in flight'(path) {
    const fs = await openFilesystem(path)
    void storm(fs, 2_000)
    await setImmediate()
    say('exiting')
    process.exit(7)
  },

  async 'throw in flight'(path) {
    const fs = await openFilesystem(path)
    void storm(fs, 2_000)
    throw new Error('thrown on purpose')
  },

  /** Nothing but the pending calls keeps the process alive, and then nothing does, though it never closed. */
  async 'natural end'(path) {
    const fs = await openFilesystem(path)
    let settled = 0
    for (const promise of storm(fs, 2_000)) void promise.then(() => settled++)
    process.once('exit', () => say({ settled }))
  },

  /** The parent froze the volume: these calls are in the kernel and stay there. */
  async 'exit while stuck'(path) {
    const fs = await openFilesystem(path)
    const stuck = Array.from({ length: 20 }, () => fs.createSubvolume('stuck', { timeoutMs: 200 }).catch((e) => e.code))
    const codes = new Set(await Promise.all(stuck))
    process.once('exit', () => say({ codes: [...codes] }))
  },

  async 'garbage collection'(path) {
    const openAndForget = async () => void (await (await openFilesystem(path)).info())
    for (let round = 0; round < 50; round++) await openAndForget()
    const before = descriptors(path).length
    for (let round = 0; round < 20 && descriptors(path).length > 0; round++) {
      globalThis.gc?.()
      await setTimeout(10)
    }
    say({ before, after: descriptors(path).length })
  },

  /** A task in flight owns the descriptor, whatever becomes of the object that started it. */
  async 'garbage collection in flight'(path) {
    const pending: Promise<unknown>[] = []
    for (let round = 0; round < 20; round++) {
      const fs = await openFilesystem(path)
      pending.push(...storm(fs, 20))
      globalThis.gc?.()
    }
    const results = await Promise.all(pending)
    say({ closed: results.filter((result) => result === 'EBADF').length, results: results.length })
  },

  async soak(path) {
    await using fs = await openFilesystem(path)
    const round = async () => {
      for (let call = 0; call < 1_000; call += 50) await Promise.all(storm(fs, 50))
      for (let wait = 0; wait < 5; wait++) {
        globalThis.gc?.()
        await setImmediate()
      }
      const { heapUsed, external } = process.memoryUsage()
      return {
        bytes: heapUsed + external,
        descriptors: descriptors(path).length,
        handles: process.getActiveResourcesInfo(),
      }
    }
    await round()
    const first = await round()
    for (let more = 0; more < 8; more++) await round()
    say({ first, last: await round() })
  },

  /** Workers of one process share the lane. */
  async workers(path) {
    const workers = Array.from({ length: 4 }, () => worker(path, false))
    say(await Promise.all(workers.map(({ ended }) => ended)))
  },

  async 'terminate workers'(path) {
    const fs = await openFilesystem(path)
    for (let round = 0; round < 60; round++) {
      const { thread, started } = worker(path, true)
      await started
      await setTimeout((round % 10) / 2) // at another moment of its life each time
      await thread.terminate()
    }
    const alive = (await fs.info()).uuid === fs.uuid
    await fs.close()
    for (let wait = 0; wait < 100 && descriptors(path).length > 0; wait++) await setTimeout(10)
    say({ alive, after: descriptors(path).length })
  },
}

function worker(path: string, endless: boolean) {
  const thread = new Worker(new URL('./worker.mjs', import.meta.url), { workerData: { path, endless }, execArgv: [] })
  const messages: unknown[] = []
  thread.on('message', (message) => messages.push(message))
  const started = new Promise<void>((resolve) => thread.once('message', () => resolve()))
  const ended = new Promise((resolve, reject) => thread.once('error', reject).once('exit', () => resolve(messages[1])))
  return { thread, started, ended }
}

await programs[process.argv[2]!]!(process.argv[3]!)
