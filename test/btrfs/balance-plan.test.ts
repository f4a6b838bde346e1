/** balancePlan() beside what the kernel then really does. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import {
  type BalanceFilters,
  type BalanceProgress,
  type BalanceSelection,
  chosen,
} from '../../src/btrfs/balance-filters.js'
import type { BlockGroup } from '../../src/btrfs/inspect.js'
import type { Profile } from '../../src/btrfs/types.js'
import { createRandom } from '../../src/random.js'
import { MIB } from '../../src/units.js'
import { useVolume } from '../helpers/use-volume.js'
import { cannotMount, run } from '../helpers/volume.js'

const LAYOUTS: { name: string; devicesMiB: number[]; data: Profile; metadata: Profile }[] = [
  { name: 'single', devicesMiB: [1536], data: 'single', metadata: 'dup' },
  { name: 'dup', devicesMiB: [2048], data: 'dup', metadata: 'dup' },
  { name: 'raid1', devicesMiB: [1536, 1024, 768], data: 'raid1', metadata: 'raid1' },
  { name: 'raid0', devicesMiB: [512, 512, 1024], data: 'raid0', metadata: 'raid1' },
  { name: 'raid10', devicesMiB: [512, 512, 512, 512], data: 'raid10', metadata: 'raid1c3' },
  { name: 'raid5', devicesMiB: [512, 512, 768], data: 'raid5', metadata: 'raid1' },
]
const SELECTIONS = 12
const BALANCES = 2

describe.skipIf(cannotMount).each(LAYOUTS)('balancePlan(), $name', ({ devicesMiB, data, metadata }) => {
  const { volume, fs } = useVolume({ devicesMiB, data, metadata })
  const random = createRandom(devicesMiB.length * 31 + devicesMiB[0]!)
  const below = (most: number) => random.integer(most)
  beforeAll(async () => {
    fill(0)
    await fs.sync()
  })
  afterEach(() => fs.cancelBalance().catch(() => {}))

  /** Files of a few MiB without content, of which a random part goes again: block groups of all degrees of use. */
  function fill(round: number): void {
    const directory = join(volume.path, `${round}`)
    mkdirSync(directory)
    const wantedMiB = 250 + below(150)
    for (let at = 0, name = 0; at < wantedMiB; name++) {
      const size = 1 + below(12)
      at += size
      try {
        run('fallocate', '--length', `${size}MiB`, join(directory, `${name}`))
      } catch {
        return // full
      }
      if (name % 8 === 7) run('sync', '-f', volume.path)
      // Whole stretches go, so that some block groups are nearly empty.
      if (Math.floor(name / 6) % 3 !== 0 && random.next() < 0.85) rmSync(join(directory, `${name}`))
    }
    writeFileSync(join(directory, 'small'), 'x'.repeat(1 + below(3) * 5000))
  }
  /** An address alone is used again, once it was the highest. */
  const key = ({ logicalBytes, stripes }: BlockGroup) =>
    `${logicalBytes}: ${stripes.map(({ devid, offsetBytes }) => `${devid}/${offsetBytes}`).join(' ')}`
  async function anyFilters(): Promise<BalanceFilters> {
    const groups = await fs.blockGroups()
    const group = groups[below(groups.length)]!
    const stripe = group.stripes[below(group.stripes.length)]!
    const pair = (most: number): [number, number] => {
      const [a, b] = [below(most), below(most)]
      return [Math.min(a, b), Math.max(a, b)]
    }
    const out: Record<string, unknown> = {}
    const often = (share: number) => random.next() < share
    if (often(0.4)) {
      const [min, max] = pair(101)
      out.usagePercent = often(0.5) ? max : { min, max }
    }
    if (often(0.3)) out.limit = often(0.5) ? 1 + below(9) : { min: below(4), max: 4 + below(4) }
    if (often(0.2)) out.profiles = [group.profile, 'raid1c4']
    if (often(0.3)) {
      out.devid = 1 + below(devicesMiB.length)
      if (often(0.6)) {
        // At an edge, on it, and just beside it.
        const startBytes = stripe.offsetBytes + (below(3) - 1)
        out.drange = often(0.5) ? { startBytes } : { startBytes: 0, endBytes: Math.max(1, startBytes) }
      }
    }
    if (often(0.2)) {
      const edge = Math.max(1, group.logicalBytes + below(3) - 1)
      out.vrange = often(0.5) ? { startBytes: edge } : { startBytes: 0, endBytes: edge }
    }
    if (often(0.15)) out.stripes = often(0.5) ? 1 + below(4) : { min: 1, max: 1 + below(4) }
    return out
  }
  async function anySelection(): Promise<BalanceSelection> {
    const which = below(3)
    if (which === 0) return { data: await anyFilters() }
    if (which === 1) return { data: await anyFilters(), system: await anyFilters() }
    return { data: await anyFilters(), metadata: await anyFilters(), system: await anyFilters() }
  }

  it(`chooses as many as the kernel expects, for ${SELECTIONS} random selections`, async () => {
    let asked = 0
    for (let round = 0; round < SELECTIONS; round++) {
      const selection = await anySelection()
      await fs.sync()
      const groups = await fs.blockGroups()
      // The kernel counts first, and can be stopped then: what it expects is all that is wanted.
      const withoutMin = withoutLeast(selection)
      const planned = chosen(groups, withoutMin).length
      const operation = fs.balance({ ...selection })
      let told: number | undefined
      const ended = operation.result
        .catch(({ code, progress }: { code: string; progress?: BalanceProgress }) => {
          expect(['ECANCELED', 'ENOSPC']).toContain(code)
          return progress
        })
        .then((progress) => {
          told = progress?.expected
        })
      let over = false
      void ended.finally(() => {
        over = true
      })
      while (!over && ((await fs.balanceStatus())?.considered ?? 0) === 0) await setTimeout(1)
      await operation.cancel()
      await ended
      // Nothing is told where a block group found no room.
      if (told === undefined) continue
      asked++
      expect(told, JSON.stringify(selection)).toBe(planned)
    }
    expect(asked).toBeGreaterThan(SELECTIONS / 2)
  }, 120_000)

  it(`takes exactly those of the plan, and gives back what it says, in ${BALANCES} random balances`, async () => {
    let compared = 0
    let moved = 0
    for (let round = 1; round <= BALANCES; round++) {
      fill(round)
      await fs.sync()
      const min = below(30)
      const filters: BalanceFilters = [
        { usagePercent: 20 + below(60) },
        { usagePercent: { min, max: min + 40 } },
        { limit: 2 },
      ][below(3)]!
      const plan = await fs.balancePlan({ data: filters })
      const text = JSON.stringify({ filters, groups: plan.blockGroups.map(({ usedBytes }) => usedBytes! / MIB) })
      const before = await fs.blockGroups()
      const balanced = await fs.balance({ data: filters }).result.catch((error) => {
        expect(error, text).toMatchObject({ code: 'ENOSPC' })
        return undefined
      })
      if (plan.fits) expect(balanced, text).toBeDefined()
      if (!plan.possible) expect(balanced, text).toBeUndefined()
      if (balanced !== undefined) expect(balanced.expected, text).toBe(plan.blockGroups.length)
      await fs.sync()
      const after = await fs.blockGroups()
      const left = new Set(after.map(key))
      const gone = before.filter((group) => !left.has(key(group)) && group.usedBytes! > 0)
      const planned = plan.blockGroups.map(key)
      for (const group of gone) expect(planned, text).toContain(key(group))
      moved += gone.length
      const devices = await fs.devices()
      const unallocated = devices.reduce((sum, device) => sum + device.unallocatedBytes, 0)
      const own = (groups: typeof before, type: string) =>
        groups.reduce((sum, { type: its, sizeBytes }) => sum + (its === type ? sizeBytes : 0), 0)
      expect(plan.unallocatedAfterMinBytes).toBeLessThanOrEqual(plan.unallocatedAfterBytes)
      const grown = own(after, 'metadata') - own(before, 'metadata')
      if (balanced === undefined || grown !== 0) continue
      expect(unallocated, text).toBeGreaterThanOrEqual(plan.unallocatedAfterMinBytes)
      expect(unallocated, text).toBeLessThanOrEqual(plan.unallocatedAfterBytes)
      compared++
    }
    expect(compared).toBeGreaterThan(0)
    expect(moved).toBeGreaterThan(0)
  }, 120_000)
})

/** The kernel expects those too that `min` then makes it leave alone. */
function withoutLeast(selection: BalanceSelection): BalanceSelection {
  return Object.fromEntries(
    Object.entries(selection).map(([type, filters]) => {
      const { limit, ...rest } = filters as BalanceFilters
      const max = typeof limit === 'number' ? limit : limit?.max
      return [type, max === undefined ? rest : { ...rest, limit: { max } }]
    }),
  )
}
