/** One legitimate call of everything that the package can do, on a volume that privilege.test.ts laid out. */
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { type FileBatch, fileRef, rows } from '../../src/btrfs/batch.js'
import { devicesReady, forgetDevice, scanDevice } from '../../src/btrfs/devices.js'
import { type KernelFilesystem, openFilesystem } from '../../src/btrfs/filesystem.js'
import { formatBytes } from '../../src/units.js'

export interface Case {
  readonly fs: KernelFilesystem
  /** Of the volume, and one that belongs to none. */
  readonly device: string
  readonly spare: string
}
type Calls = Readonly<Record<string, (on: Case) => unknown>>

async function collect<T>(all: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const one of all) found.push(one)
  return found
}
const paths = async (batches: AsyncIterable<FileBatch>) => {
  const found: string[] = []
  for await (const { path } of rows(batches)) found.push(path)
  return found.sort()
}
/** As seen by a walk, with its root. */
async function file(fs: KernelFilesystem, root: string, name: string) {
  for await (const batch of fs.walk(join(fs.path, root)))
    for (let i = 0; i < batch.length; i++)
      if (batch.path(i) === name) return [join(fs.path, root), fileRef(batch, i)] as const
  throw new Error(`no ${name} in ${root}`)
}

/**
 * What changes nothing: whoever calls them must hear the same. `name` or `name variant`: the first word is the method
 * or function.
 */
export const READ: Calls = {
  formatBytes: () => formatBytes(4096),
  openFilesystem: async ({ fs }) => (await openFilesystem(fs.path, { uuid: fs.uuid })).close(),
  'openFilesystem of a directory that is closed': async ({ fs }) =>
    (await openFilesystem(join(fs.path, 'secret'))).close(),
  info: ({ fs }) => fs.info(),
  usage: ({ fs }) => fs.usage(),
  devices: ({ fs }) => fs.devices(),
  measure: ({ fs }) => fs.measure(),
  statfs: ({ fs }) => fs.statfs(),
  directory: ({ fs }) => fs.directory(join(fs.path, 'mine')),
  'directory that is closed': ({ fs }) => fs.directory(join(fs.path, 'secret/inner')),
  walk: ({ fs }) => paths(fs.walk(join(fs.path, 'mine'))),
  'walk of a directory that is closed': ({ fs }) => paths(fs.walk(join(fs.path, 'secret'))),
  scan: ({ fs }) => paths(fs.scan({ subvolume: 'mine' })),
  'scan of extents': ({ fs }) => paths(fs.scan({ subvolume: 'mine', extents: true })),
  rows: ({ fs }) => paths(fs.scan({ subvolume: 'mine' })),
  fileRef: async ({ fs }) => (await file(fs, 'mine', 'a'))[1].inode,
  largest: async ({ fs }) => (await fs.largest(9, { subvolume: 'mine' })).map(({ inode }) => inode).sort(),
  inactive: async ({ fs }) => (await collect(fs.inactive(0, { subvolume: 'mine' }))).map(({ inode }) => inode).sort(),
  changed: async ({ fs }) => (await collect(fs.changed(0))).map(({ path }) => path).sort(),
  compression: ({ fs }) => fs.compression({ subvolume: 'mine' }).result,
  fragmentation: ({ fs }) => fs.fragmentation({ subvolume: 'mine' }).result,
  du: ({ fs }) => fs.du({ subvolume: 'mine' }).result,
  subvolumes: async ({ fs }) => (await collect(fs.subvolumes({ below: 'mine' }))).map(({ path }) => path).sort(),
  subvolume: ({ fs }) => fs.subvolume('mine/sub'),
  'subvolume by id': async ({ fs }) => fs.subvolume((await fs.subvolume('mine/sub')).id),
  fileExtents: async ({ fs }) => fs.fileExtents(...(await file(fs, 'mine', 'a'))),
  estimateCompressedRatio: async ({ fs }) => fs.estimateCompressedRatio(...(await file(fs, 'mine', 'a'))),
  exclusiveOperation: ({ fs }) => fs.exclusiveOperation(),
  redundancy: ({ fs }) => fs.redundancy(),
  blockGroups: ({ fs }) => fs.blockGroups(),
  inodePaths: ({ fs }) => fs.inodePaths(5, 257),
  logicalFiles: ({ fs }) => fs.logicalFiles(2 ** 40),
  treeSearch: ({ fs }) => collect(fs.treeSearch({ tree: 'root', max: { objectid: 5n } })).then(({ length }) => length),
  quota: ({ fs }) => fs.quota(),
  features: ({ fs }) => fs.features(),
  extents: ({ fs }) => collect(fs.extents('mine/a')),
  'extents of a file that is closed': ({ fs }) => collect(fs.extents('closed')),
  compressionProperty: ({ fs }) => fs.compressionProperty('mine/a'),
  attributes: ({ fs }) => fs.attributes('mine/a'),
  readEncoded: async ({ fs }) => (await collect(fs.readEncoded('mine/a'))).map(({ lengthBytes }) => lengthBytes),
  statistics: ({ fs }) => fs.statistics(),
  reclaimSettings: ({ fs }) => fs.reclaimSettings(),
  defaultSubvolume: ({ fs }) => fs.defaultSubvolume(),
  balanceStatus: ({ fs }) => fs.balanceStatus(),
  scrubStatus: ({ fs }) => fs.scrubStatus(),
  balancePlan: ({ fs }) => fs.balancePlan({ data: {} }),
  replaceStatus: ({ fs }) => fs.replaceStatus(),
  devicesReady: ({ device }) => devicesReady(device),
}

