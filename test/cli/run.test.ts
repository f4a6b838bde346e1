import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { KernelFilesystem, openFilesystem } from '../../src/btrfs/filesystem.js'
import { BtrfsError } from '../../src/errors.js'
import type { Step } from '../../src/loop.js'
import { lockStateDirectory } from '../../src/monitor/lock.js'
import { MIB } from '../../src/units.js'
import { cannotMount, makeVolume, run, type TestVolume } from '../helpers/volume.js'
import { asNobody, btrmind, jsonLines } from './helper.js'

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))
const noStrace = spawnSync('strace', ['-V']).error === undefined ? undefined : 'strace is not installed'

describe.skipIf(cannotMount)('btrmind run', () => {
  let volume: TestVolume
  let directory: string
  let stateDir: string
  const at = (...path: string[]) => join(volume.path, ...path)
  const files = () => run('find', volume.path, '-printf', '%P %s %T@ %C@\n').split('\n').sort()
  const fill = (name: string) => {
    try {
      for (let i = 0; ; i++) writeFileSync(at('tmp', `${name}${i}`), Buffer.alloc(2 * MIB, i + 1))
    } catch (error) {
      expect(error).toMatchObject({ code: 'ENOSPC' })
    }
    spawnSync('sync', ['-f', volume.path])
  }
  const isFree = async () => (await lockStateDirectory(stateDir)).release()

  beforeAll(() => {
    volume = makeVolume({ devicesMiB: [256] })
    mkdirSync(at('snapshots'))
    run('btrfs', 'subvolume', 'create', at('tmp'))
  })
  afterAll(() => volume[Symbol.dispose]())
  beforeEach(() => {
    vi.stubEnv('FORCE_COLOR', '0')
    directory = mkdtempSync(join(tmpdir(), 'btrmind-run-'))
    stateDir = join(directory, 'state')
    // Nothing is written outside, whatever a test forgets to say.
    vi.stubEnv('STATE_DIRECTORY', join(directory, 'service'))
    vi.stubEnv('HOME', directory)
    const names = Array.from({ length: 32 }, (_, i) => `f${i}`)
    for (const name of readdirSync(at('tmp'))) if (!names.includes(name)) rmSync(at('tmp', name))
    const missing = names.filter((name) => !existsSync(at('tmp', name)))
    for (const name of missing) writeFileSync(at('tmp', name), Buffer.alloc(4 * MIB, name))
    if (missing.length > 0) run('sync', '-f', volume.path)
  })
  afterEach(() => {
    vi.unstubAllEnvs()
    rmSync(directory, { recursive: true, force: true })
  })

  it('--once says what it would do, and changes nothing', async () => {
    const before = files()
    const { code, out, err } = await btrmind([
      'run',
      '--path',
      volume.path,
      '--temp',
      at('tmp'),
      '--temp-hours',
      '0',
      '--once',
    ])
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(out).toContain(`${volume.path}, once, dry run: changes nothing\n`)
    expect(out).toContain(`  temporary files below  ${at('tmp')}\n`)
    expect(out).toContain('  snapshots directly in  nothing (--snapshots)\n')
    expect(out).toMatch(/^\d\d:\d\d:\d\d {2}8\d\.\d % {2}temp \(rules: 8\d\.\d % used, temp from 75 % /m)
    expect(out).toMatch(/^ +would touch 32, expecting 128\.00 MiB: 32 temporary files, /m)
    expect(out).toContain(`            ${at('tmp')}/f`)
    expect(out).toMatch(/^ {10}temp {7}could be taken$/m)
    expect(out).toMatch(/^ {10}balance {4}could not: metadata slack is /m)
    expect(out).toMatch(/^ {10}snapshots {2}could not: no snapshot directories were named \(--snapshots\)$/m)
    expect(files()).toEqual(before)
  })

  it('--apply really does it', async () => {
    const argv = ['run', '--path', volume.path, '--temp', at('tmp'), '--temp-hours', '0', '--once', '--apply']
    const { code, out } = await btrmind([...argv, '--policy', 'rules', '--state-dir', stateDir])
    expect(code).toBe(0)
    expect(out).toContain('really acts (--apply)')
    expect(out).not.toContain('could')
    expect(out).toMatch(/did 32 of 32; freed 128\.00 MiB, predicted 128\.00 MiB: /)
    expect(out).toMatch(/ {2}reward \+\d+\.\d /)
    expect(readdirSync(at('tmp'))).toEqual([])
    const journal = jsonLines(readFileSync(join(stateDir, 'journal.jsonl'), 'utf8'))
    expect(journal.at(-1)).toMatchObject({
      record: { kind: 'outcome', action: 'temp', done: 32, freedBytes: 128 * MIB },
    })
    await isFree()
  })

  it('--apply keeps its journal without being asked, and says where; a dry run keeps nothing', async () => {
    const argv = ['run', '--path', volume.path, '--temp', at('tmp'), '--temp-hours', '0', '--once', '--policy', 'rules']
    const dry = await btrmind(argv)
    expect(dry.out).toContain('  state and journal in   memory (--state-dir)\n')
    expect(readdirSync(directory)).toEqual([])
    const ran = await btrmind([...argv, '--apply'])
    expect([ran.code, ran.err]).toEqual([0, ''])
    expect(ran.out).toContain(`  state and journal in   ${join(directory, 'service')}\n`)
    const journal = jsonLines(readFileSync(join(directory, 'service/journal.jsonl'), 'utf8'))
    expect(journal.at(-1)).toMatchObject({ record: { kind: 'outcome', action: 'temp', done: 32 } })
  })

  it('--apply as nobody keeps its journal below XDG_STATE_HOME', async () => {
    for (const path of [directory, volume.directory]) chmodSync(path, 0o755)
    for (const path of [directory, at('tmp')]) chownSync(path, 65_534, 65_534)
    for (const name of readdirSync(at('tmp'))) chownSync(at('tmp', name), 65_534, 65_534)
    vi.stubEnv('STATE_DIRECTORY', undefined)
    vi.stubEnv('XDG_STATE_HOME', directory)
    try {
      const argv = ['--path', volume.path, '--temp', at('tmp'), '--temp-hours', '0', '--once', '--policy', 'rules']
      const { status, stdout, stderr } = asNobody('run', '--apply', ...argv)
      expect(status, stderr).toBe(0)
      await using fs = await openFilesystem(volume.path)
      const kept = join(directory, 'btrmind', fs.uuid)
      expect(stdout).toContain(`  state and journal in   ${kept}\n`)
      const journal = jsonLines(readFileSync(join(kept, 'journal.jsonl'), 'utf8'))
      expect(journal.at(-1)).toMatchObject({ record: { kind: 'outcome', action: 'temp', done: 32 } })
    } finally {
      chownSync(at('tmp'), 0, 0)
    }
  })

  it('--apply touches nothing where its journal cannot be made', async () => {
    const before = files()
    const argv = ['run', '--path', volume.path, '--temp', at('tmp'), '--temp-hours', '0', '--once', '--apply']
    writeFileSync(join(directory, 'service'), 'a file')
    const { code, err } = await btrmind(argv)
    expect([code, err]).toEqual([
      1,
      `btrmind: BTRMIND_ERR_STATE: cannot make the state directory '${join(directory, 'service')}': ENOTDIR; a directory is needed\n`,
    ])
    expect(files()).toEqual(before)
    vi.stubEnv('STATE_DIRECTORY', undefined)
    vi.stubEnv('XDG_STATE_HOME', '/proc')
    chmodSync(volume.directory, 0o755)
    const nobody = asNobody(...argv)
    expect(nobody.stderr).toMatch(
      /^btrmind: BTRMIND_ERR_STATE: cannot make the state directory '\/proc\/btrmind\/.*\n$/,
    )
    expect(nobody.status).toBe(1)
    expect(files()).toEqual(before)
  })

  it('--json: a line for each step, until Ctrl-C', async () => {
    const stop = new AbortController()
    let lines = 0
    const argv = ['run', '--path', volume.path, '--interval', '0.05', '--json', '--state-dir', stateDir]
    const { code, out, err } = await btrmind([...argv, '--temp', at('tmp')], {
      signal: stop.signal,
      onOut: () => ++lines === 2 && stop.abort(),
    })
    expect({ code, err }).toEqual({ code: 0, err: '' })
    const steps = jsonLines(out) as Step[]
    expect(steps.map(({ index }) => index)).toEqual([0, 1])
    expect(steps[0]).toMatchObject({
      sample: { source: 'kernel' },
      decision: { action: 'none', policy: 'rules' },
      outcome: { dryRun: true },
    })
    expect(readdirSync(stateDir)).toContain('history.jsonl')
    await isFree()
  })

  it('a full volume: it acts, though its state lies there too; what stays full is exit code 3', async () => {
    fill('more')
    const argv = ['run', '--path', volume.path, '--once', '--apply', '--policy', 'rules']
    const idle = await btrmind(argv)
    expect(idle.code).toBe(3)
    expect(idle.out).toMatch(/^ +critical: the volume is 99\.\d % full$/m)
    expect(idle.out).toContain('the emergency deletion freed nothing: no temporary directories were named')
    // Ctime cannot be set: wait for no ten minutes.
    const then = vi.spyOn(Date, 'now').mockReturnValue(Date.now() + 11 * 60_000)
    try {
      const ran = await btrmind([...argv, '--temp', at('tmp'), '--state-dir', at('state')])
      expect(ran.out).toMatch(/temp \(emergency: 99\.\d % used: temporary files go at once/)
      expect(ran.out).toMatch(/did \d+ of \d+; freed \d+\.\d+ MiB/)
      expect(ran.out).toMatch(/^ +critical: the volume is 99\.\d % full$/m)
      // What it freed cleared the alert.
      expect(ran.code).toBe(0)
    } finally {
      then.mockRestore()
      rmSync(at('state'), { recursive: true, force: true })
    }
  })

  it('an alert that was raised stands until the volume is less than 97 % full', async () => {
    const argv = ['run', '--path', volume.path, '--interval', '0.05', '--json', '--policy', 'rules']
    const until = async (endPercent: number) => {
      fill(`until${endPercent}-`)
      const stop = new AbortController()
      let asked = 0
      const onOut = (text: string) => {
        const used = (JSON.parse(text) as Step).sample.liveUsedPercent!
        if (asked++ === 0) expect(used).toBeGreaterThanOrEqual(99)
        if (used < endPercent) return stop.abort()
        rmSync(at('tmp', readdirSync(at('tmp')).find((file) => file.startsWith('until'))!))
        spawnSync('sync', ['-f', volume.path])
      }
      return (await btrmind(argv, { signal: stop.signal, onOut })).code
    }
    expect(await until(99)).toBe(3)
    expect(await until(97)).toBe(0)
  })

  it('--once of a volume that does not answer is one error, after one attempt', async () => {
    const failure = { code: 'ETIMEDOUT', errno: -110, text: 'connection timed out' }
    const measure = vi
      .spyOn(KernelFilesystem.prototype, 'measure')
      .mockRejectedValue(new BtrfsError('measure', failure))
    const statfs = vi.spyOn(KernelFilesystem.prototype, 'statfs').mockRejectedValue(new BtrfsError('statfs', failure))
    try {
      const { code, err } = await btrmind(['run', '--path', volume.path, '--once', '--json'])
      expect(err).toMatch(/^[^\n]+\n$/)
      const { error } = JSON.parse(err)
      expect(error.code).toBe('BTRMIND_ERR_SAMPLE')
      expect(error.message).toMatch(/no reading of '.*\/mnt': ETIMEDOUT: /)
      expect(code).toBe(1)
      expect(statfs).toHaveBeenCalledTimes(1)
    } finally {
      measure.mockRestore()
      statfs.mockRestore()
    }
  })

  describe('bad input: one line, nothing made, nothing changed', () => {
    const cases: [string, () => string[], number, RegExp][] = [
      [
        'no path',
        () => ['--once'],
        2,
        /^BTRMIND_ERR_ARGUMENT: run: expected one path, like btrmind run \/mnt\/pool; got none$/,
      ],
      ['not btrfs', () => ['--path', '/proc'], 1, /^ENOTTY: .*'\/proc'.*; not a btrfs filesystem$/],
      ['no such path', () => ['--path', at('none')], 1, /^ENOENT: .*\/none'.*; check the path/],
      ['a file', () => ['--path', at('tmp/f1')], 1, /^ENOTDIR: .*\/f1'.*; a directory is needed$/],
      [
        'a nonsense number',
        () => ['--path', volume.path, '--interval', 'x'],
        2,
        /^BTRMIND_ERR_ARGUMENT: .*--interval.*'x' is invalid: expected a number from 0\.05 to 86400; see --help$/,
      ],
      [
        'a negative number',
        () => ['--path', volume.path, '--inactive-days', '-1'],
        2,
        /^BTRMIND_ERR_ARGUMENT: .*--inactive-days.*'-1'/,
      ],
      ['no number', () => ['--path', volume.path, '--temp-hours', ''], 2, /^BTRMIND_ERR_ARGUMENT: .*--temp-hours.*''/],
      ['too few snapshots', () => ['--path', volume.path, '--keep-snapshots', '0'], 2, /^BTRMIND_ERR_ARGUMENT: .*'0'/],
      [
        'half a seed',
        () => ['--path', volume.path, '--seed', '1.5'],
        2,
        /^BTRMIND_ERR_ARGUMENT: .*'1\.5'.*whole number/,
      ],
      [
        'no such policy',
        () => ['--path', volume.path, '--policy', 'luck'],
        2,
        /^BTRMIND_ERR_ARGUMENT: .*'luck'.*dqn, rules/,
      ],
      [
        'an unknown option',
        () => ['--path', volume.path, '--aply'],
        2,
        /^BTRMIND_ERR_OPTION: .*'--aply'; did you mean --apply\?$/,
      ],
      [
        'a contradiction',
        () => ['--path', volume.path, '--dry-run', '--apply'],
        2,
        /^BTRMIND_ERR_ARGUMENT: .*'--apply' cannot be used with option '--dry-run'/,
      ],
      [
        '--temp outside',
        () => ['--path', volume.path, '--temp', directory],
        1,
        /^ENOTTY: .*'.*\/btrmind-run-.*'.*; not a btrfs filesystem \(given by --temp\)$/,
      ],
      [
        '--temp that is all of it',
        () => ['--path', volume.path, '--temp', volume.path],
        1,
        /^BTRMIND_ERR_ROOT: .*\/mnt'.*; name a directory that holds nothing but temporary files \(given by --temp\)$/,
      ],
      [
        '--temp that is not there',
        () => ['--path', volume.path, '--temp', at('none')],
        1,
        /^ENOENT: .*\/none'.*--temp/,
      ],
      [
        '--snapshots that is not there',
        () => ['--path', volume.path, '--snapshots', at('none')],
        1,
        /^ENOENT: .*\/none'.*--snapshots/,
      ],
    ]
    it.each(cases)('%s', async (_, argv, code, message) => {
      const before = files()
      const ran = await btrmind(['run', ...argv(), '--once', '--state-dir', stateDir])
      expect(ran.err).toMatch(/^btrmind: .*\n$/)
      expect(ran.err.slice('btrmind: '.length, -1)).toMatch(message)
      expect(ran.code).toBe(code)
      expect(ran.out).toBe('')
      expect(existsSync(stateDir)).toBe(false)
      expect(files()).toEqual(before)
    })

    it('--temp on another volume', async () => {
      using other = makeVolume({ devicesMiB: [128] })
      const argv = ['run', '--path', volume.path, '--temp', other.path, '--once', '--state-dir', stateDir]
      const { code, err } = await btrmind(argv)
      expect(code).toBe(1)
      expect(err).toMatch(/^btrmind: BTRMIND_ERR_WRONG_VOLUME: .*\n$/)
      expect(err).toContain(`'${other.path}'`)
      expect(err).toContain('(given by --temp)')
      expect(existsSync(stateDir)).toBe(false)
    })

    it('a state directory that is none', async () => {
      writeFileSync(stateDir, 'a file')
      const { code, err } = await btrmind(['run', '--path', volume.path, '--once', '--state-dir', stateDir])
      expect([code, err]).toEqual([
        1,
        `btrmind: BTRMIND_ERR_STATE: cannot make the state directory '${stateDir}': ENOTDIR; a directory is needed\n`,
      ])
      expect(readFileSync(stateDir, 'utf8')).toBe('a file')
    })

    it('a corrupt state directory: damage is named and set aside; what cannot be told is refused', async () => {
      const argv = ['run', '--path', volume.path, '--once', '--state-dir', stateDir]
      await btrmind(argv)
      writeFileSync(join(stateDir, 'journal.jsonl'), 'noise\nnoise\n')
      const ran = await btrmind(argv)
      expect(ran.code).toBe(0)
      expect(ran.err).toMatch(/^warning: BTRMIND_ERR_STATE_CORRUPT: .*journal\.jsonl.*\n$/)
      writeFileSync(join(stateDir, 'volume.json'), 'noise')
      const { code, err } = await btrmind(argv)
      expect(code).toBe(1)
      expect(err).toMatch(
        /^btrmind: BTRMIND_ERR_STATE_CORRUPT: .*volume\.json' does not name a volume; remove it if .*\n$/,
      )
      await isFree()
    })

    it('a FIFO in the place of a state file is said, not waited for', async () => {
      const argv = ['run', '--path', volume.path, '--once', '--state-dir', stateDir]
      await btrmind(argv)
      for (const name of ['history.jsonl', 'journal.jsonl', 'volume.json']) {
        const file = join(stateDir, name)
        const kept = readFileSync(file)
        rmSync(file)
        run('mkfifo', file)
        const { code, err } = await btrmind(argv)
        expect([name, code]).toEqual([name, 1])
        expect(err).toMatch(new RegExp(`^btrmind: BTRMIND_ERR_STATE: .*${name}.*EINVAL`))
        rmSync(file)
        writeFileSync(file, kept)
      }
      expect((await btrmind(argv)).code).toBe(0)
    })

    it('no permission', () => {
      mkdirSync(stateDir, { mode: 0o700 })
      chmodSync(directory, 0o755)
      mkdirSync(at('private'), { mode: 0o700 })
      const closed = asNobody('run', '--once', '--path', at('private'), '--state-dir', stateDir)
      expect(closed.stderr).toMatch(/^btrmind: EACCES: .*\/private'.*; the files’ permissions do not allow it\n$/)
      expect(closed.status).toBe(1)
      chmodSync(volume.directory, 0o755)
      const state = asNobody('run', '--once', '--path', volume.path, '--state-dir', stateDir)
      expect(state.stderr).toMatch(
        /^btrmind: BTRMIND_ERR_STATE: .*state'.*: EACCES; it must belong to the user who runs this, .*\n$/,
      )
      expect(state.status).toBe(1)
      expect(readdirSync(stateDir)).toEqual([])
      rmSync(at('private'), { recursive: true })
    })
  })

  describe('as a process', () => {
    it('SIGINT ends it with 0 and gives the state directory back; a second one meanwhile is refused', async () => {
      const argv = ['run', '--path', volume.path, '--interval', '3600', '--state-dir', stateDir]
      const child = spawn(process.execPath, [MAIN, ...argv, '--json'], { stdio: ['ignore', 'pipe', 'inherit'] })
      const ended = once(child, 'exit')
      await Promise.race([once(child.stdout, 'data'), ended])
      const second = await btrmind([...argv, '--once'])
      expect(second.code).toBe(1)
      expect(second.err).toBe(
        `btrmind: BTRMIND_ERR_LOCKED: '${stateDir}' is in use by process ${child.pid}; stop it first, or choose another state directory\n`,
      )
      child.kill('SIGINT')
      expect(await ended).toEqual([0, null])
      await isFree()
    })

    it('a reader that went away is no failure', () => {
      const pipe = `"$0" "$1" subvolumes --json "$2" | true; exit "\${PIPESTATUS[0]}"`
      const { status, stderr } = spawnSync('bash', ['-c', pipe, process.execPath, MAIN, volume.path], {
        encoding: 'utf8',
      })
      expect([status, stderr]).toEqual([0, ''])
    })

    it.skipIf(noStrace)('starts no other process', () => {
      const log = join(directory, 'strace')
      const argv = ['run', '--once', '--apply', '--temp-hours', '0', '--path', volume.path, '--temp', at('tmp')]
      const ran = spawnSync(
        'strace',
        [
          '-f',
          '-qq',
          '-e',
          'trace=execve,execveat',
          '-o',
          log,
          process.execPath,
          MAIN,
          ...argv,
          '--state-dir',
          stateDir,
        ],
        { encoding: 'utf8', env: { ...process.env, LD_PRELOAD: undefined } },
      )
      expect(ran.status, ran.stderr).toBe(0)
      expect(ran.stdout).toContain('did 32 of 32')
      const calls = readFileSync(log, 'utf8')
        .split('\n')
        .filter((line) => line.includes('execve'))
      expect(calls).toHaveLength(1)
      expect(calls[0]).toContain(`execve("${process.execPath}"`)
    })
  })
})
