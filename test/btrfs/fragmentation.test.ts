import { closeSync, fsyncSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { createRandom } from '../../src/random.js'
import { MIB } from '../../src/units.js'
import { cannotMount, makeVolume, run } from '../helpers/volume.js'

const BLOCK = 16 * 1024

function writeInOrder(path: string, mib: number, block = new Uint8Array(MIB)) {
  const fd = openSync(path, 'w')
  for (let i = 0; i < mib; i++) writeSync(fd, block)
  fsyncSync(fd)
  closeSync(fd)
}

/** Blocks in random order, each on disk before the next is written. */
function writeAtRandom(path: string, blocks: number) {
  const random = createRandom(1)
  const order = Array.from({ length: blocks }, (_, index) => index)
  for (let i = blocks - 1; i > 0; i--) {
    const j = random.integer(i + 1)
    ;[order[i], order[j]] = [order[j]!, order[i]!]
  }
  const fd = openSync(path, 'w')
  for (const index of order) {
    writeSync(fd, new Uint8Array(BLOCK).fill(index), 0, BLOCK, index * BLOCK)
    fsyncSync(fd)
  }
  closeSync(fd)
}

/** Breaks in a file by filefrag, which joins what lies together; and its extent items, one for each block written. */
const breaks = (path: string) => Number(/(\d+) extents? found/.exec(run('filefrag', path))?.[1]) - 1

describe.skipIf(cannotMount)('fragmentationRatio', () => {
  it('is 0 on an empty volume and for files written in order, high for one written at random', async () => {
    using volume = makeVolume()
    await using fs = await openFilesystem(volume.path)
    const ratio = async () => (await fs.measure()).fragmentationRatio!
    const at = (name: string) => join(volume.path, name)
    expect(await ratio()).toBe(0)
    writeFileSync(at('inline'), 'x')
    writeInOrder(at('ordered'), 30)
    await fs.sync()
    expect(breaks(at('ordered'))).toBeLessThan(2)
    expect(await ratio()).toBeLessThan(0.05)

    writeAtRandom(at('random'), 250)
    await fs.sync()
    const random = breaks(at('random'))
    expect(random).toBeGreaterThan(200)
    const found = await ratio()
    expect(found).toBeGreaterThan(0.8)
    // All files are in every page: the figure is exactly filefrag's breaks over the extents.
    expect(found).toBeLessThan((random + 2) / 250)
    expect(found).toBeGreaterThan((random - 2) / (250 + 4))
    expect(await ratio()).toBe(found)
  })

  it('is of the order that filefrag gives for a volume of many files', async () => {
    using volume = makeVolume()
    await using fs = await openFilesystem(volume.path)
    let [extents, broken] = [0, 0]
    for (let i = 0; i < 60; i++) {
      const path = join(volume.path, `file${i}`)
      const blocks = i % 6 === 0 ? 12 : 1
      writeAtRandom(path, blocks)
      extents += blocks
      broken += breaks(path)
    }
    await fs.sync()
    const { fragmentationRatio } = await fs.measure()
    expect(broken / extents).toBeGreaterThan(0.3)
    expect(fragmentationRatio! / (broken / extents)).toBeGreaterThan(0.5)
    expect(fragmentationRatio! / (broken / extents)).toBeLessThan(2)
  })

  it('compressed extents that lie one behind the other are no breaks; holes are none', async () => {
    using volume = makeVolume({ mountOptions: 'compress-force=zstd' })
    await using fs = await openFilesystem(volume.path)
    const text = Buffer.from('all work and no play makes Jack a dull boy\n'.repeat(25_000)).subarray(0, MIB)
    writeInOrder(join(volume.path, 'text'), 20, text)
    const sparse = openSync(join(volume.path, 'sparse'), 'w')
    for (let i = 0; i < 50; i++) writeSync(sparse, text, 0, BLOCK, i * 4 * BLOCK)
    fsyncSync(sparse)
    closeSync(sparse)
    await fs.sync()
    const map = run('filefrag', '-v', join(volume.path, 'text'))
    expect(map.match(/encoded/g)!.length).toBeGreaterThan(100)
    expect((await fs.measure()).fragmentationRatio).toBeLessThan(0.02)
  })

  it('looks into the other subvolumes too', async () => {
    using volume = makeVolume()
    for (const name of ['opened', 'other']) run('btrfs', 'subvolume', 'create', join(volume.path, name))
    mkdirSync(join(volume.path, 'opened', 'directory'))
    await using opened = await openFilesystem(join(volume.path, 'opened', 'directory'))
    expect((await opened.measure()).fragmentationRatio).toBe(0)
    writeAtRandom(join(volume.path, 'other', 'random'), 60)
    await opened.sync()
    expect((await opened.measure()).fragmentationRatio).toBeGreaterThan(0.7)
    run('btrfs', 'subvolume', 'delete', join(volume.path, 'other'))
    expect((await opened.measure()).fragmentationRatio).toBe(0)
  })
})
