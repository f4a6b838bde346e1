import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import { checkpointSteps } from '../../src/agent/checkpoint.js'
import { createRandom, Dqn, type DqnSnapshot, loadCheckpoint, saveCheckpoint } from '../../src/agent/index.js'
import { cannotMount, makeVolume } from '../helpers/volume.js'

const FILES = ['SHA256SUMS', 'model.json', 'optimizer.bin', 'replay.bin', 'target.bin', 'training.json', 'weights.bin']

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'btrmind-checkpoint-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

function agent(seed = 1): Dqn {
  const hyper = { hiddenSizes: [12, 12], batchSize: 8, warmupTransitions: 8, replayCapacity: 40 }
  return new Dqn({ seed, features: 3, actions: 4, hyper })
}

function train(dqn: Dqn, decisions: number, seed: number): unknown[] {
  const random = createRandom(seed)
  const said: unknown[] = []
  for (let i = 0; i < decisions; i++) {
    const state = Float32Array.from({ length: 3 }, () => random.next())
    const nextState = Float32Array.from({ length: 3 }, () => random.next())
    const choice = dqn.act(state)
    const nextMask = [true, random.next() < 0.5, true, random.next() < 0.5]
    dqn.remember({ state, action: choice.action, reward: random.next(), nextState, nextMask })
    said.push(choice, dqn.learn())
  }
  return said
}

/** Two sets of different snapshots, saved once and copied for each test that asks; gives both. */
let template: { path: string; snapshots: [DqnSnapshot, DqnSnapshot] } | undefined
async function twoSets(): Promise<[DqnSnapshot, DqnSnapshot]> {
  if (template === undefined) {
    const path = mkdtempSync(join(tmpdir(), 'btrmind-checkpoint-'))
    const dqn = agent()
    train(dqn, 30, 1)
    const first = dqn.snapshot()
    await saveCheckpoint(path, first)
    train(dqn, 30, 2)
    const second = dqn.snapshot()
    await saveCheckpoint(path, second)
    template = { path, snapshots: [first, second] }
  }
  cpSync(template.path, directory, { recursive: true })
  return template.snapshots
}
afterAll(() => {
  if (template !== undefined) rmSync(template.path, { recursive: true })
})

const inSet = (generation: number, file: string) => join(directory, `generation-00000${generation}`, file)

