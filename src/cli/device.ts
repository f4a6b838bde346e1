import { resolve } from 'node:path'
import { devicesReady, forgetDevice, type ReplaceStatus, scanDevice } from '../btrfs/devices.js'
import { type KernelFilesystem, openFilesystem } from '../btrfs/filesystem.js'
import type { DeviceErrors } from '../btrfs/types.js'
import { BtrfsError, BtrmindError } from '../errors.js'
import { formatBytes } from '../units.js'
import type { NewSize } from './arguments.js'
import { devices } from './devices.js'
import { follow } from './follow.js'
import { bar, type Io, paint, printJson, table } from './output.js'

type Json = { readonly json?: boolean }

export async function add(
  io: Io,
  path: string,
  name: string,
  { force, json }: Json & { force?: boolean },
): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  await fs.addDevice(resolve(name), { ...(force ? { force } : {}), signal: io.signal })
  await devices(io, path, { json: json === true })
}

export async function remove(io: Io, path: string, devid: number | 'missing', { json }: Json): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  const work = fs.removeDevice(devid, { signal: io.signal })
  await (typeof devid === 'number' ? watched(io, fs, devid, work, json) : work)
  await devices(io, path, { json: json === true })
}

/** How much is still on the device, on a terminal. */
async function watched(io: Io, fs: KernelFilesystem, devid: number, work: Promise<void>, json = false): Promise<void> {
  if (io.stderr.isTTY !== true || json) return work
  work.catch(() => {}) // it may fail before it is awaited
  const startMs = performance.now()
  const allocated = async () => (await fs.devices()).find((device) => device.devid === devid)?.allocatedBytes
  // Over already, the device may go while it is looked at: that is no failure of the removal.
  const before = await allocated().catch(() => undefined)
  const timer = setInterval(async () => {
    const left = await allocated().catch(() => undefined)
    if (left === undefined || before === undefined) return
    const rate = (1000 * (before - left)) / (performance.now() - startMs)
    const time = rate > 0 ? `, ${Math.ceil(left / rate)} s left` : ''
    const ratio = before === 0 ? 1 : 1 - left / before
    io.stderr.write(
      `\r${bar(ratio, 30)} ${formatBytes(left)} still on it, ${formatBytes(Math.max(0, rate))}/s${time}\u001b[K`,
    )
  }, 1_000)
  try {
    await work
  } finally {
    clearInterval(timer)
    io.stderr.write('\r\u001b[K')
  }
}

export async function replace(
  io: Io,
  path: string,
  devid: number,
  target: string,
  { force, avoidSource, json }: Json & { force?: boolean; avoidSource?: boolean },
): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  const operation = fs.replaceDevice(devid, resolve(target), { force, avoidSource, signal: io.signal })
  const startMs = performance.now()
  const line = ({ ratio }: ReplaceStatus) => {
    const leftMs = ratio > 0 ? ((performance.now() - startMs) * (1 - ratio)) / ratio : undefined
    const left = leftMs === undefined ? '' : `, ${Math.ceil(leftMs / 1000)} s left`
    return `${bar(ratio, 30)} ${(100 * ratio).toFixed(1)} %${left}`
  }
  let last: ReplaceStatus
  try {
    last = await follow(io, operation, line, { json })
  } catch (error) {
    if (!io.signal.aborted || (error as BtrfsError).code !== 'ECANCELED') throw error
    io.stdout.write('stopped: the volume is as it was\n')
    return
  }
  show(io, last, json)
}

export async function replaceStatus(io: Io, path: string, { json }: Json): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  show(io, await fs.replaceStatus({ signal: io.signal }), json)
}

function show(io: Io, status: ReplaceStatus, json: boolean | undefined): void {
  if (json) {
    printJson(io, status)
    return
  }
  const { state, ratio, writeErrors, uncorrectableReadErrors } = status
  const errors = `${writeErrors} write errors, ${uncorrectableReadErrors} uncorrectable read errors`
  io.stdout.write(state === 'never' ? 'none was ever begun\n' : `${state}, ${(100 * ratio).toFixed(1)} %, ${errors}\n`)
}

