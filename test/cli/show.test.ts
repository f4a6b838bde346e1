/** usage, devices, subvolumes, and what all commands have in common. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import type { Subvolume } from '../../src/btrfs/subvolume-list.js'
import { formatBytes } from '../../src/units.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, makeVolume, run } from '../helpers/volume.js'
import { asNobody, btrmind, jsonLines } from './helper.js'

const ESCAPE = '\u001b['
const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
const asJson = (value: unknown) => JSON.parse(JSON.stringify(value)) as unknown
afterEach(() => vi.unstubAllEnvs())

describe('every command', () => {
  it('has help, on stdout', async () => {
    const top = await btrmind(['--help'])
    expect(top).toMatchObject({ code: 0, err: '' })
    for (const name of ['usage', 'devices', 'subvolumes', 'scan', 'scrub', 'quota', 'run']) {
      expect(top.out).toMatch(new RegExp(`^  ${name} `, 'm'))
      const { code, out, err } = await btrmind([name, '--help'])
      expect({ code, err }).toEqual({ code: 0, err: '' })
      expect(out).toContain(`Usage: btrmind ${name}`)
      expect(out).toContain('--json')
    }
    expect(top.out.replaceAll(/\s+/g, ' ')).toContain(
      'Exit codes: 0 done, 1 failed, 2 bad arguments, 3 a critical alert stands, 130 interrupted.',
    )
    const { out } = await btrmind(['run', '--help'])
    for (const option of [
      'path',
      'temp',
      'snapshots',
      'inactive-days',
      'dry-run',
      'apply',
      'once',
      'interval',
      'state-dir',
    ])
      expect(out).toContain(`--${option}`)
  })

  it('--version is the package’s', async () => {
    expect(await btrmind(['--version'])).toEqual({ code: 0, out: `${version}\n`, err: '' })
  })

  it('nothing at all is a bad argument: the help, on stderr', async () => {
    const { code, out, err } = await btrmind([])
    expect([code, out]).toEqual([2, ''])
    expect(err).toContain('Usage: btrmind')
  })

  it.each([
    [['usge', '/'], "BTRMIND_ERR_OPTION: unknown command 'usge'; did you mean usage?"],
    [['usage', '--jsn', '/'], "BTRMIND_ERR_OPTION: unknown option '--jsn'; did you mean --json?"],
    [['usage', '--whatever', '/'], "BTRMIND_ERR_OPTION: unknown option '--whatever'; see --help"],
    [['usage'], "BTRMIND_ERR_ARGUMENT: missing required argument 'path'; see --help"],
    [['devices', '/', '/more'], /^BTRMIND_ERR_ARGUMENT: too many arguments for 'devices'\. .*; see --help$/],
  ])('%j is one line with code and hint, and exit code 2', async (argv, message) => {
    const { code, out, err } = await btrmind(argv)
    expect([code, out]).toEqual([2, ''])
    expect(err).toMatch(/^btrmind: .*\n$/)
    const text = err.slice('btrmind: '.length, -1)
    if (typeof message === 'string') expect(text).toBe(message)
    else expect(text).toMatch(message)
  })

  it.each(['usage', 'devices', 'subvolumes'])('%s of what is no volume: one line, exit code 1', async (command) => {
    for (const [path, message] of [
      ['/proc', /^ENOTTY: .*'\/proc'.*; not a btrfs filesystem$/],
      ['/no/where', /^ENOENT: .*'\/no\/where'.*; check the path/],
      ['package.json', /^ENOTDIR: .*\/package\.json'.*; a directory is needed$/],
      ['', /^BTRMIND_ERR_ARGUMENT: .*expected a path, got ''$/],
    ] as const) {
      for (const json of [[], ['--json']]) {
        const { code, out, err } = await btrmind([command, path, ...json])
        expect([code, out], path).toEqual([path === '' ? 2 : 1, ''])
        expect(err).toMatch(/^.*\n$/)
        const text = json.length > 0 ? JSON.parse(err).error.message : err.replace(/^btrmind: (.*)\n$/, '$1')
        expect(text).toMatch(message)
      }
    }
  })

  it('an error is red on a terminal', async () => {
    vi.stubEnv('FORCE_COLOR', undefined)
    vi.stubEnv('NO_COLOR', undefined)
    vi.stubEnv('TERM', 'xterm')
    expect((await btrmind(['usage', '/no/where'], { isTTY: true })).err).toContain(`${ESCAPE}31mbtrmind:${ESCAPE}39m `)
  })

  it('what nobody foresaw shows its stack', async () => {
    const onOut = () => {
      throw new Error('nobody listens')
    }
    const { code, err } = await btrmind(['--version'], { onOut })
    expect(code).toBe(1)
    expect(err).toMatch(/^btrmind: Error: nobody listens\n +at /)
  })

  it('Ctrl-C is told by the exit code', async () => {
    expect(await btrmind(['usage', '/'], { signal: AbortSignal.abort() })).toEqual({ code: 130, out: '', err: '' })
  })
})

describe.skipIf(cannotMount)('of a real volume', () => {
  const { volume, fs } = useVolume({ devicesMiB: [512, 512], data: 'raid0', metadata: 'raid1' })
  beforeAll(async () => {
    run('chmod', '755', volume.directory)
    run('btrfs', 'subvolume', 'create', join(volume.path, 'projects'))
    writeFileSync(join(volume.path, 'projects', 'file'), Buffer.alloc(5_000_000, 1))
    run('btrfs', 'subvolume', 'snapshot', '-r', join(volume.path, 'projects'), join(volume.path, 'monday'))
    await fs.sync()
  })

  it('usage --json is the library’s answer, and btrfs-progs’', async () => {
    const { code, out, err } = await btrmind(['usage', '--json', volume.path])
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(JSON.parse(out)).toEqual(asJson(await fs.usage()))
    expect(out.trimEnd()).not.toContain('\n')
    const progs = run('btrfs', 'filesystem', 'usage', '-b', volume.path)
    expect(String((JSON.parse(out) as { usedBytes: number }).usedBytes)).toBe(/Used:\s+(\d+)/.exec(progs)![1])
  })

  it('usage for people has the same figures', async () => {
    const { code, out, err } = await btrmind(['usage', volume.path])
    expect({ code, err }).toEqual({ code: 0, err: '' })
    const usage = await fs.usage()
    expect(out).toMatch(/^[█░]{40} \d+\.\d % used, live \(metadata as allocated\)\n\n/)
    expect(out).toMatch(new RegExp(`^device size +${formatBytes(usage.deviceSizeBytes)}$`, 'm'))
    expect(out).toMatch(new RegExp(`^free \\(statfs\\) +${formatBytes(usage.freeStatfsBytes)}$`, 'm'))
    for (const { type, profile, sizeBytes } of usage.blockGroups) {
      expect(out).toMatch(new RegExp(`^${type} +${profile} +${formatBytes(sizeBytes)} `, 'm'))
    }
    for (const loop of volume.loops) expect(out).toMatch(new RegExp(`^${loop} +\\S+ \\w+$`, 'm'))
  })

  it('devices', async () => {
    const devices = await fs.devices()
    const json = await btrmind(['devices', '--json', volume.path])
    expect(json).toEqual({ code: 0, out: `${JSON.stringify(devices)}\n`, err: '' })
    const { code, out } = await btrmind(['devices', volume.path])
    expect(code).toBe(0)
    const [head, ...rows] = out.trimEnd().split('\n')
    expect(head).toMatch(/^id +device +size +allocated +unallocated +slack +errors$/)
    expect(rows).toHaveLength(2)
    for (const [index, { devid, path, sizeBytes }] of devices.entries()) {
      expect(rows[index]).toMatch(new RegExp(`^ *${devid}  ${path} +${formatBytes(sizeBytes)} .* none$`))
    }
  })

  it('a missing device stands out', async () => {
    using degraded = makeVolume({ devicesMiB: [256, 256], data: 'raid1', metadata: 'raid1' })
    run('umount', degraded.path)
    run('btrfs', 'device', 'scan', '--forget', degraded.loops[1]!)
    run('wipefs', '-q', '-a', degraded.loops[1]!)
    run('mount', '-o', 'degraded', degraded.loops[0]!, degraded.path)
    vi.stubEnv('FORCE_COLOR', '1')
    const { code, out } = await btrmind(['devices', degraded.path])
    expect(code).toBe(0)
    expect(out).toMatch(/\[31m *2 +MISSING .*\[39m/)
    vi.stubEnv('FORCE_COLOR', '0')
    expect((await btrmind(['usage', degraded.path])).out).toMatch(/missing 2 /)
  })

  it('subvolumes', async () => {
    const expected: Subvolume[] = []
    for await (const subvolume of fs.subvolumes()) expected.push(subvolume)
    const json = await btrmind(['subvolumes', '--json', volume.path])
    expect(json).toMatchObject({ code: 0, err: '' })
    expect(jsonLines(json.out)).toEqual(asJson(expected))
    const { out } = await btrmind(['subvolumes', volume.path])
    const rows = out.trimEnd().split('\n').slice(1)
    expect(rows).toHaveLength(2)
    expect(rows[0]).toMatch(/^ *\d+ +subvolume +rw +\d+ +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +projects$/)
    expect(rows[1]).toMatch(/ snapshot +ro .* monday$/)
  })

  it('colour on a terminal only, or where it is forced', async () => {
    vi.stubEnv('FORCE_COLOR', undefined)
    vi.stubEnv('NO_COLOR', undefined)
    vi.stubEnv('TERM', 'xterm')
    const coloured = async (isTTY: boolean) => (await btrmind(['usage', volume.path], { isTTY })).out.includes(ESCAPE)
    expect([await coloured(false), await coloured(true)]).toEqual([false, true])
    vi.stubEnv('NO_COLOR', '1')
    expect(await coloured(true)).toBe(false)
    vi.stubEnv('FORCE_COLOR', '1')
    expect(await coloured(false)).toBe(true)
    vi.stubEnv('FORCE_COLOR', '0')
    expect(await coloured(true)).toBe(false)
    expect((await btrmind(['usage', '--json', volume.path], { isTTY: true })).out).toMatch(/^\{\n {2}"/)
  })

  it('as nobody: what is permitted, and why the rest is not', () => {
    const { status, stdout, stderr } = asNobody('usage', volume.path)
    expect(status, stderr).toBe(0)
    expect(stdout).toMatch(/^device size +1\.00 GiB$/m)
    expect(stderr).toMatch(/^not available: \S+ \(EPERM: needs root \(CAP_SYS_ADMIN\)\)$/m)
  })
})
