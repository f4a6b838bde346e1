/** TensorFlow.js as the independent reference: the gradient, Adam, and that it loads our checkpoints. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import '@tensorflow/tfjs-backend-cpu'
import * as tf from '@tensorflow/tfjs-core'
import { loadLayersModel } from '@tensorflow/tfjs-layers'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import { Adam, createRandom, Dqn, initialParameters, layersOf, Network, saveCheckpoint } from '../../src/agent/index.js'
import { native } from '../../src/native.js'

const SIZES = [4, 128, 128, 128, 5]
const BATCH = 64
const ADAM = { learningRate: 3e-4, beta1: 0.9, beta2: 0.999, adamEpsilon: 1e-8 }
const best = native.mlpKernel()

beforeAll(async () => {
  tf.enableProdMode()
  await tf.setBackend('cpu')
})
afterEach(() => {
  native.mlpKernel(best)
  tf.disposeVariables()
})

function ours(seed: number): Network {
  return new Network(SIZES, initialParameters(SIZES, createRandom(seed)))
}

/** Their variables with our values, in our order: kernel, bias, kernel, bias, … */
function theirs({ sizes, parameters }: Network): tf.Variable[] {
  return layersOf(sizes).flatMap(({ inputs, outputs, kernel, bias }) => [
    tf.variable(tf.tensor2d(parameters.slice(kernel, bias), [inputs, outputs])),
    tf.variable(tf.tensor1d(parameters.slice(bias, bias + outputs))),
  ])
}

function minibatch(seed: number) {
  const random = createRandom(seed)
  return {
    states: Float32Array.from({ length: BATCH * 4 }, () => 2 * random.next() - 1),
    actions: Uint8Array.from({ length: BATCH }, () => random.integer(5)),
    // Errors on both sides of Huber's δ.
    targets: Float32Array.from({ length: BATCH }, () => 6 * random.next() - 3),
  }
}

function predict(variables: tf.Variable[], states: Float32Array): tf.Tensor2D {
  let x = tf.tensor2d(states, [states.length / 4, 4])
  for (let l = 0; l < variables.length; l += 2) {
    const z = tf.add(tf.matMul(x, variables[l] as tf.Tensor2D), variables[l + 1]!) as tf.Tensor2D
    x = l + 2 < variables.length ? tf.relu(z) : z
  }
  return x
}

function loss(variables: tf.Variable[], { states, actions, targets }: ReturnType<typeof minibatch>): tf.Scalar {
  const chosen = tf.oneHot(tf.tensor1d(Int32Array.from(actions), 'int32'), 5)
  const q = tf.sum(tf.mul(predict(variables, states), chosen), 1)
  return tf.losses.huberLoss(tf.tensor1d(targets), q, undefined, 1) as tf.Scalar
}

function flat(tensors: tf.Tensor[]): Float32Array {
  return Float32Array.from(tensors.flatMap((tensor) => [...tensor.dataSync()]))
}

function norm(values: Iterable<number>): number {
  let sum = 0
  for (const value of values) sum += value * value
  return Math.sqrt(sum)
}

/** ‖a − b‖ / ‖b‖, and the largest |a − b|. */
function distance(a: Float32Array, b: Float32Array): { relative: number; largest: number } {
  expect(a.length).toBe(b.length)
  const difference = Float64Array.from(a, (value, i) => value - b[i]!)
  return { relative: norm(difference) / norm(b), largest: Math.max(...difference.map(Math.abs)) }
}

/** Theirs after the same 20 steps; slow, so once for both kernels. */
let trained: Float32Array | undefined
function theirWeights(): Float32Array {
  if (trained !== undefined) return trained
  const variables = theirs(ours(4))
  const { learningRate, beta1, beta2, adamEpsilon } = ADAM
  const optimizer = tf.train.adam(learningRate, beta1, beta2, adamEpsilon)
  for (let step = 0; step < 20; step++) optimizer.minimize(() => loss(variables, minibatch(step)), false, variables)
  trained = flat(variables)
  return trained
}

