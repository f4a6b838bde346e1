import { readFile, writeFile } from 'node:fs/promises'
import { BtrfsError, BtrmindError, check } from '../errors.js'
import { native } from '../native.js'
import type { CallOptions } from './call.js'
import { devices, noDevice } from './devices.js'
import { readBlockGroups } from './inspect.js'
import { LongOperation, type Operation, type ResumeOptions } from './operation.js'
import { callOptions, scrubOptions } from './options.js'
import {
  type DeviceScrub,
  expectedOn,
  type ScrubDeviceStatus,
  type ScrubProgress,
  type ScrubStatus,
  statusOf,
  summary,
} from './scrub-progress.js'
import type { Volume } from './volume.js'

export interface ScrubOptions extends ResumeOptions {
  /** Default: every device that is there. */
  readonly devid?: number | undefined
  /** Check only, repair nothing. Default false. */
  readonly readonly?: boolean | undefined
  /** Where to begin, in bytes of the device; or of each device by its id. Default 0. */
  readonly start?: number | Readonly<Record<number, number>> | undefined
  /** Where to end. Default: the device's end. */
  readonly end?: number | undefined
  /** Of each device. Default: whatever is set in sysfs. */
  readonly bytesPerSecond?: number | undefined
}

/**
 * Reads what is allocated and checks it against its checksums, on each device at once, and repairs from the other
 * copies what is bad. BTRFS_IOC_SCRUB, BTRFS_IOC_SCRUB_PROGRESS · CAP_SYS_ADMIN · long: a thread for each device,
 * minutes to days. A seed's devices are not this volume's (devices() has none of them): what a sprout still has on its seed
 * is not read; mount the seed by itself, and scrub that with `readonly`.
 *
 * A read-only scrub repairs nothing, and says `correctable` where a repairing one says `corrected`. The kernel keeps no
 * position: keep `lastPhysicalBytes` of each device, from the progress or from the error of a scrub that was cut short,
 * and give it as `start`; it begins again with the block group that it was in. cancel(), an aborted signal, close() and the end of the process stop it within a second; the
 * kernel's cancel stops every scrub of the volume, also another process's.
 * @param options.start where to begin, in bytes of the device; or of each device by its id
 * @param options.bytesPerSecond the kernel's limit for each device (sysfs scrub_speed_max, Linux 5.14), put back after;
 * a process or worker that ends meanwhile leaves it set until the volume is unmounted
 * @returns an operation; its `result` rejects with BtrfsError EPERM, ENODEV (no such device), EINPROGRESS (one is
 * scrubbed already), EROFS (a repairing scrub of a read-only mount), EBADF; ECANCELED; each with what was found so far
 * in `progress`
 * @throws BtrmindError BTRMIND_ERR_OPTION
 * @example
 * await using scrub = fs.scrub({ readonly: true })
 * for await (const { ratio, bytesPerSecond } of scrub) console.log((100 * ratio).toFixed(1), bytesPerSecond)
 * const { uncorrectableErrors } = await scrub.result
 */
export function scrub(volume: Volume, options: ScrubOptions = {}): Operation<ScrubProgress, ScrubProgress> {
  const { signal, intervalMs, ...checked } = check('scrub', scrubOptions, options)
  const runs: DeviceScrub[] = []
  const startMs = performance.now()
  const now = () => summary(runs, performance.now() - startMs, checked.readonly)
  const work = async (stop: AbortSignal) => {
    const { devid, start = 0, end, bytesPerSecond } = checked
    const all = await devices(volume, { signal: stop })
    // The estimate is not worth the scrub.
    const groups = await readBlockGroups(volume, 'scrub', { signal: stop }).catch((error) => {
      if (stop.aborted || !(error instanceof BtrfsError)) throw error
      return undefined
    })
    for (const device of all) {
      if (devid === undefined ? device.missing : device.devid !== devid) continue
      const from = typeof start === 'number' ? start : (start[device.devid] ?? 0)
      const extents = await volume.call('scrub', {}, { signal: stop }, (t) =>
        native.deviceExtents(t, volume.handle, device.devid),
      )
      const where = { devid: device.devid, from, end, extents }
      const expectedBytes = groups && expectedOn(groups, where)
      runs.push({ ...where, expectedBytes, counters: undefined, state: 'running' })
    }
    if (devid !== undefined && runs.length === 0) {
      throw new BtrfsError(
        'scrub',
        { code: 'ENODEV', errno: -19, text: 'no such device', step: `find device ${devid}`, hint: noDevice(devid) },
        { path: volume.path },
      )
    }
    const ends = await Promise.allSettled(
      runs.map((run) => scrubDevice(volume, run, { stop, readonly: checked.readonly, bytesPerSecond })),
    )
    const failed = ends.filter((end) => end.status === 'rejected').map(({ reason }) => reason as Error)
    const worst = failed.find((error) => (error as Partial<BtrfsError>).code !== 'ECANCELED') ?? failed[0]
    if (worst === undefined) return now()
    if (!(worst instanceof BtrfsError)) throw worst
    throw Object.assign(worst, { progress: now() })
  }
  return new LongOperation({
    operation: 'scrub',
    path: volume.path,
    start: (stop) => volume.track(work(stop)),
    last: (result) => result,
    progress: async () => {
      await Promise.all(
        runs.map(async (run) => {
          if (run.state !== 'running') return
          const counters = await volume.call('scrub', {}, undefined, (t) =>
            native.scrubProgress(t, volume.handle, run.devid),
          )
          if (counters !== undefined && run.state === 'running') run.counters = counters
        }),
      )
      return runs.some(({ counters }) => counters !== undefined) ? now() : undefined
    },
    signal,
    intervalMs,
  })
}

