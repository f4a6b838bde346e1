import { createHash } from 'node:crypto'
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { BtrmindError, check } from '../errors.js'
import { makeDirectory, readRegular, syncDirectory } from '../files.js'
import type { DqnSnapshot } from './dqn.js'
import { HYPERPARAMETERS, hyperparameters } from './hyper.js'
import { layersOf, parameterCount } from './network.js'
import type { ReplayContents } from './replay.js'

/** Raised when a set can no longer be read by older versions. */
const FORMAT = 1
const SUMS = 'SHA256SUMS'
/** Every set has these; `replay.bin` too unless the snapshot came without a replay. */
const REQUIRED = ['model.json', 'weights.bin', 'target.bin', 'optimizer.bin', 'training.json'] as const
const SET_NAME = /^generation-(\d{6,})$/
/** Ours too: being written or taken away (.tmp), set aside (.corrupt). */
const ANY_NAME = /^generation-(\d{6,})(\.tmp|\.corrupt)?$/

export interface SavedCheckpoint {
  readonly generation: number
  /** The set's directory; `<path>/model.json` is what tfjs loads. */
  readonly path: string
  /** One sentence for each damaged older set that was found and set aside. */
  readonly problems: readonly string[]
}

export interface LoadedCheckpoint {
  /** The newest good one; undefined when there is none. For {@link Dqn.restore}. */
  readonly snapshot?: DqnSnapshot
  readonly generation?: number
  readonly path?: string
  /** One sentence for each damaged newer set, naming its file. Empty when all was well. */
  readonly problems: readonly string[]
}

/**
 * Saves a snapshot as a new set of files beside the last one, `<directory>/generation-<n>/`: model.json and weights.bin
 * (as tfjs loads them), target.bin, optimizer.bin, training.json, replay.bin, and SHA256SUMS over them all. Every file is
 * fsynced before the directory takes its name, so a crash or power cut at any moment leaves whole sets only. The last good
 * set before it is kept; older good ones are deleted, damaged ones set aside as `generation-<n>.corrupt`.
 * No privilege · long where the disk is slow: up to a few MB are written and fsynced. One writer at a time.
 * @param directory made (mode 0700) when it is not there
 * @throws BtrmindError BTRMIND_ERR_STATE (cannot be written; the older sets are untouched), BTRMIND_ERR_MODEL (a
 * parameter is not finite)
 * @example
 * await saveCheckpoint('/var/lib/btrmind/model', dqn.snapshot())
 */
export async function saveCheckpoint(directory: string, snapshot: DqnSnapshot): Promise<SavedCheckpoint> {
  const steps = checkpointSteps(directory, snapshot)
  for (;;) {
    const step = await steps.next()
    if (step.done) return step.value
  }
}

/** The steps of {@link saveCheckpoint}, each yielded once it is on the disk: a test stops between any two of them. */
export async function* checkpointSteps(
  directory: string,
  snapshot: DqnSnapshot,
): AsyncGenerator<string, SavedCheckpoint, void> {
  const files = encode(snapshot)
  const sums = [...files].map(([name, pieces]) => `${sha256(pieces)}  ${name}\n`).join('')
  let temporary: string | undefined
  try {
    await makeDirectory(directory)
    const generation = Math.max(0, ...(await entries(directory)).map((entry) => entry.generation)) + 1
    const path = setPath(directory, generation)
    temporary = `${path}.tmp`
    await mkdir(temporary, 0o700)
    for (const [name, pieces] of [...files, [SUMS, [Buffer.from(sums)]] as const]) {
      await writeDurably(join(temporary, name), pieces)
      yield name
    }
    await syncDirectory(temporary)
    await rename(temporary, path)
    temporary = undefined
    await syncDirectory(directory)
    yield 'rename'
    // The set is safe by now: what goes wrong with older ones is told, not thrown.
    const problems = await tidy(directory, generation).catch((error: Error) => [`older sets stay: ${error.message}`])
    return { generation, path, problems }
  } catch (cause) {
    if (temporary !== undefined) await rm(temporary, { recursive: true, force: true }).catch(() => undefined)
    throw stateError('save a checkpoint in', directory, cause)
  }
}

/**
 * The newest good checkpoint. A set with a missing, truncated or altered file is passed over and reported. Changes nothing,
 * so it may be called while another process saves. No privilege · quick.
 * @returns no snapshot when there is no directory or no set in it; with `problems` when none of them is good
 * @throws BtrmindError BTRMIND_ERR_STATE when it may not be read, or was written by a newer version
 * @example
 * const { snapshot, problems } = await loadCheckpoint('/var/lib/btrmind/model')
 * const dqn = snapshot === undefined ? new Dqn({ seed: 7 }) : Dqn.restore(snapshot)
 */