const batch = async (fs: KernelFilesystem, name: string) => {
  const [root, ref] = await file(fs, 'mine', name)
  return [root, [ref]] as const
}

/** What changes something, or would: in this order. */
export const CHANGE: Calls = {
  sync: ({ fs }) => fs.sync(),
  startSync: ({ fs }) => fs.startSync(),
  waitSync: ({ fs }) => fs.waitSync(),
  compressFile: async ({ fs }) => fs.compressFile(...(await file(fs, 'mine', 'a'))),
  'compressFile of others': async ({ fs }) => fs.compressFile(...(await file(fs, 'others', 'file'))),
  defragment: ({ fs }) => fs.defragment('mine/a').result,
  'defragment of others': ({ fs }) => fs.defragment('others/file').result,
  deduplicate: ({ fs }) => fs.deduplicate('mine/a', {}, [{ path: 'mine/b' }]).result,
  'deduplicate of what is closed': ({ fs }) => fs.deduplicate('closed', {}, [{ path: 'mine/b' }]).result,
  clone: ({ fs }) => fs.clone('mine/a', 'mine/c', { create: true }),
  'clone into others': ({ fs }) => fs.clone('mine/a', 'others/file'),
  setCompressionProperty: ({ fs }) => fs.setCompressionProperty('mine/a', 'zstd'),
  'setCompressionProperty of others': ({ fs }) => fs.setCompressionProperty('others/file', 'zstd'),
  setAttributes: ({ fs }) => fs.setAttributes('mine/a', { noatime: true }),
  'setAttributes of others': ({ fs }) => fs.setAttributes('others/file', { noatime: true }),
  'setAttributes for root': ({ fs }) => fs.setAttributes('mine/a', { immutable: true }),
  writeEncoded: ({ fs }) =>
    fs.writeEncoded('mine/a', { data: Buffer.alloc(100), compression: 'zstd', unencodedLengthBytes: 4096 }),
  removeFiles: async ({ fs }) => (await fs.removeFiles(...(await batch(fs, 'b')))).map(({ code }) => code),
  createSubvolume: ({ fs }) => fs.createSubvolume('mine/new'),
  'createSubvolume in others': ({ fs }) => fs.createSubvolume('others/new'),
  snapshot: ({ fs }) => fs.snapshot('mine/sub', 'mine/snapshot'),
  'snapshot of others': ({ fs }) => fs.snapshot('theirs', 'mine/theirs'),
  'snapshot in others': ({ fs }) => fs.snapshot('mine/sub', 'others/snapshot'),
  snapshotTree: ({ fs }) => fs.snapshotTree('mine/sub', 'mine/tree'),
  'snapshotTree of others': ({ fs }) => fs.snapshotTree('theirs', 'mine/theirs'),
  setReadonly: async ({ fs }) => {
    await fs.setReadonly('mine/new', true)
    await fs.setReadonly('mine/new', false)
  },
  'setReadonly of others': ({ fs }) => fs.setReadonly('theirs', true),
  deleteSubvolume: ({ fs }) => fs.deleteSubvolume('mine/new'),
  'deleteSubvolume of others': ({ fs }) => fs.deleteSubvolume('theirs'),
  'deleteSubvolume until it is freed': ({ fs }) => fs.deleteSubvolume('mine/snapshot', { waitUntilFreed: true }),
  deleteSubvolumes: async ({ fs }) => {
    const { deleted, failures } = await fs.deleteSubvolumes(['mine/tree'], { waitUntilFreed: false }).result
    if (failures[0] !== undefined) throw failures[0].error
    return deleted
  },
  'deleteSubvolumes until they are freed': async ({ fs }) => {
    const { failures } = await fs.deleteSubvolumes(['mine/snapshot']).result
    if (failures[0] !== undefined) throw failures[0].error
  },
  setLabel: ({ fs }) => fs.setLabel('nobody'),
  setFeatures: ({ fs }) => fs.setFeatures({ extended_iref: true }),
  trim: ({ fs }) => fs.trim().result,
  setDefaultSubvolume: async ({ fs }) => fs.setDefaultSubvolume((await fs.subvolume('mine/sub')).id),
  resizeDevice: ({ fs }) => fs.resizeDevice(1, 400 << 20),
  addDevice: ({ fs, spare }) => fs.addDevice(spare),
  removeDevice: ({ fs }) => fs.removeDevice(1),
  replaceDevice: ({ fs, spare }) => fs.replaceDevice(1, spare).result,
  resetDeviceErrors: ({ fs }) => fs.resetDeviceErrors(1),
  balance: ({ fs }) => fs.balance({ data: {} }).result,
  resumeBalance: ({ fs }) => fs.resumeBalance().result,
  pauseBalance: ({ fs }) => fs.pauseBalance(),
  cancelBalance: ({ fs }) => fs.cancelBalance(),
  reclaimDataBlockGroups: ({ fs }) => fs.reclaimDataBlockGroups({ maxBlockGroups: 1 }).result,
  scrub: ({ fs }) => fs.scrub({ readonly: true }).result,
  cancelScrub: ({ fs }) => fs.cancelScrub(),
  enableQuota: ({ fs }) => fs.enableQuota(),
  rescanQuota: ({ fs }) => fs.rescanQuota(),
  createQgroup: ({ fs }) => fs.createQgroup('1/1'),
  assignQgroup: ({ fs }) => fs.assignQgroup('0/5', '1/1'),
  unassignQgroup: ({ fs }) => fs.unassignQgroup('0/5', '1/1'),
  limitQgroup: ({ fs }) => fs.limitQgroup('1/1', { referencedBytes: 1 << 30 }),
  destroyQgroup: ({ fs }) => fs.destroyQgroup('1/1'),
  disableQuota: ({ fs }) => fs.disableQuota(),
  resetCommitStatistics: ({ fs }) => fs.resetCommitStatistics(),
  setReclaimSettings: ({ fs }) => fs.setReclaimSettings({ data: { thresholdPercent: 30 } }),
  scanDevice: ({ spare }) => scanDevice(spare),
  forgetDevice: ({ spare }) => forgetDevice(spare),
  close: async ({ fs }) => (await openFilesystem(fs.path)).close(),
}

export type Told = { readonly value?: unknown } & Partial<Record<'error' | 'code' | 'hint' | 'message', string>>

/** One after the other. */
export async function tell(calls: Calls, on: Case): Promise<Record<string, Told>> {
  const told: Record<string, Told> = {}
  for (const [name, call] of Object.entries(calls)) {
    const hang = new AbortController()
    const late = setTimeout(20_000, { error: 'hangs' }, { signal: hang.signal }).catch(() => ({ error: 'hangs' }))
    const answer = async () => {
      try {
        return { value: await call(on) }
      } catch (error) {
        const { name, code = '', hint = '', message } = error as Error & { code?: string; hint?: string }
        return { error: name, code, hint, message }
      }
    }
    told[name] = await Promise.race([answer(), late])
    hang.abort()
  }
  return told
}
