import { check } from '../errors.js'
import { native } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions } from './options.js'

import type { Volume } from './volume.js'

/** What statfs(2) says: logical bytes, no privilege, 0.3 µs, also when nothing else answers. */
export interface Statfs {
  readonly sizeBytes: number
  /** bavail × block size. bfree would count metadata slack, also on a full volume. */
  readonly freeBytes: number
  /** 100 × (size − free) / size. */
  readonly usedPercent: number
}

/**
 * What statfs(2) says, for when the filesystem's own figures cannot be had. No privilege · quick.
 * @throws BtrfsError EBADF, ETIMEDOUT
 * @example
 * const { freeBytes } = await fs.statfs({ timeoutMs: 1000 })
 */
export async function statfs(volume: Volume, options?: CallOptions): Promise<Statfs> {
  const { sizeBytes, freeBytes } = await volume.call('statfs', {}, check('statfs', callOptions, options ?? {}), (t) =>
    native.statfs(t, volume.handle),
  )
  return { sizeBytes, freeBytes, usedPercent: (100 * (sizeBytes - freeBytes)) / sizeBytes }
}
