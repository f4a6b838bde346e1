import { closeSync, ftruncateSync, openSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import zlib from 'node:zlib'
import { describe, expect, it } from 'vitest'
import type { EncodedData, ReadEncodedOptions, WriteEncodedOptions } from '../../src/btrfs/encoded.js'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { logLines } from '../helpers/files.js'
import { openFiles } from '../helpers/open-files.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

const PIECE = 128 << 10
const zstd = (zlib as { zstdDecompressSync?: (data: Uint8Array) => Buffer }).zstdDecompressSync

describe.skipIf(cannotMount)('readEncoded() and writeEncoded()', () => {
  const { volume, fs, at } = useVolume()
  const text = logLines((1 << 20) + 1000)

  async function compressed(name: string, algorithm: 'zlib' | 'zstd' | 'lzo') {
    writeFileSync(at(name), '')
    await fs.setCompressionProperty(name, algorithm)
    writeFileSync(at(name), text)
    await fs.sync()
  }
  async function pieces(name: string, options?: ReadEncodedOptions) {
    const found: EncodedData[] = []
    for await (const piece of fs.readEncoded(name, options)) found.push(piece)
    return found
  }
  const first = async (name: string, options?: ReadEncodedOptions) => (await pieces(name, options))[0]

  it.each(['zlib', 'zstd', 'lzo'] as const)('%s: read, unpacked here, written into another file', async (algorithm) => {
    await compressed(`source-${algorithm}`, algorithm)
    const found = await pieces(`source-${algorithm}`)
    const encoding = algorithm === 'lzo' ? 'lzo4k' : algorithm
    for (const [index, piece] of found.slice(0, 8).entries()) {
      expect(piece).toMatchObject({ compression: encoding, encryption: 'none', unencodedOffsetBytes: 0 })
      expect(piece).toMatchObject({ startBytes: index * PIECE, lengthBytes: PIECE, unencodedLengthBytes: PIECE })
      expect(piece.data.length).toBeLessThan(PIECE)
      const unpacked = algorithm === 'zlib' ? zlib.inflateSync(piece.data) : algorithm === 'zstd' && zstd?.(piece.data)
      if (unpacked) expect(unpacked.equals(text.subarray(index * PIECE, (index + 1) * PIECE))).toBe(true)
    }
    expect(found.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)).toBe(text.length)
    const name = `target-${algorithm}`
    writeFileSync(at(name), '')
    for (const piece of found) {
      const { compression, encryption: _, data, ...rest } = piece
      if (compression === 'none') {
        const fd = openSync(at(name), 'a')
        writeFileSync(fd, data)
        closeSync(fd)
      } else await fs.writeEncoded(name, { ...rest, data, compression })
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
    const middle = { unencodedLengthBytes: PIECE, unencodedOffsetBytes: 8192, lengthBytes: 5000, startBytes: PIECE }
    await fs.writeEncoded('packed', { data: again, compression: 'zlib', ...middle })
    expect(readFileSync(at('packed')).subarray(PIECE).equals(plain.subarray(8192, 13_192))).toBe(true)
    await fs.sync()
    expect(await first('packed', { startBytes: PIECE + 4096 })).toMatchObject({
      unencodedOffsetBytes: 12_288,
      lengthBytes: 904,
      compression: 'zlib',
    })
  })

  it('reads from the middle, holes, inline and plain data; nothing past the end', async () => {
    await compressed('middle', 'zlib')
    const piece = await first('middle', { startBytes: PIECE + 5000 })
    expect(piece).toMatchObject({ lengthBytes: PIECE - 5000, unencodedOffsetBytes: 5000, unencodedLengthBytes: PIECE })
    expect(
      zlib
        .inflateSync(piece!.data)
        .subarray(5000)
        .equals(text.subarray(PIECE + 5000, 2 * PIECE)),
    ).toBe(true)
    expect(await pieces('middle', { startBytes: text.length })).toEqual([])
    expect(await pieces('middle', { startBytes: 1e12 })).toEqual([])
    // Whoever touches the range, to its end.
    const part = await pieces('middle', { startBytes: PIECE, lengthBytes: PIECE + 1 })
    expect(part.map(({ startBytes, lengthBytes }) => [startBytes, lengthBytes])).toEqual([
      [PIECE, PIECE],
      [2 * PIECE, PIECE],
    ])
    writeFileSync(at('small'), 'hello')
    await fs.sync()
    expect(await first('small')).toMatchObject({ data: Uint8Array.from(Buffer.from('hello')), lengthBytes: 5 })
    const fd = openSync(at('hole'), 'w')
    ftruncateSync(fd, 1 << 20)
    closeSync(fd)
    const hole = await first('hole', { startBytes: 4096 })
    expect(hole).toMatchObject({ compression: 'none', startBytes: 4096, lengthBytes: PIECE })
    expect(hole!.data.every((byte) => byte === 0)).toBe(true)
    writeFileSync(at('plain'), text)
    const plain = await first('plain', { startBytes: 4096 })
    expect(Buffer.from(plain!.data).equals(text.subarray(4096, 4096 + PIECE))).toBe(true)
    writeFileSync(at('empty'), '')
    expect(await pieces('empty')).toEqual([])
  })

  it('all pieces are of the file that was opened, and it is closed however the reading ends', async () => {
    await compressed('old', 'zlib')
    writeFileSync(at('new'), Buffer.alloc(text.length, 'new'))
    await fs.sync()
    let seen = 0
    for await (const { data, startBytes } of fs.readEncoded('old')) {
      if (startBytes === 0) renameSync(at('new'), at('old'))
      if (startBytes + PIECE > text.length) break
      expect(zlib.inflateSync(data).equals(text.subarray(startBytes, startBytes + PIECE))).toBe(true)
      seen++
    }
    expect(seen).toBe(8)
    const other = await openFilesystem(volume.path)
    const cut = other.readEncoded('old')
    await cut.next()
    await other.close()
    await expect(cut.next()).rejects.toMatchObject({ code: 'EBADF' })
    expect(openFiles().filter((path) => path.startsWith(at('old')))).toEqual([])
  })

  it('misuse: what is wrong is said, and nothing is written', async () => {
    await compressed('victim', 'zstd')
    const whole = readFileSync(at('victim'))
    symlinkSync('victim', at('link'))
    await expect(first('link')).rejects.toMatchObject({ code: 'ELOOP' })
    await expect(first('.')).rejects.toMatchObject({ code: 'EISDIR' })
    await expect(first('victim', { startBytes: -1 })).rejects.toThrow(/startBytes.*-1/)
    const data = zlib.deflateSync(text.subarray(0, PIECE))
    const good: WriteEncodedOptions = { data, compression: 'zlib', unencodedLengthBytes: PIECE }
    const write = (options: object, name = 'victim') => fs.writeEncoded(name, { ...good, ...options })
    for (const bad of [
      { startBytes: 1 },
      { lengthBytes: 5000 },
      { unencodedLengthBytes: 4096 },
      { compression: 'lzo64k' },
    ])
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
