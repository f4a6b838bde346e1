import * as v from 'valibot'
import { BtrmindError, check, quote } from '../errors.js'
import { native } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions, subvolumeId } from './options.js'
import type { Volume } from './volume.js'

const labelArgument = v.pipe(
  v.string(),
  v.check((label) => !/[\n\0]/.test(label), 'a label without line breaks'),
  v.check((label) => Buffer.byteLength(label) <= 255, 'a label of at most 255 bytes'),
)
const transaction = v.pipe(v.number(), v.safeInteger('a generation'), v.minValue(0))
const featuresArgument = v.record(v.string(), v.unknown(), 'an object of features')

/**
 * Names the volume; '' takes the name away. BTRFS_IOC_SET_FSLABEL · CAP_SYS_ADMIN · quick, with a commit.
 * @throws BtrfsError EPERM, EROFS, EBADF; BtrmindError BTRMIND_ERR_ARGUMENT
 * @example
 * await fs.setLabel('pool')
 */
export async function setLabel(volume: Volume, label: string, options: CallOptions = {}): Promise<void> {
  const text = check('setLabel: label', labelArgument, label)
  await volume.call('setLabel', {}, check('setLabel', callOptions, options), (t) =>
    native.setLabel(t, volume.handle, text),
  )
}

/** By bit. Names as sysfs has them. */
const COMPAT_RO = ['free_space_tree', 'free_space_tree_valid', 'verity', 'block_group_tree'] as const
const INCOMPAT = [
  'mixed_backref',
  'default_subvol',
  'mixed_groups',
  'compress_lzo',
  'compress_zstd',
  'big_metadata',
  'extended_iref',
  'raid56',
  'skinny_metadata',
  'no_holes',
  'metadata_uuid',
  'raid1c34',
  'zoned',
  'extent_tree_v2',
  'raid_stripe_tree',
  undefined,
  'simple_quota',
  'remap_tree',
] as const
export type Feature = (typeof COMPAT_RO)[number] | Exclude<(typeof INCOMPAT)[number], undefined>

/** On or off; what is not named stays. */
export type FeatureChanges = { readonly [name in Feature]?: boolean | undefined }
/** Names of features; one that this version does not know is 'compat_ro:7' or 'incompat:40', its bit. */
export interface Features {
  readonly inUse: readonly string[]
  /** By this kernel. */
  readonly supported: readonly string[]
  /** While mounted. */
  readonly settable: readonly string[]
  readonly clearable: readonly string[]
}

/**
 * Which on-disk features the volume uses, and what this kernel could do. BTRFS_IOC_GET_FEATURES,
 * GET_SUPPORTED_FEATURES · no privilege · quick.
 * @throws BtrfsError EBADF
 * @example
 * if ((await fs.features()).inUse.includes('raid56')) console.log('mind the write hole')
 */
export async function features(volume: Volume, options: CallOptions = {}): Promise<Features> {
  const flags = await volume.call('features', {}, check('features', callOptions, options), (t) =>
    native.features(t, volume.handle),
  )
  const names = (at: number) => [
    ...named('compat_ro', COMPAT_RO, flags[at]!),
    ...named('incompat', INCOMPAT, flags[at + 1]!),
  ]
  return { inUse: names(0), supported: names(2), settable: names(4), clearable: names(6) }
}

function named(kind: string, names: readonly (string | undefined)[], flags: bigint): string[] {
  const found: string[] = []
  for (let bit = 0; flags >> BigInt(bit) !== 0n; bit++)
    if ((flags >> BigInt(bit)) & 1n) found.push(names[bit] ?? `${kind}:${bit}`)
  return found
}

/**
 * Turns features on or off that can be while mounted (`features().settable`, `clearable`). BTRFS_IOC_SET_FEATURES ·
 * CAP_SYS_ADMIN · quick, with a commit. An older kernel may refuse to mount a volume with new ones.
 * @throws BtrfsError EPERM, EROFS, EOPNOTSUPP (not by this kernel, or not while mounted), EBADF; BtrmindError
 * BTRMIND_ERR_ARGUMENT
 * @example
 * await fs.setFeatures({ extended_iref: true })
 */
