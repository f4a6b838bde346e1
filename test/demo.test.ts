/** The demo, as a person starts it and stops it: what it prints, how it exits, and that nothing of it is left. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { cannotMount, run } from './helpers/volume.js'

const LIMIT_MS = 120_000

/** Where the demo makes its files; a path of ours tells its loop devices and mounts from those of others. */
let directory: string
let child: ChildProcess | undefined
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'demo-test-'))
})
afterEach(async () => {
  if (child?.exitCode === null && child.signalCode === null) {
    const ended = new Promise((resolve) => child?.once('exit', resolve))
    child.kill('SIGTERM')
    await ended
  }
  rmSync(directory, { recursive: true, force: true })
})

interface Ended {
  readonly code: number | null
  readonly output: string
}

/** @param interrupt sent to the whole process group, as a terminal does, when the output first matches */
function demo(args: string[], interrupt?: { when: RegExp; signal: NodeJS.Signals }): Promise<Ended> {
  const command = ['--import', 'tsx', 'scripts/demo/main.ts', ...args]
  const env = { ...process.env, TMPDIR: directory }
  const started = spawn(process.execPath, command, { env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
  child = started
  let output = ''
  let sent = false
  const read = (text: Buffer) => {
    output += text
    if (sent || interrupt === undefined || !interrupt.when.test(output)) return
    sent = true
    process.kill(-started.pid!, interrupt.signal)
  }
  started.stdout.on('data', read)
  started.stderr.on('data', read)
  return new Promise((resolve, reject) => {
    started.on('error', reject)
    started.on('close', (code) => resolve({ code, output }))
  })
}

function expectNothingLeft(): void {
  expect(readFileSync('/proc/self/mounts', 'utf8')).not.toContain(directory)
  expect(run('losetup', '--list', '--noheadings', '--output', 'BACK-FILE')).not.toContain(directory)
  expect(readdirSync(directory).filter((name) => name.startsWith('btrmind-'))).toEqual([])
}

const SUMMARY = /Utilisation .* at most[\s\S]*Decided by[\s\S]*Monitor to action[\s\S]*Nothing is left of it/

describe('the demo', () => {
  it(
    'runs on a simulated volume and says so',
    async () => {
      const { code, output } = await demo(['--simulate', '--seconds', '4'])
      expect(output).toMatch(/No real volume here \(--simulate was given\)/)
      expect(output).toMatch(SUMMARY)
      expect(output).toContain('a simulated volume answers at once')
      expect(output).not.toContain('\x1b')
      expect(code).toBe(0)
      expect(readdirSync(directory).filter((name) => name.startsWith('btrmind-'))).toEqual([])
    },
    LIMIT_MS,
  )

  it('refuses a nonsense duration before it makes anything', async () => {
    const { code, output } = await demo(['--seconds', 'soon'])
    expect(output).toBe("--seconds 'soon': expected 1 to 3600\n")
    expect(code).toBe(2)
  })
})

describe.skipIf(cannotMount)('the demo on a real volume', () => {
  it(
    'runs, sums up, and takes everything away',
    async () => {
      const { code, output } = await demo(['--seconds', '6'])
      expect(output).toMatch(/making a btrfs volume of 3 GiB/)
      expect(output).toMatch(/\d s of 6 s {2}used \d+\.\d %/)
      expect(output).toMatch(SUMMARY)
      expect(code).toBe(0)
      expectNothingLeft()
    },
    LIMIT_MS,
  )

  it.each([
    { phase: 'while it makes the volume', signal: 'SIGINT', when: /making a btrfs volume/, code: 130, sums: false },
    { phase: 'while it fills the volume', signal: 'SIGTERM', when: /filling it/, code: 143, sums: false },
    { phase: 'in mid-run', signal: 'SIGINT', when: /s of 50 s {2}used/, code: 130, sums: true },
  ] as const)(
    '$signal $phase leaves nothing and exits with $code',
    async ({ signal, when, code, sums }) => {
      const ended = await demo([], { when, signal })
      expect(ended.output).toContain('stopping …')
      expect(/Monitor to action/.test(ended.output)).toBe(sums)
      expect(ended.output).not.toMatch(/clean-up:|Error/)
      expect(ended.code).toBe(code)
      expectNothingLeft()
    },
    LIMIT_MS,
  )

  // What the group's signal hits between fork and setsid; the demo stops in order and takes away what that makes.
  it.each(['INT', 'QUIT', 'HUP', 'TERM'])('SIG%s to a tool that just began: it is run again', (signal) => {
    const script = `[ -e "$1" ] || { : > "$1"; kill -${signal} $$; }; echo done`
    expect(run('sh', '-c', script, 'sh', join(directory, 'hit'))).toBe('done\n')
  })

  it(
    'Ctrl-C in the summary leaves nothing',
    async () => {
      const ended = await demo(['--seconds', '2'], { when: /Decided by/, signal: 'SIGINT' })
      expect(ended.output).toMatch(SUMMARY)
      expect(ended.output).not.toMatch(/clean-up:|Error/)
      // Too late to stop anything, where the volume is gone already.
      expect([0, 130]).toContain(ended.code)
      expectNothingLeft()
    },
    LIMIT_MS,
  )
})
