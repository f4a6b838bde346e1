/** What of a volume is missing, and whether it still has all its data. */
import { check } from '../errors.js'
import { native } from '../native.js'
import type { CallOptions } from './call.js'
import { PROFILE_RULES } from './chunk-allocator.js'
import { type BlockGroup, blockGroups } from './inspect.js'
import { callOptions } from './options.js'
import { type Reading, unpack } from './space.js'
import type { BlockGroupType, Profile, Unavailable } from './types.js'
import type { Volume } from './volume.js'

export interface ProfileRedundancy {
  readonly type: BlockGroupType
  readonly profile: Profile
  /** So many devices may be gone with nothing lost, whichever they are. */
  readonly tolerated: number
  /** Block groups of it, those with a stripe on a missing device, and those that miss more than is tolerated. */
  readonly blockGroups: number | undefined
  readonly degraded: number | undefined
  readonly lost: number | undefined
}
export interface Redundancy {
  /** A device is missing: the volume is mounted degraded. */
  readonly degraded: boolean
  readonly missingDevids: readonly number[]
  /** No block group misses more than it tolerates; undefined where that cannot be read. */
  readonly complete: boolean | undefined
  /** How many more devices may go, whichever they are, with nothing lost: the least of all block groups. */
  readonly spareDevices: number | undefined
  readonly profiles: readonly ProfileRedundancy[]
  readonly unavailable: readonly Unavailable[]
}

/**
 * Whether a device is missing, what each profile tolerates, and how many block groups are the worse for it.
 * BTRFS_IOC_DEV_INFO, SPACE_INFO, tree search · without CAP_SYS_ADMIN no counts of block groups; where no device is
 * missing `complete` and `spareDevices` are known all the same · quick.
 *
 * raid10 is counted as tolerating one, which holds whichever it is; by luck it bears more, so there `lost` may be said
 * of what is still whole.
 * @throws BtrfsError EBADF, ETIMEDOUT
 * @example
 * const { degraded, complete, missingDevids } = await fs.redundancy()
 * if (degraded) console.log(`missing: ${missingDevids.join(', ')}; ${complete ? 'all data is there' : 'data is lost'}`)
 */
export async function redundancy(volume: Volume, options: CallOptions = {}): Promise<Redundancy> {
  const callWith = check('redundancy', callOptions, options)
  const reading = unpack(await volume.call('redundancy', {}, callWith, (t) => native.space(t, volume.handle, 0)))
  let groups: BlockGroup[] | undefined
  try {
    groups = await blockGroups(volume, callWith)
  } catch (error) {
    if ((error as { code?: string }).code !== 'EPERM') throw error
  }
  return redundancyOf(reading, groups)
}

/** Pure. Internal: exported for the tests. @param groups undefined: not permitted */
export function redundancyOf(
  { devices, spaces }: Pick<Reading, 'devices' | 'spaces'>,
  groups: readonly BlockGroup[] | undefined,
): Redundancy {
  const missing = new Set(devices.filter((device) => device.missing).map(({ devid }) => devid))
  const fields: string[] = []
  if (groups === undefined) fields.push('profiles.blockGroups', 'profiles.degraded', 'profiles.lost')
  if (groups === undefined && missing.size > 0) fields.push('complete', 'spareDevices')
  const absent = ({ stripes }: BlockGroup) =>
    new Set(stripes.map(({ devid }) => devid).filter((id) => missing.has(id))).size
  const profiles = spaces.map(({ type, profile }): ProfileRedundancy => {
    const { tolerated } = PROFILE_RULES[profile]
    const own = groups?.filter((group) => group.type === type && group.profile === profile)
    return {
      type,
      profile,
      tolerated,
      blockGroups: own?.length,
      degraded: own?.filter((group) => absent(group) > 0).length,
      lost: own?.filter((group) => absent(group) > tolerated).length,
    }
  })
  const spare =
    groups?.map((group) => PROFILE_RULES[group.profile].tolerated - absent(group)) ??
    (missing.size === 0 ? profiles.map(({ tolerated }) => tolerated) : undefined)
  // Too many for the arguments of one call, on a volume of 125 TB.
  const least = spare?.reduce((least, one) => Math.min(least, one), Number.POSITIVE_INFINITY)
  return {
    degraded: missing.size > 0,
    missingDevids: [...missing],
    complete: least === undefined ? undefined : least >= 0,
    spareDevices: least === undefined ? undefined : Math.max(0, least),
    profiles,
    unavailable: fields.map((field) => ({ field, reason: 'EPERM: needs root (CAP_SYS_ADMIN)' })),
  }
}
