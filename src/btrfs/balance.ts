import { check } from '../errors.js'
import { type NativeBalance, native } from '../native.js'
import type { CallOptions } from './call.js'
import { LongOperation, type Operation } from './operation.js'
import { callOptions, checkBalance, resumeOptions } from './options.js'
import type { BalanceFilters, BalanceOptions, BalanceProgress, BalanceStatus, ResumeOptions } from './types.js'
import type { Volume } from './volume.js'

const packed = (given: BalanceFilters | undefined) =>
  given === undefined ? undefined : new Float64Array([given.usagePercent ?? -1, given.limit ?? -1])

/**
 * Rewrites block groups into others, so that thinly used ones are given back. BTRFS_IOC_BALANCE_V2 · CAP_SYS_ADMIN ·
 * long: on a thread of its own, seconds to minutes for each block group, during which snapshots and deletions wait.
 *
 * Only block groups of the given types are looked at, and of those the ones that pass the filters. `usagePercent` 100
 * leaves out those that are completely full; without it they are rewritten too. `metadata` implies `system` with the
 * same filters unless that is given, as btrfs-progs has it. Balancing metadata takes metadata slack away; the btrfs
 * maintainers advise against it, and whether it is wise is not judged here.
 *
 * cancel(), an aborted signal, close() and the end of the process stop it after the block group that it is at; nothing
 * is left running or paused. pause() leaves it paused, also across mounts, until `resumeBalance` or `cancelBalance`.
 * @param options at least one of `data`, `metadata`, `system`; `{}` for all block groups of that type
 * @returns an operation; its `result` rejects with BtrfsError EPERM, EINPROGRESS (another exclusive operation runs, or
 * a balance is paused), ENOSPC (no room to move a block group), EROFS, EINVAL (mixed block groups), EBADF; ECANCELED
 * with the counters in `progress`
 * @throws BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT
 * @example
 * await using balance = fs.balance({ data: { usagePercent: 30 } })
 * for await (const { completed, expected } of balance) console.log(`${completed} of about ${expected}`)
 */
export function balance(volume: Volume, options: BalanceOptions): Operation<BalanceProgress, BalanceProgress> {
  const { data, metadata, system, ...rest } = checkBalance(options)
  return begin(volume, 'balance', native.balancePrepare(packed(data), packed(metadata), packed(system)), rest)
}

/**
 * Goes on with a paused balance, with the filters that it has; its counters begin anew. BTRFS_IOC_BALANCE_V2 · CAP_SYS_ADMIN · long.
 * @returns as `balance`; `result` rejects with ENOTCONN where none is paused
 * @example
 * if ((await fs.balanceStatus())?.state === 'paused') await fs.resumeBalance().result
 */
export function resumeBalance(
  volume: Volume,
  options: ResumeOptions = {},
): Operation<BalanceProgress, BalanceProgress> {
  const checked = check('resumeBalance', resumeOptions, options)
  return begin(volume, 'resumeBalance', native.balancePrepare(undefined, undefined, undefined), checked)
}

function begin(
  volume: Volume,
  operation: string,
  prepared: NativeBalance,
  { signal, intervalMs }: { signal?: AbortSignal | undefined; intervalMs: number },
): Operation<BalanceProgress, BalanceProgress> {
  return new LongOperation({
    start: (stop) =>
      volume.callLong(operation, {}, { signal: stop }, (t) => native.balance(t, volume.handle, prepared)),
    progress: async () => {
      const status = await balanceStatus(volume)
      if (status === undefined) return undefined
      const { state: _, ...counters } = status
      return counters
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
    native.balanceCancel(t, volume.handle),
  )
}

/**
 * Whether a balance runs or is paused on the volume, whoever started it, and how far it is; undefined when neither.
 * BTRFS_IOC_BALANCE_PROGRESS · CAP_SYS_ADMIN · quick.
 * @throws BtrfsError EPERM, EBADF
 * @example
 * console.log((await fs.balanceStatus())?.state ?? 'idle')
 */
export async function balanceStatus(volume: Volume, options: CallOptions = {}): Promise<BalanceStatus | undefined> {
  return volume.call('balanceStatus', {}, check('balanceStatus', callOptions, options), (t) =>
    native.balanceStatus(t, volume.handle),
  )
}
