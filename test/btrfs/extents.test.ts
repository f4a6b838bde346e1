import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  closeSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  renameSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import type { ExtentsOptions, FileExtent } from '../../src/btrfs/extents.js'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { createRandom } from '../../src/random.js'
import { logLines } from '../helpers/files.js'
import { openFiles } from '../helpers/open-files.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

const BLOCK = 4096

/** Rows of `filefrag -v`: where, how long, and the flags that we have too. */
function filefrag(path: string): string[] {
  const rows = [...run('filefrag', '-v', path).matchAll(/^ *\d+: +(\d+)\.\. *\d+: +(\d+)\.\. *\d+: +(\d+):(.*)$/gm)]
  return rows.map(([, logical, physical, length, rest]) => {
    const flags = /([a-z_,]*)$/.exec(rest!.trim())![1]!.split(',')
    const has = (flag: string) => flags.includes(flag)
    return JSON.stringify({
      logical: Number(logical),
      ...(has('inline') || has('unknown_loc') || has('delalloc') ? {} : { physical: Number(physical) }),
      length: Number(length),
      flags: ['encoded', 'inline', 'shared', 'unwritten', 'last'].filter(has),
    })
  })
}

function asFilefrag(extent: FileExtent): string {
  const flags = { encoded: extent.compressed, inline: extent.inline, shared: extent.shared }
  const all = { ...flags, unwritten: extent.preallocated, last: extent.last }
  return JSON.stringify({
    logical: extent.logicalBytes / BLOCK,
    ...(extent.physicalBytes === undefined ? {} : { physical: extent.physicalBytes / BLOCK }),
    length: Math.ceil(extent.lengthBytes / BLOCK),
    flags: Object.entries(all).flatMap(([flag, on]) => (on ? [flag] : [])),
  })
}

