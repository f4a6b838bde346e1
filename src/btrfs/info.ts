import { check } from '../errors.js'
import { native } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions } from './options.js'

import type { Volume } from './volume.js'

/** FS_INFO. No privilege needed. */
export interface FilesystemInfo {
  readonly uuid: string
  /** Differs from `uuid` after `btrfstune -m`. */
  readonly metadataUuid: string
  /** Devices that belong to the volume, the missing ones counted. */
  readonly devices: number
  readonly maxDeviceId: number
  readonly nodeSizeBytes: number
  readonly sectorSizeBytes: number
  readonly cloneAlignmentBytes: number
  /** The newest transaction, which may still be open: a commit shows once the next one begins. */
  readonly generation: number | undefined
  readonly checksum: 'crc32c' | 'xxhash64' | 'sha256' | 'blake2b' | undefined
  /** Empty string when the volume has none. */
  readonly label: string
}

const CHECKSUMS = ['crc32c', 'xxhash64', 'sha256', 'blake2b'] as const

/**
 * Identity and geometry of the volume. BTRFS_IOC_FS_INFO · no privilege · quick.
 * @throws BtrfsError EBADF
 */
export async function info(volume: Volume, options?: CallOptions): Promise<FilesystemInfo> {
  const raw = await volume.call('info', {}, check('info', callOptions, options ?? {}), (t) =>
    native.info(t, volume.handle),
  )
  const { checksumType, ...rest } = raw
  return {
    ...rest,
    generation: raw.generation,
    checksum: checksumType === undefined ? undefined : CHECKSUMS[checksumType],
  }
}