describe.each([...new Set([best, 'baseline'])])('against tfjs, kernel %s', (kernel) => {
  it('the gradient of 34,309 parameters agrees within 1e-6', () => {
    native.mlpKernel(kernel)
    for (const seed of [1, 2, 3]) {
      const net = ours(seed)
      const variables = theirs(net)
      const batch = minibatch(seed + 10)
      const gradient = new Float32Array(net.parameters.length)
      const value = net.gradient(batch, 1, gradient, new Float32Array(BATCH))
      const { value: theirValue, grads } = tf.variableGrads(() => loss(variables, batch), variables)
      const { relative, largest } = distance(gradient, flat(variables.map(({ name }) => grads[name]!)))
      expect(norm(gradient)).toBeGreaterThan(0.1)
      expect(relative).toBeLessThan(1e-6)
      expect(largest).toBeLessThan(1e-6)
      expect(Math.abs(value - theirValue.dataSync()[0]!) / value).toBeLessThan(1e-6)
    }
  })

  it('20 Adam steps end at the same weights', () => {
    native.mlpKernel(kernel)
    const net = ours(4)
    const start = net.parameters.slice()
    const adam = new Adam(net.parameters.length)
    const gradient = new Float32Array(net.parameters.length)
    for (let step = 0; step < 20; step++) {
      const batch = minibatch(step)
      net.gradient(batch, 1, gradient, new Float32Array(BATCH))
      adam.step(net.parameters, gradient, { ...ADAM, clipNorm: 1e9 })
    }
    const weights = distance(net.parameters, theirWeights())
    expect(weights.relative).toBeLessThan(1e-6)
    expect(weights.largest).toBeLessThan(1e-5)
    // They moved much further than they differ.
    expect(distance(net.parameters, start).relative).toBeGreaterThan(5e-3)
  })

  it('20 Adam steps on the same gradients agree within 1e-6', () => {
    native.mlpKernel(kernel)
    const net = new Network([3, 7, 2], initialParameters([3, 7, 2], createRandom(1)))
    const variable = tf.variable(tf.tensor1d(net.parameters.slice()))
    const { learningRate, beta1, beta2, adamEpsilon } = ADAM
    const optimizer = tf.train.adam(learningRate, beta1, beta2, adamEpsilon)
    const adam = new Adam(net.parameters.length)
    const random = createRandom(9)
    for (let step = 0; step < 20; step++) {
      const gradient = net.parameters.map(() => (2 * random.next() - 1) * 10 ** (3 * random.next() - 4))
      adam.step(net.parameters, gradient, { ...ADAM, clipNorm: 1e9 })
      optimizer.applyGradients([{ name: variable.name, tensor: tf.tensor1d(gradient) }])
    }
    const { relative, largest } = distance(net.parameters, flat([variable]))
    expect(relative).toBeLessThan(1e-6)
    expect(largest).toBeLessThan(1e-6)
  })
})

describe('tf.loadLayersModel', () => {
  it.each([[4, 5, [128, 128, 128]] as const, [24, 6, [16]] as const, [3, 2, []] as const])(
    'loads the checkpoint of a network with %d features and %d actions',
    async (features, actions, hiddenSizes) => {
      const directory = mkdtempSync(join(tmpdir(), 'btrmind-checkpoint-'))
      try {
        const dqn = new Dqn({ features, actions, seed: 3, hyper: { hiddenSizes: [...hiddenSizes] } })
        const random = createRandom(4)
        for (const { bias, outputs } of layersOf(dqn.network.sizes))
          for (let i = bias; i < bias + outputs; i++) dqn.network.parameters[i] = random.next() - 0.5
        const { path } = await saveCheckpoint(directory, dqn.snapshot())

        // What any tfjs does with a model.json: the topology and the manifest from it, the weights from beside it.
        const model = await loadLayersModel({
          load: async () => {
            const artifacts = JSON.parse(readFileSync(join(path, 'model.json'), 'utf8'))
            const [group] = artifacts.weightsManifest
            return {
              ...artifacts,
              weightSpecs: group.weights,
              weightData: new Uint8Array(readFileSync(join(path, group.paths[0]))).buffer,
            }
          },
        })
        const states = Float32Array.from({ length: 32 * features }, () => 2 * random.next() - 1)
        const predicted = model.predict(tf.tensor2d(states, [32, features])) as tf.Tensor
        expect(predicted.shape).toEqual([32, actions])
        const values = predicted.dataSync()
        for (const [i, q] of dqn.network.predict(states).entries()) expect(Math.abs(q - values[i]!)).toBeLessThan(1e-6)
        expect(model.layers.map((layer) => layer.getConfig().activation)).toEqual([
          ...hiddenSizes.map(() => 'relu'),
          'linear',
        ])
      } finally {
        rmSync(directory, { recursive: true })
      }
    },
  )
})
