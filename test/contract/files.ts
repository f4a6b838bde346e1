/** The contract of files: found, removed, compressed. */
import { expect, it } from 'vitest'
import type { Root } from '../../src/btrfs/directory.js'
import { DAY_MS, MIB } from '../../src/units.js'
import { type Bench, refusal, rows, settled } from './bench.js'

export function walk(bench: () => Bench) {
  it('finds exactly the regular files, not in nested subvolumes nor behind symlinks', async () => {
    const { fs, root } = bench()
    await bench().makeDirectory('tree')
    await bench().makeDirectory('tree/deep')
    await bench().makeDirectory('tree/deep/empty')
    await bench().makeDirectory('outside')
    await fs.createSubvolume(`${root}/tree/nested`)
    const wanted = ['tree/one', 'tree/two', 'tree/deep/three', 'tree/deep/vier mit ümlaut']
    for (const path of [...wanted, 'outside/no', 'tree/nested/no']) await bench().writeFile(path, 100)
    await bench().makeSymlink('tree/link', '../outside')
    await bench().makeSymlink('tree/file-link', '../outside/no')
    const found = await rows(fs, `${root}/tree`)
    expect(found.map(({ name }) => `tree/${name}`).sort()).toEqual([...wanted].sort())
    expect(new Set(found.map(({ inode }) => inode)).size).toBe(4)
    const skipped = []
    for await (const batch of fs.walk(`${root}/tree`)) {
      for (const { reason, count, example } of batch.skipped) skipped.push([reason, count, `${Buffer.from(example)}`])
    }
    expect(skipped).toEqual([['SUBVOLUME', 1, 'nested']])
  })

  it('gives sizes, times and modes in columns, in batches of the asked size', async () => {
    const { fs, root } = bench()
    await bench().makeDirectory('many')
    for (let index = 0; index < 10; index++) {
      await bench().writeFile(`many/f${index}`, 1000 * index, { ageMs: index * DAY_MS })
    }
    await fs.sync()
    const lengths = []
    const found = new Map<string, { sizeBytes: number; diskBytes: number; ageMs: number; unreadMs: number }>()
    for await (const batch of fs.walk(`${root}/many`, { batchSize: 4 })) {
      lengths.push(batch.length)
      for (let index = 0; index < batch.length; index++) {
        const sizeBytes = batch.sizeBytes[index]!
        const now = batch.ctimeMs[index]!
        const age = { ageMs: now - batch.mtimeMs[index]!, unreadMs: now - batch.atimeMs[index]! }
        found.set(batch.path(index), { sizeBytes, diskBytes: batch.diskBytes[index]!, ...age })
        expect(batch.mode[index]! & 0o170000).toBe(0o100000)
        expect(batch.links[index]).toBe(1)
      }
    }
    expect(Math.max(...lengths)).toBe(4)
    expect(found.size).toBe(10)
    for (let index = 0; index < 10; index++) {
      const { sizeBytes, diskBytes, ageMs, unreadMs } = found.get(`f${index}`)!
      expect(sizeBytes).toBe(1000 * index)
      expect(diskBytes).toBe(4096 * Math.ceil((1000 * index) / 4096))
      for (const age of [ageMs, unreadMs]) expect(Math.abs(age - index * DAY_MS)).toBeLessThan(60_000)
    }
  })

  it('says what is wrong with the root', async () => {
    const { fs, root } = bench()
    const code = async (path: string) => refusal(() => rows(fs, path))
    expect(await code(`${root}/none`)).toMatchObject({ code: 'ENOENT', operation: 'walk' })
    expect(await code(`${root}/many/f1`)).toMatchObject({ code: 'ENOTDIR', operation: 'walk' })
    await bench().makeSymlink('root-link', 'many')
    expect(await code(`${root}/root-link`)).toMatchObject({ code: 'ELOOP', operation: 'walk' })
    expect(await code('many')).toMatchObject({ code: 'BTRMIND_ERR_ARGUMENT' })
  })
}

