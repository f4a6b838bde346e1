import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  linkSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { MIB } from '../../src/units.js'
import { checksum, compsizeBytes, logLines, nameOf, refs } from '../helpers/files.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, makeVolume, run } from '../helpers/volume.js'

const haveCompsize = run('sh', '-c', 'command -v compsize || true') !== ''

describe.skipIf(cannotMount)('compressFile(), fileExtents(), estimateCompressedRatio()', () => {
  const { volume, fs, at } = useVolume({ devicesMiB: [2048] })
  const text = logLines(8 * MIB)

  function directory(name: string, files: Record<string, Buffer | string> = {}) {
    mkdirSync(at(name))
    for (const [file, content] of Object.entries(files)) writeFileSync(at(name, file), content)
    return at(name)
  }
  const one = async (root: string) => (await refs(fs, root))[0]!
  const identity = (path: string) => {
    const { ino, size, mode, nlink, atimeNs, mtimeNs, ctimeNs } = statSync(path, { bigint: true })
    return { ino, size, mode, nlink, atimeNs, mtimeNs, ctimeNs }
  }
  const extentMap = (path: string) => run('filefrag', '-v', path)

  // A slice at a time it would be hundreds of millions of calls.
  it('leaps over holes, however large', async () => {
    const root = directory('sparse')
    const path = join(root, 'file')
    const file = await open(path, 'w')
    const places = [MIB, 100 * MIB, 2 ** 51 + 5 * MIB]
    for (const place of places) await file.write(text, 0, MIB, place)
    await file.truncate(2 ** 52)
    await file.close()
    await fs.sync()
    const outcome = await fs.compressFile(root, await one(root))
    expect(outcome).toMatchObject({ ok: true, diskBytesBefore: 3 * MIB })
    const extents = await fs.fileExtents(root, await one(root))
    expect(extents).toMatchObject({ ok: true, bytes: 3 * MIB, compressedBytes: 3 * MIB })
    const again = await open(path)
    for (const place of places) {
      const { buffer } = await again.read(Buffer.alloc(MIB), 0, MIB, place)
      expect(buffer.equals(text.subarray(0, MIB))).toBe(true)
    }
    await again.close()
  })

  it.each(['lzo', 'zlib', 'zstd'] as const)('%s shrinks a file, and changes nothing else of it', async (algorithm) => {
    const root = directory(`shrinks-${algorithm}`, { log: text })
    const path = join(root, 'log')
    utimesSync(path, 1e9, 1e9)
    await fs.sync()
    const before = identity(path)
    const used = (await fs.measure()).dataUsedBytes
    const outcome = await fs.compressFile(root, await one(root), { algorithm })
    expect(outcome).toMatchObject({ ok: true, diskBytesBefore: 8 * MIB })
    const after = outcome.diskBytesAfter!
    expect(after).toBeLessThan(0.6 * 8 * MIB)
    await fs.sync()
    expect(used - (await fs.measure()).dataUsedBytes).toBe(8 * MIB - after)
    expect(identity(path)).toEqual(before)
    expect(readFileSync(path).equals(text)).toBe(true)
    const extents = await fs.fileExtents(root, await one(root))
    expect(extents).toMatchObject({ ok: true, bytes: 8 * MIB, compressedBytes: 8 * MIB, diskBytes: after })
    if (haveCompsize) {
      expect(compsizeBytes(path)).toBe(after)
      expect(run('compsize', path)).toMatch(new RegExp(`^${algorithm} `, 'm'))
    }
    expect(await fs.compressFile(root, await one(root), { algorithm })).toEqual({
      ok: false,
      code: 'COMPRESSED',
      diskBytesBefore: after,
      diskBytesAfter: after,
    })
  })

  it('compresses past a slice, around holes and preallocated space, and goes on where it was stopped', async () => {
    const root = directory('large')
    const path = join(root, 'file')
    const handle = await open(path, 'w')
    for (let i = 0; i < 10; i++) await handle.write(text, 0, text.length, i * 8 * MIB)
    await handle.write(text, 0, text.length, 200 * MIB)
    await handle.close()
    run('fallocate', '--keep-size', '--offset', String(300 * MIB), '--length', '1MiB', path)
    const content = checksum(path)
    const file = await one(root)
    const controller = new AbortController()
    const stopped = fs.compressFile(root, file, { signal: controller.signal })
    controller.abort()
    await expect(stopped).rejects.toMatchObject({
      code: 'ECANCELED',
      operation: 'compressFile',
      progress: { diskBytesBefore: 89 * MIB },
    })
    const halfway = await fs.fileExtents(root, file)
    expect(halfway.ok && halfway.compressedBytes).toBeLessThan(88 * MIB)
    const { ok, diskBytesAfter } = await fs.compressFile(root, file)
    expect(ok).toBe(true)
    expect(await fs.fileExtents(root, file)).toMatchObject({ bytes: 89 * MIB, compressedBytes: 88 * MIB })
    expect(checksum(path)).toBe(content)
    await fs.sync()
    if (haveCompsize) expect(compsizeBytes(path)).toBe(diskBytesAfter)
  })

  it('leaves alone what shares an extent, and what others wrote to', async () => {
    const root = directory('shared', { private: text.subarray(0, MIB), reflinked: text.subarray(0, 2 * MIB) })
    // One sector is enough: an extent is shared as a whole.
    const FICLONERANGE = `import fcntl, struct, sys
source, clone = open(sys.argv[1], 'rb'), open(sys.argv[2], 'wb')
fcntl.ioctl(clone, 0x4020940d, struct.pack('qQQQ', source.fileno(), ${MIB}, 4096, 0))`
    run('python3', '-c', FICLONERANGE, join(root, 'reflinked'), at('clone'))
    const maps = () => ['private', 'reflinked'].map((name) => extentMap(join(root, name)))
    await fs.sync()
    const before = maps()
    const [mine, reflinked] = await refs(fs, root)
    expect(await fs.fileExtents(root, reflinked!)).toMatchObject({ ok: true, bytes: 2 * MIB, sharedBytes: 2 * MIB })
    expect(await fs.compressFile(root, reflinked!)).toMatchObject({ ok: false, code: 'SHARED' })
    run('btrfs', 'subvolume', 'snapshot', '-r', volume.path, at('snapshot'))
    expect(await fs.fileExtents(root, mine!)).toMatchObject({ sharedBytes: MIB })
    expect(await fs.compressFile(root, mine!)).toMatchObject({ ok: false, code: 'SHARED' })
    await fs.deleteSubvolume(at('snapshot'), { waitUntilFreed: true })
    expect(maps()).toEqual(before)
    writeFileSync(join(root, 'private'), text.subarray(0, 4096))
    expect(await fs.compressFile(root, mine!)).toEqual({ ok: false, code: 'CHANGED' })
    expect(await fs.fileExtents(root, mine!)).toEqual({ ok: false, code: 'CHANGED' })
    expect(await fs.estimateCompressedRatio(root, mine!)).toEqual({ ok: false, code: 'CHANGED' })
  })

  it('leaves alone what the kernel would not compress', async () => {
    const root = directory('flagged')
    for (const name of ['nocompress', 'nocow']) writeFileSync(join(root, name), '')
    run('chattr', '+C', join(root, 'nocow'))
    for (const name of ['nocompress', 'nocow']) writeFileSync(join(root, name), text.subarray(0, MIB))
    run('chattr', '+m', join(root, 'nocompress'))
    writeFileSync(join(root, 'random'), randomBytes(MIB))
    writeFileSync(join(root, 'small'), 'in the inode')
    const files = await refs(fs, root)
    const codes = async () =>
      Object.fromEntries(
        await Promise.all(
          files.map(async (file) => [nameOf(file), (await fs.compressFile(root, file)).code ?? 'ok'] as const),
        ),
      )
    expect(await codes()).toEqual({ nocow: 'NOCOW', nocompress: 'NOCOMPRESS', random: 'ok', small: 'ok' })
    // The kernel has flagged it, so a second attempt costs nothing.
    expect(await codes()).toMatchObject({ random: 'NOCOMPRESS', small: 'ok' })
    const small = await fs.fileExtents(root, files.find((file) => nameOf(file) === 'small')!)
    expect(small).toMatchObject({ ok: true, compressedBytes: 0, diskBytes: 12 })

    using unchecked = makeVolume({ mountOptions: 'nodatasum' })
    await using other = await openFilesystem(unchecked.path)
    writeFileSync(join(unchecked.path, 'file'), text.subarray(0, MIB))
    await other.sync()
    const [file] = await refs(other, unchecked.path)
    expect(await other.compressFile(unchecked.path, file!)).toMatchObject({ ok: false, code: 'NOCOW' })
    run('mount', '-o', 'remount,ro', unchecked.path)
    expect(await other.fileExtents(unchecked.path, file!)).toMatchObject({ ok: true, diskBytes: MIB })
  })

  it('compresses a running program', async () => {
    const root = directory('program')
    const path = join(root, 'sleep')
    writeFileSync(path, readFileSync(run('sh', '-c', 'realpath "$(command -v bash)"').trim()), { mode: 0o755 })
    const child = spawn(path, ['-c', 'echo started; read line; exit 7'], { stdio: ['pipe', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    expect(() => writeFileSync(path, 'x')).toThrow('ETXTBSY')
    expect(await fs.compressFile(root, await one(root))).toMatchObject({ ok: true })
    child.stdin.end('\n')
    expect(await exitCode(child)).toBe(7)
  })

  it('a full volume: the file is as it was', async () => {
    using small = makeVolume({ devicesMiB: [256] })
    await using full = await openFilesystem(small.path)
    const path = join(small.path, 'text')
    writeFileSync(path, text)
    const content = checksum(path)
    await full.sync()
    for (let size = 64 * MIB, i = 0; size >= 4096; i++) {
      try {
        writeFileSync(join(small.path, `filler${i}`), randomBytes(size), { flush: true })
      } catch {
        size /= 2
      }
    }
    const file = (await refs(full, small.path)).find((each) => nameOf(each) === 'text')!
    const outcome = await full.compressFile(small.path, file)
    expect(outcome).toMatchObject({ ok: false, code: 'ENOSPC' })
    expect(checksum(path)).toBe(content)
    unlinkSync(join(small.path, 'filler0'))
    expect(await full.compressFile(small.path, file)).toMatchObject({ ok: true })
    expect(checksum(path)).toBe(content)
  })

  it('fileExtents() counts as filefrag and compsize do', async () => {
    const root = directory('extents')
    const path = join(root, 'pieces')
    const handle = await open(path, 'w')
    for (let i = 0; i < 600; i++) {
      await handle.write(randomBytes(4096), 0, 4096, i * 3 * 4096)
      if (i % 20 === 0) await handle.datasync()
    }
    await handle.close()
    truncateSync(path, 2 ** 40)
    const extents = await fs.fileExtents(root, await one(root))
    expect(extents).toMatchObject({ ok: true, bytes: 600 * 4096, sharedBytes: 0, compressedBytes: 0 })
    if (!extents.ok) throw new Error(extents.code)
    expect(extents.extents).toBe(extentMap(path).match(/^ +\d+:/gm)!.length)
    await fs.sync()
    if (haveCompsize) expect(extents.diskBytes).toBe(compsizeBytes(path))
    writeFileSync(join(root, 'empty'), '')
    const empty = (await refs(fs, root))[0]!
    expect(await fs.fileExtents(root, empty)).toMatchObject({ ok: true, extents: 0, bytes: 0, diskBytes: 0 })
    expect(await fs.compressFile(root, empty)).toMatchObject({ ok: true })
    expect(await fs.estimateCompressedRatio(root, empty)).toEqual({ ok: true, ratio: 1 })
  })

  it('the estimate is near what lzo gives, and leaves the access time', async () => {
    const program = readFileSync(process.execPath)
    const root = directory('estimate', {
      log: text,
      mixed: Buffer.concat([randomBytes(MIB), text.subarray(0, 2 * MIB), randomBytes(MIB / 2)]),
      program: program.subarray(0, 16 * MIB),
      random: randomBytes(3 * MIB),
      short: text.subarray(0, 50_000),
      zeros: Buffer.alloc(4 * MIB),
    })
    for (const file of await refs(fs, root)) {
      const path = join(root, nameOf(file))
      run('touch', '-a', '-d', '2001-01-01', path)
      const now = (await refs(fs, root)).find((each) => nameOf(each) === nameOf(file))!
      const estimate = await fs.estimateCompressedRatio(root, now)
      expect(statSync(path).atimeMs).toBe(978_307_200_000)
      const { ok, diskBytesBefore, diskBytesAfter } = await fs.compressFile(root, now)
      expect(ok).toBe(true)
      const real = diskBytesAfter! / diskBytesBefore!
      expect(Math.abs((estimate.ok ? estimate.ratio : Number.NaN) - real), nameOf(file)).toBeLessThan(0.05)
    }
  })

  it('leaves alone what somebody has read; its own sample is no reading', async () => {
    const root = directory('read', { read: text.subarray(0, MIB), unread: text.subarray(0, MIB) })
    const [read, unread] = await refs(fs, root)
    readFileSync(join(root, 'read'))
    expect(await fs.compressFile(root, read!)).toEqual({ ok: false, code: 'CHANGED' })
    expect(await fs.estimateCompressedRatio(root, unread!)).toMatchObject({ ok: true })
    expect(await fs.compressFile(root, unread!)).toMatchObject({ ok: true })
  })

  it('acts only beneath the root, and only on what the caller may write', async () => {
    const root = directory('fence', { file: text.subarray(0, MIB) })
    run('chmod', '755', volume.directory)
    const file = await one(root)
    mkdirSync(at('elsewhere'))
    linkSync(join(root, 'file'), at('elsewhere', 'file'))
    symlinkSync('../elsewhere', join(root, 'link'))
    const linked = await one(root)
    const through = { ...linked, path: Buffer.from('link/file') }
    for (const act of ['compressFile', 'fileExtents', 'estimateCompressedRatio'] as const) {
      expect(await fs[act](root, through)).toEqual({ ok: false, code: 'ELOOP' })
      expect(await fs[act](root, { ...linked, path: Buffer.from('../elsewhere/file') })).toEqual({
        ok: false,
        code: 'EXDEV',
      })
      expect(await fs[act](root, file)).toEqual({ ok: false, code: 'CHANGED' })
      await expect(fs[act]('/proc', linked)).rejects.toMatchObject({ code: 'BTRMIND_ERR_WRONG_VOLUME' })
      await expect(fs[act](root, {} as never)).rejects.toThrow("option '0.path'")
    }
    await expect(fs.compressFile(root, linked, { algorithm: 'lz4' as never })).rejects.toThrow("got 'lz4'")
    const script = `
      import { openFilesystem } from ${JSON.stringify(join(process.cwd(), 'src/btrfs/filesystem.ts'))}
      import { fileRef } from ${JSON.stringify(join(process.cwd(), 'src/btrfs/batch.ts'))}
      process.setgroups([]); process.setgid(65534); process.setuid(65534)
      const root = process.argv[1]
      const fs = await openFilesystem(root)
      for await (const batch of fs.walk(root)) {
        const file = fileRef(batch, 0)
        console.log(JSON.stringify([await fs.fileExtents(root, file), await fs.compressFile(root, file),
          await fs.estimateCompressedRatio(root, file), await fs.removeFiles(root, [file])]))
      }`
    const output = run(process.execPath, '--import', 'tsx', '--input-type=module', '-e', script, root)
    expect(JSON.parse(output)).toEqual([
      { ok: true, extents: 1, bytes: MIB, sharedBytes: 0, compressedBytes: 0 },
      { ok: false, code: 'EPERM' },
      { ok: false, code: 'EPERM' },
      [{ ok: false, code: 'EACCES' }],
    ])
  })
})

async function exitCode(child: ChildProcess) {
  if (child.exitCode === null) await once(child, 'exit')
  return child.exitCode
}
