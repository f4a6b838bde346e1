import { isAbsolute, resolve } from 'node:path'
import * as v from 'valibot'
import { check, HINTS, type NativeFailure } from '../errors.js'
import { type NativeReplace, native, SpacePart } from '../native.js'
import { type CallOptions, call, explained } from './call.js'
import { whoHolds } from './exclusive.js'
import { LongOperation, type Operation, type ResumeOptions } from './operation.js'
import { callOptions, devidArgument, pathArgument, resumeOptions } from './options.js'
import { type SpaceDevice, unpack } from './space.js'
import type { DeviceErrors } from './types.js'
import type { Volume } from './volume.js'

export interface Device {
  readonly devid: number
  readonly uuid: string
  /** Undefined when the device is missing. */
  readonly path: string | undefined
  readonly missing: boolean
  readonly sizeBytes: number
  /** Bytes in chunks (allocated), not bytes of files. */
  readonly allocatedBytes: number
  readonly unallocatedBytes: number
  /** Device size beyond what the filesystem uses; undefined when it cannot be read. */
  readonly slackBytes: number | undefined
  /** Cumulative counters; undefined when missing or not permitted. */
  readonly errors: DeviceErrors | undefined
}

/**
 * The devices of the volume, by devid; missing ones too, seeds not. BTRFS_IOC_DEV_INFO, GET_DEV_STATS, sysfs · no
 * privilege · quick.
 * @throws BtrfsError EBADF, ETIMEDOUT
 * @example
 * for (const d of await fs.devices()) if (d.missing || (d.errors?.corruption ?? 0) > 0) console.log('look at', d)
 */
export async function devices(volume: Volume, options?: CallOptions): Promise<Device[]> {
  const raw = await volume.call('devices', {}, check('devices', callOptions, options ?? {}), (t) =>
    native.space(t, volume.handle, SpacePart.blockDevices | SpacePart.errors),
  )
  return unpack(raw).devices.map((device, index) => deviceOf(device, raw.uuids![index]!))
}

/** Pure. Internal: the simulator's figures come the same way. */
export function deviceOf({ blockDeviceBytes, ...device }: SpaceDevice, uuid: string): Device {
  return {
    devid: device.devid,
    uuid,
    path: device.path,
    missing: device.missing,
    sizeBytes: device.sizeBytes,
    allocatedBytes: device.allocatedBytes,
    unallocatedBytes: device.sizeBytes - device.allocatedBytes,
    slackBytes: blockDeviceBytes === undefined ? undefined : blockDeviceBytes - device.sizeBytes,
    errors: device.errors,
  }
}

/** Internal. Undefined: none of the volume's own. */
export async function deviceOfId(volume: Volume, devid: number): Promise<SpaceDevice | undefined> {
  return unpack(await native.space(0, volume.handle, 0)).devices.find((device) => device.devid === devid)
}
/** Internal: a hint. */
export const noDevice = (devid: number) =>
  `the volume has no device ${devid} of its own (a seed’s are not); see devices()`

export interface AddDeviceOptions extends CallOptions {
  /** Also when something is on the device: it is lost. Default false. */
  readonly force?: boolean
}
const addOptions = v.strictObject({ ...callOptions.entries, force: v.optional(v.boolean(), false) })

/** Where a device's own permissions are in the way, theirs are not all that is missing. */
const hints = { EACCES: HINTS.EPERM! }

/**
 * Takes a block device into the volume. BTRFS_IOC_ADD_DEV · CAP_SYS_ADMIN · seconds. What is there is used only after a
 * balance. A device that is in use is refused (EBUSY); one that is not empty too (EEXIST: something but zeros in its
 * first MiB, or a partition table's or raid's signature at its end), unless `force`.
 * @param path a whole block device or partition
 * @throws BtrfsError EEXIST, EBUSY, ENOTBLK, ENOENT, EPERM, EROFS, EINVAL (too small),
 *   BTRFS_ERROR_DEV_EXCL_RUN_IN_PROGRESS (a balance or another device operation runs)
 * @example
 * await fs.addDevice('/dev/sdc')
 */
export async function addDevice(volume: Volume, path: string, options: AddDeviceOptions = {}): Promise<void> {
  const device = resolve(check('addDevice: path', pathArgument, path))
  const { force, ...callWith } = check('addDevice', addOptions, options)
  await volume.callLong('addDevice', { path: device, hints }, callWith, (t) =>
    explained(native.deviceAdd(t, volume.handle, device, force), (failure) => whoHolds(volume, failure)),
  )
}

