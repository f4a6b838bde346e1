/** Of balance, adding, removing, replacing and resizing devices, a volume has one at a time. */
import { constants } from 'node:os'
import { BtrfsError, check, type NativeFailure } from '../errors.js'
import { native, SpacePart } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions } from './options.js'
import type { Volume } from './volume.js'

/** 'none', or what holds the volume, as the kernel names it. */
export type ExclusiveOperation =
  | 'none'
  | 'balance'
  | 'balance paused'
  | 'device add'
  | 'device remove'
  | 'device replace'
  | 'resize'
  | 'swap activate'

/**
 * Which of the operations that exclude each other holds the volume now, whoever started it: a balance, also a paused
 * one, or an addition, removal, replacement or resizing of a device. sysfs (exclusive_operation, Linux 5.10) · no
 * privilege · quick. A scrub is none of them. Two exceptions that the kernel makes: a paused balance lets a device be
 * added, and its own reclaiming of block groups shows as 'balance', although there is none to cancel.
 * @throws BtrfsError ENOENT (an older kernel, or no sysfs), EBADF, ETIMEDOUT
 * @example
 * if ((await fs.exclusiveOperation()) === 'none') await fs.balance({ data: { usagePercent: 30 } }).result
 */
export async function exclusiveOperation(volume: Volume, options: CallOptions = {}): Promise<ExclusiveOperation> {
  const raw = await volume.call('exclusiveOperation', {}, check('exclusiveOperation', callOptions, options), (t) =>
    native.space(t, volume.handle, SpacePart.exclusive),
  )
  if (raw.exclusiveOperation !== undefined) return raw.exclusiveOperation as ExclusiveOperation
  const code = (raw.failures?.exclusiveOperation ?? 'ENOENT') as keyof typeof constants.errno
  const path = `/sys/fs/btrfs/${volume.uuid}/exclusive_operation`
  throw new BtrfsError('exclusiveOperation', {
    code,
    errno: -constants.errno[code],
    text: 'cannot be read',
    path,
    ...(code === 'ENOENT' ? { hint: 'needs Linux 5.10' } : {}),
  })
}

const GO_ON: Readonly<Record<string, string>> = {
  none: 'another exclusive operation held the volume and has just ended: try again',
  balance: 'a balance runs: cancelBalance(), or wait for it',
  'balance paused': 'a balance is paused: resumeBalance() or cancelBalance()',
}

/** For `volume.call()` and the like: what holds the volume, where that is why the kernel refused. */
export async function whoHolds(volume: Volume, { code }: NativeFailure): Promise<string | undefined> {
  if (code !== 'EINPROGRESS' && code !== 'BTRFS_ERROR_DEV_EXCL_RUN_IN_PROGRESS') return undefined
  const holder = await exclusiveOperation(volume).catch(() => undefined)
  return holder === undefined ? undefined : (GO_ON[holder] ?? `another exclusive operation runs: ${holder}`)
}
