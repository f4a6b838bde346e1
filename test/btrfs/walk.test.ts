import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type FileBatch, fileRef, rows, type Skipped } from '../../src/btrfs/batch.js'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import type { WalkOptions } from '../../src/btrfs/walk.js'
import { quote } from '../../src/errors.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, makeVolume, run } from '../helpers/volume.js'

/** '1795227346.9978080520' as node:fs has it: a float of all its seconds would be off by more. */
function milliseconds(time: string): number {
  const [seconds, fraction] = time.split('.')
  return Number(seconds) * 1000 + Number(fraction!.slice(0, 9)) / 1e6
}

const descriptors = () => readdirSync('/proc/self/fd').length

describe.skipIf(cannotMount)('walk()', () => {
  const { volume, fs, at } = useVolume()

  async function collect(root: string, options?: WalkOptions) {
    const batches: FileBatch[] = []
    const skipped: Skipped[] = []
    for await (const batch of fs.walk(root, options)) {
      batches.push(batch)
      skipped.push(...batch.skipped)
    }
    const files = batches.flatMap((batch) => Array.from({ length: batch.length }, (_, i) => [batch, i] as const))
    return { batches, skipped, files, paths: files.map(([batch, i]) => batch.path(i)).sort() }
  }
  const reasons = (skipped: Skipped[]) =>
    Object.fromEntries(skipped.map((s) => [s.reason, [s.count, Buffer.from(s.example).toString()]]))

  it('gives what find gives: every column, any name, no symlink, no other type', async () => {
    const root = at('tree')
    mkdirSync(join(root, 'a', 'b'), { recursive: true })
    mkdirSync(join(root, 'empty'))
    for (let i = 0; i < 300; i++) writeFileSync(join(root, 'a', `file ${i}`), Buffer.alloc(i * 37, i))
    writeFileSync(Buffer.concat([Buffer.from(join(root, 'a', 'b/')), Buffer.from([0xff, 0xfe, 0x0a, 0x27])]), 'odd')
    writeFileSync(join(root, 'a', 'b', 'ünïcode\n"'), 'x')
    writeFileSync(join(root, 'sparse'), 'x')
    truncateSync(join(root, 'sparse'), 2 ** 40)
    symlinkSync('/etc', join(root, 'link-to-directory'))
    symlinkSync('sparse', join(root, 'link-to-file'))
    run('mkfifo', join(root, 'fifo'))
    run('ln', join(root, 'sparse'), join(root, 'a', 'hard'))
    run('sync', '-f', root)

    const { files, skipped, batches } = await collect(root, { batchSize: 64 })
    const ours = files.map(([batch, i]) => {
      const row = [batch.inode, batch.sizeBytes, batch.diskBytes, batch.mode, batch.links].map((column) => column[i])
      const times = [batch.atimeMs, batch.mtimeMs, batch.ctimeMs].map((column) => column[i])
      return [Buffer.from(batch.pathBytes(i)).toString('latin1'), ...row, ...times].join(' ')
    })
    const printed = execFileSync('find', [root, '-xdev', '-type', 'f', '-printf', '%P %i %s %b %m %n %A@ %T@ %C@\\0'], {
      encoding: 'latin1',
    })
    const theirs = printed
      .split('\0')
      .slice(0, -1)
      .map((line) => {
        const [, name, inode, size, blocks, mode, links, ...times] =
          /^([\s\S]*) (\d+) (\d+) (\d+) (\d+) (\d+) (\S+) (\S+) (\S+)$/.exec(line)!
        const row = [inode, size, Number(blocks) * 512, 0o100000 + Number.parseInt(mode!, 8), links]
        return [name, ...row, ...times.map(milliseconds)].join(' ')
      })
    expect(ours.sort()).toEqual(theirs.sort())
    expect(ours.length).toBe(304)
    expect(skipped).toEqual([])
    expect(batches.slice(0, -1).every((batch) => batch.length === 64)).toBe(true)
    const wrong = (text: string) =>
      expect.objectContaining({ code: 'BTRMIND_ERR_ARGUMENT', message: `BTRMIND_ERR_ARGUMENT: ${text}` })
    expect(() => batches[0]!.path(64)).toThrow(wrong('path: expected the index of a file in a batch of 64, got 64'))
    for (const index of [-1, 0.5, 64, '0', undefined])
      expect(() => fileRef(batches[0]!, index as never)).toThrow(
        wrong(`fileRef: expected the index of a file in a batch of 64, got ${quote(index)}`),
      )
    for (const value of [undefined, null, {}, 5, 'a']) {
      const noBatch = `expected a batch of files, got ${quote(value)}; walk() and scan() give batches`
      expect(() => fileRef(value as never, 0)).toThrow(wrong(`fileRef: ${noBatch}`))
      expect(() => [...rows.of(value as never)]).toThrow(wrong(`rows: ${noBatch}`))
      expect(() => rows(value as never)).toThrow(
        wrong(`rows: expected what walk() or scan() gave, got ${quote(value)}`),
      )
    }
  })

  it('passes by mount points and subvolumes, and says so', async () => {
    const root = at('borders')
    mkdirSync(join(root, 'mounted'), { recursive: true })
    mkdirSync(join(root, 'bind'))
    mkdirSync(join(root, 'inside'))
    writeFileSync(join(root, 'inside', 'seen'), 'x')
    writeFileSync(join(root, 'file-mount'), 'x')
    run('btrfs', 'subvolume', 'create', join(root, 'nested'))
    writeFileSync(join(root, 'nested', 'unseen'), 'x')
    run('mount', '-t', 'tmpfs', 'none', join(root, 'mounted'))
    run('mount', '--bind', join(root, 'inside'), join(root, 'bind'))
    run('mount', '--bind', join(root, 'inside', 'seen'), join(root, 'file-mount'))
    try {
      writeFileSync(join(root, 'mounted', 'unseen'), 'x')
      const { paths, skipped } = await collect(root)
      expect(paths).toEqual(['inside/seen'])
      expect(skipped.map((s) => [s.reason, s.count]).sort()).toEqual([
        ['MOUNT', 3],
        ['SUBVOLUME', 1],
      ])
      expect(reasons(skipped).SUBVOLUME).toEqual([1, 'nested'])
      // A subvolume, or a bind mount, that is named as the root is walked.
      expect((await collect(join(root, 'nested'))).paths).toEqual(['unseen'])
      expect((await collect(join(root, 'bind'))).paths).toEqual(['seen'])
    } finally {
      for (const name of ['file-mount', 'bind', 'mounted']) run('umount', join(root, name))
    }
  })

  it('goes 4,000 levels deep with few descriptors, and back into each level', async () => {
    const root = at('deep')
    mkdirSync(root)
    // Names on both sides of each subdirectory, so that levels are gone on with after their child.
    const script = `const { mkdirSync, writeFileSync } = require('node:fs')
      for (let level = 0; level < 4000; level++) {
        mkdirSync('d')
        if (level % 100 === 0) for (const name of 'ay') writeFileSync(name + level, '')
        process.chdir('d')
      }
      writeFileSync('bottom', '')`
    execFileSync(process.execPath, ['-e', script], { cwd: root })
    const before = descriptors()
    let most = 0
    const paths: string[] = []
    for await (const batch of fs.walk(root, { batchSize: 4 })) {
      most = Math.max(most, descriptors() - before)
      for (let i = 0; i < batch.length; i++) paths.push(batch.path(i))
    }
    const expected = Array.from({ length: 40 }, (_, i) =>
      ['a', 'y'].map((n) => `${'d/'.repeat(i * 100)}${n}${i * 100}`),
    )
    expect(paths.sort()).toEqual([...expected.flat(), `${'d/'.repeat(4000)}bottom`].sort())
    expect(most).toBeLessThanOrEqual(40)
    expect(descriptors()).toBe(before)
    execFileSync('rm', ['-rf', root])
  })

  it('finds its way back when directories move or vanish under it', async () => {
    const chain = Array.from({ length: 60 }, (_, i) => `d${i}`)
    const files = [...Array.from({ length: 60 }, (_, i) => [...chain.slice(0, i), `z${i}`].join('/'))]
    // It stands at the bottom when the first file comes; all but the deepest levels are closed by then.
    async function walkWhile(disturb: (root: string) => void) {
      const root = at('moving')
      mkdirSync(join(root, ...chain), { recursive: true })
      for (const file of files) writeFileSync(join(root, file), 'x')
      const seen: string[] = []
      const skipped: Skipped[] = []
      for await (const batch of fs.walk(root, { batchSize: 1 })) {
        if (seen.length === 0) disturb(root)
        for (let i = 0; i < batch.length; i++) seen.push(batch.path(i))
        skipped.push(...batch.skipped)
      }
      run('rm', '-rf', root, at('moved'))
      return { seen, skipped: reasons(skipped) }
    }
    // Moved away: those below are read to their end, those above are looked up from the root.
    const moved = await walkWhile((root) => run('mv', join(root, 'd0', 'd1', 'd2'), at('moved')))
    expect(moved.seen).toEqual(files.toReversed())
    expect(moved.skipped).toEqual({})
    // Renamed as a whole: what was left to read in the closed levels cannot be found any more.
    const renamed = await walkWhile((root) => {
      run('mv', join(root, 'd0', 'd1', 'd2'), at('moved'))
      run('mv', join(root, 'd0'), join(root, 'other'))
    })
    expect(renamed.seen[0]).toBe(files.at(-1))
    expect(renamed.seen).toContain('z0')
    expect(renamed.seen).not.toContain('d0/z1')
    expect(renamed.skipped).toEqual({ CHANGED: [2, 'd0/d1'] })
    const removed = await walkWhile((root) => run('rm', '-rf', join(root, 'd0')))
    expect(removed.seen).toContain('z0')
    expect(removed.seen).not.toContain('d0/z1')
  })

  it('counts what it may not read', async () => {
    const root = at('closed')
    for (const name of ['one', 'two', 'open']) {
      mkdirSync(join(root, name), { recursive: true })
      writeFileSync(join(root, name, 'file'), 'x')
    }
    run('chmod', '0', join(root, 'one'), join(root, 'two'))
    run('chmod', '755', volume.directory)
    const script = `
      import { openFilesystem } from ${JSON.stringify(join(process.cwd(), 'src/btrfs/filesystem.ts'))}
      process.setgid(65534); process.setuid(65534)
      const fs = await openFilesystem(process.argv[1])
      for await (const batch of fs.walk(process.argv[1]))
        console.log(JSON.stringify([batch.length, batch.path(0), batch.skipped.map((s) => [s.reason, s.count])]))`
    const output = run(process.execPath, '--import', 'tsx', '--input-type=module', '-e', script, root)
    expect(JSON.parse(output)).toEqual([1, 'open/file', [['EACCES', 2]]])
  })

  it('is pulled: breaking off and aborting close it', async () => {
    const root = at('pulled')
    mkdirSync(root)
    for (let i = 0; i < 50; i++) writeFileSync(join(root, `${i}`), '')
    const before = descriptors()
    for await (const batch of fs.walk(root, { batchSize: 10 })) {
      expect(batch.length).toBe(10)
      break
    }
    expect(descriptors()).toBe(before)
    const controller = new AbortController()
    const aborted = (async () => {
      for await (const _ of fs.walk(root, { batchSize: 10, signal: controller.signal })) controller.abort()
    })()
    await expect(aborted).rejects.toThrow('aborted')
    expect(descriptors()).toBe(before)
  })

  it('leaves access times of directories alone', async () => {
    const root = at('atime')
    mkdirSync(join(root, 'sub'), { recursive: true })
    run('touch', '-a', '-d', '2001-01-01', join(root, 'sub'), root)
    await collect(root)
    expect(run('stat', '-c', '%X', root, join(root, 'sub')).trim().split('\n')).toEqual(['978307200', '978307200'])
  })

  it('refuses roots that are none', async () => {
    mkdirSync(at('real'))
    symlinkSync('real', at('symlink'))
    writeFileSync(at('plain'), '')
    await expect(collect(at('symlink'))).rejects.toMatchObject({
      code: 'ELOOP',
      operation: 'walk',
      path: at('symlink'),
    })
    await expect(collect(`${at('symlink')}//`)).rejects.toMatchObject({ code: 'ELOOP' })
    await expect(collect(at('plain'))).rejects.toMatchObject({ code: 'ENOTDIR' })
    await expect(collect(at('nowhere'))).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(collect('/proc')).rejects.toMatchObject({ code: 'BTRMIND_ERR_WRONG_VOLUME' })
    using other = makeVolume()
    await expect(collect(other.path)).rejects.toThrow(`'${other.path}' is not on volume ${fs.uuid}`)
    expect(() => fs.walk('relative')).toThrow("walk: root: expected an absolute path, got 'relative'")
    expect(() => fs.walk(at('real'), { batchsize: 1 } as never)).toThrow("did you mean 'batchSize'?")
    expect(() => fs.walk(at('real'), { batchSize: 0 })).toThrow("option 'batchSize'")
    const closed = await openFilesystem(volume.path)
    const iterator = closed.walk(at('tree'), { batchSize: 1 })
    await iterator.next()
    await closed.close()
    await expect(iterator.next()).rejects.toMatchObject({ code: 'EBADF' })
  })
})
