import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { replaceFile } from '../src/files.js'

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