/**
 * Moves what is on a device to the others and takes it out; its superblocks are wiped. BTRFS_IOC_RM_DEV_V2 ·
 * CAP_SYS_ADMIN · hours: on a thread of its own; abort, timeout and close() cancel it (ECANCELED; Linux 5.14), and what
 * was moved stays where it is.
 * @param devid as devices() says; or 'missing', the first of those that are gone (on a degraded mount)
 * @throws BtrfsError ENOENT (no such device), ENOSPC (no room for what is on it),
 *   BTRFS_ERROR_DEV_RAID…_MIN_NOT_MET (the profile needs it), BTRFS_ERROR_DEV_EXCL_RUN_IN_PROGRESS, EPERM, EROFS,
 *   ECANCELED
 * @example
 * await fs.removeDevice(2)
 */
export async function removeDevice(
  volume: Volume,
  devid: number | 'missing',
  options: CallOptions = {},
): Promise<void> {
  const device = devid === 'missing' ? 0 : check('removeDevice: devid', devidArgument, devid)
  // The kernel looks at the profile before it looks for the device.
  const explain = async (failure: NativeFailure) =>
    failure.code.endsWith('_MIN_NOT_MET') && device !== 0 && (await deviceOfId(volume, device)) === undefined
      ? noDevice(device)
      : whoHolds(volume, failure)
  await volume.callLong(
    'removeDevice',
    { hints: { ENOENT: `the volume has no device ${devid}` } },
    check('removeDevice', callOptions, options),
    (t) => explained(native.deviceRemove(t, volume.handle, device), explain),
  )
}

export interface ReplaceOptions extends ResumeOptions {
  /** Also when something is on the target: it is lost. Default false. */
  readonly force?: boolean | undefined
  /** Read from the other copies where there are any: the old device is failing. Default false. */
  readonly avoidSource?: boolean | undefined
}
/** Of the replacement that runs, or of the last one. */
export interface ReplaceStatus {
  /** 'suspended': by an unmount; it goes on with the next mount. */
  readonly state: 'never' | 'running' | 'finished' | 'cancelled' | 'suspended'
  readonly ratio: number
  readonly startedAt: Date | undefined
  readonly stoppedAt: Date | undefined
  readonly writeErrors: number
  /** What no copy could give. */
  readonly uncorrectableReadErrors: number
}
const replaceOptions = v.strictObject({
  ...resumeOptions.entries,
  force: v.optional(v.boolean(), false),
  avoidSource: v.optional(v.boolean(), false),
})

/**
 * Copies a device, or what the others know of a missing one, to a new one that takes its place and id.
 * BTRFS_IOC_DEV_REPLACE · CAP_SYS_ADMIN · hours: on a thread of its own. cancel(), an aborted signal and close() stop
 * it, and the volume is as it was. The target must be empty, as for addDevice(), and at least as large.
 * @param devid what goes, as devices() says
 * @param target the block device that comes
 * @returns an operation; its `result` rejects with BtrfsError as addDevice(); EINPROGRESS, EINVAL (the target is too
 * small), ECANCELED
 * @throws BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT
 * @example
 * await using replacement = fs.replaceDevice(2, '/dev/sdd')
 * for await (const { ratio } of replacement) console.log(`${(100 * ratio).toFixed(1)} %`)
 */
export function replaceDevice(
  volume: Volume,
  devid: number,
  target: string,
  options: ReplaceOptions = {},
): Operation<ReplaceStatus, ReplaceStatus> {
  const source = check('replaceDevice: devid', devidArgument, devid)
  const path = resolve(check('replaceDevice: target', pathArgument, target))
  const { signal, intervalMs, force, avoidSource } = check('replaceDevice', replaceOptions, options)
  return new LongOperation({
    operation: 'replaceDevice',
    path,
    start: async (stop) =>
      named(
        await volume.callLong('replaceDevice', { path, hints }, { signal: stop }, (t) =>
          explained(native.deviceReplace(t, volume.handle, source, path, force, avoidSource), (failure) =>
            whoHolds(volume, failure),
          ),
        ),
      ),
    last: (result) => result,
    progress: async () => {
      const status = await replaceStatus(volume)
      return status.state === 'running' ? status : undefined
    },
    signal,
    intervalMs,
  })
}

