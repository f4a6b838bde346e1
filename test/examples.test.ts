import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cannotMount, makeVolume, run, type TestVolume } from './helpers/volume.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const examples = readdirSync(join(root, 'examples'))

it('are short', () => {
  expect(examples.sort()).toEqual(['daemon.mjs', 'policy.mjs', 'snapshot.mjs', 'usage.mjs'])
  for (const name of examples) {
    expect(readFileSync(join(root, 'examples', name), 'utf8').split('\n').length, name).toBeLessThan(60)
  }
})

/** As a user runs it: the built package under its own name. */
function example(name: string, ...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [join(root, 'examples', name), ...args], (error, stdout, stderr) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : error === null ? 0 : -1, stdout, stderr })
    })
  })
}

describe.skipIf(cannotMount)('on a real volume', () => {
  let volume: TestVolume
  beforeAll(() => {
    volume = makeVolume({ mkfs: ['--label', 'pool'] })
    run('btrfs', 'subvolume', 'create', join(volume.path, 'projects'))
    mkdirSync(join(volume.path, 'snapshots'))
  })
  afterAll(() => volume?.[Symbol.dispose]())

  it('usage.mjs', async () => {
    const { code, stdout, stderr } = await example('usage.mjs', volume.path)
    expect(stderr).toBe('')
    expect(code).toBe(0)
    expect(stdout).toMatch(/^pool: 1 device\(s\), 512\.00 MiB$/m)
    expect(stdout).toMatch(/^ {2}metadata dup: /m)
  })

  it('snapshot.mjs keeps the newest', async () => {
    // A snapshot of it that lies elsewhere, the oldest of all, and another subvolume of that name.
    mkdirSync(join(volume.path, 'elsewhere'))
    run('btrfs', 'subvolume', 'snapshot', '-r', join(volume.path, 'projects'), join(volume.path, 'elsewhere/old'))
    run('btrfs', 'subvolume', 'create', join(volume.path, 'snapshots/old'))
    for (let index = 0; index < 4; index++) {
      writeFileSync(join(volume.path, 'projects/plan'), Buffer.alloc(1 << 20, index))
      const { code, stderr } = await example(
        'snapshot.mjs',
        join(volume.path, 'projects'),
        join(volume.path, 'snapshots'),
        '2',
      )
      expect(stderr).toBe('')
      expect(code).toBe(0)
    }
    expect(readdirSync(join(volume.path, 'elsewhere'))).toEqual(['old'])
    const left = readdirSync(join(volume.path, 'snapshots'))
      .filter((name) => name !== 'old')
      .sort()
    expect(existsSync(join(volume.path, 'snapshots/old'))).toBe(true)
    expect(left).toHaveLength(2)
    expect(left.map((name) => readFileSync(join(volume.path, 'snapshots', name, 'plan'))[0])).toEqual([2, 3])
  })

  it.each(['two', '0', '-1', '1.5', '', '2x'])('snapshot.mjs keeps all where %j should say how many', async (keep) => {
    const before = readdirSync(join(volume.path, 'snapshots'))
    const { code, stdout, stderr } = await example(
      'snapshot.mjs',
      join(volume.path, 'projects'),
      join(volume.path, 'snapshots'),
      keep,
    )
    expect(readdirSync(join(volume.path, 'snapshots'))).toEqual(before)
    expect([code, stdout, stderr]).toEqual([1, '', `keep: expected a whole number of 1 or more, got '${keep}'\n`])
  })

  it('daemon.mjs', async () => {
    const { code, stdout, stderr } = await example('daemon.mjs', volume.path, '0.1', '3')
    expect(stderr).toBe('')
    expect(code).toBe(0)
    expect(stdout.trim().split('\n')).toHaveLength(3)
    expect(stdout).toContain('none: nothing is done, reward 0')
  })

  it('policy.mjs', async () => {
    const { code, stdout } = await example('policy.mjs', volume.path, '2')
    expect(code).toBe(0)
    expect(stdout.match(/^night shift says (none|compress): /gm)).toHaveLength(2)
  })

  it.each(['usage.mjs', 'snapshot.mjs', 'daemon.mjs', 'policy.mjs'])(
    '%s says what is wrong with a path',
    async (name) => {
      const { code, stderr } = await example(name, '/proc', '/proc')
      expect(code).toBe(1)
      expect(stderr).toMatch(/^ENOTTY: .*'\/proc'.*not a btrfs filesystem\n$/)
    },
  )
})
