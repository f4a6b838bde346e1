import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { lockStateDirectory } from '../../src/monitor/lock.js'

const base = mkdtempSync(join(tmpdir(), 'btrmind-lock-'))
afterAll(() => rmSync(base, { recursive: true, force: true }))

const children: ChildProcess[] = []
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
})

const HOLDER = `
  import { lockStateDirectory } from '${join(import.meta.dirname, '../../src/monitor/lock.ts')}'
  await lockStateDirectory(process.argv[1])
  console.log('locked')
  setInterval(() => {}, 1000)
`

/** Another process that holds the lock of `path`. */
async function holder(path: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', HOLDER, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  children.push(child)
  await new Promise((resolve, reject) => {
    child.stdout.once('data', resolve)
    child.once('exit', () => reject(new Error('the holder ended')))
  })
  return child
}

describe('lockStateDirectory()', () => {
  it('makes the directory for its owner alone, and leaves its pid in the lock file', async () => {
    const path = join(base, 'a', 'b')
    using lock = await lockStateDirectory(path)
    expect(lock.path).toBe(path)
    expect(statSync(path).mode & 0o777).toBe(0o700)
    expect(readFileSync(join(path, 'lock'), 'utf8')).toBe(`${process.pid}\n`)
  })

  it('is exclusive within the process too, until it is released', async () => {
    const path = join(base, 'twice')
    const lock = await lockStateDirectory(path)
    await expect(lockStateDirectory(path)).rejects.toMatchObject({
      code: 'BTRMIND_ERR_LOCKED',
      message: expect.stringContaining(`'${path}' is in use by this process already`),
    })
    lock.release()
    lock.release()
    const again = await lockStateDirectory(path)
    lock.release()
    await expect(lockStateDirectory(path)).rejects.toMatchObject({ code: 'BTRMIND_ERR_LOCKED' })
    again.release()
  })

  it('names the process that holds it, and is free as soon as that one is killed', async () => {
    const path = join(base, 'other')
    const child = await holder(path)
    await expect(lockStateDirectory(path)).rejects.toMatchObject({
      code: 'BTRMIND_ERR_LOCKED',
      message: expect.stringContaining(`in use by process ${child.pid}; stop it first`),
    })
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGKILL')
    await ended
    using lock = await lockStateDirectory(path)
    expect(lock.path).toBe(path)
  })

  it('does not take a number left by a dead or a reused pid for a holder', async () => {
    const path = join(base, 'stale')
    ;(await lockStateDirectory(path)).release()
    writeFileSync(join(path, 'lock'), '1\nlong left-over\n')
    using _lock = await lockStateDirectory(path)
    expect(readFileSync(join(path, 'lock'), 'utf8')).toBe(`${process.pid}\n`)
  })

  it('says what is wrong with the directory', async () => {
    const file = join(base, 'file')
    writeFileSync(file, '')
    for (const path of [file, join(file, 'below')]) {
      await expect(lockStateDirectory(path)).rejects.toMatchObject({
        code: 'BTRMIND_ERR_STATE',
        message: expect.stringContaining(`'${path}': ENOTDIR; a directory is needed`),
      })
    }
    await expect(lockStateDirectory('/proc/btrmind')).rejects.toMatchObject({
      code: 'BTRMIND_ERR_STATE',
      message: expect.stringContaining("'/proc/btrmind': ENOENT"),
    })
    const linked = join(base, 'linked')
    ;(await lockStateDirectory(linked)).release()
    rmSync(join(linked, 'lock'))
    symlinkSync('/etc/passwd', join(linked, 'lock'))
    await expect(lockStateDirectory(linked)).rejects.toMatchObject({ code: 'BTRMIND_ERR_STATE' })
  })

  it.skipIf(process.getuid?.() !== 0)('says that another user may not (needs root to become one)', async () => {
    const path = join(base, 'roots')
    ;(await lockStateDirectory(path)).release()
    chmodSync(base, 0o755)
    process.seteuid!(65534)
    try {
      for (const denied of [path, join(base, 'new')]) {
        await expect(lockStateDirectory(denied)).rejects.toMatchObject({
          code: 'BTRMIND_ERR_STATE',
          message: expect.stringContaining(`'${denied}': EACCES; it must belong to the user`),
        })
      }
    } finally {
      process.seteuid!(0)
    }
  })
})
