import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { MIB } from '../../src/units.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, makeVolume, run } from '../helpers/volume.js'

const child = fileURLToPath(new URL('../helpers/balance.ts', import.meta.url))

describe.skipIf(cannotMount)('balance()', () => {
  const { volume, fs } = useVolume({ devicesMiB: [1024] })
  beforeAll(async () => {
    const noise = randomBytes(8 * MIB)
    for (let i = 0; i < 65; i++) writeFileSync(join(volume.path, `${i}`), noise)
    await fs.sync()
  })
  afterEach(async () => {
    await fs.cancelBalance().catch(() => {})
  })

  /** Logical start of each chunk that holds any of `flag`: a balanced one comes back elsewhere. */
  function chunks(flag = 'DATA'): number[] {
    run('sync', '-f', volume.path)
    const tree = run('btrfs', 'inspect-internal', 'dump-tree', '-t', 'chunk', volume.loops[0]!)
    return [...tree.matchAll(/CHUNK_ITEM (\d+)\)[^\n]*\n[^\n]*type (\S+)/g)]
      .filter(([, , type]) => type!.split('|').includes(flag))
      .map(([, start]) => Number(start))
  }
  const status = (...options: string[]) =>
    spawnSync('btrfs', ['balance', 'status', ...options, volume.path], { encoding: 'utf8' }).stdout
  /** What the kernel counts as soon as it does; undefined when it was over before. */
  async function running(ended: Promise<unknown>) {
    let over = false
    const end = () => {
      over = true
    }
    ended.then(end, end)
    for (;;) {
      const now = await fs.balanceStatus()
      if (now !== undefined || over) return now
      await setTimeout(1)
    }
  }
  /** An operation that `begin` stopped in the middle, and its error; again when it was over before. */
  async function stopped<T extends { readonly result: Promise<unknown> }>(begin: () => Promise<T>) {
    for (;;) {
      const operation = await begin()
      const error = await failure(operation.result)
      if (error !== undefined) return { operation, error }
    }
  }
  const failure = (result: Promise<unknown>) =>
    result.then(
      () => undefined,
      (error) => error,
    )

  it('moves the block groups of the type that pass the filters, and no others', async () => {
    const before = { data: chunks(), metadata: chunks('METADATA'), system: chunks('SYSTEM') }
    expect(before.data.length).toBeGreaterThan(3)
    const one = await fs.balance({ data: { limit: 1 } }).result
    expect(one).toMatchObject({ expected: 1, completed: 1 })
    const after = chunks()
    expect(before.data.filter((start) => !after.includes(start))).toHaveLength(1)
    expect(chunks('METADATA')).toEqual(before.metadata)
    // None is nearly empty.
    expect(await fs.balance({ data: { usagePercent: 1 } }).result).toMatchObject({ expected: 0, completed: 0 })
    expect(chunks()).toEqual(after)
    // Metadata takes system along.
    await fs.balance({ metadata: {} }).result
    expect(chunks('METADATA').some((start) => before.metadata.includes(start))).toBe(false)
    const system = chunks('SYSTEM')
    expect(system.some((start) => before.system.includes(start))).toBe(false)
    expect(chunks()).toEqual(after)
    // Unless system has filters of its own.
    await fs.balance({ metadata: {}, system: { usagePercent: 0 } }).result
    expect(chunks('SYSTEM')).toEqual(system)
  })

  it('tells how far it is, as btrfs-progs does, and can be paused and resumed', async () => {
    expect(await fs.balanceStatus()).toBeUndefined()
    expect(status()).toMatch(/^No balance found/)
    const holes = Array.from({ length: 9 }, (_, i) => join(volume.path, `${6 * i}`))
    for (const path of holes) rmSync(path) // no block group is completely full
    await fs.sync()
    const { operation, error } = await stopped(async () => {
      const operation = fs.balance({ data: { usagePercent: 100, limit: 99 }, system: {}, intervalMs: 2 })
      for await (const progress of operation) {
        expect(progress.completed).toBeLessThanOrEqual(progress.considered)
        const now = await fs.balanceStatus()
        if (now !== undefined) expect(now).toMatchObject({ state: 'running', expected: progress.expected })
        break
      }
      await operation.pause!()
      return operation
    })
    expect(error).toMatchObject({ code: 'ECANCELED', operation: 'balance', ioctl: 'BTRFS_IOC_BALANCE_V2' })
    const paused = await fs.balanceStatus()
    expect(paused).toMatchObject({ state: 'paused', force: false, ...error.progress })
    expect(paused).toMatchObject({ data: { usagePercent: 100, limit: expect.any(Number) }, system: {} })
    expect(paused!.metadata).toBeUndefined()
    expect(paused!.completed).toBeLessThan(paused!.expected)
    expect(await operation.progress()).toBeUndefined()
    const theirs = status('-v')
    expect(theirs).toContain(`${paused!.completed} out of about ${paused!.expected} chunks balanced`)
    expect(theirs).toMatch(/is paused/)
    expect(theirs).toMatch(/DATA \(flags 0x42\): balancing, usage=100, limit=\.\.\d+/)
    expect(theirs).toMatch(/SYSTEM \(flags 0x0\): balancing/)
    expect(theirs).not.toMatch(/METADATA/)
    expect((await fs.measure()).exclusiveOperation).toBe('balance paused')

    expect(await failure(fs.balance({ data: {} }).result)).toMatchObject({
      code: 'EINPROGRESS',
      hint: 'a balance is paused: resumeBalance() or cancelBalance()',
    })
    expect(await fs.balanceStatus()).toEqual(paused)
    const resumed = await fs.resumeBalance().result
    expect(resumed.completed).toBeGreaterThan(0)
    expect(await fs.balanceStatus()).toBeUndefined()
    expect(await failure(fs.resumeBalance().result)).toMatchObject({ code: 'ENOTCONN', operation: 'resumeBalance' })
    await expect(fs.cancelBalance()).rejects.toMatchObject({ code: 'ENOTCONN', hint: 'none is running or paused' })
    for (const path of holes) writeFileSync(path, randomBytes(8 * MIB))
    await fs.sync()
  })

  it.each(['cancel()', 'a signal', 'the end of its scope', 'close()', 'a paused one, cancelBalance()'])(
    '%s: it stops, keeps its counters, leaves nothing behind',
    async (how) => {
      let before: number[] = []
      const { error } = await stopped(async () => {
        before = chunks()
        await using other = await openFilesystem(volume.path)
        const controller = new AbortController()
        await using operation = other.balance({ data: {}, signal: controller.signal })
        const first = await running(operation.result)
        if (first !== undefined) expect(first.expected).toBeGreaterThanOrEqual(3)
        if (how === 'cancel()') await operation.cancel()
        if (how === 'a signal') controller.abort()
        if (how === 'close()') await other.close()
        if (how.startsWith('a paused')) {
          await operation.pause!()
          await other.cancelBalance().catch(() => {})
        }
        return operation
      })
      expect(error).toMatchObject({ code: 'ECANCELED', progress: { expected: expect.any(Number) } })
      expect(error.progress.completed).toBeLessThan(error.progress.expected)
      expect(await fs.balanceStatus()).toBeUndefined()
      expect(status()).toMatch(/^No balance found/)
      const after = chunks()
      expect(before.some((start) => after.includes(start))).toBe(true)
    },
  )

  it('cancelled before it began, or never begun', async () => {
    const before = chunks()
    const operation = fs.balance({ data: {} })
    await operation.cancel()
    expect(await failure(operation.result)).toMatchObject({ code: 'ECANCELED' })
    const reason = new Error('not today')
    expect(await failure(fs.balance({ data: {}, signal: AbortSignal.abort(reason) }).result)).toBe(reason)
    expect(await fs.balanceStatus()).toBeUndefined()
    expect(before.filter((start) => chunks().includes(start)).length).toBeGreaterThanOrEqual(before.length - 1)
    const closed = await openFilesystem(volume.path)
    await closed.close()
    expect(await failure(closed.balance({ data: {} }).result)).toMatchObject({ code: 'EBADF' })
    await expect(closed.balanceStatus()).rejects.toMatchObject({ code: 'EBADF' })
  })

  it('leaves somebody else’s balance alone', async () => {
    for (let left = true; left; ) {
      const theirs = spawn('btrfs', ['balance', 'start', '-ddevid=1', volume.path])
      const ended = output(theirs)
      await running(ended)
      const ours = fs.balance({ data: {} })
      await Promise.all([ours.cancel(), ours.pause!()])
      const first = await failure(ours.result)
      const second = await failure(fs.balance({ data: {} }).result)
      const status = await fs.balanceStatus()
      // Asked for by name it is stopped.
      const tooLate = await failure(fs.cancelBalance())
      if (tooLate !== undefined) {
        // It was over before: by itself, and all of it is tried again.
        expect(tooLate).toMatchObject({ code: 'ENOTCONN' })
        expect(await ended).not.toMatch(/cancell?ed|paused/)
        continue
      }
      left = false
      // It may have been cancelled before it was refused.
      expect(['EINPROGRESS', 'ECANCELED']).toContain(first.code)
      expect(second).toMatchObject({ code: 'EINPROGRESS' })
      expect(status).toMatchObject({ state: 'running' })
      expect(await ended).toMatch(/cancell?ed/)
      expect(await fs.balanceStatus()).toBeUndefined()
    }
  })

  it.each(['process.exit', 'an exception', 'worker.terminate', 'SIGTERM', 'SIGKILL'])(
    '%s in mid-balance: none is left running or paused',
    async (how) => {
      for (let cut = false; !cut; ) {
        const before = chunks()
        const process_ = spawn(process.execPath, ['--import', 'tsx', child, how, volume.path], {
          stdio: ['ignore', 'pipe', how === 'an exception' ? 'ignore' : 'inherit'],
        })
        const ended = exit(process_)
        if (how.startsWith('SIG')) {
          await once(process_.stdout!, 'data')
          process_.kill(how as 'SIGTERM')
        }
        expect(await ended).toBe({ 'process.exit': 7, 'an exception': 1, 'worker.terminate': 0 }[how] ?? how)
        expect(status()).toMatch(/^No balance found/)
        // Again when it was over before.
        const after = chunks()
        cut = before.some((start) => after.includes(start))
      }
    },
    60_000,
  )

  it('a limit above what passes takes all of it, which the kernel does not', async () => {
    const before = chunks()
    expect(run('btrfs', 'balance', 'start', '-dlimit=1000', volume.path)).toMatch(/relocate 0 out of/)
    const { expected, completed } = await fs.balance({ data: { limit: 1000 } }).result
    expect([expected, completed]).toEqual([before.length, before.length])
    const most = await fs.balance({ data: { limit: { min: 2, max: 3 } } }).result
    expect(most).toMatchObject({ expected: 3, completed: 3 })
    // Too few pass: the kernel expects them and takes none.
    const count = chunks().length
    const few = await fs.balance({ data: { limit: { min: count + 1 } } }).result
    expect(few).toMatchObject({ expected: count, completed: 0 })
  })

  it('pauses somebody else’s, and says its filters as btrfs-progs gave them', async () => {
    const filters = 'profiles=single|raid1,usage=3..97,devid=1,drange=1048576..900000000,vrange=0..999999999999,'
    const { error } = await stopped(async () => {
      const theirs = spawn('btrfs', [
        'balance',
        'start',
        `-d${filters}limit=1..50,stripes=1..3`,
        '-ssoft,convert=dup',
        '-f',
        volume.path,
      ])
      const ended = output(theirs)
      let paused = true
      await vi.waitFor(
        () =>
          fs.pauseBalance().catch((error) => {
            paused = theirs.exitCode === null
            if (paused) throw error
          }),
        { interval: 1, timeout: 30_000 },
      )
      await ended
      const result = paused ? Promise.reject(new Error('paused')) : Promise.resolve()
      return { result }
    })
    expect(error.message).toBe('paused')
    expect(await fs.exclusiveOperation()).toBe('balance paused')
    expect(await fs.balanceStatus()).toMatchObject({
      state: 'paused',
      force: true,
      data: {
        profiles: ['raid1', 'single'],
        // btrfs-progs says both `usage` and its range, and the kernel takes the first for "not full".
        usagePercent: expect.toSatisfy((given) => given === 100 || given.max === 97),
        devid: 1,
        drange: { startBytes: 1_048_576, endBytes: 900_000_000 },
        vrange: { startBytes: 0, endBytes: 999_999_999_999 },
        limit: { min: 1, max: expect.any(Number) },
        stripes: { min: 1, max: 3 },
      },
      metadata: undefined,
      system: { convert: 'dup', soft: true },
    })
    await fs.cancelBalance()
    await expect(fs.pauseBalance()).rejects.toMatchObject({ code: 'ENOTCONN' })
    expect(await fs.exclusiveOperation()).toBe('none')
  })

  it('says why the kernel refuses a conversion', async () => {
    expect(await failure(fs.balance({ data: { convert: 'raid1' } }).result)).toMatchObject({
      code: 'EINVAL',
      hint: 'data as raid1 needs 2 devices, and 1 can be written',
    })
    expect(await failure(fs.balance({ metadata: { convert: 'single' } }).result)).toMatchObject({
      code: 'EINVAL',
      hint: expect.stringMatching(/metadata would lose its redundancy \(dup to single\): `force`.*; system would/),
    })
    await fs.balance({ metadata: { convert: 'single' }, force: true }).result
    expect((await fs.blockGroups()).map(({ profile }) => profile)).not.toContain('dup')
    await fs.balance({ metadata: { convert: 'dup', soft: true } }).result
    const kinds = (await fs.blockGroups()).map(({ type, profile }) => `${type} ${profile}`)
    expect(new Set(kinds)).toEqual(new Set(['data single', 'metadata dup', 'system dup']))
  })

  it('says what the kernel refuses', async () => {
    run('chmod', '755', volume.directory)
    const process_ = spawnSync(process.execPath, ['--import', 'tsx', child, 'nobody', volume.path], {
      encoding: 'utf8',
    })
    expect(JSON.parse(process_.stdout)).toEqual(['EPERM', 'EPERM', 'EPERM'])

    using mixed = makeVolume({ devicesMiB: [256], mkfs: ['--mixed'] })
    const both = await openFilesystem(mixed.path)
    expect(await failure(both.balance({ metadata: {} }).result)).toMatchObject({
      code: 'EINVAL',
      message: expect.stringContaining('give both, with the same filters'),
    })
    expect(await both.balance({ data: {}, metadata: {} }).result).toMatchObject({ completed: expect.any(Number) })
    // The same to the kernel, however it is written; and alike, but not the same.
    const same = {
      data: { usagePercent: { min: 0, max: 50 }, limit: 5, profiles: ['single', 'dup'], soft: false },
      metadata: { profiles: ['dup', 'single'], limit: { max: 5 }, usagePercent: { max: 50, min: 0 } },
    } as const
    const clash = expect.stringContaining('share block groups')
    expect((await both.balancePlan(same)).reasons).not.toContainEqual(clash)
    expect(await both.balance(same).result).toMatchObject({ expected: expect.any(Number) })
    const alike = { data: { usagePercent: { max: 50 } }, metadata: { usagePercent: 50 } }
    expect((await both.balancePlan(alike)).reasons).toContainEqual(clash)
    expect(await failure(both.balance(alike).result)).toMatchObject({ code: 'EINVAL' })
    await both.close()

    using full = makeVolume({ devicesMiB: [256] })
    const tight = await openFilesystem(full.path)
    for (let size = 32 * MIB, i = 0; size >= MIB; i++) {
      try {
        writeFileSync(join(full.path, `${i}`), randomBytes(size), { flush: true })
      } catch {
        size /= 2
      }
    }
    expect(await failure(tight.balance({ data: {} }).result)).toMatchObject({ code: 'ENOSPC' })
    expect(await tight.balanceStatus()).toBeUndefined()
    run('mount', '-o', 'remount,ro', full.path)
    expect(await failure(tight.balance({ data: {} }).result)).toMatchObject({ code: 'EROFS' })
    await tight.close()
  })

  it('refuses nonsense', () => {
    expect(() => fs.balance({})).toThrow('at least one of data, metadata, system')
    expect(() => fs.balance({ data: { usagePercent: 50.5 } })).toThrow("option 'data.usagePercent'")
    expect(() => fs.balance({ data: { limit: 0 } })).toThrow("option 'data.limit'")
    expect(() => fs.balance({ data: { drange: { startBytes: 5 } } })).toThrow('`devid` beside `drange`')
    expect(() => fs.balance({ data: { soft: true } })).toThrow('`convert` beside `soft`')
    expect(() => fs.balance({ data: { usagePercent: { min: 50, max: 20 } } })).toThrow('min no larger than max')
    expect(() => fs.balance({ data: { profiles: [] } })).toThrow('at least one profile')
    expect(() => fs.balance({ data: { vrange: { startBytes: 5, endBytes: 5 } } })).toThrow(
      'startBytes less than endBytes',
    )
    expect(() => fs.balance({ data: { convert: 'raid2' as never } })).toThrow("got 'raid2'")
    expect(() => fs.balance({ metadata: { usage: 5 } as never })).toThrow("unknown option 'metadata.usage'")
    expect(() => fs.balance({ data: {}, timeoutMs: 5 } as never)).toThrow("unknown option 'timeoutMs'")
    expect(() => fs.resumeBalance({ intervalMs: 0 })).toThrow("option 'intervalMs'")
  })
})

async function exit(process_: ChildProcess): Promise<number | string> {
  const [code, signal] = await once(process_, 'exit')
  return code ?? signal
}

async function output(process_: ChildProcess): Promise<string> {
  let text = ''
  for (const stream of [process_.stdout!, process_.stderr!])
    stream.on('data', (chunk) => {
      text += chunk
    })
  await once(process_, 'close')
  return text
}
