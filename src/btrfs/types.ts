/** Words that all families share; the types of one family stand in its own file. */

export type BlockGroupType = 'data' | 'metadata' | 'system' | 'data+metadata'
export type Profile = 'single' | 'dup' | 'raid0' | 'raid1' | 'raid1c3' | 'raid1c4' | 'raid10' | 'raid5' | 'raid6'

/** What could not be had, and why ("EPERM: needs root (CAP_SYS_ADMIN)"). The field itself is then undefined. */
export interface Unavailable {
  readonly field: string
  readonly reason: string
}

export interface DeviceErrors {
  readonly write: number
  readonly read: number
  readonly flush: number
  readonly corruption: number
  readonly generation: number
}
