import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import type { Subvolume } from '../../src/btrfs/subvolume-list.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, makeVolume, run } from '../helpers/volume.js'

/** `btrfs subvolume list` with every column, as our rows. */
function reference(path: string): Partial<Subvolume>[] {
  const readonly = new Set(ids(run('btrfs', 'subvolume', 'list', '-r', path)))
  const lines = run('btrfs', 'subvolume', 'list', '-cpuqR', path).trim().split('\n')
  return lines.filter(Boolean).map((line) => {
    const found =
      /^ID (\d+) gen (\d+) cgen (\d+) parent (\d+) top level \d+ parent_uuid (\S+)\s+received_uuid (\S+)\s+uuid (\S+) path (.*)$/.exec(
        line,
      )
    if (found === null) throw new Error(`not understood: ${line}`)
    const [, id, gen, cgen, parent, parentUuid, receivedUuid, uuid, where] = found as unknown as string[]
    const none = (text: string | undefined) => (text === '-' ? undefined : text)
    return {
      id: Number(id),
      generation: Number(gen),
      originGeneration: Number(cgen),
      parentId: Number(parent),
      parentUuid: none(parentUuid),
      receivedUuid: none(receivedUuid),
      uuid: none(uuid),
      path: where,
      readonly: readonly.has(Number(id)),
    }
  })
}
const ids = (list: string) => [...list.matchAll(/^ID (\d+)/gm)].map((match) => Number(match[1]))
const byId = (a: Partial<Subvolume>, b: Partial<Subvolume>) => (a.id ?? 0) - (b.id ?? 0)
const collect = async (rows: AsyncIterable<Subvolume>) => {
  const out: Subvolume[] = []
  for await (const row of rows) out.push(row)
  return out
}

