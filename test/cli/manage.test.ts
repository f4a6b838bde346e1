/** subvolume, quota, filesystem, inspect: what they change is what the library and btrfs-progs then say. */
import { mkdirSync, mkdtempSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Unavailable } from '../../src/btrfs/types.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'
import { btrmind, jsonLines } from './helper.js'

describe.skipIf(cannotMount)('changing a volume', () => {
  const { volume, fs, at } = useVolume({ devicesMiB: [768] })
  const listed = () =>
    run('btrfs', 'subvolume', 'list', volume.path)
      .trim()
      .split('\n')
      .map((line) => line.split(' ').at(-1))
  /** What goes well says nothing on stderr. */
  async function well(...argv: string[]): Promise<string> {
    const { code, out, err } = await btrmind(argv)
    expect([code, err]).toEqual([0, ''])
    return out
  }
  const json = async (...argv: string[]) => JSON.parse(await well(...argv, '--json'))
  const badly = (...argv: string[]) => btrmind(argv)

  it('subvolume create, snapshot, show, readonly', async () => {
    expect(await well('subvolume', 'create', at('one'))).toMatch(/^subvolume \d+: one$/m)
    expect(await json('subvolume', 'create', at('one/inner'))).toMatchObject({ path: 'one/inner', readonly: false })
    writeFileSync(at('one/inner/file'), 'x')
    await well('subvolume', 'snapshot', '-r', at('one'), at('flat'))
    expect(await json('subvolume', 'snapshot', at('one'), at('deep'), '--recursive')).toMatchObject({ path: 'deep' })
    expect(listed().sort()).toEqual(['deep', 'deep/inner', 'flat', 'one', 'one/inner'])
    expect(readFileSync(at('deep/inner/file'), 'utf8')).toBe('x')
    const { uuid } = await fs.subvolume('flat')
    const shown = await well('subvolume', 'show', at('flat'))
    expect(shown).toMatch(new RegExp(`^uuid +${uuid}$`, 'm'))
    expect(shown).toMatch(/^readonly +true$/m)
    expect(await json('subvolume', 'show', at('flat'))).toMatchObject({ uuid, readonly: true })
    expect(await well('subvolume', 'readonly', at('flat'))).toBe('on\n')
    expect(await json('subvolume', 'readonly', at('flat'), 'off')).toEqual({ readonly: false })
    expect(run('btrfs', 'property', 'get', at('flat'), 'ro').trim()).toBe('ro=false')
    expect(await badly('subvolume', 'readonly', at('flat'), 'maybe')).toMatchObject({ code: 2 })
    expect((await badly('subvolume', 'create', at('one'))).err).toContain('EEXIST')
    mkdirSync(at('plain'))
    expect((await badly('subvolume', 'snapshot', at('plain'), at('no'))).err).toContain('not a subvolume')
    const both = ['subvolume', 'snapshot', at('one'), at('no'), '--recursive', '--inherit', '1/1']
    expect(await badly(...both)).toMatchObject({ code: 2, err: expect.stringContaining('--inherit') })
  })

  it('subvolume default, and delete says what keeps it from it', async () => {
    expect(await well('subvolume', 'default', volume.path)).toBe('5 (the top of the volume)\n')
    const { id } = await fs.subvolume('flat')
    expect(await json('subvolume', 'default', at('flat'), '--set')).toEqual({ id, path: 'flat' })
    const mount = join(volume.directory, 'second')
    mkdirSync(mount)
    run('mount', '-o', 'subvol=deep/inner', volume.loops[0]!, mount)
    try {
      const refused = await badly('subvolume', 'delete', at('flat'), at('one'), at('deep/inner'))
      expect(refused).toMatchObject({ code: 1, out: '0 of 3 deleted\n' })
      expect(refused.err).toMatch(/flat.*default subvolume; set another one first/)
      expect(refused.err).toMatch(/one.*ENOTEMPTY.*use --recursive/)
      expect(refused.err).toMatch(new RegExp(`deep/inner.*it is mounted at '${mount}'`))
      const told = await badly('subvolume', 'delete', at('flat'), '--json')
      expect(told.code).toBe(1)
      expect(JSON.parse(told.out)).toMatchObject({ planned: 1, deleted: 0, failures: [{ error: { code: 'EPERM' } }] })
    } finally {
      run('umount', mount)
    }
    await well('subvolume', 'default', volume.path, '--set')
    const gone = await btrmind(['subvolume', 'delete', at('flat'), at('one'), at('deep'), '--recursive'], {
      isTTY: true,
    })
    expect(gone).toMatchObject({ code: 0, out: '5 of 5 deleted\n', err: expect.stringMatching(/\d of \d deleted/) })
    expect(run('btrfs', 'subvolume', 'list', volume.path)).toBe('')
    expect((await badly('subvolume', 'delete', at('nowhere'))).err).toContain('ENOENT')
    // What is not there does not keep the others, wherever it would be.
    for (const name of ['a', 'b', 'c']) await fs.createSubvolume(name)
    const some = await badly('subvolume', 'delete', '/nowhere/at/all', at('a'), at('nowhere'), at('b'))
    expect(some).toMatchObject({ code: 1, out: '2 of 4 deleted\n' })
    expect(some.err).toMatch(/^btrmind|^\/nowhere\/at\/all: ENOENT/m)
    expect(some.err).toContain(`${at('nowhere')}: ENOENT`)
    const toldOf = await badly('subvolume', 'delete', at('c'), at('nowhere'), '--json')
    expect([toldOf.code, JSON.parse(toldOf.out)]).toMatchObject([
      1,
      { planned: 2, deleted: 1, failures: [{ path: at('nowhere'), error: { code: 'ENOENT' } }] },
    ])
    expect(listed()).toEqual([''])

    await fs.createSubvolume('numbered')
    await fs.createSubvolume('kept')
    const numbered = String((await fs.subvolume('numbered')).id)
    const both = await badly('subvolume', 'delete', at('kept'), volume.path, '--id', numbered)
    expect(both).toMatchObject({ code: 2, err: expect.stringContaining('--id is for one') })
    expect(await json('subvolume', 'delete', volume.path, '--id', numbered)).toMatchObject({ deleted: 1, freed: 1 })
    expect(listed()).toEqual(['kept'])
    expect(await badly('subvolume', 'delete', volume.path, '--id', numbered)).toMatchObject({
      code: 1,
      err: expect.stringContaining('ENOENT'),
    })
    expect(await badly('subvolume', 'delete', volume.path, '--id', '5')).toMatchObject({ code: 2 })
    await well('subvolume', 'delete', at('kept'))
  })

  it('quota: every change, and inherit', async () => {
    expect((await badly('quota', 'create', volume.path, '1/1')).err).toContain('quota is off')
    expect(await well('quota', 'enable', volume.path)).toBe('')
    // With --json each says what is then.
    const made = await json('quota', 'create', volume.path, '1/1')
    expect(made).toMatchObject({
      mode: 'classic',
      qgroups: expect.arrayContaining([expect.objectContaining({ id: '1/1' })]),
    })
    await well('quota', 'create', volume.path, '2/1')
    await well('quota', 'assign', volume.path, '1/1', '2/1')
    await well('quota', 'limit', volume.path, '1/1', '--referenced', '1.5GiB', '--exclusive', '4096')
    await well('subvolume', 'create', at('counted'), '--inherit', '1/1')
    await fs.sync()
    const group = async (id: string) => (await fs.quota())!.qgroups.find((qgroup) => qgroup.id === id)
    const { id } = await fs.subvolume('counted')
    expect(await group('1/1')).toMatchObject({
      parents: ['2/1'],
      children: [`0/${id}`],
      limits: { referencedBytes: 1.5 * 2 ** 30, exclusiveBytes: 4096 },
    })
    await well('quota', 'limit', volume.path, '1/1', '--exclusive', 'none')
    await well('quota', 'unassign', volume.path, '1/1', '2/1')
    await well('quota', 'destroy', volume.path, '2/1')
    await well('quota', 'rescan', volume.path, '--wait')
    await fs.sync()
    expect(await group('1/1')).toMatchObject({ parents: [], limits: { exclusiveBytes: undefined } })
    expect(await group('2/1')).toBeUndefined()
    expect((await badly('quota', 'destroy', volume.path, '7/7')).err).toContain('there is no quota group 7/7')
    expect(await badly('quota', 'limit', volume.path, '1/1', '--referenced', 'much')).toMatchObject({ code: 2 })
    expect(await well('quota', volume.path)).toMatch(/^1\/1 /m)
    for (const words of [
      ['rescan', volume.path],
      ['limit', volume.path, '1/1', '--exclusive', '1GiB'],
      ['create', volume.path, '3/1'],
      ['assign', volume.path, '1/1', '3/1'],
      ['unassign', volume.path, '1/1', '3/1'],
      ['destroy', volume.path, '3/1'],
      ['enable', volume.path],
    ])
      expect(await json('quota', ...words)).toMatchObject({ mode: 'classic' })
    expect(await json('quota', 'disable', volume.path)).toBeNull()
    expect(await well('quota', volume.path)).toBe('quota is off\n')
  })

  it('filesystem label, features, sync, trim', async () => {
    await well('filesystem', 'label', volume.path, 'pool')
    expect(await well('filesystem', 'label', volume.path)).toBe('pool\n')
    expect(run('btrfs', 'filesystem', 'label', volume.path)).toBe('pool\n')
    expect(await json('filesystem', 'label', volume.path, '')).toEqual({ label: '' })
    expect(await well('filesystem', 'features', volume.path)).toMatch(/^skinny_metadata +in use/m)
    expect(await json('filesystem', 'features', volume.path)).toEqual(await fs.features())
    expect((await badly('filesystem', 'features', volume.path, '--enable', 'nothing')).err).toContain('nothing')
    expect(await well('filesystem', 'sync', volume.path)).toBe('')
    expect((await json('filesystem', 'trim', volume.path)).trimmedBytes).toBeGreaterThan(0)
    expect(await well('filesystem', 'trim', volume.path, '--minimum', '1M')).toMatch(/ trimmed$/m)
    const live = await btrmind(['filesystem', 'trim', volume.path], { isTTY: true })
    expect(live).toMatchObject({ code: 0, err: expect.stringMatching(/^(\r[^\r]* of \d+ block groups [^\r]*)+\r\S+$/) })
    expect(await json('filesystem', 'sync', volume.path)).toBeNull()
  })

  it('filesystem statistics, reclaim-settings', async () => {
    expect(await well('filesystem', 'statistics', volume.path)).toMatch(/^exclusiveOperation +none$/m)
    const { commits, exclusiveOperation } = await json('filesystem', 'statistics', volume.path)
    expect([Object.keys(commits).length, exclusiveOperation]).toEqual([5, 'none'])
    await fs.sync()
    const reset = await badly('filesystem', 'statistics', volume.path, '--reset', '--json')
    const capabilities = /^CapEff:\s+(\w+)/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]
    const mayReset = ((BigInt(`0x${capabilities}`) >> 24n) & 1n) === 1n // CAP_SYS_RESOURCE
    if (mayReset) {
      expect((await fs.statistics()).commits).toMatchObject({ maxMs: 0 })
      expect(JSON.parse(reset.out)).toMatchObject({ commits: { count: expect.any(Number) } })
    } else expect(reset).toMatchObject({ code: 1, out: '', err: expect.stringContaining('needs CAP_SYS_RESOURCE') })
    const changed = await well('filesystem', 'reclaim-settings', volume.path, '--threshold', '30', '--periodic', 'on')
    expect(changed).toMatch(/^data +30 % +off +on /m)
    const { types } = await json('filesystem', 'reclaim-settings', volume.path, '--type', 'metadata', '--dynamic', 'on')
    expect(types).toMatchObject({ data: { thresholdPercent: 30 }, metadata: { dynamic: true } })
    expect(await badly('filesystem', 'reclaim-settings', volume.path, '--threshold', '101')).toMatchObject({ code: 2 })
    expect(await badly('filesystem', 'reclaim-settings', volume.path, '--type', 'dat')).toMatchObject({ code: 2 })
  })

  it('inspect logical, inode, chunks, tree', async () => {
    await fs.createSubvolume('looked')
    mkdirSync(at('looked/dir'))
    writeFileSync(at('looked/dir/file'), Buffer.alloc(100_000, 'y'))
    await fs.sync()
    const { id } = await fs.subvolume('looked')
    const { ino } = statSync(at('looked/dir/file'))
    expect(await well('inspect', 'inode', at('looked'), String(ino))).toBe('dir/file\n')
    expect(await json('inspect', 'inode', volume.path, String(ino), '--subvolume', String(id))).toEqual(['dir/file'])
    expect(await well('inspect', 'inode', at('looked'), '99999')).toContain('no inode 99999')
    const lines = jsonLines(
      await well('inspect', 'tree', volume.path, String(id), '--min', `${ino}:108`, '--max', `${ino}:108`, '--json'),
    ) as { typeName: string; objectid: string; fields: { diskLogicalBytes: number } }[]
    const [extent] = lines
    expect([extent!.typeName, extent!.objectid]).toEqual(['EXTENT_DATA', String(ino)])
    const address = String(extent!.fields.diskLogicalBytes)
    expect(await well('inspect', 'logical', volume.path, address)).toMatch(
      new RegExp(`^ *${id} +${ino} +0 +dir/file$`, 'm'),
    )
    expect(await json('inspect', 'logical', volume.path, address, '--whole-extent')).toMatchObject([{ inode: ino }])
    expect(await well('inspect', 'logical', volume.path, '1')).toBe('no file has its data there\n')
    expect(await well('inspect', 'subvolume', volume.path, String(id))).toBe('looked\n')
    expect(await well('inspect', 'subvolume', volume.path, '5')).toBe('.\n')
    expect(await json('inspect', 'subvolume', volume.path, String(id))).toMatchObject({ id, path: 'looked' })
    expect((await badly('inspect', 'subvolume', volume.path, '99999')).err).toContain('ENOENT')
    expect((await btrmind(['inspect', 'tree', '--help'])).out).toMatch(/raid-\s*stripe/)
    const chunks = await json('inspect', 'chunks', volume.path)
    expect(chunks).toEqual(JSON.parse(JSON.stringify(await fs.blockGroups())))
    expect((await well('inspect', 'chunks', volume.path)).trim().split('\n')).toHaveLength(1 + chunks.length)
    const printed = (await well('inspect', 'tree', volume.path, 'chunk')).trim().split('\n')
    expect(printed.filter((line) => line.includes('CHUNK_ITEM'))).toHaveLength(chunks.length)
    // A size past 2^53 cannot be told; what comes after it can.
    run('truncate', '-s', '4E', at('looked/dir/file'))
    writeFileSync(at('looked/dir/later'), '')
    await fs.sync()
    const inodes = (
      jsonLines(await well('inspect', 'tree', volume.path, String(id), '--min', String(ino), '--json')) as {
        typeName: string
        fields?: { sizeBytes: number }
        unavailable?: readonly Unavailable[]
      }[]
    ).filter(({ typeName }) => typeName === 'INODE_ITEM')
    expect(inodes).toMatchObject([
      { unavailable: [{ field: 'fields', reason: expect.stringMatching(/ERANGE.*INODE_ITEM.*4611686018427387904/) }] },
      { fields: { sizeBytes: 0 } },
    ])
    expect(inodes[0]).not.toHaveProperty('fields')
    expect(await badly('inspect', 'tree', volume.path, 'chunks')).toMatchObject({ code: 2 })
    expect(await badly('inspect', 'tree', volume.path, 'fs', '--min', 'x')).toMatchObject({ code: 2 })
    expect((await badly('inspect', 'tree', volume.path, '9999')).err).toContain('there is no tree 9999')
  })

  it('subvolume delete of what is mounted says so, and of a whole volume that it cannot be', async () => {
    expect((await badly('subvolume', 'delete', volume.path)).err).toMatch(
      /EBUSY: .*, deleteSubvolumes '.*mnt'; it is the top of a volume, which cannot be deleted\n$/,
    )
    await fs.createSubvolume('mounted')
    const place = mkdtempSync(join(tmpdir(), 'btrmind-mounted-'))
    run('mount', '-o', 'subvol=mounted', volume.loops[0]!, place)
    try {
      for (const path of [place, at('mounted')]) {
        const { code, err } = await badly('subvolume', 'delete', path)
        expect(code).toBe(1)
        expect(err).toMatch(/EBUSY: .*(is a mount point|it is mounted at '.*'); unmount it first/)
      }
    } finally {
      run('umount', place)
      rmdirSync(place)
    }
    await well('subvolume', 'delete', at('mounted'))
  })

  it('says what to do in the words of the command line', async () => {
    mkdirSync(at('words'))
    expect((await badly('subvolume', 'create', at('limited'), '--inherit', '1/7')).err).toContain(
      'quota is off; see btrmind quota enable\n',
    )
    expect((await badly('defragment', at('words'))).err).toContain('a directory needs --recursive (-r)\n')
    for (const command of ['plan', 'start'])
      expect((await badly('balance', command, volume.path)).err).toBe(
        'btrmind: BTRMIND_ERR_ARGUMENT: expected at least one of --data (-d), --metadata (-m), --system (-s); got none\n',
      )
    expect(await badly('quota', 'limit', volume.path, '0/256')).toEqual({
      code: 2,
      out: '',
      err: 'btrmind: BTRMIND_ERR_OPTION: no limit is given; expected --referenced, --exclusive or both\n',
    })
    expect(await badly('extents', at('words'))).toMatchObject({
      code: 1,
      out: '',
      err: expect.stringContaining('EISDIR'),
    })
    writeFileSync(at('source'), 'x')
    expect((await badly('clone', at('source'), at('copy'))).err).toContain(
      'the destination is not there; with --create it is made\n',
    )
    expect((await badly('clone', at('none'), at('source'))).err).toContain(`'${at('none')}'`)
    await expect(fs.clone('none', 'source')).rejects.toMatchObject({ hint: 'the source is not there' })
    expect((await badly('subvolume', 'create', at('words'))).err).toMatch(/EEXIST: .*; something has that name already/)
  })

  it('each says what it takes', async () => {
    for (const argv of [
      ['subvolume'],
      ['filesystem'],
      ['inspect'],
      ['quota'],
      ['subvolume', 'delete'],
      ['quota', 'limit'],
    ])
      expect((await btrmind([...argv, '--help'])).out).toContain('Usage: btrmind')
    expect(await badly('subvolume', 'remove', volume.path)).toMatchObject({ code: 2 })
  })
})
