import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { FileRef } from '../../src/btrfs/batch.js'
import type { Root } from '../../src/btrfs/directory.js'
import { refs as filesBelow, nameOf } from '../helpers/files.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

const haveStrace = run('sh', '-c', 'command -v strace || true') !== ''
const name = nameOf

describe.skipIf(cannotMount)('removeFiles()', () => {
  const { volume, fs, at } = useVolume()

  const refs = (root: Root) => filesBelow(fs, root)
  const codes = (files: FileRef[], outcomes: { code?: string }[]) =>
    Object.fromEntries(files.map((file, i) => [name(file), outcomes[i]!.code ?? 'ok']))

  it('removes what a walk saw, whatever its name, and nothing else', async () => {
    const root = at('plain')
    mkdirSync(join(root, 'a', 'b'), { recursive: true })
    writeFileSync(join(root, 'a', 'b', 'new\nline'), 'x')
    writeFileSync(Buffer.concat([Buffer.from(`${root}/a/`), Buffer.from([0xff, 0xfe])]), 'x')
    writeFileSync(join(root, 'stays'), 'x')
    const files = (await refs(root)).filter((file) => name(file) !== 'stays')
    expect(files).toHaveLength(2)
    expect(await fs.removeFiles(root, files)).toEqual([{ ok: true }, { ok: true }])
    expect(run('find', root, '-type', 'f').trim()).toBe(join(root, 'stays'))
    // A second time they are gone, which is no error of the call.
    expect(await fs.removeFiles(root, files)).toEqual(files.map(() => ({ ok: false, code: 'ENOENT' })))
    expect(await fs.removeFiles(root, [])).toEqual([])
  })

  it('takes references made from node:fs', async () => {
    const root = at('node-stat')
    mkdirSync(root)
    for (let i = 0; i < 50; i++) writeFileSync(join(root, `${i}`), 'x')
    const files = readdirSync(root).map((path) => {
      const { ino, size, mtimeMs, ctimeMs } = statSync(join(root, path))
      return { path: Buffer.from(path), inode: ino, sizeBytes: size, mtimeMs, ctimeMs }
    })
    expect((await fs.removeFiles(root, files)).every((outcome) => outcome.ok)).toBe(true)
    expect(readdirSync(root)).toEqual([])
  })

  it('leaves alone what changed: content, times, inode, type', async () => {
    const root = at('changed')
    mkdirSync(root)
    const names = ['appended', 'directory', 'hardlinked', 'replaced', 'same', 'symlinked', 'touched']
    for (const each of names) writeFileSync(join(root, each), 'x')
    const files = await refs(root)
    writeFileSync(join(root, 'appended'), 'xy')
    utimesSync(join(root, 'touched'), 1, 1)
    writeFileSync(join(root, 'new'), 'x')
    renameSync(join(root, 'new'), join(root, 'replaced'))
    writeFileSync(at('bystander'), 'x')
    for (const each of ['symlinked', 'directory']) rmSync(join(root, each))
    symlinkSync(at('bystander'), join(root, 'symlinked'))
    mkdirSync(join(root, 'directory'))
    run('ln', join(root, 'hardlinked'), at('other-link')) // moves the ctime
    expect(codes(files, await fs.removeFiles(root, files))).toEqual({
      ...Object.fromEntries(names.map((each) => [each, 'CHANGED'])),
      same: 'ok',
    })
    expect(readdirSync(root).sort()).toEqual(names.filter((each) => each !== 'same'))
    expect(existsSync(at('bystander'))).toBe(true)
  })

  it('leaves alone what was read: its age may be by that', async () => {
    const root = at('read')
    mkdirSync(root)
    for (const each of ['read', 'not read']) writeFileSync(join(root, each), 'x')
    const files = await refs(root)
    readFileSync(join(root, 'read'))
    expect(codes(files, await fs.removeFiles(root, files))).toEqual({ read: 'CHANGED', 'not read': 'ok' })
    expect(readdirSync(root)).toEqual(['read'])
  })

  it('never leaves the root: "..", absolute paths, symlinks, mounts, subvolumes', async () => {
    const root = at('fence', 'root')
    const outside = at('fence', 'outside')
    mkdirSync(join(root, 'd'), { recursive: true })
    mkdirSync(outside)
    writeFileSync(join(outside, 'f'), 'x')
    // The same inode inside and out: only the way to it can tell the two apart.
    run('ln', join(outside, 'f'), join(root, 'd', 'f'))
    run('ln', join(outside, 'f'), at('fence', 'f'))
    const [seen] = await refs(root)
    const path = (text: string | Buffer) => ({ ...seen!, path: Buffer.from(text) })
    run('mv', join(root, 'd'), join(root, 'real'))
    symlinkSync('../outside', join(root, 'd'))
    symlinkSync(outside, join(root, 'absolute'))
    mkdirSync(join(root, 'bind'))
    run('mount', '--bind', outside, join(root, 'bind'))
    run('btrfs', 'subvolume', 'create', join(root, 'nested'))
    writeFileSync(join(root, 'nested', 'f'), 'x')
    const nested = { ...(await refs(join(root, 'nested')))[0]!, path: Buffer.from('nested/f') }
    try {
      const files = [
        path('d/f'),
        path('absolute/f'),
        path('bind/f'),
        nested,
        path('../outside/f'),
        path('real/../../outside/f'),
        path(join(outside, 'f')),
        path('real/./f'),
        path('real//f'),
        path('..'),
      ]
      const expected = {
        'd/f': 'ELOOP',
        'absolute/f': 'ELOOP',
        'bind/f': 'EXDEV',
        ...Object.fromEntries(files.slice(3).map((file) => [name(file), 'EXDEV'])),
      }
      expect(codes(files, await fs.removeFiles(root, files))).toEqual(expected)
      if (haveStrace) {
        const old = withoutOpenat2(volume.path, root, files)
        expect(Object.fromEntries(files.map((file, i) => [name(file), old.codes[i]]))).toEqual(expected)
        expect(old.skipped).toEqual(['MOUNT 1', 'SUBVOLUME 1'])
        expect(old.left).toEqual(['real/f'])
      }
      for (const file of [join(outside, 'f'), join(root, 'real', 'f'), join(root, 'nested', 'f')])
        expect(existsSync(file), file).toBe(true)
    } finally {
      run('umount', join(root, 'bind'))
    }
    if (haveStrace) {
      writeFileSync(join(root, 'real', 'g'), 'x')
      const g = (await refs(root)).filter((file) => name(file) === 'real/g')
      expect(withoutOpenat2(volume.path, root, g)).toMatchObject({ codes: ['ok'], left: ['real/f'] })
    }
    expect(await fs.removeFiles(root, [path('real/f')])).toEqual([{ ok: true }])
    expect(existsSync(join(outside, 'f'))).toBe(true)
  })

  it.skipIf(!haveStrace)('an openat2 that fails once, for want of descriptors, is asked again', async () => {
    const root = at('descriptors')
    mkdirSync(root)
    writeFileSync(join(root, 'f'), 'x')
    const log = join(volume.directory, 'openat2')
    const files = await refs(root)
    const said = withFailing('openat2:error=EMFILE:when=1', log, volume.path, root, files)
    expect(said.failed ?? said.codes).toEqual(['ok'])
    expect(readFileSync(log, 'utf8')).toMatch(/openat2\(.* = \d+/)
  })

  it('a root that was looked up is that directory still, behind no symlink, or nothing is done', async () => {
    const root = at('named', 'home', 'root')
    mkdirSync(root, { recursive: true })
    writeFileSync(join(root, 'f'), 'x')
    const named = await fs.directory(root)
    const [seen] = await refs(named)
    // A bystander that only its directory tells from what was seen.
    const bystander = at('named', 'bystander', 'root')
    mkdirSync(bystander, { recursive: true })
    run('ln', join(root, 'f'), join(bystander, 'f'))
    const [file] = await refs(named)
    expect(file).toMatchObject({ inode: seen!.inode, mtimeMs: seen!.mtimeMs })
    const acts = [
      () => fs.removeFiles(named, [file!]),
      () => fs.fileExtents(named, file!),
      () => fs.compressFile(named, file!),
      () => fs.estimateCompressedRatio(named, file!),
      () => refs(named),
    ]
    const home = at('named', 'home')
    const away = at('named', 'away')
    const swaps = [() => symlinkSync('bystander', home), () => renameSync(at('named', 'bystander'), home)]
    for (const swap of swaps) {
      renameSync(home, away)
      swap()
      const found = swap === swaps[0] ? 'a symlink' : `inode ${statSync(root).ino} of subvolume 5`
      for (const act of acts) {
        await expect(act()).rejects.toMatchObject({ code: 'ESTALE', path: root })
        await expect(act()).rejects.toThrow(`could not find inode ${named.inode} of subvolume 5 there, but ${found}; `)
      }
      if (haveStrace) expect(withoutOpenat2(volume.path, named, [file!])).toEqual({ failed: 'ESTALE' })
      expect(existsSync(join(root, 'f'))).toBe(true)
      if (swap === swaps[0]) unlinkSync(home)
      else renameSync(home, at('named', 'bystander'))
      await expect(refs(named)).rejects.toMatchObject({ code: 'ENOENT' })
      renameSync(away, home)
    }
    // A mount point on the way is none of that.
    run('mount', '--bind', home, home)
    try {
      if (haveStrace) expect(withoutOpenat2(volume.path, named, [])).toMatchObject({ left: ['f'] })
      expect(await fs.removeFiles(named, [file!])).toEqual([{ ok: true }])
    } finally {
      run('umount', home)
    }
    expect(existsSync(join(bystander, 'f'))).toBe(true)
  })

  it('a subvolume that was looked up is told from another one in its place', async () => {
    const root = at('versions')
    run('btrfs', 'subvolume', 'create', root)
    writeFileSync(join(root, 'f'), 'x')
    const named = await fs.directory(root)
    const [file] = await refs(named)
    renameSync(root, at('versions.old'))
    run('btrfs', 'subvolume', 'snapshot', at('versions.old'), root)
    const { inode, subvolumeId } = await fs.directory(root)
    expect(inode).toBe(named.inode)
    await expect(fs.removeFiles(named, [file!])).rejects.toThrow(`there, but inode 256 of subvolume ${subvolumeId}`)
    expect(existsSync(join(root, 'f'))).toBe(true)
  })

  it('reports what the kernel refuses, file by file', async () => {
    const root = at('refused')
    mkdirSync(root)
    for (const each of ['free', 'immutable']) writeFileSync(join(root, each), 'x')
    run('chattr', '+i', join(root, 'immutable'))
    try {
      const files = await refs(root)
      expect(codes(files, await fs.removeFiles(root, files))).toEqual({ free: 'ok', immutable: 'EPERM' })
    } finally {
      run('chattr', '-i', join(root, 'immutable'))
    }
    run('btrfs', 'subvolume', 'snapshot', '-r', volume.path, at('snapshot'))
    const frozen = await refs(at('snapshot', 'refused'))
    expect(codes(frozen, await fs.removeFiles(at('snapshot', 'refused'), frozen))).toEqual({ immutable: 'EROFS' })
  })

  it('reaches files below 4,096 bytes of path', async () => {
    const root = at('long')
    mkdirSync(root)
    const level = 'x'.repeat(250)
    const script = `const { mkdirSync, writeFileSync } = require('node:fs')
      for (let i = 0; i < 40; i++) { mkdirSync('${level}'); process.chdir('${level}') }
      writeFileSync('bottom', 'x')`
    run('sh', '-c', 'cd "$1" && "$2" -e "$3"', 'sh', root, process.execPath, script)
    const files = await refs(root)
    expect(files[0]!.path.length).toBe(40 * 251 + 6)
    expect(await fs.removeFiles(root, files)).toEqual([{ ok: true }])
    expect(await refs(root)).toEqual([])
  })

  it('a cancelled batch says what was removed, and stops there', async () => {
    const root = at('cancelled')
    mkdirSync(root)
    for (let i = 0; i < 3_000; i++) writeFileSync(join(root, `${i}`), '')
    const files = await refs(root)
    const controller = new AbortController()
    const removal = fs.removeFiles(root, files, { signal: controller.signal })
    controller.abort()
    const error = await removal.then(
      () => undefined,
      (reason) => reason,
    )
    expect(error).toMatchObject({ code: 'ECANCELED', operation: 'removeFiles' })
    expect(error.progress.length).toBeLessThan(3_000)
    expect(error.progress.every((outcome: { ok: boolean }) => outcome.ok)).toBe(true)
    expect(readdirSync(root)).toHaveLength(3_000 - error.progress.length)
    await expect(fs.removeFiles(root, files, { signal: controller.signal })).rejects.toThrow('aborted')
  })

  it('refuses arguments that are none', async () => {
    const root = at('arguments')
    mkdirSync(root)
    writeFileSync(join(root, 'f'), 'x')
    const [file] = await refs(root)
    const removing = (change: object) => fs.removeFiles(root, [{ ...file!, ...change }])
    await expect(removing({ path: 'f' })).rejects.toThrow(
      "option '0.path': expected a path as bytes without NUL (Uint8Array), got 'f'",
    )
    await expect(removing({ path: Buffer.from('f\0x') })).rejects.toThrow("option '0.path'")
    await expect(removing({ path: Buffer.alloc(0) })).rejects.toThrow("option '0.path'")
    await expect(removing({ inode: -1 })).rejects.toThrow("option '0.inode'")
    await expect(removing({ mtimeMs: Number.NaN })).rejects.toThrow("option '0.mtimeMs'")
    await expect(fs.removeFiles('x', [])).rejects.toThrow("expected an absolute path, got 'x'")
    await expect(fs.removeFiles('/proc', [])).rejects.toMatchObject({ code: 'BTRMIND_ERR_WRONG_VOLUME' })
    await expect(fs.removeFiles(join(root, 'f'), [])).rejects.toMatchObject({ code: 'ENOTDIR' })
    expect(existsSync(join(root, 'f'))).toBe(true)
  })

  it('touches no bystander while a directory is swapped for a symlink in a loop', async () => {
    const root = at('race', 'root')
    const bystanders = at('race', 'bystanders')
    mkdirSync(join(root, 'd'), { recursive: true })
    mkdirSync(bystanders)
    // Hard links: inode, size and times agree with what was seen, so nothing but the path protects them.
    for (let i = 0; i < 400; i++) writeFileSync(join(bystanders, `${i}`), `${i}`)
    run('sh', '-c', 'ln "$1"/* "$2"', 'sh', bystanders, join(root, 'd'))
    const checksums = () => run('sh', '-c', 'cd "$1" && sha256sum *', 'sh', bystanders)
    const before = checksums()
    const files = await refs(root)
    expect(files).toHaveLength(400)

    const swapper = spawn(process.execPath, ['-e', SWAP, root, '../bystanders'], { stdio: ['pipe', 'pipe', 'inherit'] })
    await once(swapper.stdout, 'data')
    const seen = new Set<string>()
    try {
      for (let round = 0; round < 40; round++) {
        for (const outcome of await fs.removeFiles(root, files)) seen.add(outcome.code ?? 'ok')
      }
    } finally {
      swapper.stdin.end()
      await ended(swapper)
    }
    expect(seen).toContain('ELOOP') // it did meet the symlink
    expect(seen).toContain('ok')
    expect(checksums()).toBe(before)
  })
})

/** What helpers/beneath.ts says. */
type Said = { codes: string[]; skipped: string[]; left: string[]; failed?: string }

/** Where the kernel has no openat2. */
function withoutOpenat2(volume: string, root: Root, files: FileRef[]): Said {
  return withFailing('openat2:error=ENOSYS', '/dev/null', volume, root, files)
}

function withFailing(inject: string, log: string, volume: string, root: Root, files: FileRef[]): Said {
  const strace = ['-f', '--seccomp-bpf', '-qq', '-o', log, '-e', 'trace=openat2', '-e', `inject=${inject}`]
  const child = [process.execPath, '--import', 'tsx', join(import.meta.dirname, '../helpers/beneath.ts'), volume]
  const input = JSON.stringify({ root, files: files.map((file) => ({ ...file, path: name(file) })) })
  // LeakSanitizer cannot work under ptrace.
  const env = { ...process.env, ASAN_OPTIONS: `${process.env.ASAN_OPTIONS ?? ''}:detect_leaks=0` }
  return JSON.parse(execFileSync('strace', [...strace, ...child], { input, encoding: 'utf8', env }))
}

/** Turns directory d into a symlink and back until its input ends. */
const SWAP = `
const { renameSync, symlinkSync, unlinkSync } = require('node:fs')
const [root, target] = process.argv.slice(1)
process.chdir(root)
let on = true
process.stdin.on('end', () => { on = false }).resume()
process.stdout.write('swapping')
const swap = () => {
  for (let i = 0; i < 50; i++) {
    renameSync('d', 'real'); symlinkSync(target, 'd')
    unlinkSync('d'); renameSync('real', 'd')
  }
  if (on) setImmediate(swap)
}
swap()`

async function ended(child: ChildProcess) {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
}
