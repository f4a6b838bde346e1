/** The network against TensorFlow.js on its cpu backend: the same weights, the same minibatch, the same arithmetic. */
import '@tensorflow/tfjs-backend-cpu'
import * as tf from '@tensorflow/tfjs-core'
import '@tensorflow/tfjs-layers' // registers the gradients
import { Adam, createRandom, hyperparameters, initialParameters, layersOf, Network } from '../src/agent/index.js'
import { native } from '../src/native.js'
import { type BenchRow, medians, row } from './measure.js'

const SIZES = [4, 128, 128, 128, 5]
const BATCH = 64
/** A few µs are too short for the clock: this many are timed together. */
const INFERENCES = 100

/** @param rounds fewer are quicker and less certain */
export async function agentRows(rounds = 30): Promise<BenchRow[]> {
  tf.enableProdMode()
  await tf.setBackend('cpu')
  const random = createRandom(1)
  const parameters = initialParameters(SIZES, random)
  const batch = {
    states: Float32Array.from({ length: BATCH * 4 }, () => 2 * random.next() - 1),
    actions: Uint8Array.from({ length: BATCH }, () => random.integer(5)),
    targets: Float32Array.from({ length: BATCH }, () => 2 * random.next() - 1),
  }
  const ours = oursOf(parameters.slice(), batch)
  const theirs = theirsOf(parameters, batch)
  const state = batch.states.slice(0, 4)
  const difference = Math.max(...ours.infer(state).map((q, i) => Math.abs(q - theirs.infer(state)[i]!)))
  if (difference > 1e-5) throw new Error(`the two do not compute the same: ${difference}`)

  const inference = await medians(
    {
      ours: { run: () => repeat(INFERENCES, () => ours.infer(state)) },
      peer: { run: () => repeat(INFERENCES / 10, () => theirs.infer(state)) },
    },
    rounds,
  )
  const training = await medians({ ours: { run: ours.train, times: 10 }, peer: { run: theirs.train } }, rounds)
  tf.disposeVariables()
  const kernel = native.mlpKernel()
  return [
    row(
      `inference, 4-128-128-128-5 (${kernel})`,
      'tfjs cpu',
      inference.ours / INFERENCES,
      inference.peer / (INFERENCES / 10),
      { unit: 'µs', target: '≥ 50×, ≤ 10 µs' },
    ),
    row(`training step of ${BATCH} (${kernel})`, 'tfjs cpu', training.ours, training.peer, {
      unit: 'ms',
      target: '≥ 100×, ≤ 1 ms',
    }),
  ]
}

interface Batch {
  readonly states: Float32Array
  readonly actions: Uint8Array
  readonly targets: Float32Array
}

function oursOf(parameters: Float32Array, batch: Batch) {
  const network = new Network(SIZES, parameters)
  const adam = new Adam(parameters.length)
  const hyper = hyperparameters()
  const gradient = new Float32Array(parameters.length)
  const errors = new Float32Array(BATCH)
  return {
    infer: (state: Float32Array) => network.predict(state),
    train: () => {
      network.gradient(batch, 1, gradient, errors)
      adam.step(network.parameters, gradient, hyper)
    },
  }
}

function theirsOf(parameters: Float32Array, { states, actions, targets }: Batch) {
  const variables = layersOf(SIZES).map(({ inputs, outputs, kernel, bias }) => ({
    kernel: tf.variable(tf.tensor2d(parameters.slice(kernel, bias), [inputs, outputs])),
    bias: tf.variable(tf.tensor1d(parameters.slice(bias, bias + outputs))),
  }))
  const predict = (input: tf.Tensor2D) =>
    variables.reduce((x, { kernel, bias }, l) => {
      const z = tf.add<tf.Tensor2D>(tf.matMul(x, kernel as tf.Tensor2D), bias)
      return l < variables.length - 1 ? tf.relu(z) : z
    }, input)
  const input = tf.tensor2d(states, [BATCH, 4])
  const chosen = tf.oneHot(tf.tensor1d(Int32Array.from(actions), 'int32'), 5)
  const wanted = tf.tensor1d(targets)
  const { learningRate, beta1, beta2, adamEpsilon } = hyperparameters()
  const optimizer = tf.train.adam(learningRate, beta1, beta2, adamEpsilon)
  return {
    infer: (state: Float32Array) => tf.tidy(() => predict(tf.tensor2d(state, [1, 4])).dataSync()),
    train: () => {
      optimizer.minimize(() => {
        const q = tf.sum(tf.mul(predict(input), chosen), 1)
        return tf.losses.huberLoss(wanted, q, undefined, 1) as tf.Scalar
      })
    },
  }
}

function repeat(times: number, run: () => unknown): void {
  for (let i = 0; i < times; i++) run()
}