/**
 * The replacement that runs, or how the last one ended. BTRFS_IOC_DEV_REPLACE · CAP_SYS_ADMIN · quick.
 * @throws BtrfsError EPERM, EBADF
 * @example
 * const { state, ratio } = await fs.replaceStatus()
 */
export async function replaceStatus(volume: Volume, options: CallOptions = {}): Promise<ReplaceStatus> {
  return named(
    await volume.call('replaceStatus', {}, check('replaceStatus', callOptions, options), (t) =>
      native.deviceReplaceStatus(t, volume.handle),
    ),
  )
}

function named({
  state,
  ratio,
  startedSeconds,
  stoppedSeconds,
  writeErrors,
  readErrors,
}: NativeReplace): ReplaceStatus {
  const date = (seconds: number) => (seconds === 0 ? undefined : new Date(1000 * seconds))
  const times = { startedAt: date(startedSeconds), stoppedAt: date(stoppedSeconds) }
  return { state, ratio, ...times, writeErrors, uncorrectableReadErrors: readErrors }
}

/**
 * Sets a device's error counters to zero. BTRFS_IOC_GET_DEV_STATS · CAP_SYS_ADMIN · quick.
 * @returns what they were; undefined when it is missing, as devices() has it
 * @throws BtrfsError ENODEV, EPERM, EBADF
 * @example
 * const { corruption } = await fs.resetDeviceErrors(1)
 */
export async function resetDeviceErrors(
  volume: Volume,
  devid: number,
  options: CallOptions = {},
): Promise<DeviceErrors | undefined> {
  const device = check('resetDeviceErrors: devid', devidArgument, devid)
  const counts = await volume.call(
    'resetDeviceErrors',
    { hints: { ENODEV: noDevice(device) } },
    check('resetDeviceErrors', callOptions, options),
    async (t) => {
      const were = await native.deviceErrorsReset(t, volume.handle, device)
      return (await deviceOfId(volume, device))?.missing ? undefined : were // zeros
    },
  )
  if (counts === undefined) return undefined
  const [write, read, flush, corruption, generation] = counts
  return { write: write!, read: read!, flush: flush!, corruption: corruption!, generation: generation! }
}

const blockDevice = v.pipe(
  v.string(),
  v.check((path) => isAbsolute(path), 'an absolute path of a block device'),
)
const control = (operation: string, what: 0 | 1 | 2, path: string, options: CallOptions) =>
  call(operation, path === '' ? { hints } : { path, hints }, check(operation, callOptions, options), (t) =>
    native.deviceControl(t, what, path),
  )

/**
 * Tells the kernel that a device holds (part of) a btrfs volume, so that all of it can be mounted by any of its
 * devices. BTRFS_IOC_SCAN_DEV · CAP_SYS_ADMIN · quick.
 * @throws BtrfsError EINVAL (not btrfs), ENOENT, EACCES, EPERM
 * @example
 * for (const device of ['/dev/sdb', '/dev/sdc']) await scanDevice(device)
 */
export async function scanDevice(path: string, options: CallOptions = {}): Promise<void> {
  await control('scanDevice', 0, check('scanDevice: path', blockDevice, path), options)
}

/**
 * Lets the kernel forget a device that is not mounted; without a path all of those. BTRFS_IOC_FORGET_DEV ·
 * CAP_SYS_ADMIN · quick.
 * @throws BtrfsError ENOENT (no such device), EBUSY (mounted), EACCES, EPERM; none where the kernel did not know it
 * @example
 * await forgetDevice('/dev/sdc')
 */
export async function forgetDevice(path?: string, options: CallOptions = {}): Promise<void> {
  await control('forgetDevice', 1, path === undefined ? '' : check('forgetDevice: path', blockDevice, path), options)
}

/**
 * Whether the kernel has seen every device of the volume that this one belongs to. BTRFS_IOC_DEVICES_READY ·
 * CAP_SYS_ADMIN · quick.
 * @throws BtrfsError EINVAL (not btrfs), ENOENT, EACCES, EPERM
 * @example
 * if (!(await devicesReady('/dev/sdb'))) console.log('one is missing')
 */
export async function devicesReady(path: string, options: CallOptions = {}): Promise<boolean> {
  return control('devicesReady', 2, check('devicesReady: path', blockDevice, path), options)
}
