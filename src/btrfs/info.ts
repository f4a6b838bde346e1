import { check } from '../errors.js'
import { native } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions } from './options.js'
import type { FilesystemInfo } from './types.js'
import type { Volume } from './volume.js'

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