export async function loadCheckpoint(directory: string): Promise<LoadedCheckpoint> {
  const problems: string[] = []
  try {
    const generations = await sets(directory)
    for (const generation of generations) {
      const path = setPath(directory, generation)
      try {
        return { snapshot: await readSet(path), generation, path, problems }
      } catch (error) {
        if (!(error instanceof Damage)) throw error
        // A writer that went on meanwhile may have taken it away; then there is a newer one.
        const newest = (await sets(directory))[0]
        if (newest !== undefined && newest > generations[0]!) return await loadCheckpoint(directory)
        problems.push(error.message)
      }
    }
  } catch (cause) {
    throw stateError('load a checkpoint from', directory, cause)
  }
  return { problems }
}

async function writeDurably(path: string, pieces: readonly Uint8Array[]): Promise<void> {
  await using file = await open(path, 'wx', 0o600)
  for (const piece of pieces) await file.writeFile(piece)
  await file.sync()
}

/** Keeps generation `saved` and the newest good one before it. */
async function tidy(directory: string, saved: number): Promise<string[]> {
  const problems: string[] = []
  let kept = false
  for (const generation of await sets(directory)) {
    if (generation >= saved) continue
    const path = setPath(directory, generation)
    if (kept) {
      // Renamed first, so that a set is never seen half deleted.
      await rename(path, `${path}.tmp`)
      continue
    }
    try {
      await readSet(path)
      kept = true
    } catch (error) {
      if (!(error instanceof Damage)) throw error
      await rename(path, `${path}.corrupt`)
      problems.push(`${error.message}; the set was put aside as '${path}.corrupt'`)
    }
  }
  await syncDirectory(directory)
  for (const { name } of await entries(directory))
    if (name.endsWith('.tmp')) await rm(join(directory, name), { recursive: true, force: true })
  return problems
}

/** A set that cannot be used; the message names the file. */
class Damage extends Error {}

const COUNT = v.pipe(v.number(), v.integer(), v.minValue(0))
const TRAINING = v.object({
  format: v.literal(FORMAT),
  sizes: v.pipe(v.array(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(8192))), v.minLength(2)),
  hyper: v.record(v.string(), v.unknown()),
  decisions: COUNT,
  steps: COUNT,
  random: v.tuple([COUNT, COUNT, COUNT, COUNT]),
  replay: v.optional(v.object({ length: COUNT, cursor: COUNT, capacity: COUNT })),
})

async function readSet(path: string): Promise<DqnSnapshot> {
  const damage = (name: string, what: string) => new Damage(`BTRMIND_ERR_STATE_CORRUPT: '${join(path, name)}' ${what}`)
  const read = async (name: string): Promise<Buffer> => {
    try {
      return await readRegular(join(path, name))
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      // EIO is what btrfs answers where its own checksum failed.
      if (code === 'ENOENT' || code === 'ENOTDIR') throw damage(name, 'is missing')
      if (code === 'EIO' || code === 'EISDIR' || code === 'EINVAL') throw damage(name, `cannot be read (${code})`)
      throw error
    }
  }

  const lines = (await read(SUMS)).toString().split('\n')
  const sums = new Map(lines.map((line) => [line.slice(66), line.slice(0, 64)]))
  for (const name of REQUIRED) if (!sums.has(name)) throw damage(SUMS, `does not list ${name}`)
  const verified = async (name: string): Promise<Buffer> => {
    const data = await read(name)
    if (sha256([data]) !== sums.get(name)) throw damage(name, `is not what ${SUMS} says`)
    return data
  }
  const floats = async (name: string, length: number): Promise<Float32Array> => {
    const data = await verified(name)
    if (data.length !== 4 * length) throw damage(name, `has ${data.length} bytes, not ${4 * length}`)
    const values = new Float32Array(new Uint8Array(data).buffer)
    if (!values.every(Number.isFinite)) throw damage(name, 'holds a value that is not finite')
    return values
  }

  const text = await verified('training.json')
  let training: v.InferOutput<typeof TRAINING>
  let hyper: DqnSnapshot['hyper']
  try {
    const parsed = JSON.parse(text.toString()) as { format?: unknown }
    if (typeof parsed.format === 'number' && parsed.format > FORMAT)
      throw new BtrmindError('BTRMIND_ERR_STATE', `'${path}' was written by a newer version (format ${parsed.format})`)
    training = check('training.json', TRAINING, parsed)
    // Names of other versions are passed over.
    const known = Object.entries(training.hyper).filter(([name]) => name in HYPERPARAMETERS)
    hyper = hyperparameters(Object.fromEntries(known))
  } catch (error) {
    if (error instanceof BtrmindError && error.code === 'BTRMIND_ERR_STATE') throw error
    throw damage('training.json', `cannot be used: ${(error as Error).message}`)
  }
  const { sizes, decisions, steps, random } = training
  await verified('model.json')
  const count = parameterCount(sizes)
  const moments = await floats('optimizer.bin', 2 * count)
  const snapshot: DqnSnapshot = {
    sizes,
    hyper,
    decisions,
    steps,
    random,
    parameters: await floats('weights.bin', count),
    target: await floats('target.bin', count),
    firstMoment: moments.slice(0, count),
    secondMoment: moments.slice(count),
  }
  if (training.replay === undefined) return snapshot
  const replay = decodeReplay(await verified('replay.bin'), training.replay, sizes[0]!, sizes.at(-1)!)
  if (replay === undefined) throw damage('replay.bin', 'does not have the length that training.json says')
  return { ...snapshot, replay }
}

