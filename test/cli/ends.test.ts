/** How a command ends that somebody stops, or whose output nobody takes: with nothing left behind. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { cannotMount, makeVolume, run, type TestVolume } from '../helpers/volume.js'

const ARGV = ['--import', 'tsx', fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))]
const MAIN = [process.execPath, ...ARGV].join(' ')
const WAIT = { timeout: 20_000, interval: 20 }

describe.skipIf(cannotMount)('the end', { timeout: 60_000 }, () => {
  let volume: TestVolume
  const at = (path: string) => join(volume.path, path)
  const bash = (line: string) => spawnSync('bash', ['-c', line], { encoding: 'utf8' })
  const subvolumes = () => run('btrfs', 'subvolume', 'list', volume.path).trim().split('\n')
  beforeAll(() => {
    volume = makeVolume()
    run('btrfs', 'subvolume', 'create', at('home'))
    for (let directory = 0; directory < 20; directory++) {
      mkdirSync(at(`home/${directory}`))
      for (let file = 0; file < 400; file++) writeFileSync(at(`home/${directory}/a rather long name ${file}`), '')
    }
    writeFileSync(at('plain'), Buffer.alloc(300_000, 'x'))
    run('sync', '-f', volume.path)
  })
  afterAll(() => volume?.[Symbol.dispose]())

  it('a reader that goes away: 0, and no snapshot left', () => {
    const line = `${MAIN} scan ${at('home')} --consistent --json | head -c 10; exit \${PIPESTATUS[0]}`
    const { status, stderr } = bash(line)
    expect([status, stderr]).toEqual([0, ''])
    expect(subvolumes()).toHaveLength(1)
  })

  it('an output that is full: 1, and why', () => {
    for (const command of [
      `usage ${volume.path}`,
      `scan ${at('home')} --consistent --json`,
      `encoded read ${at('plain')}`,
      '--help',
    ]) {
      const { status, stderr } = bash(`${MAIN} ${command} > /dev/full`)
      expect([status, stderr], command).toEqual([
        1,
        expect.stringContaining(
          "ENOSPC: no space left on device, write 'standard output'; what was written is not whole",
        ),
      ])
    }
    expect(subvolumes()).toHaveLength(1)
    // Nor does it matter that nobody hears the complaint.
    expect(bash(`${MAIN} usage /nowhere 2> /dev/full`).status).toBe(1)
  })

  it.each(['SIGHUP', 'SIGTERM'] as const)('%s: 130, and neither a snapshot nor half a file left', async (signal) => {
    // Nobody reads until it was told: it waits in the middle.
    const scan = spawn(process.execPath, [...ARGV, 'scan', at('home'), '--consistent', '--json'])
    await vi.waitFor(() => expect(subvolumes()).toHaveLength(2), WAIT)
    const stream = bash(`${MAIN} encoded read ${at('plain')}`).stdout
    const write = spawn(process.execPath, [...ARGV, 'encoded', 'write', at('new')])
    write.stdin.on('error', () => {})
    write.stdin.write(stream.slice(0, 200_000))
    await vi.waitFor(() => expect(existsSync(at('new'))).toBe(true), WAIT)
    for (const child of [scan, write]) {
      const end = once(child, 'exit')
      child.kill(signal)
      if (signal === 'SIGHUP') child.kill(signal)
      child.stdout.resume()
      expect(await end).toEqual([130, null])
    }
    expect(existsSync(at('new'))).toBe(false)
    expect(subvolumes()).toHaveLength(1)
  })
})
