/** encoded read, encoded write: through real pipes, and what a damaged stream comes to. */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { logLines } from '../helpers/files.js'
import { cannotMount, makeVolume, run, type TestVolume } from '../helpers/volume.js'
import { btrmind, jsonLines } from './helper.js'

const MAIN = `${process.execPath} --import tsx ${fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))}`

const HEAD = '{"format":"btrmind-encoded-1","sectorSizeBytes":4096}\n'

describe.skipIf(cannotMount)('encoded', () => {
  let volume: TestVolume
  let other: TestVolume
  let whole: Buffer
  const at = (path: string) => join(volume.path, path)
  const there = (path: string) => join(other.path, path)
  const content = Buffer.concat([logLines(1 << 20), Buffer.alloc(1 << 20), logLines(300_001), Buffer.from('end')])
  const shell = (line: string) => spawnSync('sh', ['-c', line], { encoding: 'buffer' })
  beforeAll(() => {
    ;[volume, other] = [makeVolume({ mountOptions: 'compress=zstd' }), makeVolume()]
    writeFileSync(at('file'), content)
    mkdirSync(there('dir'))
    run('sync', '-f', volume.path)
    whole = shell(`${MAIN} encoded read ${at('file')}`).stdout
  })
  afterAll(() => {
    volume?.[Symbol.dispose]()
    other?.[Symbol.dispose]()
  })

  it('through a pipe, to another volume: the same file, as compressed', () => {
    const { status, stdout, stderr } = shell(
      `${MAIN} encoded read ${at('file')} | ${MAIN} encoded write ${there('copy')}`,
    )
    expect([status, String(stderr)]).toEqual([0, ''])
    expect(String(stdout)).toMatch(/^2\.\d+ MiB in \d+ pieces\n$/)
    expect(whole.length).toBeLessThan(content.length / 2)
    run('sh', '-c', 'echo 3 > /proc/sys/vm/drop_caches')
    expect(readFileSync(there('copy')).equals(content)).toBe(true)
    const sizes = (path: string) => run('compsize', '-b', path).match(/^zstd.*$/m)![0]
    expect(sizes(there('copy'))).toBe(sizes(at('file')))
  })

  it('sparse, and empty', async () => {
    for (const [name, size] of [
      ['sparse', 10_000_000],
      ['empty', 0],
    ] as const) {
      writeFileSync(at(name), '')
      truncateSync(at(name), size)
      const { stdout } = shell(`${MAIN} encoded read ${at(name)}`)
      writeFileSync(there('stream'), stdout)
      expect(stdout.length).toBeLessThan(20_000)
      const argv = ['encoded', 'write', there(name), '--input', there('stream'), '--json']
      const { code, out } = await btrmind(argv)
      expect([code, JSON.parse(out)]).toMatchObject([0, { path: there(name), sizeBytes: size }])
      expect(readFileSync(there(name)).equals(Buffer.alloc(size))).toBe(true)
      expect(run('du', '-B1', there(name)).split('\t')[0]).toBe('0')
    }
  })

  it('--json: the descriptions, and nothing else', async () => {
    const { code, out } = await btrmind(['encoded', 'read', at('file'), '--json'], { isTTY: true })
    expect(code).toBe(0)
    const [head, piece, ...rest] = jsonLines(out)
    expect(head).toEqual({ format: 'btrmind-encoded-1', sectorSizeBytes: 4096 })
    expect(piece).toMatchObject({ startBytes: 0, lengthBytes: 131_072, compression: 'zstd', bytes: expect.any(Number) })
    expect(rest.at(-1)).toEqual({ sizeBytes: content.length, pieces: rest.length, crc32: expect.any(Number) })
    const terminal = await btrmind(['encoded', 'read', at('file')], { isTTY: true })
    expect(terminal).toMatchObject({ code: 2, out: '', err: expect.stringContaining('not for a terminal') })
  })

  it('of which the system takes a part at a time is written whole', async () => {
    const noise = randomBytes(300_000)
    writeFileSync(at('noise'), noise)
    writeFileSync(there('stream'), shell(`${MAIN} encoded read ${at('noise')}`).stdout)
    const probe = await open('/dev/null')
    const prototype = Object.getPrototypeOf(probe)
    await probe.close()
    const { write } = prototype
    const spy = vi.spyOn(prototype, 'write').mockImplementation(function (this: unknown, ...args) {
      const [data, start, length, position] = args as [Uint8Array, number, number, number]
      return write.call(this, data, start, Math.min(length, 50_000), position)
    })
    try {
      const { code } = await btrmind(['encoded', 'write', there('noise'), '--input', there('stream')])
      expect([code, spy.mock.calls.length > 6]).toEqual([0, true])
    } finally {
      spy.mockRestore()
    }
    expect(readFileSync(there('noise')).equals(noise)).toBe(true)
    // A quota group's limit, which Node has no name for.
    run('btrfs', 'quota', 'enable', other.path)
    run('btrfs', 'quota', 'rescan', '-w', other.path)
    run('btrfs', 'subvolume', 'create', there('limited'))
    run('btrfs', 'qgroup', 'limit', '64k', there('limited'))
    const full = await btrmind(['encoded', 'write', there('limited/noise'), '--input', there('stream')])
    expect(full).toMatchObject({
      code: 1,
      err: expect.stringMatching(/EDQUOT: disk quota exceeded, .*limited\/noise'/),
    })
    expect(existsSync(there('limited/noise'))).toBe(false)
  })

  it('no damaged bit of a line goes by', { timeout: 60_000 }, async () => {
    for (const [name, data] of [
      ['packed', logLines(5000)],
      ['plain', randomBytes(5000)],
      ['hole', Buffer.alloc(5000)],
    ] as const) {
      writeFileSync(at(name), name === 'hole' ? '' : data)
      truncateSync(at(name), data.length)
      run('sync', '-f', volume.path)
      const stream = shell(`${MAIN} encoded read ${at(name)}`).stdout
      const line = stream.indexOf(10, HEAD.length)
      const { bytes, compression } = JSON.parse(String(stream.subarray(HEAD.length, line))) as Record<string, unknown>
      expect(compression).toBe(name === 'packed' ? 'zstd' : 'none')
      const behind = line + 1 + Number(bytes)
      for (let byte = 0; byte < stream.length; byte = byte === line || byte + 1 === line ? behind : byte + 2) {
        const damaged = Buffer.from(stream)
        damaged[byte]! ^= 1 << (byte % 8)
        writeFileSync(there('stream'), damaged)
        const { code, err } = await btrmind(['encoded', 'write', there('new'), '--input', there('stream')])
        expect([code, err], String(damaged.subarray(Math.max(0, byte - 20), byte + 20))).toEqual([
          1,
          expect.stringContaining('EBADMSG'),
        ])
        expect(existsSync(there('new'))).toBe(false)
      }
    }
  })

  it('what is damaged is refused, and leaves no file', async () => {
    const line = whole.indexOf(10, whole.indexOf(10) + 1)
    const flipped = Buffer.from(whole)
    flipped[line + 100]! ^= 1
    const damaged: Record<string, [Buffer, string]> = {
      flipped: [flipped, 'is damaged: the piece at 0 has another checksum'],
      short: [whole.subarray(0, whole.length - 5), 'ends too early'],
      'without its end': [whole.subarray(0, whole.lastIndexOf('{"sizeBytes"')), 'ends too early'],
      'of one piece too few': [
        Buffer.concat([whole.subarray(0, whole.indexOf(10) + 1), whole.subarray(whole.lastIndexOf('{"sizeBytes"'))]),
        'has 0 pieces; its end says',
      ],
      'of something else': [Buffer.from('#!/bin/sh\n'), 'is none of `encoded read`'],
      'of another version': [Buffer.from('{"format":"x"}\n'), "its format is 'x'"],
      'of other sectors': [
        Buffer.from('{"format":"btrmind-encoded-1","sectorSizeBytes":65536}\n'),
        'is of sectors of 65536 bytes; this volume has 4096',
      ],
      'of a huge piece': [
        Buffer.from(String(whole.subarray(0, line + 1)).replace(/"bytes":\d+/, '"bytes":1000000000')),
        "the piece at 0 says 'bytes' 1000000000",
      ],
      'of more': [Buffer.concat([whole, Buffer.from('\n')]), 'goes on after its end'],
    }
    const lines = ['null', '3', '[]', '"7"', '{}', '{"bytes":"1"}', '{"pieces":0,"sizeBytes":1e30,"crc32":0}']
    for (const text of [...lines, '{"pieces":0,"sizeBytes":"7","crc32":0}']) {
      damaged[text] = [Buffer.from(`${HEAD}${text}\n`), 'is damaged: ']
      damaged[`first ${text}`] = [Buffer.from(`${text}\n`), 'is none of']
    }
    for (const [name, [bytes, why]] of Object.entries(damaged)) {
      writeFileSync(there('stream'), bytes)
      const { code, err } = await btrmind(['encoded', 'write', there('new'), '--input', there('stream')])
      expect([code, err], name).toEqual([1, expect.stringContaining(why)])
      expect(err).toContain('EBADMSG')
      expect(existsSync(there('new')), name).toBe(false)
    }
    const directory = await btrmind(['encoded', 'write', there('new'), '--input', there('dir')])
    expect(directory).toMatchObject({ code: 1, err: expect.stringMatching(/EISDIR: .*\/dir'/) })
    writeFileSync(there('kept'), 'mine')
    writeFileSync(there('stream'), whole)
    const kept = await btrmind(['encoded', 'write', there('kept'), '--input', there('stream')])
    expect(kept).toMatchObject({ code: 1, err: expect.stringMatching(/EEXIST: file already exists, .*kept'/) })
    expect(readFileSync(there('kept'), 'utf8')).toBe('mine')
    const none = await btrmind(['encoded', 'write', there('new'), '--input', there('nowhere')])
    expect(none).toMatchObject({ code: 1, err: expect.stringMatching(/ENOENT: .*nowhere'/) })
  })
})
