/** extents, defragment, deduplicate, clone, compression, attributes. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { FileExtent } from '../../src/btrfs/extents.js'
import { logLines } from '../helpers/files.js'
import { cannotMount, makeVolume, run, type TestVolume } from '../helpers/volume.js'
import { btrmind, jsonLines } from './helper.js'

const MIB = 1 << 20

describe.skipIf(cannotMount)('commands for the data of files', () => {
  let volume: TestVolume
  const at = (path: string) => join(volume.path, path)
  const content = logLines(2 * MIB)
  async function fragmented(path: string) {
    const file = await open(at(path), 'w')
    for (let i = 63; i >= 0; i--) {
      await file.write(content, i * 4096, 4096, i * 4096)
      await file.datasync()
    }
    await file.close()
  }
  beforeAll(() => {
    volume = makeVolume()
    mkdirSync(at('dir'))
  })
  afterAll(() => volume?.[Symbol.dispose]())

  it('extents: a table with its sums, and JSON lines', async () => {
    await fragmented('many')
    const { code, out, err } = await btrmind(['extents', at('many')])
    expect([code, err]).toEqual([0, ''])
    const lines = out.trimEnd().split('\n')
    expect(lines).toHaveLength(1 + 64 + 2)
    expect(lines[0]).toMatch(/^ +offset +length +address {2}is$/)
    expect(lines[64]).toMatch(/^ +258048 +4096 +\d+ {2}last$/)
    expect(lines.at(-1)).toBe('64 extents, 256.00 KiB: 0 B shared, 0 B compressed')
    const part = jsonLines((await btrmind(['extents', at('many'), '--start', '4KiB', '--length', '1', '--json'])).out)
    expect(part).toHaveLength(1)
    expect(part[0] as FileExtent).toMatchObject({ logicalBytes: 4096, lengthBytes: 4096, shared: false })
    expect((await btrmind(['extents', volume.path])).err).toContain('EISDIR')
    expect((await btrmind(['extents', at('gone')])).err).toMatch(/ENOENT.*gone/)
    expect((await btrmind(['extents', '/proc/self/status'])).code).toBe(1)
    expect((await btrmind(['extents', at('many'), '--start', 'x'])).code).toBe(2)
  })

  it('defragment: one file and a tree, what it left alone, and how far it is on a terminal', async () => {
    await fragmented('dir/a')
    const one = await btrmind(['defragment', at('dir/a')])
    expect(one).toMatchObject({ code: 0, err: '' })
    expect(one.out).toBe(
      '1 files, 1 rewritten where it was worth it, 256.00 KiB looked at; on disk 256.00 KiB before, 256.00 KiB now\n',
    )
    expect(run('filefrag', at('dir/a'))).toContain('1 extent found')
    writeFileSync(at('dir/b'), content)
    await btrmind(['clone', at('dir/b'), at('dir/c'), '--create'])
    const tree = await btrmind(['defragment', at('dir'), '--recursive', '--compress', 'zstd', '--level', '3'], {
      isTTY: true,
    })
    expect(tree.code).toBe(0)
    expect(tree.out).toMatch(/^3 files, 1 rewritten/)
    expect(tree.out).toMatch(/^SHARED +2 +4\.00 MiB +\w$/m)
    expect(tree.err).toMatch(/\r(counting|[█░]+ \d+\.\d %)/)
    const json = await btrmind(['defragment', at('dir'), '--recursive', '--compress', 'zstd', '--unshare', '--json'])
    expect(JSON.parse(json.out)).toMatchObject({ files: 3, rewrittenFiles: 2, skipped: [{ reason: 'COMPRESSED' }] })
    const back = await btrmind(['defragment', at('dir/a'), '--uncompressed', '--json'])
    const { diskBytesBefore, diskBytesAfter } = JSON.parse(back.out) as Record<string, number>
    expect(diskBytesAfter).toBeGreaterThan(diskBytesBefore!)
    const some = await btrmind(['defragment', at('dir/b'), '--start', '1M', '--length', '1MiB', '--threshold', '1g'])
    expect(some).toMatchObject({ code: 0, out: expect.stringMatching(/^1 files/) })
    const half = await btrmind(['defragment', at('dir/b'), '--start', '1M', '--recompress', '--json'])
    expect(JSON.parse(half.out)).toMatchObject({ bytes: MIB })
    expect((await btrmind(['defragment', at('dir/b'), '--length', '0'])).code).toBe(2)
    expect((await btrmind(['defragment', at('dir')])).err).toMatch(/EISDIR.*recursive/)
    expect((await btrmind(['defragment', at('dir/a'), '--level', '3'])).code).toBe(2)
    expect((await btrmind(['defragment', at('dir/a'), '--compress', 'gzip'])).err).toMatch(/gzip.*zlib/)
    expect((await btrmind(['defragment', at('dir/a'), '--compress', 'lzo', '--uncompressed'])).code).toBe(2)
    const stop = AbortSignal.abort()
    expect((await btrmind(['defragment', at('dir'), '--recursive'], { signal: stop })).code).toBe(130)
  })

  it('deduplicate and clone: outcomes, 1 when one failed', async () => {
    for (const name of ['x', 'y', 'z']) writeFileSync(at(name), content)
    writeFileSync(at('other'), Buffer.alloc(2 * MIB, 'o'))
    const told = await btrmind(['deduplicate', at('x'), at('y'), at('other')])
    expect(told).toMatchObject({ code: 0, err: '' })
    expect(told.out).toMatch(/^same +2\.00 MiB +\S+\/y$/m)
    expect(told.out).toMatch(/^differs +0 B +\S+\/other$/m)
    const part = ['--start', '1MiB', '--length', '4k', '--destination-start', '1MiB', '--json']
    const json = await btrmind(['deduplicate', at('x'), at('z'), ...part])
    expect(JSON.parse(json.out)).toMatchObject([
      { path: at('z'), startBytes: MIB, outcome: 'same', dedupedBytes: 4096 },
    ])
    // The destination's start does not follow the source's, as in the library.
    const apart = await btrmind(['deduplicate', at('x'), at('z'), '--start', '1MiB', '--length', '4k', '--json'])
    expect(JSON.parse(apart.out)).toMatchObject([{ startBytes: 0, outcome: 'differs' }])
    expect((await btrmind(['deduplicate', '--help'])).out).toMatch(/default: 0,\s+whatever\s+--start is/)
    const failed = await btrmind(['deduplicate', at('x'), at('y'), at('gone')])
    expect(failed.code).toBe(1)
    expect(failed.out).toMatch(/^ENOENT .*gone$/m)
    expect((await btrmind(['deduplicate', at('x')])).code).toBe(2)

    expect(await btrmind(['clone', at('x'), at('new'), '--create', '--json'])).toMatchObject({ code: 0, err: '' })
    expect(readFileSync(at('new')).equals(content)).toBe(true)
    expect((await btrmind(['clone', at('x'), at('new'), '--create'])).err).toContain('EEXIST')
    const range = ['--source-start', '4k', '--length', '4KiB', '--destination-start', '0']
    expect((await btrmind(['clone', at('x'), at('other'), ...range])).code).toBe(0)
    expect(readFileSync(at('other')).subarray(0, 4096).equals(content.subarray(4096, 8192))).toBe(true)
    expect((await btrmind(['clone', at('x'), at('other'), '--length', '5'])).err).toMatch(/EINVAL.*multiples of 4096/)
  })

  it('compression and attributes: get, set, clear', async () => {
    expect((await btrmind(['compression', 'get', at('dir')])).out).toBe('nothing is set: the mount decides\n')
    expect((await btrmind(['compression', 'get', at('dir'), '--json'])).out).toBe('null\n')
    expect(await btrmind(['compression', 'set', at('dir'), 'zstd:3'])).toEqual({ code: 0, out: '', err: '' })
    expect((await btrmind(['compression', 'get', at('dir')])).out).toBe('zstd:3\n')
    expect(run('btrfs', 'property', 'get', at('dir'), 'compression').trim()).toBe('compression=zstd:3')
    expect((await btrmind(['compression', 'get', at('dir'), '--json'])).out).toBe('"zstd:3"\n')
    expect((await btrmind(['compression', 'clear', at('dir')])).code).toBe(0)
    expect(run('btrfs', 'property', 'get', at('dir'), 'compression').trim()).toBe('')
    const bad = await btrmind(['compression', 'set', at('dir'), 'gzip'])
    expect(bad).toMatchObject({ code: 2, err: expect.stringMatching(/'gzip'/) })
    expect((await btrmind(['compression'])).code).toBe(2)

    expect((await btrmind(['attributes', 'get', at('dir')])).out).toBe('none\n')
    expect((await btrmind(['attributes', 'set', at('dir'), 'nocow=on', 'noatime=on'])).code).toBe(0)
    expect((await btrmind(['attributes', 'get', at('dir')])).out).toBe('nocow noatime\n')
    expect((await btrmind(['attributes', 'set', at('dir'), 'nocow=off'])).code).toBe(0)
    expect(run('lsattr', '-d', at('dir'))).toMatch(/^-+A-+ /)
    const json = JSON.parse((await btrmind(['attributes', 'get', at('dir'), '--json'])).out)
    expect(json).toMatchObject({ nocow: false, noatime: true, immutable: false })
    const set = JSON.parse((await btrmind(['attributes', 'set', at('dir'), 'noatime=off', '--json'])).out)
    expect(set).toEqual({ ...json, noatime: false })
    expect((await btrmind(['compression', 'set', at('dir'), 'zstd', '--json'])).out).toBe('"zstd"\n')
    expect((await btrmind(['compression', 'clear', at('dir'), '--json'])).out).toBe('null\n')
    expect((await btrmind(['attributes', 'set', at('dir'), 'nocow'])).code).toBe(2)
    expect((await btrmind(['attributes', 'set', at('dir'), 'nocwo=on'])).err).toMatch(/did you mean 'nocow'/)
    expect((await btrmind(['attributes', 'set', at('x'), 'nocow=on'])).err).toMatch(/EINVAL.*empty file only/)
  })
})
