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