// ---- Contents

function encode(snapshot: DqnSnapshot): Map<string, Uint8Array[]> {
  const { sizes, hyper, decisions, steps, random, parameters, target, firstMoment, secondMoment, replay } = snapshot
  for (const values of [parameters, target, firstMoment, secondMoment]) {
    if (!values.every(Number.isFinite))
      throw new BtrmindError('BTRMIND_ERR_MODEL', 'a parameter is not finite; the checkpoint was not saved')
  }
  const ring = replay && { length: replay.length, cursor: replay.cursor, capacity: replay.capacity }
  const training = { format: FORMAT, sizes, hyper, decisions, steps, random, replay: ring }
  const files = new Map([
    ['model.json', [json(layersModel(sizes))]],
    ['weights.bin', [bytes(parameters)]],
    ['target.bin', [bytes(target)]],
    ['optimizer.bin', [bytes(firstMoment), bytes(secondMoment)]],
    ['training.json', [json(training)]],
  ])
  if (replay !== undefined) {
    const { states, nextStates, rewards, actions, nextMasks } = replay
    files.set('replay.bin', [bytes(states), bytes(nextStates), bytes(rewards), actions, nextMasks])
  }
  return files
}

/** What tf.loadLayersModel() reads: a Sequential of Dense layers, and where each weight lies in weights.bin. */
function layersModel(sizes: readonly number[]): object {
  const layers = layersOf(sizes)
  const name = (l: number) => (l === layers.length - 1 ? 'q' : `hidden_${l + 1}`)
  return {
    format: 'layers-model',
    generatedBy: 'btrmind-native',
    convertedBy: null,
    modelTopology: {
      class_name: 'Sequential',
      config: {
        name: 'btrmind',
        layers: layers.map(({ inputs, outputs }, l) => ({
          class_name: 'Dense',
          config: {
            name: name(l),
            ...(l === 0 ? { batch_input_shape: [null, inputs] } : {}),
            dtype: 'float32',
            units: outputs,
            activation: l === layers.length - 1 ? 'linear' : 'relu',
            use_bias: true,
          },
        })),
      },
      keras_version: 'tfjs-layers 4.22.0',
      backend: 'tensor_flow.js',
    },
    weightsManifest: [
      {
        paths: ['weights.bin'],
        weights: layers.flatMap(({ inputs, outputs }, l) => [
          { name: `${name(l)}/kernel`, shape: [inputs, outputs], dtype: 'float32' },
          { name: `${name(l)}/bias`, shape: [outputs], dtype: 'float32' },
        ]),
      },
    ],
  }
}

function decodeReplay(
  data: Buffer,
  { length, cursor, capacity }: Pick<ReplayContents, 'length' | 'cursor' | 'capacity'>,
  features: number,
  actions: number,
): ReplayContents | undefined {
  const floats = length * (2 * features + 1)
  if (data.length !== 4 * floats + length * (1 + actions) || length > capacity || cursor >= capacity) return undefined
  const copy = new Uint8Array(data)
  const numbers = new Float32Array(copy.buffer, 0, floats)
  const rest = copy.subarray(4 * floats)
  return {
    length,
    cursor,
    capacity,
    states: numbers.subarray(0, length * features),
    nextStates: numbers.subarray(length * features, 2 * length * features),
    rewards: numbers.subarray(2 * length * features),
    actions: rest.subarray(0, length),
    nextMasks: rest.subarray(length),
  }
}

// ---- Small things

interface Entry {
  readonly name: string
  readonly generation: number
}

/** What in the directory is ours, in any condition. */
async function entries(directory: string): Promise<Entry[]> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
  return names.flatMap((name) => {
    const match = ANY_NAME.exec(name)
    return match === null ? [] : [{ name, generation: Number(match[1]) }]
  })
}

/** Generations of the sets, newest first. */
async function sets(directory: string): Promise<number[]> {
  const found = (await entries(directory)).filter(({ name }) => SET_NAME.test(name))
  return found.map(({ generation }) => generation).sort((a, b) => b - a)
}

const setPath = (directory: string, generation: number) =>
  join(directory, `generation-${String(generation).padStart(6, '0')}`)

function sha256(pieces: readonly Uint8Array[]): string {
  const hash = createHash('sha256')
  for (const piece of pieces) hash.update(piece)
  return hash.digest('hex')
}

const bytes = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
const json = (value: unknown) => Buffer.from(`${JSON.stringify(value, undefined, 2)}\n`)

function stateError(verb: string, path: string, cause: unknown): BtrmindError {
  if (cause instanceof BtrmindError) return cause
  return new BtrmindError('BTRMIND_ERR_STATE', `cannot ${verb} '${path}': ${(cause as Error).message}`, { cause })
}