export async function setFeatures(volume: Volume, wanted: FeatureChanges, options: CallOptions = {}): Promise<void> {
  const callWith = check('setFeatures', callOptions, options)
  const sets = { compat_ro: { mask: 0n, values: 0n }, incompat: { mask: 0n, values: 0n } }
  for (const [name, on] of Object.entries(check('setFeatures: features', featuresArgument, wanted))) {
    const known: readonly (string | undefined)[] = (COMPAT_RO as readonly string[]).includes(name)
      ? COMPAT_RO
      : INCOMPAT
    const bit = known.indexOf(name)
    if (bit < 0 || typeof on !== 'boolean') {
      const names = [...COMPAT_RO, ...INCOMPAT].filter(Boolean).join(', ')
      const hint = `true or false for: ${names}`
      throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `setFeatures: ${`${name}: ${quote(on)}`} is no feature to set`, {
        hint,
      })
    }
    const set = known === COMPAT_RO ? sets.compat_ro : sets.incompat
    set.mask |= 1n << BigInt(bit)
    if (on) set.values |= 1n << BigInt(bit)
  }
  const { compat_ro, incompat } = sets
  await volume.call('setFeatures', {}, callWith, (t) =>
    native.setFeatures(t, volume.handle, compat_ro.mask, compat_ro.values, incompat.mask, incompat.values),
  )
}

/**
 * Begins to commit the transaction that is open, and does not wait; data that is still in the page cache is not part
 * of it (sync() writes that too). BTRFS_IOC_START_SYNC · no privilege · quick.
 * @returns the transaction, for waitSync()
 * @throws BtrfsError EROFS, EBADF
 * @example
 * const transaction = await fs.startSync()
 * await fs.waitSync(transaction)
 */
export async function startSync(volume: Volume, options: CallOptions = {}): Promise<number> {
  return volume.call('startSync', {}, check('startSync', callOptions, options), (t) =>
    native.startSync(t, volume.handle),
  )
}

/**
 * Waits until a transaction is committed; 0 (the default): the one that is being committed now, if any.
 * BTRFS_IOC_WAIT_SYNC · no privilege · as long as a commit takes.
 * @throws BtrfsError EINVAL (a transaction that is still to come), ETIMEDOUT, EBADF
 * @example
 * await fs.waitSync()
 */
export async function waitSync(volume: Volume, id = 0, options: CallOptions = {}): Promise<void> {
  const which = check('waitSync: transaction', transaction, id)
  const hints = { EINVAL: `transaction ${which} is still to come; startSync() gives the one that is under way` }
  await volume.call('waitSync', { hints }, check('waitSync', callOptions, options), (t) =>
    native.waitSync(t, volume.handle, which),
  )
}

/**
 * The subvolume that is mounted when none is named; 5 is the top of the volume. Tree search · CAP_SYS_ADMIN · quick.
 * @throws BtrfsError EPERM, EBADF
 * @example
 * const { path } = await fs.subvolume(await fs.defaultSubvolume())
 */
export async function defaultSubvolume(volume: Volume, options: CallOptions = {}): Promise<number> {
  return volume.call('defaultSubvolume', {}, check('defaultSubvolume', callOptions, options), (t) =>
    native.defaultSubvolume(t, volume.handle),
  )
}

/**
 * Sets which subvolume is mounted when none is named. BTRFS_IOC_DEFAULT_SUBVOL · CAP_SYS_ADMIN · quick.
 * @throws BtrfsError ENOENT (no such subvolume), EPERM, EROFS, EBADF; BtrmindError BTRMIND_ERR_ARGUMENT
 * @example
 * await fs.setDefaultSubvolume((await fs.subvolume('root')).id)
 */
export async function setDefaultSubvolume(volume: Volume, id: number, options: CallOptions = {}): Promise<void> {
  const which = check('setDefaultSubvolume: id', subvolumeId, id)
  const hints = { ENOENT: `there is no subvolume ${which}`, ENOTDIR: `there is no subvolume ${which}` }
  await volume.call('setDefaultSubvolume', { hints }, check('setDefaultSubvolume', callOptions, options), (t) =>
    native.setDefaultSubvolume(t, volume.handle, which),
  )
}