describe.skipIf(cannotMount)('subvolumes', () => {
  const { volume, fs, at } = useVolume({ devicesMiB: [2048] })
  const { volume: other } = useVolume({ devicesMiB: [128] })

  it('creates, by relative and absolute path, and lists what btrfs-progs lists', async () => {
    await fs.createSubvolume('a')
    await fs.createSubvolume(at('a/inner'))
    mkdirSync(at('dir/deeper'), { recursive: true })
    await fs.createSubvolume('dir/deeper/ünï \\ cödé')
    writeFileSync(at('a/file'), 'content')
    await fs.snapshot('a', 'snap-rw')
    await fs.snapshot('a', at('dir/snap-ro'), { readonly: true })
    run('btrfs', 'subvolume', 'create', at('by-progs'))
    const listed = await collect(fs.subvolumes())
    const columns = listed.map((row) =>
      Object.fromEntries(Object.keys(reference(volume.path)[0]!).map((key) => [key, row[key as keyof Subvolume]])),
    )
    expect(columns.sort(byId)).toEqual(reference(volume.path).sort(byId))
    expect(listed.map(({ path }) => path)).toContain('dir/deeper/ünï \\ cödé')
    expect(spawnSync('touch', [at('dir/snap-ro/x')]).stderr.toString()).toContain('Read-only file system')
    expect(spawnSync('touch', [at('snap-rw/x')]).status).toBe(0)
  })

  it('tells of one subvolume what `btrfs subvolume show` tells', async () => {
    const show = run('btrfs', 'subvolume', 'show', at('dir/snap-ro'))
    const field = (name: string) => new RegExp(`^\\s*${name}:\\s+(.*)$`, 'm').exec(show)?.[1]
    const found = await fs.subvolume('dir/snap-ro')
    expect(found).toMatchObject({
      path: 'dir/snap-ro',
      uuid: field('UUID'),
      parentUuid: field('Parent UUID'),
      receivedUuid: undefined,
      id: Number(field('Subvolume ID')),
      generation: Number(field('Generation')),
      originGeneration: Number(field('Gen at creation')),
      parentId: Number(field('Parent ID')),
      readonly: true,
    })
    expect(Math.floor(found.createdAt.getTime() / 1000)).toBe(Date.parse(field('Creation time') ?? '') / 1000)
    expect(await collect(fs.subvolumes())).toContainEqual(found)
    expect((await fs.subvolume('a/file')).path).toBe('a')
    expect((await fs.subvolume('dir/deeper')).path).toBe('')
    expect(await fs.subvolume()).toMatchObject({ id: 5, path: '', parentId: undefined, parentUuid: undefined })
  })

  it('says where a received one came from, as `btrfs subvolume show` does', async () => {
    mkdirSync(at('received'))
    await fs.snapshot('a', 'to-send', { readonly: true })
    run('sh', '-c', `btrfs send -q ${at('to-send')} | btrfs receive -q ${at('received')}`)
    const show = run('btrfs', 'subvolume', 'show', at('received/to-send'))
    const field = (name: string) => new RegExp(`^\\s*${name}:\\s+(.*)$`, 'm').exec(show)?.[1]
    const found = (await collect(fs.subvolumes({ below: 'received' })))[0]!
    const source = await fs.subvolume('to-send')
    expect(found).toMatchObject({
      receivedUuid: source.uuid,
      sentGeneration: Number(field('Send transid')),
      receivedGeneration: Number(field('Receive transid')),
      changedGeneration: expect.any(Number),
    })
    // The item holds none; `show` prints the creation time in its place.
    expect(found.sentAt).toBeUndefined()
    expect(Math.floor(found.receivedAt!.getTime() / 1000)).toBe(Date.parse(field('Receive time')!) / 1000)
    expect(await fs.subvolume('received/to-send')).toEqual(found)
    expect(source).toMatchObject({ sentAt: undefined, receivedAt: undefined, receivedUuid: undefined })
    for (const path of ['received/to-send', 'to-send']) await fs.deleteSubvolume(path)
  })

  it('a row has its times in JSON and on the console, too', async () => {
    const row = await fs.subvolume()
    const { createdAt, changedAt } = row
    expect(Math.abs(changedAt.getTime() - Date.now())).toBeLessThan(3600_000)
    const json = JSON.parse(JSON.stringify(row))
    expect(json).toMatchObject({ id: 5, createdAt: createdAt.toISOString(), changedAt: changedAt.toISOString() })
    expect(inspect(row)).toContain(changedAt.toISOString())
  })

  it('lists parents before what lies in them, also after a child was made before its parent', async () => {
    await fs.createSubvolume('child')
    await fs.createSubvolume('parent')
    mkdirSync(at('parent/x/y'), { recursive: true })
    renameSync(at('child'), at('parent/x/y/child'))
    await fs.createSubvolume('parent/x/y/child/last')
    const rows = await collect(fs.subvolumes({ below: 'parent' }))
    expect(rows.map(({ path }) => path)).toEqual(['parent/x/y/child', 'parent/x/y/child/last'])
    expect(rows[0]).toMatchObject({ directoryInode: statSync(at('parent/x/y')).ino })
    const all = await collect(fs.subvolumes())
    const seen = new Set([5])
    for (const { id, parentId } of all) {
      expect(seen).toContain(parentId)
      seen.add(id)
    }
    for (const path of ['parent/x/y/child/last', 'parent/x/y/child', 'parent']) await fs.deleteSubvolume(path)
  })

  it('lists what lies deeper than any path that the kernel takes', async () => {
    const name = 'd'.repeat(250)
    const script = `import os; os.chdir('${volume.path}')
for i in range(40): os.mkdir('${name}'); os.chdir('${name}')
import subprocess; subprocess.run(['btrfs', 'subvolume', 'create', 'deep'], check=True)`
    run('python3', '-c', script)
    const deep = (await collect(fs.subvolumes())).find(({ path }) => path.endsWith('/deep'))
    expect(deep?.path).toBe(`${`${name}/`.repeat(40)}deep`)
    run('python3', '-c', `import shutil; shutil.rmtree('${at(name)}', ignore_errors=True)`)
  })

  it('keeps its place while subvolumes come, move and go', async () => {
    let stop = false
    const churn = (async () => {
      for (let i = 0; !stop; i++) {
        await fs.createSubvolume(`dir/churn${i % 7}`)
        renameSync(at(`dir/churn${i % 7}`), at(`dir/moved${i % 7}`))
        await fs.deleteSubvolume(`dir/moved${i % 7}`)
      }
    })()
    const still = (await collect(fs.subvolumes())).filter(({ path }) => !/churn|moved/.test(path)).length
    try {
      for (let i = 0; i < 200; i++) {
        const rows = await collect(fs.subvolumes())
        expect(rows.filter(({ path }) => !/churn|moved/.test(path))).toHaveLength(still)
        expect(rows.every(({ path }) => path !== '' && !path.endsWith('/'))).toBe(true)
      }
    } finally {
      stop = true
      await churn
    }
  })

  it('ends early when the caller does, and can be asked for again', async () => {
    for await (const { id } of fs.subvolumes()) {
      expect(id).toBeGreaterThan(255)
      break
    }
    const rows = fs.subvolumes()
    const first = await collect(rows)
    expect(first.length).toBeGreaterThan(0)
    expect(await collect(rows)).toEqual([])
    expect(await collect(fs.subvolumes())).toEqual(first)
  })

  it('lists below a directory, at any depth and without itself', async () => {
    const below = async (path: string) => (await collect(fs.subvolumes({ below: path }))).map((row) => row.path).sort()
    expect(await below('dir')).toEqual(['dir/deeper/ünï \\ cödé', 'dir/snap-ro'])
    expect(await below('a')).toEqual(['a/inner'])
    expect(await below('a/inner')).toEqual([])
    expect(await below('.')).toEqual((await collect(fs.subvolumes())).map((row) => row.path).sort())
  })

  it('gives paths from the top of the volume, also when a subvolume or part of one is mounted', async () => {
    const mounted = join(volume.directory, 'part')
    mkdirSync(mounted)
    mkdirSync(at('a/dir'))
    run('btrfs', 'subvolume', 'create', at('a/dir/deep'))
    for (const mount of [
      ['mount', '-o', 'subvol=a', volume.loops[0]!, mounted],
      ['mount', '--bind', at('a/dir'), mounted],
    ]) {
      run(mount[0]!, ...mount.slice(1))
      try {
        await using part = await openFilesystem(mounted)
        expect((await part.subvolume()).path).toBe('a')
        expect((await collect(part.subvolumes())).length).toBe((await collect(fs.subvolumes())).length)
        const expected = mount.includes('--bind') ? ['a/dir/deep'] : ['a/dir/deep', 'a/inner']
        expect((await collect(part.subvolumes({ below: '.' }))).map((row) => row.path).sort()).toEqual(expected)
      } finally {
        run('umount', mounted)
      }
    }
    await fs.deleteSubvolume('a/dir/deep')
  })

  describe('says what is wrong', () => {
    const refused = (promise: Promise<unknown>, error: object) => expect(promise).rejects.toMatchObject(error)

    it('with the destination', async () => {
      mkdirSync(at('plain'), { recursive: true })
      const ioctl = 'BTRFS_IOC_SUBVOL_CREATE_V2'
      await refused(fs.createSubvolume('a'), { code: 'EEXIST', errno: -17, operation: 'createSubvolume', ioctl })
      await refused(fs.createSubvolume('plain'), { code: 'EEXIST', path: at('plain') })
      await refused(fs.createSubvolume('x'.repeat(256)), { code: 'ENAMETOOLONG', ioctl })
      await refused(fs.createSubvolume('none/x'), { code: 'ENOENT', path: at('none/x'), ioctl: 'open' })
      await expect(fs.createSubvolume('none/x')).rejects.toThrow(`could not open the directory '${at('none')}'`)
      await refused(fs.createSubvolume('a/file/x'), { code: 'ENOTDIR' })
      await refused(fs.createSubvolume('dir/snap-ro/x'), { code: 'EROFS', ioctl })
      await refused(fs.snapshot('a', 'plain'), { code: 'EEXIST', path: at('a'), dest: at('plain') })
      await refused(fs.snapshot('a', 'none/x'), { code: 'ENOENT', dest: at('none/x') })
      await expect(fs.snapshot('a', 'plain')).rejects.toThrow(
        `EEXIST: file exists, snapshot '${at('a')}' -> '${at('plain')}' (BTRFS_IOC_SNAP_CREATE_V2)`,
      )
      await refused(fs.createSubvolume('/'), { code: 'EINVAL' })
    })

    it('with the source', async () => {
      const hint = 'the source is not a subvolume but a directory inside one'
      await refused(fs.snapshot('plain', 'never'), { code: 'EINVAL', hint, path: at('plain') })
      await refused(fs.snapshot('none', 'never'), { code: 'ENOENT', path: at('none'), dest: at('never') })
      await refused(fs.snapshot('a/file', 'never'), { code: 'ENOTDIR', path: at('a/file') })
      expect(existsSync(at('never'))).toBe(false)
    })

    it('with what is to be deleted', async () => {
      symlinkSync(at('by-progs'), at('link'))
      await refused(fs.deleteSubvolume('none'), { code: 'ENOENT', path: at('none') })
      for (const path of ['plain', 'a/file', 'link'])
        await refused(fs.deleteSubvolume(path), { code: 'EINVAL', hint: 'it is not a subvolume' })
      await refused(fs.deleteSubvolume('a'), {
        code: 'ENOTEMPTY',
        ioctl: 'BTRFS_IOC_SNAP_DESTROY',
        hint: 'it has subvolumes inside; delete those first',
      })
    })

    it('with a default subvolume', async () => {
      await fs.createSubvolume('default')
      run('btrfs', 'subvolume', 'set-default', at('default'))
      const hint = "it is the volume's default subvolume; set another one first"
      await refused(fs.deleteSubvolume('default'), { code: 'EPERM', hint })
      run('btrfs', 'subvolume', 'set-default', '5', volume.path)
      await fs.deleteSubvolume('default')
    })

    it('with a mounted subvolume, and one that has a mount inside: nothing is detached', async () => {
      await fs.createSubvolume('mounted')
      mkdirSync(at('mounted/dir'))
      const elsewhere = join(volume.directory, 'elsewhere with blank')
      mkdirSync(elsewhere)
      for (const [mount, where, hint] of [
        [['-o', 'subvol=mounted', volume.loops[0]!], elsewhere, `it is mounted at '${elsewhere}'; unmount it first`],
        [['--bind', at('mounted/dir')], elsewhere, `it is mounted at '${elsewhere}'; unmount it first`],
        [['--bind', at('plain')], at('mounted'), `'${at('mounted')}' is a mount point; unmount it first`],
        [['-t', 'tmpfs', 'none'], at('mounted/dir'), `'${at('mounted/dir')}' is a mount point; unmount it first`],
      ] as const) {
        run('mount', ...mount, where)
        try {
          await refused(fs.deleteSubvolume('mounted'), { code: 'EBUSY', hint })
        } finally {
          run('umount', where)
        }
      }
      await refused(fs.deleteSubvolume('.'), { code: 'EBUSY' })
      await fs.deleteSubvolume('mounted')
    })

    it('with another volume: nothing is touched', async () => {
      run('btrfs', 'subvolume', 'create', join(other.path, 'theirs'))
      const code = 'BTRMIND_ERR_WRONG_VOLUME'
      const theirs = join(other.path, 'theirs')
      await refused(fs.createSubvolume(join(other.path, 'x')), { code })
      await refused(fs.snapshot('a', join(other.path, 'x')), { code })
      await refused(fs.snapshot(theirs, 'x'), { code })
      await refused(fs.deleteSubvolume(theirs), { code })
      await refused(fs.subvolume(theirs), { code })
      await refused(fs.subvolume('/proc'), { code })
      await refused(collect(fs.subvolumes({ below: theirs })), { code })
      expect(run('ls', other.path)).toBe('theirs\n')
      expect(existsSync(at('x'))).toBe(false)
      await expect(fs.createSubvolume('/proc/x')).rejects.toThrow(`'/proc' is not on volume ${fs.uuid}`)
    })

    it('with a read-only mount', async () => {
      using frozen = makeVolume({ devicesMiB: [128] })
      run('btrfs', 'subvolume', 'create', join(frozen.path, 'kept'))
      run('mount', '-o', 'remount,ro', frozen.path)
      await using ro = await openFilesystem(frozen.path)
      await refused(ro.createSubvolume('x'), { code: 'EROFS' })
      await refused(ro.snapshot('kept', 'x'), { code: 'EROFS' })
      await refused(ro.deleteSubvolume('kept'), { code: 'EROFS' })
      expect((await collect(ro.subvolumes())).map((row) => row.path)).toEqual(['kept'])
    })

    it('with arguments and options', async () => {
      await expect(fs.createSubvolume(7 as never)).rejects.toThrow('createSubvolume: path: expected string, got 7')
      await expect(fs.createSubvolume('')).rejects.toThrow("expected a path, got ''")
      await expect(fs.createSubvolume('nul\0')).rejects.toMatchObject({ code: 'EINVAL' })
      await expect(fs.snapshot('a', 'b', { readOnly: true } as never)).rejects.toThrow("did you mean 'readonly'?")
      await expect(fs.deleteSubvolume('a', { waitUntilFreed: 1 } as never)).rejects.toThrow(
        "option 'waitUntilFreed': expected boolean, got 1",
      )
      await expect(fs.deleteSubvolume('a', { recursive: true } as never)).rejects.toThrow(
        "deleteSubvolume: unknown option 'recursive'; deleteSubvolumes() deletes those inside too",
      )
      await expect(collect(fs.subvolumes({ belw: 'a' } as never))).rejects.toThrow("did you mean 'below'?")
      await refused(fs.createSubvolume('x', { signal: AbortSignal.abort(new Error('no')) }), { message: 'no' })
      expect(existsSync(at('x'))).toBe(false)
    })
  })

  it('as an unprivileged user does and lists what that user may', async () => {
    mkdirSync(at('users'), { mode: 0o777 })
    run('chmod', '777', at('users'))
    run('chmod', '755', volume.directory)
    run('btrfs', 'subvolume', 'create', at('secret'))
    run('btrfs', 'subvolume', 'create', at('secret/hidden'))
    run('chmod', '700', at('secret'))
    const script = fileURLToPath(new URL('../helpers/unprivileged.ts', import.meta.url))
    const said = JSON.parse(run('node', '--import', 'tsx', script, volume.path))
    expect(said.listed).toEqual(expect.arrayContaining(['a', 'a/inner', 'users/mine', 'dir/snap-ro']))
    expect(said.listed).not.toContain('secret/hidden')
    expect(said.own).toMatchObject({ path: 'users/mine', readonly: false })
    expect(said.below).toEqual(['users/mine'])
    expect(said.delete).toMatchObject({ code: 'EPERM' })
    expect(said.delete.hint).toContain('user_subvol_rm_allowed')
    const mayNotWait = 'to wait until it is freed needs root (CAP_SYS_ADMIN); `waitUntilFreed: false` does not wait'
    expect(said.deleteAndWait).toMatchObject({ code: 'EPERM', hint: mayNotWait })
    expect(said.deleteManyAndWait).toMatchObject({ code: 'EPERM', hint: mayNotWait })
    expect(said.create).toMatchObject({ code: 'EACCES' })
    expect(existsSync(at('users/mine'))).toBe(true)
    // By id only root may; by name this option lets the owner.
    const removed = () => JSON.parse(run('node', '--import', 'tsx', script, volume.path, 'remove'))
    expect(removed()).toMatchObject({ code: 'EPERM', hint: expect.stringContaining('user_subvol_rm_allowed') })
    run('mount', '-o', 'remount,user_subvol_rm_allowed', volume.path)
    expect(removed()).toBe('permitted')
    expect(existsSync(at('users/mine'))).toBe(false)
  })
})
