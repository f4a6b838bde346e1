import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import type { Usage } from '../../src/btrfs/usage.js'
import { createRandom } from '../../src/random.js'
import { MIB } from '../../src/units.js'
import { parseUsage, printedUsage } from '../helpers/usage.js'
import { cannotMount, makeVolume, run, type VolumeOptions } from '../helpers/volume.js'

function write(path: string, bytes: number, options: { sync?: boolean } = {}) {
  const random = createRandom(bytes)
  const block = Uint32Array.from({ length: MIB / 4 }, () => random.integer(2 ** 32))
  const fd = openSync(path, 'w')
  try {
    for (let left = bytes; left > 0; left -= MIB) writeSync(fd, new Uint8Array(block.buffer), 0, Math.min(left, MIB))
    if (options.sync) fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

async function usageOf(path: string): Promise<Usage> {
  await using fs = await openFilesystem(path)
  return fs.usage()
}

/** True, or false on a full volume, which is a state like any other. */
function fits(work: () => unknown): boolean {
  try {
    work()
    return true
  } catch (error) {
    expect(`${error}`).toMatch(/ENOSPC|No space left/)
    return false
  }
}

/**
 * Compares ours with the tool's, again and again on one open handle: what that remembers must not go stale. The tool's
 * readings before and after ours must agree, so that all are of one state. `cli`: the built command's too.
 */
async function against(path: string) {
  const fs = await openFilesystem(path)
  const compare = async ({ cli = false } = {}) => {
    fits(() => run('sync', '-f', path))
    for (let attempt = 0; ; attempt++) {
      const before = run('btrfs', 'filesystem', 'usage', '-b', path)
      const usage = await fs.usage()
      const json = cli ? run('node', MAIN, 'usage', '--json', path) : undefined
      if (run('btrfs', 'filesystem', 'usage', '-b', path) !== before && attempt < 20) continue
      expect(printedUsage(usage)).toEqual(parseUsage(before))
      if (json !== undefined) expect(printedUsage(JSON.parse(json) as Usage)).toEqual(parseUsage(before))
      expect(usage.unavailable).toEqual([])
      return { usage, devices: await fs.devices() }
    }
  }
  return { compare, fs, [Symbol.asyncDispose]: () => fs.close() }
}

describe.skipIf(cannotMount)('usage() is what btrfs-progs prints', () => {
  const layouts: [string, VolumeOptions][] = [
    ['single', { data: 'single', metadata: 'single' }],
    ['DUP', { data: 'dup', metadata: 'dup' }],
    ['RAID0', { data: 'raid0', metadata: 'raid0', devicesMiB: [256, 256, 512] }],
    ['RAID1', { data: 'raid1', metadata: 'raid1', devicesMiB: [512, 300, 256] }],
    ['RAID1C3', { data: 'raid1c3', metadata: 'raid1c3', devicesMiB: [512, 512, 256, 300] }],
    ['RAID1C4', { data: 'raid1c4', metadata: 'raid1c4', devicesMiB: [512, 512, 256, 300] }],
    ['RAID10', { data: 'raid10', metadata: 'raid10', devicesMiB: [256, 256, 256, 512] }],
    ['RAID5', { data: 'raid5', metadata: 'raid5', devicesMiB: [256, 300, 512] }],
    ['RAID6', { data: 'raid6', metadata: 'raid1c3', devicesMiB: [256, 300, 512, 400, 350] }],
    ['mixed block groups', { mkfs: ['--mixed'], devicesMiB: [300] }],
    ['mixed block groups, RAID1', { mkfs: ['--mixed'], data: 'raid1', metadata: 'raid1', devicesMiB: [256, 300] }],
  ]
  it.for(layouts)('%s', async ([, options]) => {
    using volume = makeVolume(options)
    await using progs = await against(volume.path)
    await progs.compare()
    write(join(volume.path, 'file'), 40 * MIB)
    const { usage, devices } = await progs.compare()
    expect(usage.usedBytes).toBeGreaterThan(40 * MIB)
    // DEV_INFO, which needs no privilege, agrees with the chunk tree.
    expect(usage.unallocated).toEqual(
      devices.map(({ devid, path, unallocatedBytes }) => ({ devid, path, sizeBytes: unallocatedBytes })),
    )
  })

  it.skipIf(run('sh', '-c', 'command -v strace || true') === '')(
    'for two at once: one whose search of the chunk tree hangs holds up no other',
    async () => {
      using volume = makeVolume({ devicesMiB: [256, 256] })
      const log = join(volume.directory, 'ioctls')
      const slow = ['-f', '-qq', '-o', log, '-e', 'trace=ioctl', '-e', 'inject=ioctl:delay_enter=200ms']
      const helper = fileURLToPath(new URL('../helpers/usage-twice.ts', import.meta.url))
      const said = JSON.parse(run('strace', ...slow, process.execPath, '--import', 'tsx', helper, volume.path))
      expect(said[0]).toBe((await usageOf(volume.path)).deviceAllocatedBytes)
      expect(said[1]).toBe(said[0])
      // One began while another was inside: "<pid> ioctl(3, BTRFS_IOC_TREE_SEARCH_V2, … <unfinished ...>".
      const inside = new Set<string>()
      let together = 0
      for (const line of readFileSync(log, 'utf8').split('\n')) {
        const thread = line.split(' ', 1)[0]!
        if (line.includes('ioctl resumed')) inside.delete(thread)
        if (!line.includes('BTRFS_IOC_TREE_SEARCH')) continue
        together += inside.size
        if (line.includes('<unfinished')) inside.add(thread)
      }
      expect(together).toBeGreaterThan(0)
    },
  )

  it('in the middle of a conversion: several profiles of one type', async () => {
    using volume = makeVolume({ data: 'single', metadata: 'raid1', devicesMiB: [256, 256, 300] })
    await using progs = await against(volume.path)
    write(join(volume.path, 'file'), 120 * MIB, { sync: true })
    run('btrfs', 'balance', 'start', '-dconvert=raid5,limit=1', volume.path)
    const { usage } = await progs.compare()
    expect(usage.multipleProfiles).toBe(true)
    expect(usage.blockGroups.map((group) => `${group.type} ${group.profile}`)).toContain('data raid5')
    run('btrfs', 'balance', 'start', '-f', '-mconvert=raid1c3', '-sconvert=single', volume.path)
    await progs.compare()
  })

  it('with a device missing', async () => {
    using volume = makeVolume({ data: 'raid1', metadata: 'raid1', devicesMiB: [512, 400] })
    write(join(volume.path, 'file'), 20 * MIB, { sync: true })
    run('umount', volume.path)
    run('btrfs', 'device', 'scan', '--forget', volume.loops[1]!)
    run('wipefs', '--all', '--quiet', volume.loops[1]!)
    run('mount', '-o', 'degraded', volume.loops[0]!, volume.path)
    await using progs = await against(volume.path)
    const { usage, devices } = await progs.compare()
    expect(usage.deviceMissingBytes).toBe(400 * MIB)
    expect(devices[1]).toMatchObject({ devid: 2, missing: true, path: undefined, errors: undefined })
    expect(usage.blockGroups[0]!.devices!.map((row) => row.path)).toEqual([volume.loops[0], undefined])
  })

  it('while block groups come and go: on a handle that was reading all along', async () => {
    using volume = makeVolume({ data: 'single', metadata: 'raid1', devicesMiB: [300, 300, 300, 300] })
    await using progs = await against(volume.path)
    for (const profile of ['raid0', 'raid1', 'single', 'raid0']) {
      write(join(volume.path, `file-${profile}`), 30 * MIB)
      const child = spawn('btrfs', ['balance', 'start', `-dconvert=${profile}`, volume.path], { stdio: 'ignore' })
      let ended = false
      const end = once(child, 'exit').then(() => {
        ended = true
      })
      let readings = 0
      for (; !ended; readings++) {
        const usage = await progs.fs.usage()
        expect(usage.blockGroups.map((group) => group.type)).toContain('data')
      }
      await end
      expect(readings).toBeGreaterThan(1)
      const { usage } = await progs.compare()
      expect(usage.blockGroups[0]!.profile).toBe(profile)
    }
    run('btrfs', 'device', 'remove', volume.loops[3]!, volume.path)
    await progs.compare()
  })

  it('on a seed: block groups of a device that is not the volume’s', async () => {
    using volume = makeVolume({ devicesMiB: [512, 512], data: 'single', metadata: 'raid1' })
    const [seed, sprout] = volume.loops as [string, string]
    run('umount', volume.path)
    run('mkfs.btrfs', '-q', '-f', seed)
    run('mount', seed, volume.path)
    write(join(volume.path, 'old'), 20 * MIB)
    run('umount', volume.path)
    run('btrfstune', '-S', '1', seed)
    run('mount', seed, volume.path)
    run('btrfs', 'device', 'add', '-f', sprout, volume.path)
    run('mount', '-o', 'remount,rw', volume.path)
    await using progs = await against(volume.path)
    write(join(volume.path, 'new'), 20 * MIB)
    const { devices } = await progs.compare()
    expect(devices.map((device) => device.path)).toEqual([sprout])
  })

  it('with slack: a filesystem smaller than its device', async () => {
    using volume = makeVolume({ devicesMiB: [512] })
    await using progs = await against(volume.path)
    run('btrfs', 'filesystem', 'resize', '1:300M', volume.path)
    const { usage, devices } = await progs.compare()
    expect(usage.deviceSlackBytes).toBe(212 * MIB)
    expect(devices[0]!.slackBytes).toBe(212 * MIB)
  })

  // BTRMIND_FUZZ=200 npx vitest run test/btrfs/usage.test.ts; BTRMIND_SEED goes on elsewhere.
  const volumes = Number(process.env.BTRMIND_FUZZ ?? 12)
  const first = Number(process.env.BTRMIND_SEED ?? 1)
  const seeds = Array.from({ length: volumes }, (_, index) => first + index)
  const LEAST = { single: 1, dup: 1, raid0: 1, raid1: 2, raid1c3: 3, raid1c4: 4, raid10: 2, raid5: 2, raid6: 3 }
  it.for(seeds)('a volume by chance, seed %i', async (seed) => {
    const random = createRandom(seed)
    const pick = <T>(from: readonly T[]): T => from[random.integer(from.length)]!
    const devicesMiB = Array.from({ length: 1 + random.integer(6) }, () => 256 + random.integer(800))
    const profiles = Object.entries(LEAST).flatMap(([name, least]) => (least <= devicesMiB.length ? name : []))
    const mixed = random.integer(8) === 0
    const metadata = pick(profiles)
    const data = mixed ? metadata : pick(profiles)
    using volume = makeVolume({ devicesMiB, data, metadata, mkfs: mixed ? ['--mixed'] : [] })
    await using progs = await against(volume.path)
    await progs.compare({ cli: true })
    for (let i = random.integer(20); i >= 0; i--) {
      const bytes = pick([100, 5000, 70_000, 3 * MIB, 30 * MIB])
      if (!fits(() => write(join(volume.path, `file${i}`), bytes))) break
    }
    if (!mixed && random.integer(2) === 0) {
      const convert = `-dconvert=${pick(profiles)},limit=${1 + random.integer(2)}`
      fits(() => run('btrfs', 'balance', 'start', '-f', convert, volume.path))
    }
    await progs.compare({ cli: true })
  })
})
