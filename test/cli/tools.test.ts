/** scan, scrub, quota. */
import { closeSync, linkSync, mkdirSync, openSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { beforeAll, describe, expect, it, vi } from 'vitest'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'
import { asNobody, btrmind, jsonLines } from './helper.js'

describe.skipIf(cannotMount)('tools', () => {
  const { volume, fs, at } = useVolume({ data: 'dup' })
  beforeAll(async () => {
    mkdirSync(at('dir'))
    writeFileSync(at('dir/big'), Buffer.alloc(3 << 20, 'btrmind'))
    linkSync(at('dir/big'), at('linked'))
    writeFileSync(at('small'), 'x')
    await fs.sync()
  })

  it('scan: a summary in which a hard link counts once, and JSON lines of what find finds', async () => {
    const { code, out, err } = await btrmind(['scan', volume.path, '--extents', '--largest', '1'])
    expect([code, err]).toEqual([0, ''])
    expect(out).toMatch(/^ +2 {2}files +3\.00 MiB/m)
    expect(out).toMatch(/^ +2 {2}directories/m)
    expect(out).toMatch(/extents, 0 B compressed$/m)
    expect(out.split('largest')[1]!.trim().split('\n')).toHaveLength(2)
    const lines = jsonLines((await btrmind(['scan', volume.path, '--json'])).out) as {
      path: string
      sizeBytes: number
    }[]
    const found = run('find', volume.path, '-printf', '%P %s\n').trimEnd().split('\n')
    expect(lines.map(({ path, sizeBytes }) => `${path} ${sizeBytes}`).sort()).toEqual(found.sort())
    await fs.sync() // find changed access times
    const { generation } = await fs.subvolume('.')
    expect((await btrmind(['scan', volume.path, '--json', '--since', String(generation + 1)])).out).toBe('')
    expect(await btrmind(['scan', volume.path, '--since', 'x'])).toMatchObject({
      code: 2,
      err: expect.stringContaining("'x'"),
    })
    expect((await btrmind(['scan', '/proc'])).code).toBe(1)
    const both = await btrmind(['scan', volume.path, '--sharing', '--consistent'])
    expect(both).toMatchObject({ code: 2, out: '', err: expect.stringContaining('shared with the snapshot') })
    expect(await btrmind(['scan', volume.path, '--largest', '0'])).toMatchObject({ code: 0, err: '' })
  })

  it('names that are no text: escaped for people, by their bytes in JSON', async () => {
    const odd = Buffer.concat([Buffer.from(at('odd\u001b[31m\n')), Buffer.of(0xff)])
    writeFileSync(odd, '')
    const changed = await btrmind(['changed', volume.path, '--since', '0'])
    expect(changed.out).toContain('odd\\x1b[31m\\x0a')
    const rows = jsonLines((await btrmind(['scan', volume.path, '--json'])).out) as {
      path: string
      pathBase64?: string
    }[]
    const row = rows.find(({ path }) => path.startsWith('odd'))!
    expect(Buffer.from(row.pathBase64!, 'base64')).toEqual(odd.subarray(at('').replace(/\/$/, '').length + 1))
    expect(rows.filter(({ pathBase64 }) => pathBase64 !== undefined)).toHaveLength(1)
    rmSync(odd)
    await fs.sync()
  })

  it('compression, fragmentation, du, changed, inactive: for people, and as the library gives them', async () => {
    const json = async (...argv: string[]) => JSON.parse((await btrmind([...argv, '--json'])).out)
    expect(await json('compression', 'report', volume.path)).toEqual(
      JSON.parse(JSON.stringify(await fs.compression().result)),
    )
    const compression = await btrmind(['compression', 'report', volume.path], { isTTY: true })
    expect(compression.out).toMatch(/^all +100 % +3\.00 MiB +3\.00 MiB +3\.00 MiB$/m)
    expect(compression.err).toMatch(/files and directories/) // and is wiped
    expect(compression.err.endsWith('\u001b[K')).toBe(true)
    expect(await json('fragmentation', volume.path)).toMatchObject({ files: 2, worst: [] })
    expect((await btrmind(['fragmentation', volume.path])).out).toMatch(/^2 files, \d+ extents/)
    expect(await json('du', volume.path)).toMatchObject({ files: 2, totalBytes: 3 << 20, exclusiveBytes: 3 << 20 })
    const du = await btrmind(['du', volume.path])
    expect(du.out).toMatch(/^3\.00 MiB +3\.00 MiB +2 +\//m)
    expect(du.out).not.toContain('left out')
    await fs.createSubvolume('nested')
    expect((await btrmind(['du', volume.path])).out).toContain('1 subvolume in it is left out: --nested')
    expect((await btrmind(['du', volume.path, '--nested'])).out).not.toContain('left out')
    await fs.deleteSubvolume('nested')
    const changed = await btrmind(['changed', volume.path, '--since', '0'])
    expect(changed.out.trimEnd().split('\n').sort()).toEqual(['.', 'dir', 'dir/big', 'linked', 'small'])
    const ahead = await btrmind(['changed', volume.path, '--since', '1000256'])
    expect([ahead.code, ahead.out]).toEqual([2, ''])
    expect(ahead.err).toMatch(/at most \d+, the volume being at \d+; got 1000256/)
    const nul = await btrmind(['inactive', volume.path, '--days', '0', '--null'])
    expect(nul.out.split('\0').filter(Boolean)).toHaveLength(2)
    expect((await btrmind(['inactive', volume.path, '--days', '1'])).out).toBe('')
    const large = await btrmind(['inactive', volume.path, '--days', '0', '--minimum', '2.5MiB'])
    expect(large.out.trimEnd().split('\n')).toHaveLength(1)
    expect(await btrmind(['changed', volume.path])).toMatchObject({ code: 2, err: expect.stringContaining('--since') })
    expect(await btrmind(['changed', volume.path, '--since', 'nowhere'])).toMatchObject({
      code: 1,
      err: expect.stringContaining('nowhere'),
    })
  })

  it('scan --largest --json: only these, largest first', async () => {
    const { code, out } = await btrmind(['scan', volume.path, '--largest', '2', '--json'])
    expect(code).toBe(0)
    const rows = JSON.parse(JSON.stringify(await fs.largest(2)))
    expect(jsonLines(out)).toMatchObject(rows.map(({ pathBytes: _, ...row }: { pathBytes: unknown }) => row))
    expect(jsonLines(out)).toHaveLength(2)
    expect((await btrmind(['scan', volume.path, '--largest', '0', '--json'])).out).toBe('')
  })

  it('as nobody: says what is missing, on stderr', async () => {
    run('chmod', '755', volume.directory)
    mkdirSync(at('closed'), { mode: 0o700 })
    writeFileSync(at('closed/secret'), 'x')
    mkdirSync(at('dir/closed'), { mode: 0o700 })
    const notRead =
      /^warning: not all: 2 directories or files were not read, the first '(dir\/)?closed' \(EACCES: .*\)\n$/
    for (const argv of [
      ['scan', volume.path],
      ['scan', volume.path, '--json'],
      ['scan', volume.path, '--largest', '3', '--json'],
      ['inactive', volume.path, '--days', '0'],
    ]) {
      const { status, stdout, stderr } = asNobody(...argv)
      expect(status, stderr).toBe(0)
      expect(stderr).toMatch(notRead)
      expect(stdout).toContain('big')
      expect(stdout).not.toContain('secret')
      expect((await btrmind(argv)).err).toBe('')
      if (argv.includes('--json')) expect(jsonLines(stdout).length).toBeGreaterThan(1)
    }
    expect(asNobody('scan', volume.path).stdout).toMatch(/^ +2 {2}files +3\.00 MiB/m) // a hard link once, here too
    await fs.createSubvolume('closed/inner')
    for (const argv of [
      ['subvolumes', volume.path],
      ['subvolumes', volume.path, '--json'],
    ]) {
      const { status, stdout, stderr } = asNobody(...argv)
      expect([status, stderr]).toEqual([
        0,
        'warning: not all: only those beneath this subvolume that may be reached; all need root (CAP_SYS_ADMIN)\n',
      ])
      expect(stdout).not.toContain('inner')
      expect(await btrmind(argv)).toMatchObject({ err: '', out: expect.stringContaining('inner') })
    }
    await fs.deleteSubvolume('closed/inner')
    rmSync(at('closed'), { recursive: true })
    rmSync(at('dir/closed'), { recursive: true })
  })

  it('scrub: sound is 0, and what is bad is said, repaired, and 1 until it is', async () => {
    expect(await btrmind(['scrub', volume.path, '--read-only'])).toMatchObject({ code: 0, err: '' })
    const image = volume.images[0]!
    const fd = openSync(image, 'r+')
    const block = Buffer.alloc(4096)
    const wanted = Buffer.alloc(4096, 'btrmind')
    try {
      for (let offset = 0; readSync(fd, block, 0, 4096, offset) > 0; offset += 4096) {
        if (!block.subarray(0, 7).equals(wanted.subarray(0, 7))) continue
        writeSync(fd, Buffer.from('damaged'), 0, 7, offset)
        break
      }
    } finally {
      closeSync(fd)
    }
    const checked = await btrmind(['scrub', volume.path, '--read-only', '--json'])
    expect(checked.code).toBe(1)
    expect(JSON.parse(checked.out)).toMatchObject({ correctableErrors: 1, uncorrectableErrors: 0 })
    const told = await btrmind(['scrub', volume.path, '--read-only'])
    expect(told.out).toContain('without --read-only repairs it')
    const repaired = await btrmind(['scrub', volume.path, '--device', '1', '--start', '1:0', '--limit', '1000'], {
      isTTY: true,
    })
    expect(repaired.code).toBe(0)
    expect(repaired.out).toMatch(/^ *1 +finished +\S+ \S+ +1 +0 +0$/m)
    expect((await btrmind(['scrub', volume.path, '--read-only'])).code).toBe(0)
    expect(await btrmind(['scrub', volume.path, '--start', '7'])).toMatchObject({ code: 2 })
    expect((await btrmind(['scrub', volume.path, '--device', '9'])).err).toContain('ENODEV')
  })

  it('scrub status, scrub cancel: of whichever runs', async () => {
    const status = async (...options: string[]) => (await btrmind(['scrub', 'status', volume.path, ...options])).out
    expect([await status(), await status('--json')]).toEqual(['no scrub runs\n', 'null\n'])
    const none = await btrmind(['scrub', 'cancel', volume.path])
    expect([none.code, none.err]).toEqual([1, expect.stringContaining('no scrub runs')])
    writeFileSync(at('scrubbed'), Buffer.alloc(32 << 20, 'x'))
    await fs.sync()
    const running = fs.scrub({ readonly: true, bytesPerSecond: 1 << 20 })
    const ended = running.result.catch((error) => error)
    await vi.waitFor(async () => expect(await status()).toMatch(/^ *id +checked +position/), { timeout: 10_000 })
    expect(JSON.parse(await status('--json')).devices).toMatchObject([{ devid: 1, checksumErrors: 0 }])
    expect(await btrmind(['scrub', 'cancel', volume.path])).toMatchObject({ code: 0, out: 'no scrub runs\n', err: '' })
    expect(await ended).toMatchObject({ code: 'ECANCELED' })
    rmSync(at('scrubbed'))
  })

  it('scrub: stopped in the middle says how to go on', async () => {
    run('dd', 'if=/dev/urandom', `of=${at('more')}`, 'bs=1M', 'count=48', 'conv=fsync', 'status=none')
    const stop = new AbortController()
    const odd = at("it's here")
    mkdirSync(odd)
    const { code, out } = await btrmind(['scrub', odd, '-r', '--device', '1', '--limit', '4'], {
      isTTY: true,
      signal: stop.signal,
      onErr: () => stop.abort(), // its progress: the kernel is at it
    })
    expect(code).toBe(130)
    const line = /to go on: btrmind (.*)$/m.exec(out)![1]!
    const words = run('sh', '-c', `printf '%s\\n' ${line}`).trimEnd().split('\n')
    expect(words.slice(0, -1)).toEqual(['scrub', odd, '--read-only', '--device', '1', '--limit', '4', '--start'])
    expect(words.at(-1)).toMatch(/^1:\d+$/)
  })

  it('quota: off, and as it counts', async () => {
    expect(await btrmind(['quota', volume.path])).toEqual({ code: 0, out: 'quota is off\n', err: '' })
    expect((await btrmind(['quota', volume.path, '--json'])).out).toBe('null\n')
    await fs.enableQuota()
    await fs.rescanQuota()
    await fs.limitQgroup('0/5', { referencedBytes: 100 << 20 })
    await fs.sync()
    const { out } = await btrmind(['quota', volume.path])
    expect(out).toMatch(/^0\/5 +\S+ MiB +\S+ MiB +100\.00 MiB +-/m)
    expect(JSON.parse((await btrmind(['quota', volume.path, '--json'])).out)).toMatchObject({ mode: 'classic' })
    await fs.disableQuota()
  })
})
