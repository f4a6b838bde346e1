import { closeSync, ftruncateSync, openSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import zlib from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { EncodedData, WriteEncodedOptions } from '../../src/btrfs/encoded.js'
import { type KernelFilesystem, openFilesystem } from '../../src/btrfs/filesystem.js'
import { logLines } from '../helpers/files.js'
import { cannotMount, makeVolume, run, type TestVolume } from '../helpers/volume.js'

const PIECE = 128 << 10
const zstd = (zlib as { zstdDecompressSync?: (data: Uint8Array) => Buffer }).zstdDecompressSync

describe.skipIf(cannotMount)('readEncoded() and writeEncoded()', () => {
  let volume: TestVolume
  let fs: KernelFilesystem
  const at = (path: string) => join(volume.path, path)
  const text = logLines((1 << 20) + 1000)
  beforeAll(async () => {
    volume = makeVolume()
    fs = await openFilesystem(volume.path)
  })
  afterAll(async () => {
    await fs?.close()
    volume?.[Symbol.dispose]()
  })
  async function compressed(name: string, algorithm: 'zlib' | 'zstd' | 'lzo') {
    writeFileSync(at(name), '')
    await fs.setCompressionProperty(name, algorithm)
    writeFileSync(at(name), text)
    await fs.sync()
  }
  async function pieces(name: string) {
    const found: EncodedData[] = []
    for (let offset = 0; ; offset += found.at(-1)!.lengthBytes) {
      const piece = await fs.readEncoded(name, { offset })
      if (piece === undefined) return found
      found.push(piece)
    }
  }

  it.each(['zlib', 'zstd', 'lzo'] as const)('%s: read, unpacked here, written into another file', async (algorithm) => {
    await compressed(`source-${algorithm}`, algorithm)
    const found = await pieces(`source-${algorithm}`)
    const encoding = algorithm === 'lzo' ? 'lzo4k' : algorithm
    for (const [index, piece] of found.slice(0, 8).entries()) {
      expect(piece).toMatchObject({ compression: encoding, encryption: 'none', unencodedOffset: 0 })
      expect(piece).toMatchObject({ lengthBytes: PIECE, unencodedLengthBytes: PIECE })
      expect(piece.data.length).toBeLessThan(PIECE)
      const unpacked = algorithm === 'zlib' ? zlib.inflateSync(piece.data) : algorithm === 'zstd' && zstd?.(piece.data)
      if (unpacked) expect(unpacked.equals(text.subarray(index * PIECE, (index + 1) * PIECE))).toBe(true)
    }
    expect(found.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)).toBe(text.length)
    const name = `target-${algorithm}`
    writeFileSync(at(name), '')
    let offset = 0
    for (const piece of found) {
      const { compression, encryption: _, data, ...rest } = piece
      if (compression === 'none') {
        const fd = openSync(at(name), 'a')
        writeFileSync(fd, data)
        closeSync(fd)
      } else await fs.writeEncoded(name, { ...rest, data, compression, offset })
      offset += piece.lengthBytes
    }
    expect(readFileSync(at(name)).equals(text)).toBe(true)
    await fs.sync()
    run('sh', '-c', 'echo 3 > /proc/sys/vm/drop_caches')
    expect(readFileSync(at(name)).equals(text)).toBe(true)
    const sizes = (name: string) => run('compsize', '-b', at(name)).match(/^TOTAL.*$/m)![0]
    expect(sizes(name)).toBe(sizes(`source-${algorithm}`))
  })

  it('writes what was packed here; the caller may use the bytes again at once', async () => {
    writeFileSync(at('packed'), '')
    const plain = logLines(PIECE, 4)
    const data = zlib.deflateSync(plain)
    const written = fs.writeEncoded('packed', { data, compression: 'zlib', unencodedLengthBytes: PIECE })
    data.fill(0)
    await written
    expect(readFileSync(at('packed')).equals(plain)).toBe(true)
    // A part from the middle, at the end of the file: no multiple of a sector.
    const again = zlib.deflateSync(plain)
    const middle = { unencodedLengthBytes: PIECE, unencodedOffset: 8192, lengthBytes: 5000, offset: PIECE }
    await fs.writeEncoded('packed', { data: again, compression: 'zlib', ...middle })
    expect(readFileSync(at('packed')).subarray(PIECE).equals(plain.subarray(8192, 13_192))).toBe(true)
    await fs.sync()
    expect(await fs.readEncoded('packed', { offset: PIECE + 4096 })).toMatchObject({
      unencodedOffset: 12_288,
      lengthBytes: 904,
      compression: 'zlib',
    })
  })

  it('reads from the middle, holes, inline and plain data; nothing past the end', async () => {
    await compressed('middle', 'zlib')
    const piece = await fs.readEncoded('middle', { offset: PIECE + 5000 })
    expect(piece).toMatchObject({ lengthBytes: PIECE - 5000, unencodedOffset: 5000, unencodedLengthBytes: PIECE })
    expect(
      zlib
        .inflateSync(piece!.data)
        .subarray(5000)
        .equals(text.subarray(PIECE + 5000, 2 * PIECE)),
    ).toBe(true)
    expect(await fs.readEncoded('middle', { offset: text.length })).toBeUndefined()
    expect(await fs.readEncoded('middle', { offset: 1e12 })).toBeUndefined()
    writeFileSync(at('small'), 'hello')
    await fs.sync()
    expect(await fs.readEncoded('small')).toMatchObject({ data: Uint8Array.from(Buffer.from('hello')), lengthBytes: 5 })
    const fd = openSync(at('hole'), 'w')
    ftruncateSync(fd, 1 << 20)
    closeSync(fd)
    const hole = await fs.readEncoded('hole', { lengthBytes: 8192 })
    expect(hole).toMatchObject({ compression: 'none', lengthBytes: 8192 })
    expect(hole!.data.every((byte) => byte === 0)).toBe(true)
    writeFileSync(at('plain'), text)
    const plain = await fs.readEncoded('plain', { offset: 4096, lengthBytes: 5000 })
    expect(Buffer.from(plain!.data).equals(text.subarray(4096, 9096))).toBe(true)
    writeFileSync(at('empty'), '')
    expect(await fs.readEncoded('empty')).toBeUndefined()
  })

  it('misuse: what is wrong is said, and nothing is written', async () => {
    await compressed('victim', 'zstd')
    const whole = readFileSync(at('victim'))
    await expect(fs.readEncoded('victim', { lengthBytes: 100 })).rejects.toMatchObject({
      code: 'ENOBUFS',
      hint: expect.stringContaining('131072'),
    })
    symlinkSync('victim', at('link'))
    await expect(fs.readEncoded('link')).rejects.toMatchObject({ code: 'ELOOP' })
    await expect(fs.readEncoded('.')).rejects.toMatchObject({ code: 'EISDIR' })
    await expect(fs.readEncoded('victim', { offset: -1 })).rejects.toThrow(/offset.*-1/)
    const data = zlib.deflateSync(text.subarray(0, PIECE))
    const good: WriteEncodedOptions = { data, compression: 'zlib', unencodedLengthBytes: PIECE }
    const write = (options: object, name = 'victim') => fs.writeEncoded(name, { ...good, ...options })
    for (const bad of [{ offset: 1 }, { lengthBytes: 5000 }, { unencodedLengthBytes: 4096 }, { compression: 'lzo64k' }])
      await expect(write(bad), JSON.stringify(bad)).rejects.toMatchObject({ code: 'EINVAL', hint: expect.any(String) })
    await expect(write({ compression: 'none' })).rejects.toThrow(/compression.*'none'/)
    await expect(write({ data: new Uint8Array(PIECE + 1) })).rejects.toThrow(/1 to 131072 bytes/)
    await expect(write({ data: new Uint8Array(0) })).rejects.toThrow(/1 to 131072 bytes/)
    await expect(write({ data: 'text' })).rejects.toThrow(/data/)
    await expect(write({ unencodedLengthBytes: PIECE + 1 })).rejects.toThrow(/unencodedLengthBytes/)
    await expect(write({}, 'gone')).rejects.toMatchObject({ code: 'ENOENT' })
    expect(readFileSync(at('victim')).equals(whole)).toBe(true)
    writeFileSync(at('nocow'), '')
    await fs.setAttributes('nocow', { nocow: true })
    await expect(write({}, 'nocow')).rejects.toMatchObject({ code: 'EINVAL', hint: expect.stringContaining('NOCOW') })
    // What does not unpack is only found when it is read.
    writeFileSync(at('garbage'), '')
    await write({ data: Buffer.alloc(1000, 'no zlib stream') }, 'garbage')
    expect(() => readFileSync(at('garbage'))).toThrow(/EIO/)
  })
})
