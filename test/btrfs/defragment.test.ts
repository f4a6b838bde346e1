import { spawnSync } from 'node:child_process'
import { linkSync, mkdirSync, readFileSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import type { DefragmentProgress } from '../../src/btrfs/defragment.js'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { native } from '../../src/native.js'
import { createRandom } from '../../src/random.js'
import { MIB } from '../../src/units.js'
import { checksum, compsizeBytes, logLines } from '../helpers/files.js'
import { openFiles } from '../helpers/open-files.js'
import { useFreshVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

const BLOCK = 4096

describe.skipIf(cannotMount)('defragment()', () => {
  const { volume, fs, at } = useFreshVolume({ devicesMiB: [512] })

  /** A file in as many extents as it has blocks: written from its end, each block put on disk alone. */
  async function fragmented(name: string, blocks: number, content = logLines(blocks * BLOCK)) {
    const file = await open(at(name), 'w')
    for (let i = blocks - 1; i >= 0; i--) {
      await file.write(content, i * BLOCK, BLOCK, i * BLOCK)
      await file.datasync()
    }
    await file.close()
    return content
  }
  const extentsOf = (name: string) => Number(/: (\d+) extents? found/.exec(run('filefrag', at(name)))![1])
  const skipped = ({ skipped }: DefragmentProgress) => skipped.map(({ reason, files }) => [reason, files])

  it('makes one extent of many, and changes nothing else', async () => {
    const content = await fragmented('file', 200)
    utimesSync(at('file'), 1e9, 1e9)
    const { ino, mtimeMs, size, mode } = statSync(at('file'))
    expect(extentsOf('file')).toBe(200)
    const result = await fs.defragment('file').result
    expect(result).toMatchObject({ files: 1, totalFiles: 1, rewrittenFiles: 1, rewrittenBytes: 200 * BLOCK })
    expect(result).toMatchObject({ bytes: 200 * BLOCK, totalBytes: 200 * BLOCK, skipped: [], unavailable: [] })
    expect(result).toMatchObject({ diskBytesBefore: 200 * BLOCK, diskBytesAfter: 200 * BLOCK, path: undefined })
    expect(extentsOf('file')).toBe(1)
    expect(readFileSync(at('file')).equals(content)).toBe(true)
    expect(statSync(at('file'))).toMatchObject({ ino, mtimeMs, size, mode })
    await fragmented('part', 64)
    await fs.defragment('part', { startBytes: 16 * BLOCK, lengthBytes: 32 * BLOCK }).result
    expect(extentsOf('part')).toBe(33)
    await fragmented('good', 64)
    await fs.defragment('good', { extentThresholdBytes: BLOCK }).result
    expect(extentsOf('good')).toBe(64)
  })

  // A slice at a time it would be 17 thousand million calls.
  it('leaps over holes, however large, and counts none of them', async () => {
    const content = logLines(64 * BLOCK)
    const file = await open(at('sparse'), 'w')
    await file.write('x', 0)
    await file.write('x', 100 * MIB)
    for (let i = 63; i >= 0; i--) {
      await file.write(content, i * BLOCK, BLOCK, 2 ** 50 + i * BLOCK)
      await file.datasync()
    }
    await file.truncate(2 ** 51)
    await file.close()
    const seen: number[] = []
    const work = fs.defragment('sparse', { sliceBytes: 128 * 1024, intervalMs: 1 })
    for await (const { bytes } of work) seen.push(bytes)
    const size = { bytes: 2 ** 51, totalBytes: 2 ** 51 }
    expect(await work.result).toMatchObject({ ...size, rewrittenFiles: 1, rewrittenBytes: 66 * BLOCK })
    expect(seen.every((bytes, index) => bytes <= 2 ** 51 && bytes >= (seen[index - 1] ?? 0))).toBe(true)
    const extents: number[] = []
    for await (const { logicalBytes } of fs.extents('sparse')) extents.push(logicalBytes)
    expect(extents).toEqual([0, 100 * MIB, 2 ** 50])
    expect(await fs.defragment('sparse', { startBytes: 2 ** 50 + MIB }).result).toMatchObject({ rewrittenBytes: 0 })
    // Written in the slice's middle, and preallocated around it.
    run('fallocate', '-l', '8M', at('reserved'))
    const reserved = await open(at('reserved'), 'r+')
    await reserved.write(content, 0, BLOCK, MIB)
    await reserved.close()
    expect(await fs.defragment('reserved').result).toMatchObject({ bytes: 8 * MIB, rewrittenBytes: BLOCK })
  })

  it('stopped in a file, it says how far it was', async () => {
    writeFileSync(at('long'), logLines(64 * MIB))
    await fs.sync()
    const work = fs.defragment('long', { compress: 'zstd', level: 15, sliceBytes: MIB, intervalMs: 1 })
    for await (const { bytes } of work) {
      if (bytes <= 2 * MIB) continue
      await work.cancel()
      break
    }
    const error = await work.result.catch((error) => error)
    expect(error).toMatchObject({ code: 'ECANCELED', progress: { files: 0, totalFiles: 1, totalBytes: 64 * MIB } })
    const { bytes, rewrittenBytes } = (error as { progress: DefragmentProgress }).progress
    expect(bytes).toBeGreaterThan(2 * MIB)
    expect(rewrittenBytes).toBe(bytes)
  })

  it.each([
    ['zlib', 9],
    ['lzo', undefined],
    ['zstd', 15],
    ['zstd', -15],
  ] as const)('compresses with %s %s, and back', async (compress, level) => {
    const content = logLines(2 * MIB)
    writeFileSync(at('file'), content)
    await fs.sync()
    const result = await fs.defragment('file', { compress, level }).result
    expect(result.diskBytesBefore).toBe(2 * MIB)
    expect(result.diskBytesAfter).toBeLessThan(0.75 * 2 * MIB)
    await fs.sync()
    expect(compsizeBytes(at('file'))).toBe(result.diskBytesAfter)
    expect(run('compsize', at('file'))).toMatch(new RegExp(`^${compress} `, 'm'))
    // It is left alone from now on …
    const again = await fs.defragment('file', { compress }).result
    expect(again).toMatchObject({ rewrittenFiles: 0, diskBytesAfter: result.diskBytesAfter })
    expect(again.skipped).toEqual([{ reason: 'COMPRESSED', files: 1, bytes: 2 * MIB, example: at('file') }])
    // … unless asked for.
    const other = compress === 'zlib' ? 'zstd' : 'zlib'
    await fs.defragment('file', { compress: other, skipCompressed: false }).result
    await fs.sync()
    expect(run('compsize', at('file'))).toMatch(new RegExp(`^${other} `, 'm'))
    await fs.defragment('file', { nocompress: true }).result
    await fs.sync()
    expect(compsizeBytes(at('file'))).toBe(2 * MIB)
    expect(readFileSync(at('file')).equals(content)).toBe(true)
  })

  it('levels are heeded; what this kernel does not know is said', async () => {
    const content = logLines(4 * MIB)
    const sizes: number[] = []
    for (const level of [-15, 1, 15]) {
      writeFileSync(at('file'), content)
      await fs.sync()
      sizes.push((await fs.defragment('file', { compress: 'zstd', level }).result).diskBytesAfter!)
    }
    expect(sizes[0]).toBeGreaterThan(sizes[1]!)
    expect(sizes[1]).toBeGreaterThan(sizes[2]!)
    // A flag that no kernel has yet, beside the one for levels and the one against compression.
    const { handle } = await native.open(0, volume.path)
    const ask = (flags: number) => {
      const prepared = native.defragmentPrepare(flags, 0, 3, 1, 0, undefined, 1 << 20, true, false)
      return native.defragmentFile(0, handle, prepared, at('file'), undefined, undefined)
    }
    await expect(ask((1 << 30) + 4)).rejects.toMatchObject({ code: 'EOPNOTSUPP', hint: expect.stringMatching(/6\.15/) })
    await expect(ask((1 << 30) + 8)).rejects.toMatchObject({ code: 'EOPNOTSUPP', hint: expect.stringMatching(/6\.17/) })
    native.close(handle)
  })

  it('leaves alone what a snapshot or a clone has too, to the block', async () => {
    const content = await fragmented('file', 128)
    await fs.sync()
    const used = (await fs.measure()).dataUsedBytes
    // A clone of the middle, not committed yet.
    writeFileSync(at('clone'), '')
    await fs.clone('file', 'clone', { sourceStartBytes: 32 * BLOCK, lengthBytes: 64 * BLOCK })
    const result = await fs.defragment('file').result
    expect(result).toMatchObject({ rewrittenFiles: 1, rewrittenBytes: 64 * BLOCK })
    expect(result.skipped).toEqual([{ reason: 'SHARED', files: 1, bytes: 64 * BLOCK, example: at('file') }])
    expect(extentsOf('file')).toBe(64 + 2)
    await fs.sync()
    expect((await fs.measure()).dataUsedBytes).toBe(used)
    run('btrfs', 'subvolume', 'create', at('sub'))
    await fragmented('sub/file', 32)
    run('btrfs', 'subvolume', 'snapshot', at('sub'), at('snapshot'))
    expect(await fs.defragment('snapshot/file').result).toMatchObject({ rewrittenFiles: 0, diskBytesAfter: 32 * BLOCK })
    expect(extentsOf('snapshot/file')).toBe(32)
    const unshared = await fs.defragment('snapshot/file', { skipShared: false }).result
    expect([skipped(unshared), extentsOf('snapshot/file'), extentsOf('sub/file')]).toEqual([[], 1, 32])
    await fs.sync()
    expect((await fs.measure()).dataUsedBytes).toBe(used + 2 * 32 * BLOCK)
    expect(readFileSync(at('file')).equals(content)).toBe(true)
  })

  it('goes through a tree, in its subvolume, each file once; what it skips has a reason and an example', async () => {
    mkdirSync(at('tree/deep'), { recursive: true })
    await fragmented('tree/a', 16)
    await fragmented('tree/deep/b', 16)
    linkSync(at('tree/a'), at('tree/deep/a-again'))
    symlinkSync('/etc/passwd', at('tree/link'))
    run('mkfifo', at('tree/fifo'))
    run('btrfs', 'subvolume', 'create', at('tree/sub'))
    await fragmented('tree/sub/c', 16)
    writeFileSync(at('tree/nocow'), '')
    await fs.setAttributes('tree/nocow', { nocow: true })
    writeFileSync(at('tree/nocow'), logLines(64 * BLOCK))
    writeFileSync(at('tree/never'), logLines(64 * BLOCK))
    await fs.setCompressionProperty('tree/never', 'none')
    writeFileSync(join(at('tree'), 'odd\n\u00e9'), 'inline')
    // Not UTF-8.
    const odd = Buffer.concat([Buffer.from(at('tree/bad-')), Buffer.from([0xff, 0xfe])])
    writeFileSync(odd, logLines(64 * BLOCK))
    await fs.sync()
    const seen: DefragmentProgress[] = []
    const work = fs.defragment('tree', { recursive: true, compress: 'zstd', intervalMs: 1 })
    for await (const progress of work) seen.push(progress)
    const result = await work.result
    expect(result).toMatchObject({ files: 6, totalFiles: 6, rewrittenFiles: 3 })
    expect(result.bytes).toBe(result.totalBytes)
    const total = (2 * 16 + 3 * 64) * BLOCK + 6
    expect([result.totalBytes, result.rewrittenBytes]).toEqual([total, (2 * 16 + 64) * BLOCK])
    expect(result.skipped.map(({ reason, files, bytes, example }) => [reason, files, bytes, example]).sort()).toEqual([
      ['NOCOMPRESS', 1, 64 * BLOCK, 'never'],
      ['NOCOW', 1, 64 * BLOCK, 'nocow'],
      ['SUBVOLUME', 1, 0, 'sub'],
    ])
    for (const { files, bytes } of seen) {
      expect(files).toBeLessThanOrEqual(6)
      expect(bytes).toBeLessThanOrEqual(total)
    }
    expect(extentsOf('tree/sub/c')).toBe(16)
    expect(extentsOf('tree/a')).toBe(1)
    await fs.sync()
    expect(result.diskBytesAfter).toBeLessThan(result.diskBytesBefore!)
    // Without compression NOCOW files are defragmented as well.
    await expect(fs.defragment('tree/nocow').result).resolves.toMatchObject({ skipped: [], rewrittenFiles: 1 })
  })

  it('counts what many small files take on disk, and keeps none of them open', async () => {
    mkdirSync(at('tree'))
    const content = logLines(20_000)
    for (let i = 0; i < 200; i++) writeFileSync(at(`tree/${i}`), content)
    await fs.sync()
    const before = compsizeBytes(at('tree'))
    const seen: DefragmentProgress[] = []
    const work = fs.defragment('tree', { recursive: true, compress: 'zstd', intervalMs: 1 })
    for await (const progress of work) seen.push(progress)
    const result = await work.result
    await fs.sync()
    const after = compsizeBytes(at('tree'))
    expect(result).toMatchObject({ files: 200, diskBytesBefore: before, diskBytesAfter: after })
    expect(after).toBeLessThan(before)
    for (const { diskBytesBefore = 0, diskBytesAfter = 0, files } of seen) {
      expect(diskBytesBefore).toBeLessThanOrEqual((files + 1) * (before / 200))
      expect(diskBytesAfter).toBeLessThanOrEqual(diskBytesBefore)
    }
    const other = await openFilesystem(volume.path)
    const again = other.defragment('tree', { recursive: true, compress: 'zlib', skipCompressed: false, intervalMs: 1 })
    for await (const { files } of again) if (files > 10) break
    await other.close()
    const error = await again.result.catch((error) => error)
    expect(error).toMatchObject({ code: 'ECANCELED' })
    // What was done is measured all the same, and the file that it was about to begin.
    const { rewrittenFiles, diskBytesBefore } = (error as { progress: DefragmentProgress }).progress
    expect([rewrittenFiles, rewrittenFiles + 1]).toContain(diskBytesBefore! / (after / 200))
    expect(openFiles().filter((path) => path.startsWith(at('tree')))).toEqual([])
  })

  it.each([1, 2])('cancel, abort and close() at random moments leave all content, seed %i', async (seed) => {
    const random = createRandom(seed)
    const sums = new Map<string, string>()
    mkdirSync(at('tree'))
    for (let i = 0; i < 12; i++) {
      const name = `tree/${i}`
      writeFileSync(at(name), logLines(4 * MIB, i))
      sums.set(name, checksum(at(name)))
    }
    await fs.sync()
    let stopped = 0
    for (const how of ['cancel', 'abort', 'close', 'dispose'] as const) {
      const controller = new AbortController()
      const other = await openFilesystem(volume.path)
      const options = { compress: 'zstd', level: 15, skipCompressed: false, sliceBytes: MIB } as const
      const work = other.defragment('tree', { ...options, recursive: true, signal: controller.signal })
      await sleep(random.next() * 150)
      if (how === 'cancel') await work.cancel()
      if (how === 'abort') controller.abort()
      if (how === 'close') await other.close()
      if (how === 'dispose') await work[Symbol.asyncDispose]()
      const end = await work.result.catch((error) => error)
      if (end instanceof Error) {
        stopped++
        expect(end).toMatchObject({ code: 'ECANCELED', operation: 'defragment' })
        const { files, totalFiles = 0 } = (end as { progress?: DefragmentProgress }).progress!
        expect(files).toBeLessThanOrEqual(totalFiles)
      }
      expect(await work.progress()).toBeUndefined()
      await other.close()
      for (const [name, sum] of sums) expect(checksum(at(name))).toBe(sum)
    }
    expect(stopped).toBeGreaterThan(0)
    run('sh', '-c', 'echo 3 > /proc/sys/vm/drop_caches')
    for (const [name, sum] of sums) expect(checksum(at(name))).toBe(sum)
    expect(run('btrfs', 'scrub', 'start', '-B', volume.path)).toMatch(/no errors found/)
    const whole = await fs.defragment('tree', { recursive: true, compress: 'zstd' }).result
    expect(whole).toMatchObject({ files: 12, totalFiles: 12 })
  })

  it('ends where there is no space, with what was done, and nothing is lost', async () => {
    const sums = new Map<string, string>()
    mkdirSync(at('tree'))
    for (let i = 0; i < 4; i++) {
      await fragmented(`tree/${i}`, 32)
      sums.set(`tree/${i}`, checksum(at(`tree/${i}`)))
    }
    await fs.sync()
    spawnSync('dd', ['if=/dev/zero', `of=${at('filler')}`, 'bs=1M'])
    spawnSync('sh', ['-c', `cat /dev/zero > ${at('filler2')}`])
    await fs.sync()
    const error = await fs.defragment('tree', { recursive: true }).result.catch((error) => error)
    expect(error).toMatchObject({ code: 'ENOSPC', progress: { totalFiles: 4 } })
    expect((error as { progress: DefragmentProgress }).progress.files).toBeLessThan(4)
    for (const [name, sum] of sums) expect(checksum(at(name))).toBe(sum)
  })

  it('bad input: what is wrong is said', async () => {
    mkdirSync(at('directory'))
    writeFileSync(at('file'), logLines(MIB))
    symlinkSync('file', at('link'))
    symlinkSync('directory', at('linked'))
    const bad = (path: string, options?: object) => expect(fs.defragment(path, options).result).rejects
    await bad('directory').toMatchObject({ code: 'EISDIR', hint: expect.stringContaining('recursive') })
    await bad('file', { recursive: true }).toMatchObject({ code: 'ENOTDIR' })
    await bad('link').toMatchObject({ code: 'ELOOP' })
    await bad('linked', { recursive: true }).toMatchObject({ code: 'ELOOP' })
    await bad('gone').toMatchObject({ code: 'ENOENT', path: at('gone'), progress: { files: 0 } })
    await bad('/etc/passwd').toThrow(/WRONG_VOLUME/)
    for (const [options, message] of [
      [{ compress: 'gzip' }, /compress.*'gzip'/],
      [{ compress: 'zstd', level: 16 }, /level.*-15 to 15 of zstd, got 16/],
      [{ compress: 'zlib', level: 0 }, /level.*1 to 9 of zlib, got 0/],
      [{ compress: 'lzo', level: 1 }, /lzo has none, got 1/],
      [{ level: 3 }, /'level' needs 'compress', got 3/],
      [{ compress: 'lzo', nocompress: true }, /'nocompress' does not go with 'compress'/],
      [{ nocompress: true, skipCompressed: true }, /'nocompress' does not go with 'skipCompressed'/],
      [{ sliceBytes: 1000 }, /sliceBytes.*1000/],
      [{ sliceBytes: 131_073 }, /sliceBytes.*multiple of 131072.*131073/],
      [{ recursiv: true }, /did you mean 'recursive'/],
    ] as const)
      expect(() => fs.defragment('file', options as never)).toThrow(message)
    run('btrfs', 'subvolume', 'snapshot', '-r', volume.path, at('snapshot'))
    await bad('snapshot/file', { skipShared: false }).toMatchObject({ code: 'EROFS' })
    await fs.close()
    await bad('file').toMatchObject({ code: 'EBADF' })
    await bad('directory', { recursive: true }).toMatchObject({ code: 'EBADF' })
  })
})
