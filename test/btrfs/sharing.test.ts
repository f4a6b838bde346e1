import { chmodSync, mkdirSync, readFileSync, statSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import type { DedupeRange, DeduplicateProgress, DeduplicateStopped } from '../../src/btrfs/sharing.js'
import { createRandom } from '../../src/random.js'
import { MIB } from '../../src/units.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

const BLOCK = 4096

function noise(bytes: number, seed: number): Buffer {
  const random = createRandom(seed)
  return Buffer.from(Uint32Array.from({ length: bytes / 4 }, () => Math.floor(random.next() * 2 ** 32)).buffer)
}

describe.skipIf(cannotMount)('deduplicate() and clone()', () => {
  const { volume, fs, at } = useVolume({ devicesMiB: [1024] })
  const write = (name: string, content: Buffer | string) => {
    writeFileSync(at(name), content)
    return at(name)
  }
  const sharedBytes = async (name: string) => {
    let bytes = 0
    for await (const extent of fs.extents(name)) if (extent.shared) bytes += extent.lengthBytes
    return bytes
  }

  it('deduplicates more destinations and bytes than one call takes; a difference or a failure is a value', async () => {
    const content = noise(20 * MIB, 1)
    write('source', content)
    write('whole', content)
    const changed = Buffer.from(content)
    changed[17 * MIB] = ~changed[17 * MIB]!
    write('late', changed)
    write('nowhere', noise(20 * MIB, 2))
    write('short', content.subarray(0, 3 * MIB))
    symlinkSync('whole', at('link'))
    await fs.sync()
    const used = (await fs.measure()).dataUsedBytes
    const names = ['whole', 'late', 'nowhere', 'short', 'gone', 'link', '/etc/passwd']
    const outcomes = await fs.deduplicate(
      'source',
      {},
      names.map((path) => ({ path })),
    ).result
    expect(outcomes).toMatchObject([
      { path: 'whole', startBytes: 0, outcome: 'same', dedupedBytes: 20 * MIB },
      { outcome: 'differs', dedupedBytes: 16 * MIB },
      { outcome: 'differs', dedupedBytes: 0 },
      { outcome: 'failed', code: 'EINVAL', errno: -22, hint: expect.stringContaining('destination ends at 3145728') },
      { outcome: 'failed', code: 'ENOENT', errno: -2 },
      { outcome: 'failed', code: 'ELOOP', hint: expect.stringContaining('symlink') },
      { outcome: 'failed', code: 'EXDEV', hint: expect.stringContaining('another volume') },
    ])
    expect(outcomes[0]).not.toHaveProperty('code')
    await fs.sync()
    // The tail of `late` keeps the whole of its one extent.
    expect(used - (await fs.measure()).dataUsedBytes).toBe(20 * MIB)
    expect(readFileSync(at('whole')).equals(content)).toBe(true)
    expect(readFileSync(at('late')).equals(changed)).toBe(true)

    const block = content.subarray(0, BLOCK)
    write('one', block)
    const many = Array.from({ length: 300 }, (_, i) => {
      write(`many-${i}`, i === 250 ? content.subarray(BLOCK, 2 * BLOCK) : block)
      return { path: `many-${i}` }
    })
    const each = await fs.deduplicate('one', { lengthBytes: BLOCK }, many).result
    expect(each.map(({ outcome }) => outcome)).toEqual(many.map((_, i) => (i === 250 ? 'differs' : 'same')))
    // Inline data has nothing to share: of a whole block it is data.
    expect(await sharedBytes('many-299')).toBe(BLOCK)
  })

  it.each([1, 2, 3])('random clones and deduplications hold to a model of the contents, seed %i', async (seed) => {
    const random = createRandom(seed)
    const pick = (most: number) => Math.floor(random.next() * most)
    const blocks = 64
    // Few different blocks, so that ranges are the same now and then.
    const alphabet = Array.from({ length: 3 }, (_, i) => noise(BLOCK, 10 * seed + i))
    const model = Array.from({ length: 4 }, () =>
      Buffer.concat(Array.from({ length: blocks }, () => alphabet[pick(3)]!)),
    )
    const name = (file: number) => `fuzz-${seed}-${file}`
    for (const [file, content] of model.entries()) write(name(file), content)
    const seen = { same: 0, differs: 0, failed: 0, cloned: 0, refused: 0 }
    for (let step = 0; step < 150; step++) {
      const [a, b] = [pick(4), pick(4)]
      const length = 1 + pick(pick(4) === 0 ? 40 : 3)
      const [from, to] = [pick(blocks - length), pick(blocks - length)]
      const overlap = a === b && from < to + length && to < from + length
      const source = model[a]!.subarray(from * BLOCK, (from + length) * BLOCK)
      const destination = model[b]!.subarray(to * BLOCK, (to + length) * BLOCK)
      if (pick(2) === 0) {
        const range = { startBytes: from * BLOCK, lengthBytes: length * BLOCK }
        const [one] = await fs.deduplicate(name(a), range, [{ path: name(b), startBytes: to * BLOCK }]).result
        const outcome = overlap ? 'failed' : source.equals(destination) ? 'same' : 'differs'
        expect([step, one!.outcome]).toEqual([step, outcome])
        expect(one!.dedupedBytes).toBe(outcome === 'same' ? length * BLOCK : 0)
        seen[outcome]++
      } else {
        const options = {
          sourceStartBytes: from * BLOCK,
          lengthBytes: length * BLOCK,
          destinationStartBytes: to * BLOCK,
        }
        const cloned = fs.clone(name(a), name(b), options)
        if (overlap) {
          await expect(cloned).rejects.toMatchObject({ code: 'EINVAL', hint: expect.stringContaining('overlap') })
          seen.refused++
        } else {
          await cloned
          source.copy(destination)
          seen.cloned++
        }
      }
      if (pick(4) === 0) {
        const [file, block, letter] = [pick(4), pick(blocks), alphabet[pick(3)]!]
        const handle = await open(at(name(file)), 'r+')
        await handle.write(letter, 0, BLOCK, block * BLOCK)
        await handle.close()
        letter.copy(model[file]!, block * BLOCK)
      }
    }
    for (const count of Object.values(seen)) expect(count).toBeGreaterThan(0)
    for (const [file, content] of model.entries()) expect(readFileSync(at(name(file))).equals(content)).toBe(true)
    run('btrfs', 'scrub', 'start', '-B', volume.path)
  })

  it('a deduplication tells how far it is', async () => {
    const content = noise(20 * MIB, 6)
    for (const name of ['told', 'told-1', 'told-2']) write(name, content)
    write('told-other', noise(20 * MIB, 7))
    const to = ['told-1', 'told-other', 'told-gone', 'told-2'].map((path) => ({ path }))
    const work = fs.deduplicate('told', {}, to, { intervalMs: 1 })
    let last: DeduplicateProgress = { doneBytes: 0, totalBytes: undefined, dedupedBytes: 0 }
    for await (const now of work) {
      for (const key of ['doneBytes', 'dedupedBytes'] as const) expect(now[key]).toBeGreaterThanOrEqual(last[key])
      expect([undefined, 4 * 20 * MIB]).toContain(now.totalBytes)
      last = now
    }
    expect((await work.result).map(({ dedupedBytes }) => dedupedBytes)).toEqual([20 * MIB, 0, 0, 20 * MIB])
    expect(await work.progress()).toBeUndefined()
  })

  it('a deduplication that is stopped says what it shared by then', async () => {
    const content = noise(64 * MIB, 5)
    write('long', content)
    const copies = Array.from({ length: 6 }, (_, i) => ({ path: `long-${i}` }))
    for (const { path } of copies) write(path, content)
    await fs.sync()
    const total = copies.length * content.length
    const stopped = (error: { code: string; progress: DeduplicateStopped }) => {
      expect(error).toMatchObject({ name: 'BtrfsError', code: 'ECANCELED', operation: 'deduplicate' })
      const { outcomes, dedupedBytes, doneBytes } = error.progress
      expect(outcomes).toHaveLength(copies.length)
      expect(dedupedBytes).toBe(outcomes.reduce((sum, { dedupedBytes }) => sum + dedupedBytes, 0))
      expect(doneBytes).toBe(dedupedBytes)
      for (const { dedupedBytes, outcome, code } of outcomes) {
        expect(dedupedBytes % (16 * MIB)).toBe(0)
        expect([outcome, code]).toEqual(dedupedBytes === content.length ? ['same', undefined] : ['failed', 'ECANCELED'])
      }
      return doneBytes
    }
    const failure = (result: Promise<unknown>) =>
      result.then(
        () => undefined,
        (error) => error,
      )
    // Again when it was over before: what is shared already is compared all the same.
    let error: Parameters<typeof stopped>[0] | undefined
    while (error === undefined || error.progress.doneBytes === 0) {
      const work = fs.deduplicate('long', {}, copies, { intervalMs: 1 })
      for await (const { doneBytes, totalBytes } of work) {
        if (doneBytes === 0) continue
        expect(totalBytes).toBe(total)
        await work.cancel()
        break
      }
      error = await failure(work.result)
    }
    expect(stopped(error)).toBeLessThan(total)
    const before = fs.deduplicate('long', {}, copies, { signal: AbortSignal.abort() })
    expect(await failure(before.result)).toMatchObject({ name: 'AbortError' })
    error = undefined
    let other = fs
    while (error === undefined) {
      other = await openFilesystem(volume.path)
      const cut = other.deduplicate('long', {}, copies)
      await other.close()
      error = await failure(cut.result)
    }
    stopped(error)
    await expect(other.deduplicate('long', {}, copies).result).rejects.toMatchObject({ code: 'EBADF' })
    for (const { path } of copies) expect(readFileSync(at(path)).equals(content)).toBe(true)
    expect(await fs.deduplicate('long', {}, copies).result).toMatchObject(copies.map(() => ({ outcome: 'same' })))
  })

  it('clones whole files and parts, onto what is there or what it makes', async () => {
    const content = noise(3 * MIB + 100, 7)
    write('original', content)
    chmodSync(at('original'), 0o640)
    await fs.clone('original', 'made', { create: true })
    expect(readFileSync(at('made')).equals(content)).toBe(true)
    expect(statSync(at('made')).mode & 0o777).toBe(0o640)
    expect(await sharedBytes('made')).toBeGreaterThan(3 * MIB)
    await expect(fs.clone('original', 'made', { create: true })).rejects.toMatchObject({ code: 'EEXIST' })
    await expect(fs.clone('original', 'not-there')).rejects.toMatchObject({ code: 'ENOENT' })

    write('target', noise(4 * MIB, 8))
    await fs.clone('original', 'target', { sourceStartBytes: MIB, lengthBytes: MIB, destinationStartBytes: 2 * MIB })
    const expected = noise(4 * MIB, 8)
    content.copy(expected, 2 * MIB, MIB, 2 * MIB)
    expect(readFileSync(at('target')).equals(expected)).toBe(true)
    // To the source's end, which is no multiple, beyond the destination's.
    await fs.clone('original', 'target', { sourceStartBytes: MIB, destinationStartBytes: 4 * MIB })
    expect(readFileSync(at('target')).equals(Buffer.concat([expected, content.subarray(MIB)]))).toBe(true)
    // One file onto another place of itself.
    await fs.clone('target', 'target', { sourceStartBytes: 0, lengthBytes: MIB, destinationStartBytes: MIB })
    expect(
      readFileSync(at('target'))
        .subarray(MIB, 2 * MIB)
        .equals(expected.subarray(0, MIB)),
    ).toBe(true)
    // Over a mount's border: another mount of the same volume.
    mkdirSync(join(volume.directory, 'again'))
    run('mount', '--bind', volume.path, join(volume.directory, 'again'))
    try {
      await fs.clone('original', join(volume.directory, 'again/other-mount'), { create: true })
      expect(readFileSync(at('other-mount')).equals(content)).toBe(true)
    } finally {
      run('umount', join(volume.directory, 'again'))
    }
  })

  it('what it makes is as the source: permissions whatever the umask, NOCOW whatever the directory', async () => {
    const content = noise(MIB, 13)
    write('open', content)
    chmodSync(at('open'), 0o666)
    const before = process.umask(0o077)
    try {
      await fs.clone('open', 'open-made', { create: true })
    } finally {
      process.umask(before)
    }
    expect(statSync(at('open-made')).mode & 0o777).toBe(0o666)
    for (const directory of ['as-usual', 'without', 'packed']) mkdirSync(at(directory))
    await fs.setAttributes('without', { nocow: true })
    await fs.setCompressionProperty('packed', 'zstd')
    write('without/file', content)
    for (const source of ['open', 'without/file']) {
      for (const directory of ['as-usual', 'without', 'packed']) {
        await fs.clone(source, `${directory}/made`, { create: true })
        expect(readFileSync(at(`${directory}/made`)).equals(content)).toBe(true)
        expect((await fs.attributes(`${directory}/made`)).nocow, `${source} to ${directory}`).toBe(source !== 'open')
        unlinkSync(at(`${directory}/made`))
      }
    }
  })

  it('deduplicate() of a range that begins past the source’s end fails; an empty source has nothing to share', async () => {
    write('ended', noise(MIB, 14))
    write('other', noise(MIB, 14))
    write('nothing', '')
    const told = async (source: string, range: DedupeRange, path = 'other') =>
      (await fs.deduplicate(source, range, [{ path }]).result)[0]
    for (const startBytes of [MIB, 8 * MIB]) {
      const failed = { outcome: 'failed', code: 'EINVAL', errno: -22, hint: expect.stringContaining('ends at 1048576') }
      expect(await told('ended', { startBytes })).toMatchObject(failed)
      expect(await told('ended', { startBytes, lengthBytes: 4096 })).toMatchObject(failed)
    }
    expect(await told('nothing', {})).toMatchObject({ outcome: 'same', dedupedBytes: 0 })
    expect(await told('nothing', {}, 'gone')).toMatchObject({ outcome: 'failed', code: 'ENOENT' })
    expect(await told('nothing', { startBytes: 4096 })).toMatchObject({ outcome: 'failed', code: 'EINVAL' })
  })

  it('says why the kernel refuses, and leaves nothing behind', async () => {
    write('plain', noise(MIB, 9))
    write('kept', noise(MIB, 11))
    mkdirSync(at('nocow'))
    await fs.setAttributes('nocow', { nocow: true })
    write('nocow/file', noise(MIB, 9))
    const refused = (hint: string) => ({ code: 'EINVAL', hint: expect.stringContaining(hint) })
    await expect(fs.clone('plain', 'nocow/file')).rejects.toMatchObject(refused('NOCOW'))
    await expect(fs.clone('nocow/file', 'kept')).rejects.toMatchObject(refused('NOCOW'))
    await expect(fs.clone('plain', 'nocow/made', { create: true, lengthBytes: 5 })).rejects.toMatchObject({
      code: 'EINVAL',
    })
    expect(() => statSync(at('nocow/made'))).toThrow(/ENOENT/)
    expect(await fs.deduplicate('plain', {}, [{ path: 'nocow/file' }]).result).toMatchObject([
      { outcome: 'failed', ...refused('NOCOW') },
    ])
    for (const [options, hint] of [
      [{ sourceStartBytes: 1 }, 'multiples of 4096'],
      [{ destinationStartBytes: 100 }, 'multiples of 4096'],
      [{ lengthBytes: 5000 }, 'multiples of 4096'],
      [{ lengthBytes: 2 * MIB }, 'source ends at 1048576'],
      [{ sourceStartBytes: 8 * MIB, lengthBytes: MIB }, 'source ends at 1048576'],
    ] as const)
      await expect(fs.clone('plain', 'kept', options)).rejects.toMatchObject(refused(hint))
    expect(await fs.deduplicate('plain', { startBytes: 7 }, [{ path: 'kept' }]).result).toMatchObject([
      refused('multiples'),
    ])
    expect(readFileSync(at('kept')).equals(noise(MIB, 11))).toBe(true)
    await expect(fs.clone('plain', '/tmp/btrmind-nothing', { create: true })).rejects.toThrow(/WRONG_VOLUME/)
    expect(() => statSync('/tmp/btrmind-nothing')).toThrow(/ENOENT/)
    await expect(fs.clone('/etc/passwd', 'kept')).rejects.toThrow(/WRONG_VOLUME.*passwd/)
    await expect(fs.clone('nocow', 'kept')).rejects.toMatchObject({ code: 'EISDIR' })
    await expect(fs.deduplicate('nocow', {}, [{ path: 'kept' }]).result).rejects.toMatchObject({ code: 'EISDIR' })
    await expect(fs.clone('plain', 'kept', { sourceStartBytes: -1 })).rejects.toThrow(/sourceStartBytes.*-1/)
    await expect(fs.clone('plain', 'kept', { offset: 1 } as never)).rejects.toThrow(/offset/i)
    expect(() => fs.deduplicate('plain', { lenght: 1 } as never, [])).toThrow(/did you mean 'lengthBytes'|valid/)
    expect(() => fs.deduplicate('plain', {}, [{ path: 'kept', startBytes: 0.5 }])).toThrow(/startBytes.*0\.5/)
    expect(await fs.deduplicate('plain', {}, []).result).toEqual([])
    run('btrfs', 'subvolume', 'snapshot', '-r', volume.path, at('snapshot'))
    await expect(fs.clone('plain', 'snapshot/kept')).rejects.toMatchObject({ code: 'EROFS' })
    const closed = await openFilesystem(volume.path)
    await closed.close()
    await expect(closed.clone('plain', 'kept')).rejects.toMatchObject({ code: 'EBADF' })
  })
})
