import type { BalanceFilters, BalanceProgress, BalanceSelection, Bounds, ByteRange } from '../btrfs/balance-filters.js'
import type { BalancePlan } from '../btrfs/balance-plan.js'
import { type KernelFilesystem, openFilesystem } from '../btrfs/filesystem.js'
import type { Operation } from '../btrfs/operation.js'
import type { Profile } from '../btrfs/types.js'
import { BtrmindError, nearest, quote } from '../errors.js'
import { formatBytes } from '../units.js'
import { followUntilStopped } from './follow.js'
import { bar, type Io, paint, printJson, table } from './output.js'

export interface BalanceCommand {
  readonly json?: boolean
  readonly force?: boolean
  readonly data?: string | true
  readonly metadata?: string | true
  readonly system?: string | true
}
type Json = { readonly json?: boolean }

/** "usage=30,limit=2..5,soft" */
export function parseFilters(text: string | true | undefined): BalanceFilters | undefined {
  if (text === undefined) return undefined
  const out: Record<string, unknown> = {}
  if (text === true) return out
  const named = new Map<string, string>()
  for (const item of text.split(',')) {
    const [, name = '', value] = /^([^=]*)(?:=(.*))?$/.exec(item) ?? []
    const read = READERS[name]
    if (read === undefined) {
      const hint = nearest(name, Object.keys(READERS))
      throw new BtrmindError('BTRMIND_ERR_OPTION', `unknown filter ${quote(name)}`, { hint })
    }
    const before = named.get(name)
    if (before !== undefined)
      throw new BtrmindError(
        'BTRMIND_ERR_ARGUMENT',
        `filter ${quote(name)} is named twice: ${quote(before)}, ${quote(item)}`,
      )
    named.set(name, item)
    Object.assign(out, read(value ?? '', item))
  }
  return out
}

const bad = (item: string, wanted: string) =>
  new BtrmindError('BTRMIND_ERR_ARGUMENT', `filter ${quote(item)}: expected ${wanted}`)

function count(text: string, item: string): number {
  if (!/^\d+$/.test(text)) throw bad(item, 'a whole number')
  return Number(text)
}
function range(text: string, item: string): { min?: number; max?: number } {
  const [, min = '', max = ''] = /^(\d*)\.\.(\d*)$/.exec(text) ?? []
  if (min + max === '') throw bad(item, 'a range like 1..5')
  return { ...(min === '' ? {} : { min: Number(min) }), ...(max === '' ? {} : { max: Number(max) }) }
}
const either = (text: string, item: string): number | Bounds =>
  text.includes('..') ? range(text, item) : count(text, item)
function bytes(text: string, item: string): ByteRange {
  const { min, max } = range(text, item)
  return { startBytes: min, endBytes: max }
}
const READERS: Readonly<Record<string, (value: string, item: string) => BalanceFilters>> = {
  usage: (value, item) => ({ usagePercent: either(value, item) }),
  limit: (value, item) => ({ limit: either(value, item) }),
  profiles: (value) => ({ profiles: value.split('|') as Profile[] }),
  devid: (value, item) => ({ devid: count(value, item) }),
  drange: (value, item) => ({ drange: bytes(value, item) }),
  vrange: (value, item) => ({ vrange: bytes(value, item) }),
  stripes: (value, item) => ({ stripes: either(value, item) }),
  convert: (value) => ({ convert: value as Profile }),
  soft: () => ({ soft: true }),
}

const selected = ({ data, metadata, system, force }: BalanceCommand): BalanceSelection => ({
  data: parseFilters(data),
  metadata: parseFilters(metadata),
  system: parseFilters(system),
  force,
})

/** @returns whether nobody else cut it short */
export async function start(io: Io, path: string, command: BalanceCommand): Promise<boolean> {
  const selection = selected(command)
  await using fs = await openFilesystem(path, { signal: io.signal })
  return await follow(io, fs.balance({ ...selection, signal: io.signal }), command)
}

/** @returns as start() */
export async function resume(io: Io, path: string, command: Json): Promise<boolean> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  return await follow(io, fs.resumeBalance({ signal: io.signal }), command)
}

