import { execFileSync } from 'node:child_process'
import { constants, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { makeDirectory, openRegular, readRegular, replaceFile } from '../src/files.js'

const directory = mkdtempSync(join(tmpdir(), 'btrmind-files-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

describe('replaceFile()', () => {
  it('replaces the content as a new file and leaves nothing else behind', async () => {
    const path = join(directory, 'a')
    writeFileSync(path, 'old and long')
    const before = statSync(path).ino
    await replaceFile(path, ['new', new Uint8Array([33, 10])])
    expect(readFileSync(path, 'utf8')).toBe('new!\n')
    expect(statSync(path).ino).not.toBe(before)
    expect(readdirSync(directory)).toEqual(['a'])
  })

  it('leaves the old file when it cannot write', async () => {
    const path = join(directory, 'a')
    writeFileSync(path, 'old')
    await expect(replaceFile(path, ['new', { bad: true } as never])).rejects.toThrow()
    expect(readFileSync(path, 'utf8')).toBe('old')
    expect(readdirSync(directory)).toEqual(['a'])
    await expect(replaceFile(join(directory, 'none', 'a'), 'x')).rejects.toMatchObject({ code: 'ENOENT' })
  })
})

describe('regular files only', () => {
  it('a FIFO or a directory in the place of a file is refused, not waited for', async () => {
    const own = mkdtempSync(join(tmpdir(), 'btrmind-files-'))
    try {
      const fifo = join(own, 'fifo')
      execFileSync('mkfifo', [fifo, `${fifo}.tmp`])
      await expect(readRegular(fifo)).rejects.toMatchObject({ code: 'EINVAL', path: fifo })
      await expect(openRegular(fifo, constants.O_RDWR)).rejects.toMatchObject({ code: 'EINVAL' })
      await expect(openRegular(fifo, constants.O_WRONLY)).rejects.toMatchObject({ code: 'ENXIO' })
      await expect(readRegular(own)).rejects.toMatchObject({ code: 'EISDIR' })
      // What is left of an earlier replacement goes with it.
      await expect(replaceFile(fifo, 'x')).rejects.toMatchObject({ code: 'ENXIO' })
      await replaceFile(fifo, 'x')
      expect((await readRegular(fifo)).toString()).toBe('x')
    } finally {
      rmSync(own, { recursive: true })
    }
  })
})

describe('makeDirectory()', () => {
  it('makes what is missing above too, and is content with one that is there', async () => {
    const path = join(directory, 'x', 'y', 'z')
    await makeDirectory(path, 0o750)
    await makeDirectory(path)
    expect(statSync(join(directory, 'x')).mode & 0o777).toBe(0o750)
    expect(statSync(path).isDirectory()).toBe(true)
  })

  it('refuses where a file stands, and where nothing can be made', async () => {
    await expect(makeDirectory('/etc/passwd')).rejects.toMatchObject({ code: 'ENOTDIR' })
    await expect(makeDirectory('/etc/passwd/x')).rejects.toMatchObject({ code: 'ENOTDIR' })
    await expect(makeDirectory('/proc/btrmind')).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(makeDirectory('/proc/btrmind/deeper')).rejects.toMatchObject({ code: 'ENOENT' })
  })
})
