/** What an unprivileged user may do: every call, held against README's table and the docstrings. */
import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, linkSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, it } from 'vitest'
import * as everything from '../../src/btrfs/index.js'
import { CHANGE, READ, type Told, tell } from '../helpers/privilege.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

/** Refused, with a hint that says what is missing. */
interface Refused {
  readonly code: 'EPERM' | 'EACCES'
  readonly hint: RegExp
}
const root = { code: 'EPERM', hint: /^needs root \(CAP_SYS_ADMIN\)$/ } as const
const toWait = {
  code: 'EPERM',
  hint: /^to wait until it is freed needs root \(CAP_SYS_ADMIN\); `waitUntilFreed: false` does not wait$/,
} as const
/** A file of root's own stands before it: a device, sysfs. */
const rootFile = { code: 'EACCES', hint: /^needs root( \(CAP_SYS_ADMIN\))?$/ } as const
const closed = { code: 'EACCES', hint: /permissions/ } as const
const writable = { code: 'EACCES', hint: /write permission/ } as const
const owner = { code: 'EPERM', hint: /owner/ } as const
const mountOption = { code: 'EPERM', hint: /root .*user_subvol_rm_allowed/ } as const

/** Of every call in helpers/privilege.ts. A new method or function needs a call there and a row here. */
const EXPECTED: Readonly<Record<string, 'works' | Refused>> = {
  formatBytes: 'works',
  openFilesystem: 'works',
  'openFilesystem of a directory that is closed': closed,
  info: 'works',
  usage: 'works',
  devices: 'works',
  measure: 'works',
  statfs: 'works',
  directory: 'works',
  'directory that is closed': closed,
  walk: 'works',
  'walk of a directory that is closed': closed,
  scan: 'works',
  'scan of extents': root,
  rows: 'works',
  fileRef: 'works',
  largest: 'works',
  inactive: 'works',
  changed: root,
  compression: root,
  fragmentation: root,
  du: root,
  subvolumes: 'works',
  subvolume: 'works',
  'subvolume by id': root,
  fileExtents: 'works',
  estimateCompressedRatio: 'works',
  exclusiveOperation: 'works',
  redundancy: 'works',
  blockGroups: root,
  inodePaths: root,
  logicalFiles: root,
  treeSearch: root,
  quota: root,
  features: 'works',
  extents: 'works',
  'extents of a file that is closed': closed,
  compressionProperty: 'works',
  attributes: 'works',
  readEncoded: root,
  statistics: 'works',
  reclaimSettings: 'works',
  defaultSubvolume: root,
  balanceStatus: root,
  scrubStatus: root,
  balancePlan: root,
  replaceStatus: root,
  devicesReady: rootFile,

  sync: 'works',
  startSync: 'works',
  waitSync: 'works',
  compressFile: 'works',
  'compressFile of others': 'works', // as a value
  defragment: 'works',
  'defragment of others': { code: 'EPERM', hint: /write permission/ },
  deduplicate: 'works',
  'deduplicate of what is closed': closed,
  clone: 'works',
  'clone into others': closed,
  setCompressionProperty: 'works',
  'setCompressionProperty of others': closed,
  setAttributes: 'works',
  'setAttributes of others': owner,
  'setAttributes for root': { code: 'EPERM', hint: /root \(CAP_LINUX_IMMUTABLE\)/ },
  writeEncoded: root,
  removeFiles: 'works',
  createSubvolume: 'works',
  'createSubvolume in others': writable,
  snapshot: 'works',
  'snapshot of others': owner,
  'snapshot in others': writable,
  snapshotTree: 'works',
  'snapshotTree of others': owner,
  setReadonly: 'works',
  'setReadonly of others': owner,
  deleteSubvolume: mountOption,
  'deleteSubvolume of others': mountOption,
  'deleteSubvolume until it is freed': toWait,
  deleteSubvolumes: mountOption,
  'deleteSubvolumes until they are freed': toWait,
  setLabel: root,
  setFeatures: root,
  trim: root,
  setDefaultSubvolume: root,
  resizeDevice: root,
  addDevice: rootFile,
  removeDevice: root,
  replaceDevice: rootFile,
  resetDeviceErrors: root,
  balance: root,
  resumeBalance: root,
  pauseBalance: root,
  cancelBalance: root,
  reclaimDataBlockGroups: root,
  scrub: root,
  cancelScrub: root,
  enableQuota: root,
  rescanQuota: root,
  createQgroup: root,
  assignQgroup: root,
  unassignQgroup: root,
  limitQgroup: root,
  destroyQgroup: root,
  disableQuota: root,
  resetCommitStatistics: rootFile,
  setReclaimSettings: rootFile,
  scanDevice: rootFile,
  forgetDevice: rootFile,
  close: 'works',
}

