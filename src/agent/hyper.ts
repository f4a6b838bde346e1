import * as v from 'valibot'
import { check } from '../errors.js'

// The papers' titles are in docs/learning.md.
const MNIH = 'Mnih et al. 2015'
const HASSELT = 'van Hasselt et al. 2016'
const LILLICRAP = 'Lillicrap et al. 2016'
const KINGMA = 'Kingma and Ba 2015'
const WANG = 'Wang et al. 2016'
const OURS = 'a prototype on simulated volumes'

const positive = v.pipe(v.number(), v.finite('a finite number'), v.gtValue(0, 'a number above 0'))
const ratio = v.pipe(v.number(), v.minValue(0, 'a ratio, 0 to 1'), v.maxValue(1, 'a ratio, 0 to 1'))
const below1 = v.pipe(v.number(), v.minValue(0, 'from 0 to below 1'), v.ltValue(1, 'from 0 to below 1'))
const integer = (low: number, high: number) => {
  const text = `an integer from ${low} to ${high}`
  return v.pipe(v.number(), v.integer(text), v.minValue(low, text), v.maxValue(high, text))
}

/** One hyper-parameter: its default, what it may be, what it means, and where the default comes from. */
interface Entry<S extends v.GenericSchema> {
  readonly default: v.InferOutput<S>
  readonly schema: S
  readonly meaning: string
  readonly source: string
}
const entry = <const S extends v.GenericSchema>(
  schema: S,
  value: v.InferOutput<S>,
  meaning: string,
  source: string,
): Entry<S> => ({ default: value, schema, meaning, source })

/** Every hyper-parameter of {@link Dqn}. docs/learning.md repeats the table; a test holds the two together. */
export const HYPERPARAMETERS = {
  hiddenSizes: entry(
    v.pipe(v.array(integer(1, 8192)), v.maxLength(15, 'at most 15 hidden layers')),
    [128, 128, 128],
    'units of each hidden layer, all ReLU',
    'the specification',
  ),
  discountRatio: entry(below1, 0.99, 'γ, what a reward one decision later is worth', MNIH),
  double: entry(v.boolean(), true, 'the online network picks the next action, the target network values it', HASSELT),
  targetBlendRatio: entry(ratio, 0.005, 'τ, how far the target network moves in a step', OURS),
  batchSize: entry(integer(1, 65536), 64, 'transitions in a training step', LILLICRAP),
  replayCapacity: entry(integer(1, 10_000_000), 20_000, 'transitions kept: two weeks of minutes', OURS),
  warmupTransitions: entry(
    integer(1, 10_000_000),
    256,
    'transitions in the replay before the first training step',
    'four batches; a first volume should not wait long',
  ),
  learningRate: entry(positive, 3e-4, 'Adam’s α', OURS),
  beta1: entry(below1, 0.9, 'Adam’s decay of the first moment', KINGMA),
  beta2: entry(below1, 0.999, 'Adam’s decay of the second moment', KINGMA),
  adamEpsilon: entry(positive, 1e-8, 'Adam’s ε, outside the root', KINGMA),
  clipNorm: entry(positive, 10, 'the gradient is scaled down to this global norm; a huge one for never', WANG),
  loss: entry(v.picklist(['huber', 'squared']), 'huber', 'of the TD error; Huber with δ = 1, or half the square', MNIH),
  rewardScale: entry(
    positive,
    1 / 15,
    'what rewards are multiplied by before learning',
    'the penalty above 90 % becomes Huber’s δ',
  ),
  epsilonStart: entry(ratio, 0.1, 'ε of the first decision', 'low: on a real volume each exploration costs something'),
  epsilonEnd: entry(ratio, 0.02, 'ε from the last decision of the schedule on', OURS),
  epsilonDecisions: entry(integer(1, 1e12), 10_080, 'decisions over which ε falls in a line', 'one week of minutes'),
  explorationNoOpRatio: entry(
    ratio,
    0.5,
    'the share of explorations that take action 0, which does nothing',
    'exploring must not keep a volume busy',
  ),
} as const

type Table = typeof HYPERPARAMETERS
/** All hyper-parameters, resolved. */
export type Hyper = { readonly [K in keyof Table]: Table[K] extends Entry<infer S> ? v.InferOutput<S> : never }

const schema = v.strictObject(
  Object.fromEntries(
    Object.entries(HYPERPARAMETERS).map(([name, { schema, default: value }]) => [
      name,
      v.optional(schema as v.GenericSchema, value as unknown as undefined),
    ]),
  ),
)

/**
 * Fills a record of hyper-parameters up with the defaults.
 * @throws BtrmindError BTRMIND_ERR_OPTION (unknown name), BTRMIND_ERR_ARGUMENT (value out of range)
 */
export function hyperparameters(overrides: Partial<Hyper> = {}): Hyper {
  return Object.freeze(check('hyper', schema, overrides)) as Hyper
}