describe('a checkpoint', () => {
  it('comes back as it was', async () => {
    const dqn = agent()
    train(dqn, 60, 1) // Past the replay's capacity: the ring has wrapped.
    const saved = await saveCheckpoint(directory, dqn.snapshot())
    expect(saved).toEqual({ generation: 1, path: join(directory, 'generation-000001'), problems: [] })
    const { snapshot, ...loaded } = await loadCheckpoint(directory)
    expect(loaded).toEqual(saved)
    expect(snapshot).toEqual(dqn.snapshot())
  })

  it('taken in the middle of training changes nothing about the rest of it, to the bit', async () => {
    const straight = agent(9)
    train(straight, 50, 1)
    await saveCheckpoint(directory, straight.snapshot())
    const { snapshot } = await loadCheckpoint(directory)
    const resumed = Dqn.restore(snapshot!)
    expect(train(resumed, 100, 2)).toEqual(train(straight, 100, 2))
    expect(resumed.snapshot()).toEqual(straight.snapshot())
  })

  it('may leave the replay out', async () => {
    const dqn = agent()
    train(dqn, 20, 1)
    const { replay: _, ...snapshot } = dqn.snapshot()
    await saveCheckpoint(directory, snapshot)
    expect(existsSync(inSet(1, 'replay.bin'))).toBe(false)
    expect((await loadCheckpoint(directory)).snapshot).toEqual(snapshot)
  })

  it('keeps the last one before it, and deletes only what was replaced', async () => {
    const dqn = agent()
    writeFileSync(join(directory, 'notes.txt'), 'not ours')
    mkdirSync(join(directory, 'generation-1'))
    for (let i = 0; i < 4; i++) await saveCheckpoint(directory, dqn.snapshot())
    expect(readdirSync(directory).sort()).toEqual([
      'generation-000003',
      'generation-000004',
      'generation-1',
      'notes.txt',
    ])
    expect(readdirSync(join(directory, 'generation-000004')).sort()).toEqual(FILES)
  })

  it('can be checked with sha256sum', async () => {
    const { path } = await saveCheckpoint(directory, agent().snapshot())
    const checked = execFileSync('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: path, encoding: 'utf8' })
    expect(checked.trim().split('\n')).toHaveLength(FILES.length - 1)
  })

  it('is nothing, without a problem, where there is none', async () => {
    expect(await loadCheckpoint(directory)).toEqual({ problems: [] })
    expect(await loadCheckpoint(join(directory, 'not', 'there'))).toEqual({ problems: [] })
  })

  it('makes its directory', async () => {
    const deep = join(directory, 'a', 'b')
    await saveCheckpoint(deep, agent().snapshot())
    expect((await loadCheckpoint(deep)).generation).toBe(1)
  })
})

describe('damage', () => {
  const flip = (path: string, at: number) => {
    const data = readFileSync(path)
    data[at < 0 ? data.length + at : at]! ^= 0x10
    writeFileSync(path, data)
  }
  const ways: Record<string, (path: string) => void> = {
    'cut short': (path) => truncateSync(path, readFileSync(path).length - 5),
    'cut to nothing': (path) => truncateSync(path, 0),
    'flipped at the start': (path) => flip(path, 0),
    'flipped in the middle': (path) => flip(path, readFileSync(path).length >> 1),
    'flipped at the end': (path) => flip(path, -1),
    'longer than it was': (path) => appendFileSync(path, 'x'),
    missing: unlinkSync,
    'a directory': (path) => {
      unlinkSync(path)
      mkdirSync(path)
    },
  }
  const cases = FILES.flatMap((file) => Object.keys(ways).map((way) => [file, way] as const))

  // One thing more at the end of SHA256SUMS breaks nothing that it says.
  it.each(cases.filter(([file, way]) => !(file === 'SHA256SUMS' && way === 'longer than it was')))(
    '%s %s: reported by name, and the last good one used',
    async (file, way) => {
      const [first] = await twoSets()
      ways[way]!(inSet(2, file))
      const { snapshot, generation, problems } = await loadCheckpoint(directory)
      expect(generation).toBe(1)
      expect(snapshot).toEqual(first)
      expect(problems).toHaveLength(1)
      expect(problems[0]).toMatch(/^BTRMIND_ERR_STATE_CORRUPT: /)
      // A damaged list of sums may also accuse the file that it misnames.
      if (file !== 'SHA256SUMS') expect(problems[0]).toContain(inSet(2, file))
    },
  )

  it('of JSON that its sum confirms', async () => {
    const rewrite = (change: (training: Record<string, unknown>) => unknown) => {
      const training = JSON.parse(readFileSync(inSet(2, 'training.json'), 'utf8')) as Record<string, unknown>
      const changed = change(training)
      writeFileSync(inSet(2, 'training.json'), typeof changed === 'string' ? changed : JSON.stringify(changed))
      const sums = execFileSync('sha256sum', FILES.slice(1), { cwd: inSet(2, ''), encoding: 'utf8' })
      writeFileSync(inSet(2, 'SHA256SUMS'), sums)
    }
    await twoSets()
    const original = readFileSync(inSet(2, 'training.json'))
    const changes: [(training: Record<string, unknown>) => unknown, RegExp][] = [
      [() => '{"format": 1, ', /training.json' cannot be used/],
      [() => 'null', /training.json' cannot be used/],
      [() => '[]', /training.json' cannot be used/],
      [(training) => ({ ...training, steps: -1 }), /training.json' cannot be used.*steps/],
      [(training) => ({ ...training, sizes: [3, 12, 12, 5] }), /optimizer.bin' has \d+ bytes, not \d+/],
      [(training) => ({ ...training, hyper: { learningRate: 'x' } }), /training.json' cannot be used.*learningRate/],
      [(training) => ({ ...training, replay: { length: 41, cursor: 0, capacity: 40 } }), /replay.bin' does not have/],
      [(training) => ({ ...training, random: [1, 2, 3] }), /training.json' cannot be used.*random/],
    ]
    for (const [change, problem] of changes) {
      writeFileSync(inSet(2, 'training.json'), original)
      rewrite(change)
      const loaded = await loadCheckpoint(directory)
      expect(loaded.problems).toEqual([expect.stringMatching(problem)])
      expect(loaded.generation).toBe(1)
    }
    writeFileSync(inSet(2, 'training.json'), original)
    rewrite((training) => ({ ...training, hyper: { ...(training.hyper as object), ofLaterVersions: 1 } }))
    expect(await loadCheckpoint(directory)).toMatchObject({ generation: 2, problems: [] })

    rewrite((training) => ({ ...training, format: 2 }))
    await expect(loadCheckpoint(directory)).rejects.toMatchObject({
      code: 'BTRMIND_ERR_STATE',
      message: expect.stringContaining('newer version (format 2)'),
    })
  })

  it('everywhere: nothing is loaded, everything is told', async () => {
    await twoSets()
    truncateSync(inSet(1, 'weights.bin'), 3)
    unlinkSync(inSet(2, 'model.json'))
    const { snapshot, problems } = await loadCheckpoint(directory)
    expect(snapshot).toBeUndefined()
    expect(problems).toEqual([
      expect.stringContaining(inSet(2, 'model.json')),
      expect.stringContaining(inSet(1, 'weights.bin')),
    ])
  })

  it('is put aside by the next save, never deleted, and the good one behind it is kept', async () => {
    const [first] = await twoSets()
    truncateSync(inSet(2, 'weights.bin'), 3)
    const dqn = agent(5)
    const { generation, problems } = await saveCheckpoint(directory, dqn.snapshot())
    expect(generation).toBe(3)
    expect(problems).toEqual([expect.stringContaining("generation-000002.corrupt'")])
    expect(readdirSync(directory).sort()).toEqual([
      'generation-000001',
      'generation-000002.corrupt',
      'generation-000003',
    ])
    // Should the new one break as well, the first is still there.
    unlinkSync(inSet(3, 'weights.bin'))
    expect((await loadCheckpoint(directory)).snapshot).toEqual(first)
    expect((await saveCheckpoint(directory, dqn.snapshot())).generation).toBe(4)
  })
})

describe('a save that is killed', () => {
  it('leaves whole sets at every step', async () => {
    const [, second] = await twoSets()
    const dqn = agent(8)
    train(dqn, 30, 3)
    const third = dqn.snapshot()
    const steps = FILES.length + 1
    for (let survived = 0; survived <= steps; survived++) {
      const before = readdirSync(directory)
      const saving = checkpointSteps(directory, third)
      let last: IteratorResult<string, unknown> | undefined
      for (let step = 0; step < survived; step++) last = await saving.next()
      // The process ends here: nothing after this step happens, no clean-up either.
      const { snapshot, generation, problems } = await loadCheckpoint(directory)
      expect(problems).toEqual([])
      if (survived === steps) {
        expect(last?.value).toBe('rename')
        expect(snapshot).toEqual(third)
        expect(generation).toBeGreaterThan(2)
      } else {
        expect(generation).toBe(2)
        expect(snapshot).toEqual(second)
        for (const name of before) expect(readdirSync(directory)).toContain(name)
      }
    }
    expect(readdirSync(directory).filter((name) => name.endsWith('.tmp'))).toHaveLength(FILES.length)
    // The next save that ends takes the leftovers away.
    const { generation } = await saveCheckpoint(directory, third)
    expect(readdirSync(directory)).toHaveLength(2)
    expect((await loadCheckpoint(directory)).generation).toBe(generation)
  })

  it('while it deletes an old one leaves no half set', async () => {
    await twoSets()
    renameSync(join(directory, 'generation-000001'), join(directory, 'generation-000001.tmp'))
    unlinkSync(join(directory, 'generation-000001.tmp', 'weights.bin'))
    expect(await loadCheckpoint(directory)).toMatchObject({ generation: 2, problems: [] })
    expect((await saveCheckpoint(directory, agent().snapshot())).problems).toEqual([])
    expect(readdirSync(directory).sort()).toEqual(['generation-000002', 'generation-000003'])
  })
})

describe('a save that fails', () => {
  it('says why and leaves what was there', async () => {
    const file = join(directory, 'file')
    writeFileSync(file, '')
    await expect(saveCheckpoint(file, agent().snapshot())).rejects.toMatchObject({
      code: 'BTRMIND_ERR_STATE',
      message: expect.stringContaining(file),
    })
    await expect(loadCheckpoint(file)).rejects.toMatchObject({ code: 'BTRMIND_ERR_STATE' })
    const nowhere = saveCheckpoint('/proc/btrmind/model', agent().snapshot())
    await expect(nowhere).rejects.toMatchObject({ code: 'BTRMIND_ERR_STATE' })
  })

  it('refuses parameters that are not finite', async () => {
    await twoSets()
    const snapshot = agent().snapshot()
    snapshot.parameters[3] = Number.NaN
    await expect(saveCheckpoint(directory, snapshot)).rejects.toMatchObject({ code: 'BTRMIND_ERR_MODEL' })
    expect(readdirSync(directory).sort()).toEqual(['generation-000001', 'generation-000002'])
  })

  it.skipIf(cannotMount)('on a full volume keeps the last good one', async () => {
    using volume = makeVolume({ devicesMiB: [128] })
    const state = join(volume.path, 'state')
    const dqn = new Dqn({ seed: 1 })
    const first = dqn.snapshot()
    await saveCheckpoint(state, first)
    const filler = join(volume.path, 'filler')
    try {
      for (;;) appendFileSync(filler, Buffer.alloc(1024 ** 2, 0xa5))
    } catch (error) {
      expect(error).toMatchObject({ code: 'ENOSPC' })
    }
    await expect(saveCheckpoint(state, dqn.snapshot())).rejects.toMatchObject({
      code: 'BTRMIND_ERR_STATE',
      message: expect.stringContaining('ENOSPC'),
    })
    expect(readdirSync(state)).toEqual(['generation-000001'])
    expect((await loadCheckpoint(state)).snapshot).toEqual(first)
  })
})