const nameOf = (call: string) => call.split(' ')[0]!
const prototype = everything.KernelFilesystem.prototype
const methods = Object.entries(Object.getOwnPropertyDescriptors(prototype)).flatMap(([name, { value }]) =>
  typeof value === 'function' && name !== 'constructor' ? [name] : [],
)
const functions = Object.entries(everything).flatMap(([name, value]) =>
  typeof value === 'function' && !/^class\b/.test(String(value)) ? [name] : [],
)

describe('who may call what', () => {
  const text = (name: string) => readFileSync(fileURLToPath(new URL(`../../${name}`, import.meta.url)), 'utf8')
  /** Of each call: none of its cases, some, or all of them are refused for want of root. */
  const kinds = new Map<string, 'works' | 'partly' | 'root'>()
  for (const name of new Set(Object.keys(EXPECTED).map(nameOf))) {
    const cases = Object.entries(EXPECTED).filter(([call]) => nameOf(call) === name)
    // That a file may be closed to somebody goes without saying.
    const refused = cases.filter(([, expected]) => expected !== 'works' && expected !== closed)
    const all = refused.length === cases.length && refused.every(([, one]) => (one as Refused).hint.test(ROOT))
    kinds.set(name, all ? 'root' : refused.length === 0 ? 'works' : 'partly')
  }

  it('there is a row for everything that the package can do', () => {
    expect([...kinds.keys()].sort()).toEqual([...methods, ...functions].sort())
    expect(Object.keys(EXPECTED)).toEqual([...Object.keys(READ), ...Object.keys(CHANGE)])
  })

  it('README’s table says it', () => {
    const listed = new Map<string, string>()
    for (const [, calls, privilege] of text('README.md').matchAll(/^\| (`\w+\(\)`.*?) \|.*\| (.*?) \|$/gm))
      for (const [, name] of calls!.matchAll(/`(\w+)\(\)`/g)) listed.set(name!, privilege!)
    const unlisted = ['formatBytes', 'openFilesystem', 'close']
    expect([...kinds.keys()].filter((name) => !listed.has(name)).sort()).toEqual(unlisted.sort())
    for (const [name, privilege] of listed) {
      const kind = kinds.get(name)
      if (kind === 'root') expect([name, privilege]).toEqual([name, expect.stringMatching(/root/)])
      else expect([name, privilege]).not.toEqual([name, 'root'])
      if (kind !== 'works') expect([name, privilege]).not.toEqual([name, 'none'])
    }
  })

  it('the docstrings say it', () => {
    const api = text('docs/api.md')
    for (const [name, kind] of kinds) {
      if (['sync', 'close', 'formatBytes', 'fileRef', 'rows'].includes(name)) continue
      const section = api.split(new RegExp(`^### (?:fs\\.)?${name}\\(\\)$`, 'm'))[1]!.split(/^##/m)[0]!
      const parts = section
        .replace(/\s+/g, ' ')
        .split(' · ')
        .map((part) => part.replace(/\..*$/, ''))
      const asRoot = parts.some((part) => /^(CAP_SYS_ADMIN|root)(, with CAP_\w+.*)?$/.test(part))
      expect([name, asRoot]).toEqual([name, kind === 'root'])
      if (kind === 'partly') expect([name, parts.includes('no privilege')]).toEqual([name, false])
    }
  })
})
const ROOT = 'needs root (CAP_SYS_ADMIN)'

describe.skipIf(cannotMount)('as nobody', () => {
  const NOBODY = 65_534
  const { volume, fs, at } = useVolume({ sparesMiB: [300] })
  let asRoot: Record<string, Told>
  let told: Record<string, Told>
  const asNobody = (...which: string[]): Record<string, Told> => {
    const script = fileURLToPath(new URL('../helpers/privilege-as-nobody.ts', import.meta.url))
    const argv = ['--import', 'tsx', script, volume.path, volume.loops[0]!, volume.loops.at(-1)!, ...which]
    const { status, stdout, stderr } = spawnSync(process.execPath, argv, { encoding: 'utf8', timeout: 60_000 })
    expect(status, stderr).toBe(0)
    return JSON.parse(stdout) as Record<string, Told>
  }
  const label = 'before'

  beforeAll(async () => {
    chmodSync(volume.directory, 0o755)
    await fs.setLabel(label)
    for (const directory of ['mine', 'mine/deep', 'others', 'secret', 'secret/inner']) mkdirSync(at(directory))
    const content = Buffer.alloc(256 << 10, 'btrmind')
    for (const file of ['mine/a', 'mine/b', 'others/file', 'closed']) writeFileSync(at(file), content)
    // Between its names there is another file.
    linkSync(at('mine/a'), at('mine/again'))
    chmodSync(at('closed'), 0o600)
    chmodSync(at('secret'), 0o700)
    await fs.createSubvolume('theirs')
    await fs.createSubvolume('mine/sub')
    writeFileSync(at('mine/sub/file'), content)
    for (const path of ['mine', 'mine/deep', 'mine/a', 'mine/b', 'mine/sub', 'mine/sub/file'])
      chownSync(at(path), NOBODY, NOBODY)
    await fs.sync()
    asRoot = await tell(READ, { fs, device: volume.loops[0]!, spare: volume.loops.at(-1)! })
    told = asNobody()
  })

  it.each(Object.entries(EXPECTED))('%s', (call, expected) => {
    if (expected === 'works') expect(told[call]).not.toHaveProperty('error')
    else
      expect(told[call]).toMatchObject({
        error: 'BtrfsError',
        code: expected.code,
        hint: expect.stringMatching(expected.hint),
        message: expect.stringContaining(`, ${nameOf(call) === 'snapshotTree' ? 'snapshot' : operationOf(call)}`),
      })
  })
  /** What is done for many is refused of each. */
  const operationOf = (call: string) => (nameOf(call) === 'deleteSubvolumes' ? 'deleteSubvolume' : nameOf(call))

  it('hears no figure that root would not hear, and why one is missing', () => {
    let compared = 0
    for (const call of Object.keys(READ)) {
      if (EXPECTED[call] !== 'works' || call === 'statistics') continue
      expect(asRoot[call], call).not.toHaveProperty('error')
      const missing: string[] = []
      const agree = (mine: unknown, whole: unknown, path: string) => {
        compared++
        if (typeof mine !== 'object' || mine === null) expect(mine, `${call}${path}`).toEqual(whole)
        else {
          for (const key of Object.keys(whole as object)) {
            const [one, other] = [mine, whole].map((all) => (all as Record<string, unknown>)[key])
            // Commits go on.
            if (key === 'unavailable' || key === 'generation') continue
            if (one === undefined && other !== undefined) missing.push(`${path}.${key}`.slice(1))
            else if (other !== undefined) agree(one, other, `${path}.${key}`)
          }
          for (const key of Object.keys(mine)) expect(whole, `${call}${path}`).toHaveProperty([key])
        }
      }
      const mine = told[call]!.value
      // As it comes back over the pipe.
      agree(mine, asRoot[call]!.value === undefined ? undefined : JSON.parse(JSON.stringify(asRoot[call]!.value)), '')
      const { unavailable = [] } = (mine ?? {}) as { unavailable?: { field: string; reason: string }[] }
      if (missing.length === 0) continue
      // Its type says so.
      if (call === 'fileExtents') expect(missing).toEqual(['diskBytes'])
      else {
        expect(unavailable, call).not.toEqual([])
        for (const { reason } of unavailable) expect(reason).toMatch(/root|EPERM|EACCES/)
      }
    }
    expect(compared).toBeGreaterThan(150)
  })

  it('says of others’ files why not, as a value', () => {
    expect(told['compressFile of others']!.value).toMatchObject({ ok: false, code: 'EPERM' })
    expect(told.deduplicate!.value).toMatchObject([{ outcome: 'same' }])
  })

  it('has changed nothing by what was refused', async () => {
    expect((await fs.info()).label).toBe(label)
    expect(await fs.quota()).toBeUndefined()
    expect(await fs.balanceStatus()).toBeUndefined()
    expect(await fs.exclusiveOperation()).toBe('none')
    expect((await fs.replaceStatus()).state).toBe('never')
    expect(await fs.defaultSubvolume()).toBe(5)
    expect(await fs.devices()).toMatchObject([{ devid: 1, sizeBytes: 512 << 20, path: volume.loops[0] }])
    expect(await fs.subvolume('theirs')).toMatchObject({ readonly: false })
    for (const name of ['new', 'snapshot', 'tree']) expect(await fs.subvolume(`mine/${name}`)).toBeDefined()
    expect(readFileSync(at('others/file')).equals(Buffer.alloc(256 << 10, 'btrmind'))).toBe(true)
  })

  it('deletes its own subvolumes where the mount allows it, and waits for none', async () => {
    run('mount', '-o', 'remount,user_subvol_rm_allowed', volume.path)
    const refused = await asNobody('deleteSubvolume until it is freed', 'deleteSubvolumes until they are freed')
    for (const one of Object.values(refused))
      expect(one).toMatchObject({ code: 'EPERM', hint: expect.stringMatching(toWait.hint) })
    expect(await fs.subvolume('mine/snapshot')).toBeDefined()
    const deleted = await asNobody('deleteSubvolume', 'deleteSubvolume of others', 'deleteSubvolumes')
    expect(deleted).toMatchObject({
      deleteSubvolume: {},
      'deleteSubvolume of others': { error: 'BtrfsError', code: expect.stringMatching(/^E(PERM|ACCES)$/) },
      deleteSubvolumes: { value: 1 },
    })
    expect(deleted.deleteSubvolume).not.toHaveProperty('error')
    for (const name of ['new', 'tree']) await expect(fs.subvolume(`mine/${name}`)).rejects.toThrow(/ENOENT/)
    expect(await fs.subvolume('theirs')).toBeDefined()
  })
})