export function files(bench: () => Bench) {
  it('removeFiles() frees their bytes, once synced', async () => {
    const { fs, root } = bench()
    await bench().makeDirectory('tmp')
    for (let index = 0; index < 8; index++) await bench().writeFile(`tmp/f${index}`, 2 * MIB)
    await bench().writeFile('keep', MIB)
    const before = await settled(fs)
    const found = await rows(fs, `${root}/tmp`)
    expect(await fs.removeFiles(`${root}/tmp`, found)).toEqual(Array(8).fill({ ok: true }))
    const after = await settled(fs)
    expect(before.dataUsedBytes - after.dataUsedBytes).toBe(16 * MIB)
    expect(await rows(fs, `${root}/tmp`)).toEqual([])
    expect((await rows(fs, root)).map(({ name }) => name)).toEqual(['keep'])
    expect(await fs.removeFiles(`${root}/tmp`, found.slice(0, 1))).toEqual([{ ok: false, code: 'ENOENT' }])
  })

  it('leaves alone what is not the file that was seen, or not beneath the root', async () => {
    const { fs, root } = bench()
    await fs.createSubvolume(`${root}/tmp/nested`)
    for (const path of ['tmp/changed', 'tmp/same', 'tmp/nested/inside']) await bench().writeFile(path, 5000)
    const [changed] = (await rows(fs, `${root}/tmp`)).filter(({ name }) => name === 'changed')
    await bench().writeFile('tmp/changed', 6000)
    const [same] = (await rows(fs, `${root}/tmp`)).filter(({ name }) => name === 'same')
    const at = (path: string) => ({ ...same!, path: new Uint8Array(Buffer.from(path)) })
    await bench().makeSymlink('tmp/link', '.')
    const asked = [changed!, { ...same!, inode: 99_999 }, at('../keep'), at('link/same'), at('nested/inside'), at('no')]
    const codes = (await fs.removeFiles(`${root}/tmp`, asked)).map(({ code }) => code)
    expect(codes).toEqual(['CHANGED', 'CHANGED', 'EXDEV', 'ELOOP', 'EXDEV', 'ENOENT'])
    expect((await rows(fs, `${root}/tmp`)).map(({ name }) => name).sort()).toEqual(['changed', 'same'])
    expect((await rows(fs, root)).map(({ name }) => name)).toContain('keep')
  })

  it('finds a root that was looked up to be that directory still, or does nothing', async () => {
    const { fs, root } = bench()
    for (const parent of ['named', 'other']) {
      await bench().makeDirectory(parent)
      await bench().makeDirectory(`${parent}/tmp`)
      await bench().writeFile(`${parent}/tmp/file`, 5000)
    }
    const named = await fs.directory(`${root}/named/tmp`)
    const other = await fs.directory(`${root}/other/tmp`)
    const [file] = await rows(fs, named)
    const acts = (where: Root) => [
      () => rows(fs, where),
      () => fs.removeFiles(where, [file!]),
      () => fs.fileExtents(where, file!),
      () => fs.compressFile(where, file!),
      () => fs.estimateCompressedRatio(where, file!),
    ]
    await bench().makeSymlink('way', 'named')
    await fs.createSubvolume(`${root}/version1`)
    await fs.snapshot(`${root}/version1`, `${root}/version2`)
    const version = await fs.directory(`${root}/version1`)
    const wrong = [
      { ...other, path: named.path },
      { ...named, path: `${root}/way/tmp` },
      { ...version, path: `${root}/version2` },
    ]
    for (const where of wrong) {
      for (const act of acts(where)) expect(await refusal(act)).toMatchObject({ code: 'ESTALE', path: where.path })
    }
    expect(await refusal(acts({ ...named, path: 'named' })[1]!)).toMatchObject({ code: 'BTRMIND_ERR_ARGUMENT' })
    expect(await fs.fileExtents(named, file!)).toMatchObject({ ok: true })
    expect(await fs.removeFiles(named, [file!])).toEqual([{ ok: true }])
    expect(await rows(fs, other)).toHaveLength(1)
  })

  it('leaves alone what was read since it was seen, if that is told', async () => {
    const { fs, root } = bench()
    await bench().writeFile('tmp/read', 5000, { ageMs: DAY_MS })
    const [file] = (await rows(fs, `${root}/tmp`)).filter(({ name }) => name === 'read')
    const earlier = { ...file!, atimeMs: file!.atimeMs! - 1 }
    const changed = { ok: false, code: 'CHANGED' }
    expect(await fs.removeFiles(`${root}/tmp`, [earlier])).toEqual([changed])
    for (const act of ['fileExtents', 'compressFile', 'estimateCompressedRatio'] as const) {
      expect(await fs[act](`${root}/tmp`, earlier)).toEqual(changed)
    }
    expect(await fs.estimateCompressedRatio(`${root}/tmp`, file!)).toMatchObject({ ok: true })
    expect(await fs.removeFiles(`${root}/tmp`, [{ ...earlier, atimeMs: undefined }])).toEqual([{ ok: true }])
  })

  it('does not remove from a read-only snapshot', async () => {
    const { fs, root } = bench()
    await fs.snapshot(`${root}/tmp/nested`, `${root}/frozen`, { readonly: true })
    const frozen = await rows(fs, `${root}/frozen`)
    expect(frozen).toHaveLength(1)
    expect(await fs.removeFiles(`${root}/frozen`, frozen)).toEqual([{ ok: false, code: 'EROFS' }])
  })
}

