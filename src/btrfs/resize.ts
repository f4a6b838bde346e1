import * as v from 'valibot'
import { check, type NativeFailure } from '../errors.js'
import { native } from '../native.js'
import { MIB } from '../units.js'
import { type CallOptions, explained } from './call.js'
import { deviceOfId, noDevice } from './devices.js'
import { whoHolds } from './exclusive.js'
import { callOptions, devidArgument } from './options.js'
import type { Volume } from './volume.js'

const sizeArgument = v.pipe(
  v.number(),
  v.safeInteger('a whole number of bytes'),
  v.minValue(256 * MIB, 'at least 256 MiB'),
)

/**
 * Sets how much of a device the volume uses. BTRFS_IOC_RESIZE · CAP_SYS_ADMIN · growing is quick; shrinking moves what
 * lies beyond the new end, which may take hours. Abort, timeout and close() cancel that (ECANCELED; Linux 5.14).
 * @param devid as devices() says
 * @param sizeBytes at least 256 MiB, at most the device's own size; rounded down to a sector
 * @throws BtrfsError ENODEV (no such device), EPERM (also for a seed’s), EFBIG, ENOSPC (no room to move things to), EPERM, EROFS, EAGAIN (frozen),
 *   BTRFS_ERROR_DEV_EXCL_RUN_IN_PROGRESS (a balance or another device operation runs or is paused)
 * @example
 * await fs.resizeDevice(1, 100 * 1024 ** 3)
 */
export async function resizeDevice(
  volume: Volume,
  devid: number,
  sizeBytes: number,
  options: CallOptions = {},
): Promise<void> {
  const device = check('resizeDevice: devid', devidArgument, devid)
  const size = check('resizeDevice: sizeBytes', sizeArgument, sizeBytes)
  const explain = async (failure: NativeFailure) => {
    if (!['ENODEV', 'EPERM'].includes(failure.code)) return whoHolds(volume, failure)
    return (await deviceOfId(volume, device)) === undefined ? noDevice(device) : undefined
  }
  await volume.callLong('resizeDevice', {}, check('resizeDevice', callOptions, options), (ticket) =>
    explained(native.resize(ticket, volume.handle, device, size), explain),
  )
}
