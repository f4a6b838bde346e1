/** What balancePlan() promises, on volumes with next to no room. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { BalanceSelection } from '../../src/btrfs/balance-filters.js'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { createRandom } from '../../src/random.js'
import { MIB } from '../../src/units.js'
import { cannotMount, makeVolume } from '../helpers/volume.js'

const enospc = ({ code }: { code?: string }) => {
  if (code !== 'ENOSPC') throw new Error(`ENOSPC expected; got ${code}`)
  return 'ENOSPC'
}

describe.skipIf(cannotMount)('balancePlan().fits', () => {
  it('is true where there is plenty of room, for all types', async () => {
    for (const metadata of ['single', 'dup']) {
      using volume = makeVolume({ devicesMiB: [1024], data: 'single', metadata })
      await using fs = await openFilesystem(volume.path)
      for (let i = 0; i < 20; i++) writeFileSync(join(volume.path, `${i}`), Buffer.alloc(5 * MIB, i))
      await fs.sync()
      const selection = { data: {}, metadata: {}, system: {} }
      expect(await fs.balancePlan(selection)).toMatchObject({ fits: true, possible: true, reasons: [] })
      const { completed, expected } = await fs.balance(selection).result
      expect(completed).toBe(expected)
    }
  }, 60_000)

  it('is never followed by ENOSPC on nearly full volumes, and says why where it is false', async () => {
    let refused = 0
    for (let seed = 0; seed < 6; seed++) {
      const random = createRandom(seed)
      using volume = makeVolume({
        devicesMiB: [[200, 256, 320, 512][seed % 4]!],
        data: 'single',
        metadata: seed % 3 === 0 ? 'dup' : 'single',
      })
      await using fs = await openFilesystem(volume.path)
      const files: string[] = []
      try {
        for (let i = 0; ; i++) {
          writeFileSync(join(volume.path, `${i}`), Buffer.alloc((1 + random.integer(8)) * MIB, i))
          files.push(join(volume.path, `${i}`))
          if (i % 5 === 0) await fs.sync()
        }
      } catch (error) {
        enospc(error as { code?: string })
      }
      await fs.sync()
      for (let gone = (random.integer(4) * files.length) / 8; gone > 0; gone--)
        rmSync(files.splice(random.integer(files.length), 1)[0]!)
      const selections: BalanceSelection[] = [
        { data: { usagePercent: 30 + random.integer(71) } },
        { metadata: {} },
        { data: {}, metadata: {} },
      ]
      for (const selection of selections) {
        await fs.sync()
        const plan = await fs.balancePlan(selection)
        expect(plan.reasons.length === 0).toBe(plan.fits)
        const end = await fs.balance(selection).result.then(() => 'done', enospc)
        const told = `seed ${seed}: ${JSON.stringify({ selection, ...plan })}`
        if (plan.fits) expect(end, told).toBe('done')
        if (!plan.possible) expect(end, told).toBe('ENOSPC')
        if (!plan.fits) refused++
      }
    }
    expect(refused).toBeGreaterThan(0)
  }, 120_000)
})
