import { homedir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { defaultStateDir } from '../../src/cli/state.js'

const uuid = '0b5c2a4e-6f3d-4a53-9f4e-9a1c6f0d7e21'

it.each<[string, Record<string, string>, number, string]>([
  ['systemd’s', { STATE_DIRECTORY: '/var/lib/pool', XDG_STATE_HOME: '/x' }, 0, '/var/lib/pool'],
  ['the first of systemd’s', { STATE_DIRECTORY: '/var/lib/a:/var/lib/b' }, 65_534, '/var/lib/a'],
  ['root’s, whatever the session says', { XDG_STATE_HOME: '/x', HOME: '/root' }, 0, `/var/lib/btrmind/${uuid}`],
  ['XDG_STATE_HOME', { XDG_STATE_HOME: '/x', HOME: '/home/u' }, 1000, `/x/btrmind/${uuid}`],
  [
    'a relative XDG_STATE_HOME is none',
    { XDG_STATE_HOME: 'x', HOME: '/home/u' },
    1000,
    `/home/u/.local/state/btrmind/${uuid}`,
  ],
  [
    'an empty one neither',
    { XDG_STATE_HOME: '', STATE_DIRECTORY: '', HOME: '/h' },
    1000,
    `/h/.local/state/btrmind/${uuid}`,
  ],
  ['no HOME', {}, 1000, join(homedir(), '.local/state/btrmind', uuid)],
])('%s', (_, environment, uid, expected) => {
  expect(defaultStateDir(uuid, environment, uid)).toBe(expected)
})
