import { check, type NativeFailure } from '../errors.js'
import { type NativeBalance, native } from '../native.js'
import {
  type BalanceOptions,
  type BalanceProgress,
  type BalanceSelection,
  type BalanceStatus,
  checkBalance,
  countersOf,
  packFilters,
  unpackFilters,
} from './balance-filters.js'
import { refusals } from './balance-plan.js'
import { type CallOptions, explained } from './call.js'
import { whoHolds } from './exclusive.js'
import { LongOperation, type Operation, type ResumeOptions } from './operation.js'
import { callOptions, resumeOptions } from './options.js'
import type { Volume } from './volume.js'

/**
 * Rewrites block groups into others, so that thinly used ones are given back. BTRFS_IOC_BALANCE_V2 · CAP_SYS_ADMIN ·
 * long: on a thread of its own, seconds to minutes for each block group, during which snapshots and deletions wait.
 *
 * Only block groups of the given types are looked at, and of those the ones that pass all filters. `metadata` implies
 * `system` with the same filters unless that is given, as btrfs-progs has it. `balancePlan` says beforehand what would
 * be taken and whether it fits. Balancing metadata takes metadata slack away; the btrfs maintainers advise against it,
 * and whether it is wise is not judged here.
 *
 * The kernel refuses a `convert` for which there are too few devices, and one that leaves metadata or system with fewer
 * copies than now unless `force` is given (EINVAL; the hint says which). Data it lets lose its copies. Where data and
 * metadata share block groups both are needed, with the same filters.
 *
 * cancel(), an aborted signal, close() and the end of the process stop it after the block group that it is at; nothing
 * is left running or paused. pause() leaves it paused, also across mounts, until `resumeBalance` or `cancelBalance`.
 * Where a block group finds no room it goes on with the others, and says ENOSPC at the end (without counters).
 * @param options at least one of `data`, `metadata`, `system`; `{}` for all block groups of that type
 * @returns an operation; its `result` rejects with BtrfsError EPERM, EINPROGRESS (another exclusive operation runs, or
 * a balance is paused), EINVAL, EROFS, EAGAIN (a send runs), ENOSPC (no room to move some block group),
 * EBADF; ECANCELED with the counters in `progress`
 * @throws BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT
 * @example
 * await using balance = fs.balance({ data: { usagePercent: 30 } })
 * for await (const { completed, expected } of balance) console.log(`${completed} of about ${expected}`)
 */
export function balance(volume: Volume, options: BalanceOptions): Operation<BalanceProgress, BalanceProgress> {
  const { signal, intervalMs, ...selection } = checkBalance(options)
  return begin(volume, 'balance', prepared(selection), { signal, intervalMs }, (failure) =>
    why(volume, selection, failure),
  )
}

const prepared = ({ force, data, metadata, system }: BalanceSelection) =>
  native.balancePrepare(force === true, packFilters(data), packFilters(metadata), packFilters(system))

async function why(volume: Volume, selection: BalanceSelection, failure: NativeFailure): Promise<string | undefined> {
  if (failure.code === 'EAGAIN') return 'a send runs on the volume: balance when it has ended'
  if (failure.code !== 'EINVAL') return whoHolds(volume, failure)
  const reasons = await refusals(volume, selection).catch(() => [])
  return reasons.join('; ') || 'another one is just being cancelled or paused: try again'
}

/**
 * Goes on with a paused balance, with the filters that it has; its counters begin anew. To what was not filtered by
 * usage the kernel adds `usagePercent: 90`, and `soft` to a conversion, so that what is done is not done again.
 * BTRFS_IOC_BALANCE_V2 · CAP_SYS_ADMIN · long. cancel(), abort, close() and the end of the process (also by SIGKILL)
 * cancel it for good, or leave it paused where it had not gone on yet: to keep it, pause() it again.
 * @returns as `balance`; `result` rejects with ENOTCONN where none is paused
 * @example
 * if ((await fs.balanceStatus())?.state === 'paused') await fs.resumeBalance().result
 */
export function resumeBalance(
  volume: Volume,
  options: ResumeOptions = {},
): Operation<BalanceProgress, BalanceProgress> {
  const checked = check('resumeBalance', resumeOptions, options)
  return begin(volume, 'resumeBalance', native.balancePrepare(false), checked, (failure) => whoHolds(volume, failure))
}

function begin(
  volume: Volume,
  operation: string,
  prepared: NativeBalance,
  { signal, intervalMs }: { signal?: AbortSignal | undefined; intervalMs: number },
  explain: (failure: NativeFailure) => Promise<string | undefined>,
): Operation<BalanceProgress, BalanceProgress> {
  return new LongOperation({
    operation,
    path: volume.path,
    start: (stop) =>
      volume.callLong(operation, {}, { signal: stop }, (t) =>
        explained(native.balance(t, volume.handle, prepared), explain),
      ),
    last: (result) => result,
    progress: async () => {
      const status = await balanceStatus(volume)
      return status === undefined ? undefined : countersOf(status)
    },
    pause: () => volume.call('pause', {}, undefined, (t) => native.balancePause(t, volume.handle, prepared)),
    signal,
    intervalMs,
  })
}

/**
 * Stops whichever balance runs or is paused on the volume, also another process's. BTRFS_IOC_BALANCE_CTL ·
 * CAP_SYS_ADMIN · waits for the block group that it is at; `signal` and `timeoutMs` end the waiting only.
 * @throws BtrfsError ENOTCONN (there is none), EPERM, EBADF
 * @example
 * await fs.cancelBalance()
 */
export async function cancelBalance(volume: Volume, options: CallOptions = {}): Promise<void> {
  return volume.call('cancelBalance', {}, check('cancelBalance', callOptions, options), (t) =>
    native.balanceControl(t, volume.handle, false),
  )
}

/**
 * Pauses whichever balance runs on the volume, also another process's: its call there ends with ECANCELED. It stays
 * paused, also across mounts, and holds the volume (`exclusiveOperation`) until `resumeBalance` or `cancelBalance`.
 * BTRFS_IOC_BALANCE_CTL · CAP_SYS_ADMIN · waits for the block group that it is at; `signal` and `timeoutMs` end the
 * waiting only.
 * @throws BtrfsError ENOTCONN (none runs), EPERM, EROFS, EBADF
 * @example
 * await fs.pauseBalance()
 */
export async function pauseBalance(volume: Volume, options: CallOptions = {}): Promise<void> {
  return volume.call('pauseBalance', {}, check('pauseBalance', callOptions, options), (t) =>
    native.balanceControl(t, volume.handle, true),
  )
}

/**
 * Whether a balance runs or is paused on the volume, whoever started it, its filters (of a limit, what is left of it),
 * and how far it is; undefined when neither. BTRFS_IOC_BALANCE_PROGRESS · CAP_SYS_ADMIN · quick.
 * @throws BtrfsError EPERM, EBADF
 * @example
 * console.log((await fs.balanceStatus())?.state ?? 'idle')
 */
export async function balanceStatus(volume: Volume, options: CallOptions = {}): Promise<BalanceStatus | undefined> {
  const raw = await volume.call('balanceStatus', {}, check('balanceStatus', callOptions, options), (t) =>
    native.balanceStatus(t, volume.handle),
  )
  if (raw === undefined) return undefined
  const { state, force, counters } = raw
  const [data, metadata, system] = [raw.data, raw.metadata, raw.system].map(unpackFilters)
  return { state, ...counters, data, metadata, system, force }
}
