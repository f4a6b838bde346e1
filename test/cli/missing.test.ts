/** Every command that takes a path, given one that is not there, and one that is not on btrfs. */
import type { Command } from 'commander'
import { describe, expect, it } from 'vitest'
import { program } from '../../src/cli/program.js'
import { btrmind } from './helper.js'

const root = program({} as never, () => {})
const leaves = (command: Command): Command[] =>
  command.commands.length === 0 ? [command] : command.commands.flatMap(leaves)
const words = (command: Command): string[] => (command.parent ? [...words(command.parent), command.name()] : [])

/** What an argument is given where it is not the path that this is about. */
const OTHERS: Readonly<Record<string, string>> = {
  address: '1',
  algorithm: 'zstd',
  attributes: 'nocow=on',
  destination: '/nowhere',
  destinations: '/nowhere',
  device: '/dev/null',
  id: '1',
  inode: '256',
  parent: '1/1',
  qgroup: '0/5',
  size: '1GiB',
  target: '/dev/null',
  tree: 'fs',
}
const OPTIONS: Readonly<Record<string, readonly string[]>> = {
  'balance start': ['--data'],
  'balance plan': ['--data'],
  changed: ['--since', '1'],
  'quota limit': ['--referenced', '1GiB'],
}
function line(command: Command, path: string): string[] {
  const name = words(command)
  if (name[0] === 'run') return ['run', '--once', '--path', path]
  const given = command.registeredArguments.flatMap((argument, index) => {
    if (index === 0) return [path]
    if (!argument.required) return []
    const other = OTHERS[argument.name()]
    if (other === undefined) throw new Error(`${name.join(' ')}: nothing is known for ${argument.name()}`)
    return [other]
  })
  return [...name, ...given, ...(OPTIONS[name.join(' ')] ?? [])]
}
const [first, ...others] = [...leaves(root), root.commands.find((command) => command.name() === 'quota')!].filter(
  (command) => command.name() !== 'help',
)
const all = [first!, ...others].map((command) => ({ command, name: words(command).join(' ') }))
const ofVolumes = all.filter(({ name }) => !/^device (scan|forget|ready)$/.test(name))

describe('a path that is not there', () => {
  it.each(all)('$name: ENOENT, and names it', async ({ command }) => {
    const { code, out, err } = await btrmind(line(command, '/nowhere/at/all'))
    expect([code, out]).toEqual([1, ''])
    expect(err).toMatch(/ENOENT: no such file or directory, .*'\/nowhere\/at\/all'/)
  })
})

describe('a path that is not on btrfs', () => {
  it.each(ofVolumes)('$name: ENOTTY, and names it', async ({ command, name }) => {
    const file = /^(extents|defragment|deduplicate|clone|subvolume create|subvolume delete|encoded \w+)$/.test(name)
    const path = file ? '/proc/version' : '/proc/sys'
    const { code, out, err } = await btrmind(line(command, path))
    expect([code, out]).toEqual([1, ''])
    expect(err).toMatch(new RegExp(`ENOTTY: .*'${path}'.*not a btrfs filesystem`))
  })
})
