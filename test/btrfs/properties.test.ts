import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { Attributes, Compression } from '../../src/btrfs/properties.js'
import { createRandom } from '../../src/random.js'
import { compsizeBytes, logLines } from '../helpers/files.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

/** chattr's letters. */
const LETTERS: Record<keyof Attributes, string> = {
  nocow: 'C',
  compress: 'c',
  nocompress: 'm',
  immutable: 'i',
  appendOnly: 'a',
  noatime: 'A',
  sync: 'S',
  dirsync: 'D',
  nodump: 'd',
}
const NAMES = Object.keys(LETTERS) as (keyof Attributes)[]

describe.skipIf(cannotMount)('compressionProperty() and attributes()', () => {
  const { volume, fs, at } = useVolume()
  const lsattr = (path: string) => run('lsattr', '-d', path).split(' ')[0]!
  const property = (path: string) => run('btrfs', 'property', 'get', path, 'compression').trim()

  it.each(['lzo', 'zlib', 'zlib:9', 'zstd', 'zstd:3', 'zstd:15'] as const)('%s is set, and heeded', async (value) => {
    const name = `file-${value.replace(':', '-')}`
    writeFileSync(at(name), '')
    await fs.setCompressionProperty(name, value)
    expect(await fs.compressionProperty(name)).toBe(value)
    expect(property(at(name))).toBe(`compression=${value}`)
    writeFileSync(at(name), logLines(1 << 20))
    await fs.sync()
    expect(compsizeBytes(at(name))).toBeLessThan(0.7 * (1 << 20))
    for await (const { compressed } of fs.extents(name)) expect(compressed).toBe(true)
    await fs.setCompressionProperty(name, undefined)
    expect(await fs.compressionProperty(name)).toBeUndefined()
    expect(property(at(name))).toBe('')
    await fs.setCompressionProperty(name, undefined)
  })

  it('of a directory is that of new files in it; none forbids; what others set is read', async () => {
    mkdirSync(at('dir'))
    await fs.setCompressionProperty('dir', 'zstd')
    writeFileSync(at('dir/file'), 'x')
    expect(await fs.compressionProperty('dir/file')).toBe('zstd')
    await fs.setCompressionProperty('dir/file', 'none')
    expect(await fs.compressionProperty('dir/file')).toBe('none')
    expect(await fs.attributes('dir/file')).toMatchObject({ compress: false, nocompress: true })
    run('btrfs', 'property', 'set', at('dir/file'), 'compression', 'lzo')
    expect(await fs.compressionProperty('dir/file')).toBe('lzo')
    expect(await fs.compressionProperty('.')).toBeUndefined()
    for (const bad of ['zstd:99', 'zstd:0', 'zstdx', 'lzo:1', 'ZLIB', ''])
      await expect(fs.setCompressionProperty('dir', bad as Compression)).rejects.toThrow(
        new RegExp(`BTRMIND_ERR_ARGUMENT.*'zlib', 'zstd', .*got '${bad}'`),
      )
    expect(await fs.compressionProperty('dir')).toBe('zstd')
    symlinkSync('dir/file', at('link'))
    await expect(fs.setCompressionProperty('link', 'zstd')).rejects.toMatchObject({ code: 'ELOOP' })
    await expect(fs.compressionProperty('/proc')).rejects.toThrow(/WRONG_VOLUME/)
    await expect(fs.compressionProperty('gone')).rejects.toMatchObject({ code: 'ENOENT' })
  })

  it('random attributes are what lsattr shows, both ways', async () => {
    const random = createRandom(3)
    const pick = (most: number) => Math.floor(random.next() * most)
    writeFileSync(at('file'), '')
    mkdirSync(at('folder'))
    let refused = 0
    for (let step = 0; step < 120; step++) {
      const name = pick(2) === 0 ? 'file' : 'folder'
      const before = await fs.attributes(name)
      const possible = NAMES.filter((key) => !(key === 'dirsync' && name === 'file'))
      const wanted = Object.fromEntries(
        Array.from({ length: 1 + pick(2) }, () => [possible[pick(possible.length)]!, pick(2) === 0]),
      ) as Partial<Attributes>
      const next = { ...before, ...wanted }
      if (wanted.compress && !wanted.nocompress) next.nocompress = false
      if (wanted.nocompress && !wanted.compress) next.compress = false
      const impossible = next.compress && (next.nocompress || next.nocow)
      const other = before.immutable && before.appendOnly
      const set = fs.setAttributes(name, wanted)
      if (impossible || (next.nocompress && next.nocow)) {
        await expect(set, JSON.stringify({ before, wanted })).rejects.toMatchObject({ code: 'EINVAL' })
        refused++
      } else {
        await set
        expect(await fs.attributes(name)).toEqual(next)
      }
      const now = await fs.attributes(name)
      const letters = lsattr(at(name))
      expect(NAMES.filter((key) => letters.includes(LETTERS[key]))).toEqual(NAMES.filter((key) => now[key]))
      if (other) await fs.setAttributes(name, { immutable: false })
    }
    expect(refused).toBeGreaterThan(0)
    for (const name of ['file', 'folder']) await fs.setAttributes(name, { immutable: false, appendOnly: false })
    run('chattr', '+SAd', at('folder'))
    expect(await fs.attributes('folder')).toMatchObject({ sync: true, noatime: true, nodump: true })
  })

  it('refuses what the kernel would only seem to do: NOCOW of a file with content', async () => {
    writeFileSync(at('full'), 'content')
    const before = await fs.attributes('full')
    const hint = expect.stringContaining('empty file only')
    await expect(fs.setAttributes('full', { nocow: true })).rejects.toMatchObject({ code: 'EINVAL', hint })
    // This is what it does.
    run('chattr', '+C', at('full'))
    expect(await fs.attributes('full')).toEqual(before)
    mkdirSync(at('plain'))
    await fs.setAttributes('plain', { nocow: true })
    writeFileSync(at('plain/new'), 'content')
    expect(await fs.attributes('plain/new')).toMatchObject({ nocow: true })
    await expect(fs.setAttributes('plain/new', { nocow: false })).rejects.toMatchObject({ code: 'EINVAL', hint })
    await fs.setAttributes('plain/new', { nocow: true, noatime: true })
    const nocow = expect.stringContaining('NOCOW')
    await expect(fs.setCompressionProperty('plain/new', 'zstd')).rejects.toMatchObject({ code: 'EINVAL', hint: nocow })
  })

  it('immutable holds; what is unknown or wrong is said', async () => {
    writeFileSync(at('rock'), 'content')
    await fs.setAttributes('rock', { immutable: true })
    expect(() => writeFileSync(at('rock'), 'other')).toThrow(/EPERM/)
    await fs.setAttributes('rock', { immutable: false })
    writeFileSync(at('rock'), 'other')
    expect(readFileSync(at('rock'), 'utf8')).toBe('other')
    expect(statSync(at('rock')).size).toBe(5)
    await expect(fs.setAttributes('rock', { nocwo: true } as never)).rejects.toThrow(/did you mean 'nocow'/)
    await expect(fs.setAttributes('rock', { nocow: 1 } as never)).rejects.toThrow(/nocow.*1/)
    await expect(fs.setAttributes('rock', { compress: true, nocompress: true })).rejects.toMatchObject({
      code: 'EINVAL',
      hint: expect.stringContaining('nocompress'),
    })
    await fs.setAttributes('rock', {})
    run('mount', '-o', 'remount,ro', volume.path)
    await expect(fs.setAttributes('rock', { noatime: true })).rejects.toMatchObject({ code: 'EROFS' })
    await expect(fs.setCompressionProperty('rock', 'zstd')).rejects.toMatchObject({ code: 'EROFS' })
    run('mount', '-o', 'remount,rw', volume.path)
  })
})