async function follow(
  io: Io,
  operation: Operation<BalanceProgress, BalanceProgress>,
  { json }: Json,
): Promise<boolean> {
  const startMs = performance.now()
  const timed = (progress: BalanceProgress) => line(progress, performance.now() - startMs)
  const { last, cut } = await followUntilStopped(io, operation, timed, 'completed', { json })
  const { completed, expected, considered } = last
  if (json) printJson(io, last)
  else io.stdout.write(`${completed} of ${expected} block groups moved, ${considered} looked at\n`)
  if (cut === undefined || json) return cut !== 'elsewhere'
  const by = cut === 'here' ? 'cancelled' : 'another process cancelled or paused it (see balance status)'
  io.stdout.write(`stopped: ${by}; what was moved stays moved\n`)
  return cut === 'here'
}

function line({ expected, completed }: BalanceProgress, elapsedMs: number): string {
  const ratio = expected === 0 ? 0 : Math.min(1, completed / expected)
  const perMinute = (60_000 * completed) / elapsedMs
  const leftMs = completed === 0 ? undefined : (elapsedMs * Math.max(0, expected - completed)) / completed
  const left = leftMs === undefined ? '' : `, ${perMinute.toFixed(1)}/min, ${Math.ceil(leftMs / 1000)} s left`
  return `${bar(ratio, 30)} ${completed} of about ${expected} block groups${left}`
}

/** @returns whether it fits */
export async function plan(io: Io, path: string, command: BalanceCommand): Promise<boolean> {
  const selection = selected(command)
  await using fs = await openFilesystem(path, { signal: io.signal })
  await fs.sync({ signal: io.signal })
  const plan = await fs.balancePlan({ ...selection, signal: io.signal })
  if (command.json) printJson(io, plan)
  else show(io, plan)
  return plan.fits
}

function show(io: Io, plan: BalancePlan): void {
  const kinds = new Map<string, { groups: number; used: number; size: number }>()
  for (const { type, profile, usedBytes = 0, sizeBytes } of plan.blockGroups) {
    const { groups, used, size } = kinds.get(`${type} ${profile}`) ?? { groups: 0, used: 0, size: 0 }
    kinds.set(`${type} ${profile}`, { groups: groups + 1, used: used + usedBytes, size: size + sizeBytes })
  }
  const rows = [...kinds].map(([kind, { groups, used, size }]) => [
    kind,
    String(groups),
    formatBytes(used),
    formatBytes(size),
  ])
  if (rows.length > 0) io.stdout.write(table(['block groups', 'count', 'to move', 'size'], rows, [1, 2, 3]))
  else io.stdout.write('no block group passes the filters\n')
  const after = [plan.unallocatedAfterMinBytes, plan.unallocatedAfterBytes].map(formatBytes)
  io.stdout.write(`unallocated: ${formatBytes(plan.unallocatedBytes)} now, ${after.join(' to ')} after\n`)
  if (plan.metadataSlackBytes !== undefined && plan.metadataSlackAfterBytes !== undefined) {
    const slack = [plan.metadataSlackBytes, plan.metadataSlackAfterBytes].map(formatBytes)
    io.stdout.write(`metadata slack: ${slack.join(' now, ')} after\n`)
  }
  if (!plan.fits)
    io.stdout.write(
      `${paint(io, 'red', `${plan.possible ? 'may not fit' : 'does not fit'}: ${plan.reasons.join('; ')}`)}\n`,
    )
}

export async function status(io: Io, path: string, { json }: Json): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  await tell(io, fs, json)
}

export async function pause(io: Io, path: string, { json }: Json): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  await fs.pauseBalance({ signal: io.signal })
  await tell(io, fs, json)
}

export async function cancel(io: Io, path: string, { json }: Json): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  await fs.cancelBalance({ signal: io.signal })
  await tell(io, fs, json)
}

async function tell(io: Io, fs: KernelFilesystem, json: boolean | undefined): Promise<void> {
  const status = await fs.balanceStatus({ signal: io.signal })
  if (json) return printJson(io, status ?? null)
  if (status === undefined) {
    const holder = await fs.exclusiveOperation({ signal: io.signal })
    io.stdout.write(`no balance runs or is paused${holder === 'none' ? '' : `; the volume is held by: ${holder}`}\n`)
    return
  }
  const { state, expected, completed, considered, data, metadata, system, force } = status
  io.stdout.write(`${state}: ${completed} of about ${expected} block groups moved, ${considered} looked at\n`)
  for (const [type, filters] of Object.entries({ data, metadata, system }))
    if (filters !== undefined) io.stdout.write(`${type}: ${describe(filters)}\n`)
  if (force) io.stdout.write('force\n')
}

function describe(filters: BalanceFilters): string {
  const words = Object.entries(filters).map(([name, value]) => `${name} ${JSON.stringify(value)}`)
  return words.length === 0 ? 'all' : words.join(', ')
}
