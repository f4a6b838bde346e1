/** What all commands have in common. */
import type { Command } from 'commander'
import { describe, expect, it } from 'vitest'
import { program } from '../../src/cli/program.js'
import { btrmind } from './helper.js'

const root = program({} as never, () => {})
const name = (command: Command): string =>
  `${command.parent?.parent ? `${name(command.parent)} ` : ''}${command.name()}`
const below = (command: Command): Command[] => command.commands.flatMap((one) => [one, ...below(one)])
const all = below(root)

describe('every command', () => {
  it('has a description, and --json where it does something', () => {
    expect(all.length).toBeGreaterThan(60)
    expect(all.filter((command) => command.description() === '').map(name)).toEqual([])
    // A group of commands does nothing itself, except `quota`.
    const doing = all.filter((command) => command.commands.length === 0 || command.name() === 'quota')
    const without = doing.filter((command) => command.options.every(({ long }) => long !== '--json'))
    expect(without.map(name)).toEqual([])
    const options = all.flatMap((command) =>
      command.options.filter((option) => option.description === '').map(() => name(command)),
    )
    expect(options).toEqual([])
  })

  it('fits into the help of the root, each in a group', async () => {
    const long = root.commands.filter((command) => (command.summary() || command.description()).length > 60)
    expect(long.map(name)).toEqual([])
    const { code, out } = await btrmind(['--help'])
    expect(code).toBe(0)
    expect(out.split('\n').length).toBeLessThan(48)
    const headings = out.match(/^\S.*:$/gm)
    expect(headings).toEqual(['Options:', 'See what is there:', 'Keep it in shape:', 'Change it:'])
    for (const command of root.commands) expect(out).toMatch(new RegExp(`^  ${command.name()} `, 'm'))
    expect((await btrmind(['help', 'usage'])).out).toContain('Usage: btrmind usage')
  })

  it('says who may call it, with an example that it would take, in 80 columns', async () => {
    for (const command of [root, ...all]) {
      const words = command === root ? [] : name(command).split(' ')
      const { out } = await btrmind([...words, '--help'])
      expect(out.split('\n').filter((line) => line.length > 80)).toEqual([])
      if (command.commands.length > 0 && command.name() !== 'quota') continue
      if (command.name() === 'help') continue
      expect(out, words.join(' ')).toMatch(/^Needs [a-z][\s\S]*\.\nExample: btrmind /m)
      const example = /^Example: btrmind (.*)$/m
        .exec(out)![1]!
        .split(/ [<>] /)[0]!
        .split(' ')
      expect(example.slice(0, words.length)).toEqual(words)
      const taken: string[] = []
      const apart = program({} as never, () => {})
      const find = (within: Command, [word, ...rest]: string[]): Command =>
        word === undefined ? within : find(within.commands.find((one) => one.name() === word)!, rest)
      find(apart, words).action(() => void taken.push(name(command)))
      await apart.parseAsync(example, { from: 'user' })
      expect(taken).toEqual([name(command)])
    }
  })

  it.each([
    ['subvolume list /p', 'btrmind subvolumes'],
    ['sub list /p', 'btrmind subvolumes'],
    ['subvolume del /p', 'btrmind subvolume delete'],
    ['sub del /p', 'btrmind subvolume delete'],
    ['filesystem usage /p', 'btrmind usage'],
    ['fi df /p', 'btrmind usage'],
    ['filesystem show', 'btrmind devices'],
    ['scrub start /p', 'btrmind scrub <path>, which shows its progress until it ends'],
    ['balance /p', 'btrmind balance start <path>'],
    ['snapshot /p /q', 'btrmind subvolume snapshot'],
    ['qgroup limit 1G /p', 'btrmind quota limit'],
    ['property set /p ro true', 'btrmind compression set'],
  ])('%s, typed by habit: says what it is here', async (line, wanted) => {
    const { code, out, err } = await btrmind(line.split(' '))
    expect([code, out]).toEqual([2, ''])
    expect(err).toMatch(/^btrmind: BTRMIND_ERR_/)
    expect(err.endsWith(`; did you mean: ${wanted}\n`), err).toBe(true)
    const words = wanted.replace(/ <.*/, '').split(' ').slice(1)
    expect((await btrmind([...words, '--help'])).code).toBe(0)
  })

  it('elsewhere commander knows best', async () => {
    expect((await btrmind(['usgae', '/p'])).err).toContain('; did you mean usage?')
    expect((await btrmind(['usage', '/p', '/q'])).err).toContain('; see --help')
  })

  it('with --json a failure is one line of JSON on stderr, also of the command line', async () => {
    const of = async (...argv: string[]) => {
      const { code, out, err } = await btrmind([...argv, '--json'])
      expect(out).toBe('')
      expect(err).toMatch(/^\{.*\}\n$/)
      return { exit: code, ...JSON.parse(err).error }
    }
    const missing = await of('usage', '/nowhere')
    expect(missing).toEqual({
      exit: 1,
      code: 'ENOENT',
      errno: -2,
      operation: 'openFilesystem',
      ioctl: 'open',
      step: 'open',
      path: '/nowhere',
      hint: expect.stringContaining('check the path'),
      message: expect.stringContaining('ENOENT: no such file'),
    })
    expect(await of('usage', '/nowhere', '--jsn')).toMatchObject({
      exit: 2,
      code: 'BTRMIND_ERR_OPTION',
      hint: 'did you mean --json?',
    })
    expect((await btrmind(['--help'])).out).toContain('{"error":{code,message,path,hint,…}}')
  })

  it('run takes its path as the others do, or as --path', async () => {
    for (const argv of [
      ['run', '/nowhere', '--once'],
      ['run', '--once', '--path', '/nowhere'],
    ])
      expect(await btrmind(argv)).toMatchObject({ code: 1, err: expect.stringContaining("'/nowhere'") })
    expect(await btrmind(['run', '--once'])).toMatchObject({ code: 2, err: expect.stringContaining('got none') })
    expect(await btrmind(['run', '/a', '--path', '/b'])).toMatchObject({
      code: 2,
      err: expect.stringContaining("got '/a' and --path '/b'"),
    })
  })

  it('fragmentation says what a hole does to its pieces', async () => {
    expect((await btrmind(['fragmentation', '--help'])).out).toMatch(/Data behind a hole\s+begins\s+none/)
  })

  it('has the short options of btrfs and fstrim', () => {
    const SHORT = {
      'subvolume snapshot': '-r read-only, -i inherit, -R recursive',
      'subvolume create': '-i inherit',
      'subvolume delete': '-R recursive, -i id',
      scrub: '-r read-only',
      defragment: '-r recursive, -c compress, -L level, -s start, -l length, -t threshold',
      'balance start': '-d data, -m metadata, -s system, -f force',
      'device add': '-f force',
      'device replace': '-f force, -r avoid-source',
      'device stats': '-z reset',
      'quota enable': '-s simple',
      'quota rescan': '-w wait',
      'filesystem trim': '-o start, -l length, -m minimum',
    }
    for (const [command, wanted] of Object.entries(SHORT)) {
      const { options } = all.find((one) => name(one) === command)!
      const short = options.flatMap(({ short, long }) => (short ? [`${short} ${long!.slice(2)}`] : []))
      expect(short.sort(), command).toEqual(wanted.split(', ').sort())
    }
  })
})
