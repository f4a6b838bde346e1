import { readFile, writeFile } from 'node:fs/promises'
import { BtrfsError, check } from '../errors.js'
import { native } from '../native.js'
import { devices } from './devices.js'
import { LongOperation, type Operation, type ResumeOptions } from './operation.js'
import { scrubOptions } from './options.js'
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

/** Counts and bytes, on one device or summed over them. Copies count each. */
export interface ScrubCounters {
  readonly dataExtents: number
  readonly treeExtents: number
  readonly dataBytes: number
  readonly treeBytes: number
  /** The device could not read. */
  readonly readErrors: number
  readonly checksumErrors: number
  /** Metadata whose checksum is right and whose content cannot be. */
  readonly verifyErrors: number
  /** Blocks of files that keep no checksums: not checked. */
  readonly blocksWithoutChecksum: number
  readonly checksumsWithoutData: number
  readonly superErrors: number
  readonly memoryErrors: number
  /** No copy was good. */
  readonly uncorrectableErrors: number
  /** Repaired. Always 0 of a read-only scrub. */
  readonly correctedErrors: number
  /** A read-only scrub's: another copy was good. */
  readonly correctableErrors: number
  /** Bad when read, good when read again. */
  readonly unverifiedErrors: number
}
export interface ScrubDevice extends ScrubCounters {
  readonly devid: number
  readonly state: 'running' | 'finished' | 'cancelled' | 'failed'
  /** Of what is allocated on it, 0–1. */
  readonly ratio: number
  /** Up to here it was scrubbed, in bytes of the device: where to begin again. */
  readonly lastPhysicalBytes: number
}
export interface ScrubProgress extends ScrubCounters {
  readonly devices: readonly ScrubDevice[]
  readonly ratio: number
  readonly elapsedMs: number
  /** Read and checked, all devices together. */
  readonly bytesPerSecond: number
  /** Undefined while there is nothing to tell it from. */
  readonly remainingMs: number | undefined
}

/**
 * Reads what is allocated and checks it against its checksums, on each device at once, and repairs from the other
 * copies what is bad. BTRFS_IOC_SCRUB, BTRFS_IOC_SCRUB_PROGRESS · CAP_SYS_ADMIN · long: a thread for each device,
 * minutes to days.
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
    for (const device of all) {
      if (devid === undefined ? device.missing : device.devid !== devid) continue
      const from = typeof start === 'number' ? start : (start[device.devid] ?? 0)
      const extents = await volume.call('scrub', {}, { signal: stop }, (t) =>
        native.deviceExtents(t, volume.handle, device.devid),
      )
      runs.push({ devid: device.devid, from, end, extents, counters: undefined, state: 'running' })
    }
    if (devid !== undefined && runs.length === 0) {
      throw new BtrfsError(
        'scrub',
        { code: 'ENODEV', errno: -19, text: 'no such device', step: `find device ${devid}` },
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

interface DeviceScrub {
  readonly devid: number
  readonly from: number
  readonly end: number | undefined
  /** What is allocated: [start, length] of each. */
  readonly extents: Float64Array
  counters: Float64Array | undefined
  state: ScrubDevice['state']
}

const busy = { EINPROGRESS: 'another scrub of this device, or a replacement, runs' }

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
    run.counters = await volume.callLong('scrub', { hints: busy }, { signal: stop }, (t) =>
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

function unpack(counters: Float64Array | undefined, readonly: boolean): ScrubCounters {
  const at = (index: number) => counters?.[index] ?? 0
  return {
    dataExtents: at(0),
    treeExtents: at(1),
    dataBytes: at(2),
    treeBytes: at(3),
    readErrors: at(4),
    checksumErrors: at(5),
    verifyErrors: at(6),
    blocksWithoutChecksum: at(7),
    checksumsWithoutData: at(8),
    superErrors: at(9),
    memoryErrors: at(10),
    uncorrectableErrors: at(11),
    // The kernel counts what it could have corrected in the same place.
    correctedErrors: readonly ? 0 : at(12),
    correctableErrors: readonly ? at(12) : 0,
    unverifiedErrors: at(14),
  }
}

/** Bytes allocated on the device from `from` on and before `to`. */
function allocated(extents: Float64Array, from: number, to: number): number {
  let bytes = 0
  for (let i = 0; i < extents.length; i += 2) {
    const start = extents[i]!
    bytes += Math.max(0, Math.min(start + extents[i + 1]!, to) - Math.max(start, from))
  }
  return bytes
}

function summary(runs: readonly DeviceScrub[], elapsedMs: number, readonly: boolean): ScrubProgress {
  let total = 0
  let done = 0
  const each = runs.map((run): ScrubDevice => {
    const { devid, from, end = Number.POSITIVE_INFINITY, extents, state } = run
    const lastPhysicalBytes = Math.max(from, run.counters?.[13] ?? 0)
    const whole = allocated(extents, from, end)
    const passed = state === 'finished' ? whole : Math.min(whole, allocated(extents, from, lastPhysicalBytes))
    total += whole
    done += passed
    const ratio = whole === 0 ? 1 : passed / whole
    return { devid, state, ratio, lastPhysicalBytes, ...unpack(run.counters, readonly) }
  })
  const sums = Object.fromEntries(
    Object.keys(unpack(undefined, readonly)).map((key) => [
      key,
      each.reduce((sum, device) => sum + device[key as keyof ScrubCounters], 0),
    ]),
  ) as unknown as ScrubCounters
  const bytesPerSecond = elapsedMs > 0 ? (1000 * (sums.dataBytes + sums.treeBytes)) / elapsedMs : 0
  const ratio = total === 0 ? 1 : done / total
  const running = each.some(({ state }) => state === 'running')
  const remainingMs = running && done > 0 ? (elapsedMs * (total - done)) / done : running ? undefined : 0
  return { ...sums, devices: each, ratio, elapsedMs, bytesPerSecond, remainingMs }
}