const refused = {
  EINPROGRESS: 'another scrub of this device, or a replacement, runs',
  EROFS: 'the mount is read-only: a scrub that repairs nothing (`readonly: true`) can read it',
}

/**
 * Whichever scrubs run on the volume, also another process's: the counters of each device that is scrubbed; undefined
 * where none is. While a device is replaced the kernel begins no scrub and shows the replacement as one: undefined.
 * BTRFS_IOC_SCRUB_PROGRESS · CAP_SYS_ADMIN · quick.
 * @throws BtrfsError EPERM, EBADF
 * @example
 * for (const { devid, dataBytes } of (await fs.scrubStatus())?.devices ?? []) console.log(devid, dataBytes)
 */
export async function scrubStatus(volume: Volume, options: CallOptions = {}): Promise<ScrubStatus | undefined> {
  const callWith = check('scrubStatus', callOptions, options)
  if (await isReplacing(volume, 'scrubStatus', callWith)) return undefined
  const found: ScrubDeviceStatus[] = []
  for (const { devid, missing } of await devices(volume, callWith)) {
    if (missing) continue
    const counters = await volume.call('scrubStatus', {}, callWith, (t) =>
      native.scrubProgress(t, volume.handle, devid),
    )
    if (counters !== undefined) found.push(statusOf(devid, counters))
  }
  return found.length === 0 ? undefined : { devices: found }
}

/**
 * Stops every scrub that runs on the volume, also another process's: its call there ends with ECANCELED. The kernel keeps
 * no position: who wants to go on asks scrubStatus() before. BTRFS_IOC_SCRUB_CANCEL · CAP_SYS_ADMIN · waits until they
 * have stopped, within a second; `signal` and `timeoutMs` end the waiting only.
 * @throws BtrfsError ENOTCONN (none runs), EPERM, EBADF; BtrmindError BTRMIND_ERR_GUARD (a device is being replaced, which
 * the kernel's cancel would stop too)
 * @example
 * if (await fs.scrubStatus()) await fs.cancelScrub()
 */
export async function cancelScrub(volume: Volume, options: CallOptions = {}): Promise<void> {
  const callWith = check('cancelScrub', callOptions, options)
  if (await isReplacing(volume, 'cancelScrub', callWith))
    throw new BtrmindError(
      'BTRMIND_ERR_GUARD',
      'cancelScrub: a device is being replaced, and that would be stopped too',
      {
        hint: 'to stop it, cancel() the operation that replaceDevice() gave',
      },
    )
  await volume.call('cancelScrub', { hints: { ENOTCONN: 'no scrub runs' } }, callWith, (t) =>
    native.scrubCancel(t, volume.handle),
  )
}

async function isReplacing(volume: Volume, operation: string, options: CallOptions): Promise<boolean> {
  const { state } = await volume.call(operation, {}, options, (t) => native.deviceReplaceStatus(t, volume.handle))
  return state === 'running'
}

async function scrubDevice(
  volume: Volume,
  run: DeviceScrub,
  options: { readonly stop: AbortSignal; readonly readonly: boolean; readonly bytesPerSecond: number | undefined },
): Promise<void> {
  const { stop, readonly, bytesPerSecond } = options
  const { devid, from, end } = run
  let limit: SpeedLimit | undefined
  try {
    if (bytesPerSecond !== undefined) {
      const running = await volume.call('scrub', {}, { signal: stop }, (t) =>
        native.scrubProgress(t, volume.handle, devid),
      )
      // Somebody else's keeps its speed: the call below says EINPROGRESS.
      if (running === undefined) limit = await SpeedLimit.set(volume, devid, bytesPerSecond)
    }
    run.counters = await volume.callLong('scrub', { hints: refused }, { signal: stop }, (t) =>
      native.scrub(t, volume.handle, devid, from, end, readonly),
    )
    run.state = 'finished'
  } catch (error) {
    const { progress } = error as { progress?: Float64Array }
    if (progress instanceof Float64Array) run.counters = progress
    run.state = (error as { code?: string }).code === 'ECANCELED' ? 'cancelled' : 'failed'
    throw error
  } finally {
    await limit?.restore()
  }
}

class SpeedLimit {
  private constructor(
    readonly path: string,
    readonly before: string,
  ) {}
  static async set(volume: Volume, devid: number, bytesPerSecond: number): Promise<SpeedLimit> {
    const path = `/sys/fs/btrfs/${volume.uuid}/devinfo/${devid}/scrub_speed_max`
    try {
      const limit = new SpeedLimit(path, (await readFile(path, 'utf8')).trim())
      await writeFile(path, String(bytesPerSecond))
      return limit
    } catch (cause) {
      const { code = 'EIO', errno = -5, message } = cause as NodeJS.ErrnoException
      throw new BtrfsError(
        'scrub',
        { code, errno, text: message, step: 'limit its speed', hint: 'needs root, and Linux 5.14' },
        { path },
      )
    }
  }
  /** Unmounted meanwhile: nothing to put back. */
  async restore(): Promise<void> {
    await writeFile(this.path, this.before).catch(() => {})
  }
}