export function compression(bench: () => Bench) {
  const one = async (name: string) => (await rows(bench().fs, bench().root)).find((row) => row.name === name)!

  it('compressFile() frees bytes of compressible private files, and only of those', async () => {
    const { fs, root } = bench()
    await bench().writeFile('text', 10 * MIB, { compressible: true, ageMs: DAY_MS })
    await bench().writeFile('noise', 10 * MIB)
    const before = await settled(fs)
    const text = await one('text')
    expect(await fs.fileExtents(root, text)).toMatchObject({
      ok: true,
      sharedBytes: 0,
      compressedBytes: 0,
      bytes: 10 * MIB,
    })
    const { ok, diskBytesBefore, diskBytesAfter } = await fs.compressFile(root, text)
    expect([ok, diskBytesBefore]).toEqual([true, 10 * MIB])
    const after = await settled(fs)
    expect(before.dataUsedBytes - after.dataUsedBytes).toBeGreaterThan(5 * MIB)
    expect(before.dataUsedBytes - after.dataUsedBytes).toBe(diskBytesBefore! - diskBytesAfter!)
    const again = await one('text')
    expect(again).toMatchObject({ sizeBytes: text.sizeBytes, mtimeMs: text.mtimeMs, inode: text.inode })
    expect(await fs.fileExtents(root, again)).toMatchObject({ ok: true, compressedBytes: 10 * MIB, bytes: 10 * MIB })
    expect(await fs.compressFile(root, again)).toMatchObject({ ok: false, code: 'COMPRESSED' })
  })

  it('gains nothing from noise, which the kernel marks, nor from what lies inline', async () => {
    const { fs, root } = bench()
    const before = await settled(fs)
    expect(await fs.compressFile(root, await one('noise'))).toMatchObject({ ok: true })
    expect((await settled(fs)).dataUsedBytes).toBe(before.dataUsedBytes)
    expect(await fs.compressFile(root, await one('noise'))).toMatchObject({ ok: false, code: 'NOCOMPRESS' })
    await bench().writeFile('inline', 1000, { compressible: true })
    await fs.sync()
    const outcome = await fs.compressFile(root, await one('inline'))
    expect(outcome.ok).toBe(true)
    expect(outcome.diskBytesAfter).toBe(outcome.diskBytesBefore)
  })

  it('estimates what it would leave', async () => {
    const { fs, root } = bench()
    await bench().writeFile('more text', 2 * MIB, { compressible: true })
    const estimate = await fs.estimateCompressedRatio(root, await one('more text'))
    expect(estimate.ok && estimate.ratio).toBeLessThan(0.5)
    const noise = await fs.estimateCompressedRatio(root, await one('noise'))
    expect(noise.ok && noise.ratio).toBeGreaterThan(0.9)
  })

  it('refuses what a snapshot shares, and what has changed', async () => {
    const { fs, root } = bench()
    await fs.createSubvolume(`${root}/docs`)
    await bench().writeFile('docs/shared', 4 * MIB, { compressible: true })
    await fs.snapshot(`${root}/docs`, `${root}/snap`, { readonly: true })
    const [shared] = await rows(fs, `${root}/docs`)
    expect(await fs.fileExtents(`${root}/docs`, shared!)).toMatchObject({ ok: true, sharedBytes: 4 * MIB })
    const before = await settled(fs)
    expect(await fs.compressFile(`${root}/docs`, shared!)).toMatchObject({ ok: false, code: 'SHARED' })
    expect((await settled(fs)).dataUsedBytes).toBe(before.dataUsedBytes)
    const [frozen] = await rows(fs, `${root}/snap`)
    expect(await fs.compressFile(`${root}/snap`, frozen!)).toMatchObject({ ok: false })
    const changed = { ...(await one('more text')), sizeBytes: 1 }
    expect(await fs.compressFile(root, changed)).toMatchObject({ ok: false, code: 'CHANGED' })
    expect(await fs.fileExtents(root, changed)).toMatchObject({ ok: false, code: 'CHANGED' })
  })
}
