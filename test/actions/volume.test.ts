/** What only a real volume can show. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Executor, type ExecutorOptions } from '../../src/actions/executor.js'
import type { Outcome } from '../../src/actions/plan.js'
import type { ActionName } from '../../src/actions/table.js'
import { DAY_MS, MIB } from '../../src/units.js'
import { useOwnVolume } from '../helpers/use-volume.js'
import { cannotMount, run, type VolumeOptions } from '../helpers/volume.js'
import { AheadClock, sampleOf } from './bench.js'

describe.skipIf(cannotMount)('on a real volume', () => {
  const { volume, fs, at, make } = useOwnVolume()
  let stateDir: string
  let clock: AheadClock
  const executors: Executor[] = []
  beforeEach(() => {
    clock = new AheadClock()
    stateDir = mkdtempSync(join(tmpdir(), 'actions-state-'))
  })
  afterEach(async () => {
    for (const executor of executors.splice(0)) await executor.close()
    rmSync(stateDir, { recursive: true, force: true })
  })

  async function mount(options: VolumeOptions = {}) {
    await make(options)
    mkdirSync(at('tmp'))
  }
  async function open(options: ExecutorOptions): Promise<Executor> {
    const executor = await Executor.open(fs, { clock, stateDir, ...options })
    executors.push(executor)
    expect(await executor.refresh({ prepare: true })).toEqual([])
    return executor
  }
  async function act(executor: Executor, action: ActionName): Promise<Outcome> {
    await fs.sync()
    const sample = await sampleOf({ fs, clock })
    const plan = executor.plan(action, sample)
    if (!plan.allowed) throw new Error(`refused: ${plan.reason}`)
    return executor.execute(plan, { sample, dryRun: false })
  }
  /** What btrfs-progs says: allocated or used bytes of one kind of block group. */
  function progs(kind: 'Data' | 'Metadata', figure: 'Size' | 'Used'): number {
    const text = run('btrfs', 'filesystem', 'usage', '-b', volume.path)
    return Number(new RegExp(`^${kind},\\w+:.*${figure}:(\\d+)`, 'm').exec(text)?.[1])
  }
  const sha256 = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex')

  it('what temp frees is what btrfs-progs sees', async () => {
    await mount()
    for (let i = 0; i < 10; i++) writeFileSync(at('tmp', `f${i}`), Buffer.alloc(3 * MIB, i + 1))
    linkSync(at('tmp', 'f9'), at('kept'))
    await fs.sync()
    clock.aheadMs = 11 * DAY_MS
    const executor = await open({ temp: [at('tmp')] })
    const before = progs('Data', 'Used')
    const outcome = await act(executor, 'temp')
    expect(outcome).toMatchObject({ predictedBytes: 27 * MIB, freedBytes: 27 * MIB, items: { done: 10 } })
    expect(outcome.explanation).toContain('1 with other hard links free nothing')
    expect(before - progs('Data', 'Used')).toBe(27 * MIB)
    expect(readFileSync(at('kept')).equals(Buffer.alloc(3 * MIB, 10))).toBe(true)
  })

  it('stays below its root: no symlink, no mount, no subvolume, nothing beside it', async () => {
    await mount()
    mkdirSync(at('precious'))
    for (const file of ['one', 'two']) writeFileSync(at('precious', file), file.repeat(5000))
    symlinkSync('../precious', at('tmp', 'directory'))
    symlinkSync('../precious/one', at('tmp', 'file'))
    mkdirSync(at('tmp', 'mounted'))
    run('btrfs', 'subvolume', 'create', at('tmp', 'subvolume'))
    writeFileSync(at('tmp', 'subvolume', 'inside'), 'x')
    mkdirSync(at('tmp', 'deep', 'er'), { recursive: true })
    for (const path of ['old', 'deep/er/old', 'caf\u00e9']) writeFileSync(at('tmp', path), 'x'.repeat(5000))
    run('mount', '--bind', at('precious'), at('tmp', 'mounted'))
    try {
      await fs.sync()
      clock.aheadMs = 11 * DAY_MS
      const before = [sha256(at('precious', 'one')), sha256(at('precious', 'two'))]
      const executor = await open({ temp: [at('tmp')] })
      const outcome = await act(executor, 'temp')
      expect(outcome.items).toMatchObject({ planned: 3, done: 3, failed: 0 })
      expect([sha256(at('precious', 'one')), sha256(at('precious', 'two'))]).toEqual(before)
      expect(readdirSync(at('tmp')).sort()).toEqual(['deep', 'directory', 'file', 'mounted', 'subvolume'])
      expect(readdirSync(at('tmp', 'subvolume'))).toEqual(['inside'])
      expect(readdirSync(at('tmp', 'deep', 'er'))).toEqual([])
    } finally {
      run('umount', at('tmp', 'mounted'))
    }
  })

  it('a root that became another directory is not followed, however late', async () => {
    await mount()
    for (const parent of ['home', 'precious']) {
      mkdirSync(at(parent, 'tmp'), { recursive: true })
      writeFileSync(at(parent, 'tmp', 'old'), 'x')
    }
    // Nothing but its directory tells the bystander from what was seen.
    rmSync(at('precious', 'tmp', 'old'))
    linkSync(at('home', 'tmp', 'old'), at('precious', 'tmp', 'old'))
    clock.aheadMs = 11 * DAY_MS
    const original = fs.removeFiles
    const swaps = [
      ['home/tmp', () => symlinkSync('../precious/tmp', at('home', 'tmp'))],
      ['home', () => symlinkSync('precious', at('home'))],
      ['home', () => renameSync(at('precious'), at('home'))],
    ] as const
    for (const [path, swap] of swaps) {
      clock.aheadMs += DAY_MS // What failed rests for a while.
      const executor = await open({ temp: [at('home', 'tmp')] })
      const swapped = vi.fn(() => {
        renameSync(at(path), at('moved'))
        swap()
      })
      // After whatever was looked at before.
      fs.removeFiles = (...args) => {
        swapped()
        return original.apply(fs, args)
      }
      const outcome = await act(executor, 'temp')
      fs.removeFiles = original
      expect(outcome).toMatchObject({ items: { done: 0 }, error: { code: 'ESTALE' } })
      expect(swapped).toHaveBeenCalledTimes(1)
      expect(existsSync(at('home', 'tmp', 'old')) && lstatSync(at('moved')).isDirectory()).toBe(true)
      if (lstatSync(at(path)).isSymbolicLink()) unlinkSync(at(path))
      else renameSync(at(path), at('precious'))
      renameSync(at('moved'), at(path))
      expect(existsSync(at('home', 'tmp', 'old')) && existsSync(at('precious', 'tmp', 'old'))).toBe(true)
    }
  })

  it('a snapshot is deleted only where it was seen, however late its directory was swapped', async () => {
    await mount()
    for (const directory of ['snapshots', 'others']) mkdirSync(at(directory))
    run('btrfs', 'subvolume', 'create', at('data'))
    for (const name of ['s1', 's2']) run('btrfs', 'subvolume', 'snapshot', '-r', at('data'), at('snapshots', name))
    const original = fs.deleteSubvolume
    run('btrfs', 'subvolume', 'snapshot', '-r', at('data'), at('others', 's1'))
    const swaps = [() => symlinkSync('moved', at('snapshots')), () => renameSync(at('others'), at('snapshots'))]
    for (const swap of swaps) {
      clock.aheadMs += DAY_MS // What failed rests for a while.
      const executor = await open({ snapshots: [at('snapshots')], keepSnapshots: 1, stateDir: undefined })
      fs.deleteSubvolume = (...args) => {
        renameSync(at('snapshots'), at('moved'))
        swap()
        return original.apply(fs, args)
      }
      const outcome = await act(executor, 'snapshots')
      fs.deleteSubvolume = original
      expect(outcome).toMatchObject({ items: { done: 0 }, error: { code: 'ESTALE' } })
      if (swap === swaps[0]) unlinkSync(at('snapshots'))
      else renameSync(at('snapshots'), at('others'))
      renameSync(at('moved'), at('snapshots'))
      expect(readdirSync(at('snapshots'))).toEqual(['s1', 's2'])
      expect(readdirSync(at('others'))).toEqual(['s1'])
    }
    const executor = await open({ snapshots: [at('snapshots')], keepSnapshots: 1, stateDir: undefined })
    expect(await act(executor, 'snapshots')).toMatchObject({ items: { done: 1 }, error: undefined })
  })

  it('a root that became another directory is not looked into', async () => {
    await mount()
    mkdirSync(at('precious'))
    writeFileSync(at('precious', 'old'), 'x')
    clock.aheadMs = 11 * DAY_MS
    const executor = await Executor.open(fs, { clock, temp: [at('tmp')], compress: [at('tmp')] })
    executors.push(executor)
    renameSync(at('tmp'), at('moved'))
    renameSync(at('precious'), at('tmp'))
    const problems = await executor.refresh()
    expect(problems).toEqual([expect.stringMatching(/^temp: .*ESTALE/), expect.stringMatching(/^compress: .*ESTALE/)])
    expect(await executor.refresh()).toEqual([]) // said once, not with every look
    expect(executor.plan('temp', await sampleOf({ fs, clock }))).toMatchObject({
      code: 'nothing-to-do',
      reason: expect.stringContaining(`could not look at 1 directory, the first '${at('tmp')}': ESTALE`),
    })
  })

  it('a symlink that the operator named is resolved once, and the state directory found behind one', async () => {
    await mount()
    symlinkSync('tmp', at('link'))
    const executor = await open({ temp: [at('link')] })
    expect(executor.roots.temp.map(({ path }) => path)).toEqual([at('tmp')])
    symlinkSync(at('tmp'), join(stateDir, 'link'))
    const hidden = { temp: [at('tmp')], stateDir: join(stateDir, 'link', 'state') }
    await expect(open(hidden)).rejects.toThrow(`it holds the state directory '${at('tmp', 'state')}'`)
    mkdirSync(at('again'))
    run('mount', '--bind', volume.path, at('again'))
    try {
      await expect(open({ temp: [at('again')] })).rejects.toThrow('it is the volume’s top under another name')
    } finally {
      run('umount', at('again'))
    }
  })

  it('compression changes no content, and frees what btrfs-progs sees', async () => {
    await mount()
    mkdirSync(at('data'))
    for (let i = 0; i < 4; i++)
      writeFileSync(at('data', `log${i}`), `${i} a line of a log file, like the others\n`.repeat(100_000))
    await fs.sync()
    clock.aheadMs = 31 * DAY_MS
    const files = readdirSync(at('data')).map((file) => at('data', file))
    const sums = files.map(sha256)
    const executor = await open({ compress: [volume.path] })
    const before = progs('Data', 'Used')
    const outcome = await act(executor, 'compress')
    expect(outcome.items).toMatchObject({ planned: 4, done: 4, failed: 0 })
    expect(before - progs('Data', 'Used')).toBe(outcome.freedBytes)
    expect(outcome.freedBytes).toBeGreaterThan(10 * MIB)
    expect(files.map(sha256)).toEqual(sums)
  })

  it('an emergency on a volume that is full to the last byte', async () => {
    await mount({ devicesMiB: [512] })
    mkdirSync(at('state'))
    for (let i = 0; i < 100; i++) writeFileSync(at('tmp', `f${String(i).padStart(3, '0')}`), Buffer.alloc(2 * MIB, i))
    for (const size of [MIB, 4096]) {
      try {
        for (let i = 0; ; i++) {
          writeFileSync(at(`filler-${size}-${i}`), Buffer.alloc(size, 1))
          if (i % 16 === 0) await fs.sync()
        }
      } catch (error) {
        expect((error as NodeJS.ErrnoException).code).toBe('ENOSPC')
      }
    }
    await fs.sync()
    clock.aheadMs = 11 * 60_000
    const executor = await Executor.open(fs, { clock, temp: [at('tmp')], stateDir: at('state') })
    executors.push(executor)
    // A journal line no longer fits.
    expect(await executor.refresh({ prepare: true })).toEqual([
      expect.stringContaining('ENOSPC: no space left on device'),
    ])
    const sample = await sampleOf({ fs, clock })
    expect(sample.liveUsedPercent).toBeGreaterThan(97)
    const outcome = await executor.forceDeleteTemp({ sample, dryRun: false })
    expect(outcome).toMatchObject({ emergency: true, error: undefined })
    expect(outcome.warnings).toEqual([expect.stringContaining('the journal could not be written: BTRMIND_ERR_STATE')])
    expect(outcome.freedBytes).toBeGreaterThan(20 * MIB)
    expect((await sampleOf({ fs, clock })).liveUsedPercent).toBeLessThan(95)
    const left = readdirSync(at('tmp')).sort()
    expect(left.length).toBe(100 - outcome.items.done)
    expect(left.length).toBeGreaterThan(0)
    writeFileSync(at('again'), Buffer.alloc(MIB))
  })

  it('killed between the deletion and the outcome: reported at the next start, once', async () => {
    await mount()
    for (let i = 0; i < 100; i++) writeFileSync(at('tmp', `f${i}`), `${i}`)
    const script = fileURLToPath(new URL('killed.ts', import.meta.url))
    const child = spawnSync(process.execPath, ['--import', 'tsx', script, volume.path, stateDir], { encoding: 'utf8' })
    expect(child.signal, child.stderr).toBe('SIGKILL')
    expect(readdirSync(at('tmp'))).toHaveLength(36)
    const executor = await open({ temp: [at('tmp')] })
    expect(executor.unfinished).toMatchObject([{ action: 'temp', begun: true, emergency: false }])
    const { paths } = executor.unfinished[0]!
    expect(paths).toHaveLength(64)
    expect(paths.some((path) => existsSync(path))).toBe(false)
    await executor.close()
    expect((await open({ temp: [at('tmp')] })).unfinished).toEqual([])
  })
})