describe.skipIf(cannotMount)('extents()', () => {
  const { volume, fs, at } = useVolume({ devicesMiB: [1024] })
  const all = async (path: string, options?: ExtentsOptions) => {
    const found: FileExtent[] = []
    for await (const extent of fs.extents(path, options)) found.push(extent)
    return found
  }

  it.each([1, 2, 3, 4, 5, 6])('of a random layout, seed %i, are what filefrag shows', async (seed) => {
    const random = createRandom(seed)
    const pick = (most: number) => Math.floor(random.next() * most)
    const name = `random-${seed}`
    const path = at(name)
    writeFileSync(path, '')
    const text = logLines(1 << 20, seed)
    for (let step = 0; step < 60; step++) {
      const offset = pick(512) * BLOCK
      const length = (1 + pick(64)) * BLOCK
      const what = pick(7)
      if (what <= 2) {
        // A compressed one now and then.
        if (pick(3) === 0) await fs.setCompressionProperty(name, pick(2) === 0 ? 'zstd' : undefined)
        const fd = openSync(path, 'r+')
        writeSync(fd, text, pick(1 << 19), length - pick(BLOCK), offset)
        fsyncSync(fd)
        closeSync(fd)
      } else if (what === 3) run('fallocate', '-o', String(offset), '-l', String(length), path)
      else if (what === 4) run('fallocate', '-p', '-o', String(offset), '-l', String(length), path)
      else if (what === 5) run('cp', '--reflink=always', path, `${path}-copy`)
      else run('truncate', '-s', String(Math.max(offset, 1 << 20) + 1), path)
    }
    await fs.sync()
    const found = await all(name)
    expect(found.length).toBeGreaterThan(3)
    expect(found.map(asFilefrag)).toEqual(filefrag(path))
    const { logicalBytes, lengthBytes } = found[Math.floor(found.length / 2)]!
    const part = await all(name, { startBytes: logicalBytes + lengthBytes - 1, lengthBytes: 2 })
    const end = logicalBytes + lengthBytes
    expect(part).toEqual(found.filter((row) => row.logicalBytes <= end && row.logicalBytes + row.lengthBytes >= end))
  })

  it('come page by page, as many as there are, of the file that was opened', async () => {
    const path = at('many')
    const fd = openSync(path, 'w')
    for (let i = 0; i < 9000; i++) writeSync(fd, Buffer.alloc(BLOCK, i), 0, BLOCK, 2 * i * BLOCK)
    fsyncSync(fd)
    closeSync(fd)
    const found = await all('many')
    expect(found).toHaveLength(9000)
    expect(found.map(asFilefrag)).toEqual(filefrag(path))
    expect(found.filter(({ last }) => last)).toEqual([found.at(-1)])
    let seen = 0
    for await (const { logicalBytes } of fs.extents('many')) {
      expect(logicalBytes).toBe(2 * seen++ * BLOCK)
      // The next pages are of the file that had the name.
      if (seen === 1) {
        renameSync(path, at('many-moved'))
        writeFileSync(path, '')
      }
    }
    expect(seen).toBe(9000)
    renameSync(at('many-moved'), path)
    for await (const { logicalBytes } of fs.extents('many')) if (logicalBytes > 4096 * 2 * BLOCK) break
    const reading = fs.extents('many')
    await reading.next()
    const other = await openFilesystem(volume.path)
    const cut = other.extents('many')
    for (let i = 0; i < 4096; i++) await cut.next()
    await other.close()
    await expect(cut.next()).rejects.toMatchObject({ code: 'EBADF' })
    await reading.return()
    expect(openFiles().filter((path) => path.startsWith(at('many')))).toEqual([])
  })

  it('of what is not written yet, inline, empty and all hole', async () => {
    writeFileSync(at('small'), 'hello')
    expect(await all('small')).toMatchObject([{ inline: true, physicalBytes: undefined, last: true, delayed: false }])
    writeFileSync(at('fresh'), logLines(1 << 20))
    expect(await all('fresh', { sync: false })).toMatchObject([{ delayed: true, physicalBytes: undefined }])
    expect(await all('fresh')).toMatchObject([
      { delayed: false, lengthBytes: 1 << 20, physicalBytes: expect.any(Number) },
    ])
    writeFileSync(at('empty'), '')
    expect(await all('empty')).toEqual([])
    const fd = openSync(at('hole'), 'w')
    ftruncateSync(fd, 1 << 30)
    closeSync(fd)
    expect(await all('hole')).toEqual([])
    // The address is the one that logicalFiles() takes, once it is committed.
    await fs.sync()
    const [extent] = await all('fresh')
    const files = await fs.logicalFiles(extent!.physicalBytes!)
    expect(files.flatMap(({ paths }) => paths.map((path) => Buffer.from(path).toString()))).toContain('fresh')
  })

  it('bad input: what is wrong is said', async () => {
    symlinkSync('small', at('link'))
    run('mkfifo', at('fifo'))
    mkdirSync(at('directory'))
    await expect(all('link')).rejects.toMatchObject({ code: 'ELOOP', hint: expect.stringContaining('symlink') })
    await expect(all('fifo')).rejects.toMatchObject({ code: 'EINVAL', hint: expect.stringContaining('regular file') })
    await expect(all('directory')).rejects.toMatchObject({ code: 'EISDIR', hint: expect.stringContaining('regular') })
    await expect(all('gone')).rejects.toMatchObject({ code: 'ENOENT', operation: 'extents', path: at('gone') })
    await expect(all('/proc/self/status')).rejects.toThrow(/BTRMIND_ERR_WRONG_VOLUME.*\/proc\/self\/status/)
    await expect(all('')).rejects.toThrow(/a path/)
    await expect(all('small', { startBytes: -1 })).rejects.toThrow(/startBytes.*-1/)
    await expect(all('small', { lenghtBytes: 1 } as never)).rejects.toThrow(/did you mean 'lengthBytes'/)
    await expect(all('small', { signal: AbortSignal.abort() })).rejects.toThrow(/abort/)
    unlinkSync(at('fifo'))
  })

  it('without privilege each call of the family works, or says what it needs', async () => {
    chmodSync(volume.directory, 0o755)
    mkdirSync(at('shared'))
    chmodSync(at('shared'), 0o777)
    for (const [name, mode, owner] of [
      ['own', 0o644, 65_534],
      ['others', 0o644, 0],
      ['secret', 0o600, 0],
      ['unshared', 0o644, 0],
    ] as const) {
      writeFileSync(at(`shared/${name}`), logLines(256 << 10))
      chmodSync(at(`shared/${name}`), mode)
      chownSync(at(`shared/${name}`), owner, owner)
    }
    await fs.sync()
    const script = fileURLToPath(new URL('../helpers/extents-as-nobody.ts', import.meta.url))
    const ran = spawnSync(process.execPath, ['--import', 'tsx', script, volume.path], { encoding: 'utf8' })
    expect(ran.status, ran.stderr).toBe(0)
    const result = JSON.parse(ran.stdout)
    const denied = (code: string, hint = expect.any(String)) => ({ code, hint })
    const root = expect.stringContaining('root')
    const done = { files: 1, rewrittenFiles: 1, skipped: [] }
    const unread = { unavailable: [{ field: 'diskBytesBefore' }, { field: 'diskBytesAfter' }] }
    expect(result.own).toMatchObject({
      extents: [256 << 10],
      defragment: { ...done, ...unread },
      // Of one file, the range with itself.
      deduplicate: [{ outcome: 'failed', code: 'EINVAL', hint: expect.stringContaining('overlap') }],
      clone: denied('EINVAL', expect.stringContaining('overlap')),
      cloneFrom: 'permitted',
      compression: 'permitted',
      setCompression: 'permitted',
      attributes: false,
      setAttributes: 'permitted',
      immutable: denied('EPERM', expect.stringContaining('CAP_LINUX_IMMUTABLE')),
      readEncoded: denied('EPERM', root),
      writeEncoded: denied('EPERM', root),
    })
    expect(result.own.defragment).not.toHaveProperty('diskBytesBefore')
    expect(result.others).toMatchObject({
      extents: [256 << 10],
      defragment: denied('EPERM', expect.stringContaining('write permission')),
      deduplicate: [{ outcome: 'failed', code: 'EPERM', hint: expect.stringContaining('owner') }],
      clone: denied('EACCES'),
      cloneFrom: 'permitted',
      compression: 'permitted',
      setCompression: denied('EACCES'),
      attributes: false,
      setAttributes: denied('EPERM', expect.stringContaining('owner')),
      readEncoded: denied('EPERM', root),
    })
    for (const [name, value] of Object.entries(result.secret)) {
      if (name === 'deduplicate') expect(value).toMatchObject([{ outcome: 'failed', code: 'EACCES' }])
      else expect([name, value]).toMatchObject([name, denied('EACCES')])
    }
    const reasons = (result.tree.skipped as { reason: string; files: number; example: string }[]).sort((a, b) =>
      a.reason.localeCompare(b.reason),
    )
    expect(reasons).toMatchObject([
      { reason: 'EACCES', files: 1, example: 'secret' },
      { reason: 'EPERM', files: 1, example: 'unshared' },
      { reason: 'SHARED', files: 4, bytes: 4 * (256 << 10) },
    ])
    expect(result.tree).toMatchObject({ files: 6, rewrittenFiles: 0 })
  })
})