export async function resize(io: Io, path: string, devid: number, size: NewSize, { json }: Json): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  await fs.resizeDevice(devid, await wanted(fs, io, devid, size), { signal: io.signal })
  await devices(io, path, { json: json === true })
}

async function wanted(fs: KernelFilesystem, io: Io, devid: number, { sign, bytes }: NewSize): Promise<number> {
  if (sign === '' && Number.isFinite(bytes)) return bytes
  const all = await fs.devices({ signal: io.signal })
  const device = all.find((device) => device.devid === devid)
  if (device === undefined) {
    const known = `the volume has no device ${devid}; it has ${all.map((device) => device.devid).join(', ')}`
    throw new BtrfsError('resizeDevice', { code: 'ENODEV', errno: -19, text: known }, { path: fs.path })
  }
  const { sizeBytes, slackBytes } = device
  if (sign !== '') return sign === '+' ? sizeBytes + bytes : sizeBytes - bytes
  if (slackBytes !== undefined) return sizeBytes + slackBytes
  throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `how large device ${devid} is cannot be read; name a size`)
}

/** @returns whether all are zero: of what cannot be read that is not known */
export async function stats(io: Io, path: string, { reset, json }: Json & { reset?: boolean }): Promise<boolean> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  const all: { devid: number; path: string | undefined; errors: DeviceErrors | undefined }[] = []
  for (const { devid, path, missing, errors } of await fs.devices({ signal: io.signal })) {
    const counts = reset && !missing ? await fs.resetDeviceErrors(devid, { signal: io.signal }) : errors
    all.push({ devid, path, errors: counts })
  }
  if (json) printJson(io, all)
  else {
    const names = ['write', 'read', 'flush', 'corruption', 'generation'] as const
    const rows = all.map(({ devid, path, errors }) => [
      String(devid),
      path ?? 'MISSING',
      ...names.map((name) => String(errors?.[name] ?? '?')),
    ])
    io.stdout.write(table(['id', 'device', ...names], rows, [0, 2, 3, 4, 5, 6]))
    if (reset) io.stdout.write('set to zero\n')
  }
  return all.every(({ errors }) => errors !== undefined && Object.values(errors).every((count) => count === 0))
}

/** @returns whether no device is missing */
export async function redundancy(io: Io, path: string, { json }: Json): Promise<boolean> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  const now = await fs.redundancy({ signal: io.signal })
  if (json) {
    printJson(io, now)
    return !now.degraded
  }
  const cell = (count: number | undefined) => String(count ?? '?')
  const rows = now.profiles.map(({ type, profile, tolerated, blockGroups, degraded, lost }) => [
    type,
    profile,
    String(tolerated),
    cell(blockGroups),
    cell(degraded),
    cell(lost),
  ])
  const head = ['type', 'profile', 'bears', 'block groups', 'degraded', 'lost']
  io.stdout.write(table(head, rows, [2, 3, 4, 5]))
  if (!now.degraded) io.stdout.write(`no device is missing; ${cell(now.spareDevices)} may be lost\n`)
  else {
    const all = now.complete === undefined ? 'whether all data is there is not known' : 'all data is there'
    const state = now.complete === false ? 'some data may be lost' : all
    io.stdout.write(`${paint(io, 'red', `missing: ${now.missingDevids.join(', ')}; ${state}`)}\n`)
  }
  return !now.degraded
}

export async function scan(io: Io, names: readonly string[], { json }: Json): Promise<void> {
  const paths = names.map((name) => resolve(name))
  for (const path of paths) await scanDevice(path, { signal: io.signal })
  if (json) printJson(io, paths)
}

export async function forget(io: Io, name: string | undefined, { json }: Json): Promise<void> {
  await forgetDevice(name === undefined ? undefined : resolve(name), { signal: io.signal })
  if (json) printJson(io, null)
}

/** @returns whether all are there */
export async function ready(io: Io, name: string, { json }: Json): Promise<boolean> {
  const all = await devicesReady(resolve(name), { signal: io.signal })
  if (json) printJson(io, all)
  else io.stdout.write(all ? 'all devices of its volume are there\n' : 'a device of its volume is missing\n')
  return all
}
