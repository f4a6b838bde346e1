/** When the kernel itself takes back block groups that are nearly empty. */
import * as v from 'valibot'
import { BtrmindError, check } from '../errors.js'
import { native } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions } from './options.js'
import { Attributes } from './sysfs.js'
import type { BlockGroupType, Unavailable } from './types.js'
import type { Volume } from './volume.js'

/** Of one type of block group. Undefined: not in this kernel (5.19 the threshold; 6.11 the rest). */
export interface Reclaim {
  /**
   * A block group that falls below it as space in it is freed is moved elsewhere and given back. 0: none is. While
   * `dynamic`, what the kernel has worked out.
   */
  readonly thresholdPercent: number | undefined
  /** The kernel works the threshold out, out of what is unallocated. */
  readonly dynamic: boolean | undefined
  /** It looks also when nothing is freed. */
  readonly periodic: boolean | undefined
  /** Since the mount: block groups, their bytes, and how often it failed. */
  readonly reclaimed: number | undefined
  readonly reclaimedBytes: number | undefined
  readonly errors: number | undefined
}
export interface ReclaimSettings {
  /** A type that the volume does not have is left out. */
  readonly types: { readonly [Type in BlockGroupType]?: Reclaim }
  /** Of zoned devices: how full the volume must be for the kernel to begin. */
  readonly zonedThresholdPercent: number | undefined
  readonly unavailable: readonly Unavailable[]
}
export interface ReclaimChange {
  /** 0 to 100. */
  readonly thresholdPercent?: number | undefined
  readonly dynamic?: boolean | undefined
  readonly periodic?: boolean | undefined
}
/** What is left out stays as it is. */
export type ReclaimChanges = CallOptions & {
  readonly [Type in BlockGroupType]?: ReclaimChange | undefined
} & {
  /** 0 (off), or 51 to 100. */
  readonly zonedThresholdPercent?: number | undefined
}

const DIRECTORIES = { data: 'data', metadata: 'metadata', system: 'system', 'data+metadata': 'mixed' } as const
const TYPES = Object.keys(DIRECTORIES) as BlockGroupType[]
const FILES = {
  thresholdPercent: 'bg_reclaim_threshold',
  dynamic: 'dynamic_reclaim',
  periodic: 'periodic_reclaim',
  reclaimed: 'reclaim_count',
  reclaimedBytes: 'reclaim_bytes',
  errors: 'reclaim_errors',
} as const
const ZONED = 'bg_reclaim_threshold'
const place = (type: BlockGroupType, field: keyof typeof FILES) => `allocation/${DIRECTORIES[type]}/${FILES[field]}`

const percent = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(100, 'a whole number of percent, 0 to 100'))
const change = v.strictObject({
  thresholdPercent: v.optional(percent),
  dynamic: v.optional(v.boolean()),
  periodic: v.optional(v.boolean()),
})
const changes = v.strictObject({
  ...callOptions.entries,
  data: v.optional(change),
  metadata: v.optional(change),
  system: v.optional(change),
  'data+metadata': v.optional(change),
  zonedThresholdPercent: v.optional(
    v.pipe(
      percent,
      v.check((value) => value === 0 || value > 50, '0 (off) or 51 to 100'),
    ),
  ),
})

/**
 * When the kernel gives block groups back by itself, and how often it has. sysfs · no privilege · quick. Where it does,
 * a balance of one's own on the same type is work done twice.
 * @throws BtrfsError EBADF
 * @example
 * const { types } = await fs.reclaimSettings()
 * if (types.data?.dynamic) console.log(`the kernel has given ${types.data.reclaimed} block groups back by itself`)
 */
export async function reclaimSettings(volume: Volume, options: CallOptions = {}): Promise<ReclaimSettings> {
  const fields = Object.keys(FILES) as (keyof typeof FILES)[]
  const flags = (type: BlockGroupType) => `allocation/${DIRECTORIES[type]}/flags`
  const names = TYPES.flatMap((type) => [flags(type), ...fields.map((field) => place(type, field))])
  const callWith = check('reclaimSettings', callOptions, options)
  const read = await Attributes.read(volume, 'reclaimSettings', [...names, ZONED], callWith)
  const types: { [Type in BlockGroupType]?: Reclaim } = {}
  const unavailable: (Unavailable | undefined)[] = [read.why('zonedThresholdPercent', ZONED)]
  const yes = (name: string) => {
    const value = read.number(name)
    return value === undefined ? undefined : value !== 0
  }
  for (const type of TYPES) {
    if (read.text(flags(type)) === undefined) continue
    const number = (field: keyof typeof FILES) => read.number(place(type, field))
    types[type] = {
      thresholdPercent: number('thresholdPercent'),
      dynamic: yes(place(type, 'dynamic')),
      periodic: yes(place(type, 'periodic')),
      reclaimed: number('reclaimed'),
      reclaimedBytes: number('reclaimedBytes'),
      errors: number('errors'),
    }
    for (const field of fields) unavailable.push(read.why(`types.${type}.${field}`, place(type, field)))
  }
  const reasons = unavailable.filter((row) => row !== undefined)
  return { types, zonedThresholdPercent: read.number(ZONED), unavailable: reasons }
}

/**
 * Sets when the kernel gives block groups back by itself, until the volume is unmounted: it keeps none of this. All or
 * nothing: what was set before one was refused is put back. sysfs · root · quick.
 * @param wanted by type of block group; what is left out stays as it is
 * @throws BtrfsError ENOENT (this kernel, or this volume, has it not), EACCES (not root), EINVAL, EROFS, EBADF;
 * BtrmindError BTRMIND_ERR_ARGUMENT, BTRMIND_ERR_OPTION
 * @example
 * await fs.setReclaimSettings({ data: { dynamic: true, periodic: true } })
 */
export async function setReclaimSettings(volume: Volume, wanted: ReclaimChanges): Promise<void> {
  const { signal, timeoutMs, zonedThresholdPercent, ...types } = check('setReclaimSettings', changes, wanted)
  const values = new Map<string, number>()
  const fields = ['dynamic', 'periodic', 'thresholdPercent'] as const
  for (const type of TYPES) {
    for (const field of fields) {
      const value = types[type]?.[field]
      if (value !== undefined) values.set(place(type, field), Number(value))
    }
  }
  if (zonedThresholdPercent !== undefined) values.set(ZONED, zonedThresholdPercent)
  if (values.size === 0)
    throw new BtrmindError('BTRMIND_ERR_ARGUMENT', 'setReclaimSettings: expected something to set; got nothing')
  const hints = {
    ENOENT: 'this kernel has no such setting, or the volume no such block groups; see reclaimSettings()',
    EACCES: 'needs root',
  }
  const write = (name: string, value: number | string, callWith: CallOptions) =>
    volume.call('setReclaimSettings', { hints }, callWith, (ticket) =>
      native.sysfsWrite(ticket, volume.handle, name, String(value)),
    )
  const before = await Attributes.read(volume, 'setReclaimSettings', [...values.keys()], { signal, timeoutMs })
  const done: string[] = []
  try {
    for (const [name, value] of values) {
      await write(name, value, { signal, timeoutMs })
      done.unshift(name)
    }
  } catch (error) {
    for (const name of done) await write(name, before.text(name)!, {}).catch(() => {})
    throw error
  }
}
