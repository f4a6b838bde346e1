import { BtrmindError } from '../errors.js'
import { native } from '../native.js'
import type { Random } from '../random.js'

/** Parameters of dense layers of these sizes: each layer has a kernel [in × out] and a bias [out]. */
export function parameterCount(sizes: readonly number[]): number {
  let count = 0
  for (let l = 1; l < sizes.length; l++) count += (sizes[l - 1]! + 1) * sizes[l]!
  return count
}

/** Where one layer lies in the parameters: offsets and sizes in elements. */
export interface Layer {
  readonly inputs: number
  readonly outputs: number
  /** The kernel is [inputs × outputs], row-major, as tfjs has it. */
  readonly kernel: number
  readonly bias: number
}

export function layersOf(sizes: readonly number[]): Layer[] {
  const layers: Layer[] = []
  let at = 0
  for (let l = 1; l < sizes.length; l++) {
    const inputs = sizes[l - 1]!
    const outputs = sizes[l]!
    layers.push({ inputs, outputs, kernel: at, bias: at + inputs * outputs })
    at += (inputs + 1) * outputs
  }
  return layers
}

/**
 * He's uniform initialisation for the layers that end in ReLU (limit √(6/in)), Glorot's for the linear output
 * (limit √(6/(in+out))), biases zero. He et al. 2015, Glorot and Bengio 2010.
 * @returns parameters, layer by layer: kernel [in × out] row-major, bias [out]
 */
export function initialParameters(sizes: readonly number[], random: Random): Float32Array {
  const parameters = new Float32Array(parameterCount(sizes))
  const layers = layersOf(sizes)
  for (const [l, { inputs, outputs, kernel, bias }] of layers.entries()) {
    const limit = Math.sqrt(6 / (l === layers.length - 1 ? inputs + outputs : inputs))
    for (let i = kernel; i < bias; i++) parameters[i] = limit * (2 * random.next() - 1)
  }
  return parameters
}

/** A minibatch; B rows. */
export interface Minibatch {
  /** Float32Array, [B × features], row-major. */
  readonly states: Float32Array
  /** Uint8Array, [B]: the action whose value is trained. */
  readonly actions: Uint8Array
  /** Float32Array, [B]: what that value should be. */
  readonly targets: Float32Array
  /** Float32Array, [B]: importance weights; ones when left out. */
  readonly weights?: Float32Array
}

/**
 * A dense network: ReLU between the layers, linear output. The arithmetic runs in the addon, in place, on arrays that
 * this object owns; one step at a time, on the calling thread, for microseconds.
 */
export class Network {
  /** [features, …hidden, actions] */
  readonly sizes: readonly number[]
  /** Float32Array: for each layer kernel [in × out] row-major, then bias [out]. */
  readonly parameters: Float32Array
  readonly #sizes: Uint32Array
  #scratch = new Float32Array(0)
  #scratchBatch = 0

  /**
   * @param sizes [features, …hidden, actions], each 1–8192
   * @param parameters taken over, not copied
   * @throws BtrmindError BTRMIND_ERR_ARGUMENT when the lengths do not agree
   */
  constructor(sizes: readonly number[], parameters: Float32Array) {
    const usable = sizes.every((size) => Number.isInteger(size) && size >= 1 && size <= 8192)
    if (sizes.length < 2 || sizes.length > 17 || !usable)
      throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `sizes: expected 2 to 17 integers from 1 to 8192, got ${sizes}`)
    const count = parameterCount(sizes)
    if (parameters.length !== count)
      throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `parameters: expected ${count}, got ${parameters.length}`)
    this.sizes = [...sizes]
    this.parameters = parameters
    this.#sizes = Uint32Array.from(sizes)
  }

  get features(): number {
    return this.sizes[0]!
  }

  get actions(): number {
    return this.sizes.at(-1)!
  }

  /**
   * The network's output for a batch of states. A few µs for one state.
   * @param states Float32Array, [B × features], row-major
   * @param output Float32Array, [B × actions]; made when left out
   * @throws BtrmindError BTRMIND_ERR_MODEL when a value is not finite, BTRMIND_ERR_ARGUMENT for a wrong length
   */
  predict(states: Float32Array, output?: Float32Array): Float32Array {
    const batch = states.length / this.features
    if (!Number.isInteger(batch) || batch === 0)
      throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `states: expected rows of ${this.features}, got ${states.length}`)
    const values = output ?? new Float32Array(batch * this.actions)
    native.mlpForward(this.#sizes, this.parameters, states, values, this.#scratchFor(batch))
    for (let i = 0; i < values.length; i++) {
      if (!Number.isFinite(values[i]))
        throw new BtrmindError('BTRMIND_ERR_MODEL', `the network gave ${values[i]} for action ${i % this.actions}`)
    }
    return values
  }

  /**
   * The loss of a minibatch and its gradient, both overwritten in place.
   *
   *     d = Q(s, a) − target      L = 1/B · Σ w·huber(d)      huber(d) = d²/2 if |d| ≤ δ, else δ·(|d| − δ/2)
   *
   * @param huberDelta δ; Infinity is half the squared error
   * @param gradient Float32Array, like {@link parameters}
   * @param errors Float32Array, [B]: d
   */
  gradient(batch: Minibatch, huberDelta: number, gradient: Float32Array, errors: Float32Array): number {
    const { states, actions, targets, weights } = batch
    const scratch = this.#scratchFor(actions.length)
    const sizes = this.#sizes
    const parameters = this.parameters
    return native.mlpGradient(
      sizes,
      parameters,
      states,
      actions,
      targets,
      weights,
      huberDelta,
      gradient,
      errors,
      scratch,
    )
  }

  #scratchFor(batch: number): Float32Array {
    if (batch > this.#scratchBatch) {
      this.#scratch = new Float32Array(native.mlpScratchLength(this.#sizes, batch))
      this.#scratchBatch = batch
    }
    return this.#scratch
  }
}

/** Adam's memory: both moments, shaped like the parameters, and the number of steps made. */
export class Adam {
  readonly first: Float32Array
  readonly second: Float32Array
  steps: number

  constructor(count: number, restored?: { first: Float32Array; second: Float32Array; steps: number }) {
    this.first = restored?.first ?? new Float32Array(count)
    this.second = restored?.second ?? new Float32Array(count)
    this.steps = restored?.steps ?? 0
  }

  /**
   * One step, in place, after clipping the gradient g to a global norm:
   *
   *     m ← β₁·m + (1−β₁)·g      v ← β₂·v + (1−β₂)·g²
   *     θ ← θ − α · (m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε)
   *
   * Kingma and Ba 2015, algorithm 1; the same as tf.train.adam.
   * @returns ‖g‖ before the clipping
   * @throws BtrmindError BTRMIND_ERR_MODEL when it is not finite; then nothing has changed
   */
  step(
    parameters: Float32Array,
    gradient: Float32Array,
    options: { learningRate: number; beta1: number; beta2: number; adamEpsilon: number; clipNorm: number },
  ): number {
    const { learningRate, beta1, beta2, adamEpsilon, clipNorm } = options
    const norm = native.mlpAdam(
      parameters,
      gradient,
      this.first,
      this.second,
      this.steps + 1,
      learningRate,
      beta1,
      beta2,
      adamEpsilon,
      clipNorm,
    )
    if (!Number.isFinite(norm)) throw new BtrmindError('BTRMIND_ERR_MODEL', `the gradient’s norm is ${norm}`)
    this.steps++
    return norm
  }
}
