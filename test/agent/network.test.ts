import { afterEach, describe, expect, it } from 'vitest'
import { Adam, createRandom, initialParameters, layersOf, Network, parameterCount } from '../../src/agent/index.js'
import { native } from '../../src/native.js'

const best = native.mlpKernel()
afterEach(() => void native.mlpKernel(best))

function network(sizes: number[], seed = 1): Network {
  const random = createRandom(seed)
  const made = new Network(sizes, initialParameters(sizes, random))
  for (const { bias, outputs } of layersOf(sizes))
    for (let i = bias; i < bias + outputs; i++) made.parameters[i] = random.next() - 0.5
  return made
}

function minibatch({ features, actions }: Network, size: number, seed = 2) {
  const random = createRandom(seed)
  return {
    states: Float32Array.from({ length: size * features }, () => 2 * random.next() - 1),
    actions: Uint8Array.from({ length: size }, () => random.integer(actions)),
    targets: Float32Array.from({ length: size }, () => 6 * random.next() - 3),
    weights: Float32Array.from({ length: size }, () => random.next() + 0.5),
  }
}

/** The same network in plain double arithmetic. */
function predictInDouble({ sizes }: Network, parameters: ArrayLike<number>, state: Float32Array): number[] {
  let x = [...state]
  for (const [l, { inputs, outputs, kernel, bias }] of layersOf(sizes).entries()) {
    const y = Array.from({ length: outputs }, (_, j) => {
      let sum = parameters[bias + j]!
      for (let i = 0; i < inputs; i++) sum += x[i]! * parameters[kernel + i * outputs + j]!
      return l === sizes.length - 2 ? sum : Math.max(0, sum)
    })
    x = y
  }
  return x
}

function lossInDouble(net: Network, parameters: ArrayLike<number>, batch: ReturnType<typeof minibatch>, delta: number) {
  let loss = 0
  for (const [b, action] of batch.actions.entries()) {
    const state = batch.states.subarray(b * net.features, (b + 1) * net.features)
    const d = Math.abs(predictInDouble(net, parameters, state)[action]! - batch.targets[b]!)
    loss += batch.weights[b]! * (d <= delta ? (d * d) / 2 : delta * (d - delta / 2))
  }
  return loss / batch.actions.length
}

// 'baseline' runs on any x86-64; on other processors it is the only one.
describe.each([...new Set([best, 'baseline'])])('network, kernel %s', (kernel) => {
  // Odd widths reach the loops' remainders; 70 and 130 the wide loops.
  const shapes = [
    [4, 128, 128, 128, 5],
    [3, 7, 2],
    [1, 1],
    [5, 70, 130, 33, 3],
    [24, 16, 17, 18, 19, 9],
  ]

  it.each(shapes.map((sizes) => [sizes.join('-'), sizes] as const))('%s predicts what double does', (_, sizes) => {
    native.mlpKernel(kernel)
    const net = network(sizes)
    const { states } = minibatch(net, 9)
    const q = net.predict(states)
    for (let b = 0; b < 9; b++) {
      const state = states.slice(b * net.features, (b + 1) * net.features)
      const exact = predictInDouble(net, net.parameters, state)
      const row = q.subarray(b * net.actions, (b + 1) * net.actions)
      for (const [a, value] of exact.entries()) expect(Math.abs(row[a]! - value)).toBeLessThan(2e-6)
      // A state's values do not depend on the batch that it comes in, to the bit.
      expect(net.predict(state)).toEqual(row.slice())
    }
  })

  it.each([
    ['Huber', 1],
    ['half the square', Number.POSITIVE_INFINITY],
  ])('has the gradient of finite differences, %s', (_, delta) => {
    native.mlpKernel(kernel)
    const net = network([3, 6, 5, 2])
    const batch = minibatch(net, 7)
    const gradient = new Float32Array(net.parameters.length)
    const errors = new Float32Array(7)
    const loss = net.gradient(batch, delta, gradient, errors)
    expect(Math.abs(loss - lossInDouble(net, net.parameters, batch, delta))).toBeLessThan(1e-6)
    const q = net.predict(batch.states)
    for (const [b, action] of batch.actions.entries())
      expect(errors[b]).toBeCloseTo(q[b * 2 + action]! - batch.targets[b]!, 6)
    const step = 1e-6
    for (let i = 0; i < gradient.length; i++) {
      const at = Float64Array.from(net.parameters)
      at[i]! += step
      const above = lossInDouble(net, at, batch, delta)
      at[i]! -= 2 * step
      const slope = (above - lossInDouble(net, at, batch, delta)) / (2 * step)
      expect(Math.abs(gradient[i]! - slope)).toBeLessThan(2e-6)
    }
  })

  it('takes ones for missing weights', () => {
    native.mlpKernel(kernel)
    const net = network([3, 6, 2])
    const { weights, ...plain } = minibatch(net, 6)
    const gradients = [{ ...plain, weights: weights.fill(1) }, plain].map((batch) => {
      const gradient = new Float32Array(net.parameters.length)
      net.gradient(batch, 1, gradient, new Float32Array(6))
      return gradient
    })
    expect(gradients[0]).toEqual(gradients[1])
  })

  it('clips the gradient to a global norm', () => {
    native.mlpKernel(kernel)
    const options = { learningRate: 0.1, beta1: 0.5, beta2: 0.75, adamEpsilon: 1e-8 }
    const gradient = Float32Array.from({ length: 13 }, (_, i) => i - 4)
    const norm = Math.hypot(...gradient)
    const adam = new Adam(13)
    expect(adam.step(new Float32Array(13), gradient, { ...options, clipNorm: 2 })).toBeCloseTo(norm, 5)
    for (const [i, g] of gradient.entries()) {
      expect(adam.first[i]).toBeCloseTo(0.5 * g * (2 / norm), 6)
      expect(adam.second[i]).toBeCloseTo(0.25 * (g * (2 / norm)) ** 2, 6)
    }
    const unclipped = new Adam(13)
    unclipped.step(new Float32Array(13), gradient, { ...options, clipNorm: Number.POSITIVE_INFINITY })
    expect(unclipped.first[0]).toBe(-2)
  })

  it('blends', () => {
    native.mlpKernel(kernel)
    const target = Float32Array.from({ length: 11 }, (_, i) => i)
    native.mlpBlend(target, new Float32Array(11).fill(8), 0.25)
    expect([...target]).toEqual(Array.from({ length: 11 }, (_, i) => i + (8 - i) / 4))
  })
})

describe('a network', () => {
  it('starts within the limits of He and Glorot, biases at zero', () => {
    const sizes = [4, 128, 128, 128, 5]
    const parameters = initialParameters(sizes, createRandom(5))
    expect(parameters.length).toBe(34_309)
    for (const [l, { inputs, outputs, kernel, bias }] of layersOf(sizes).entries()) {
      const limit = Math.sqrt(6 / (l === 3 ? inputs + outputs : inputs))
      const weights = parameters.subarray(kernel, bias)
      expect(Math.max(...weights.map(Math.abs))).toBeLessThanOrEqual(limit)
      const variance = weights.reduce((sum, w) => sum + w * w, 0) / weights.length
      expect(variance / (limit ** 2 / 3)).toBeGreaterThan(0.85)
      expect(variance / (limit ** 2 / 3)).toBeLessThan(1.15)
      expect(parameters.subarray(bias, bias + outputs).every((b) => b === 0)).toBe(true)
    }
    expect(initialParameters(sizes, createRandom(5))).toEqual(parameters)
  })

  it('reports values that are not numbers, and keeps them from Adam', () => {
    const net = network([4, 8, 3])
    const adam = new Adam(net.parameters.length)
    const gradient = new Float32Array(net.parameters.length)
    const before = net.parameters.slice()
    gradient[5] = Number.NaN
    const options = { learningRate: 1, beta1: 0.9, beta2: 0.999, adamEpsilon: 1e-8, clipNorm: 10 }
    const failure = { code: 'BTRMIND_ERR_MODEL' }
    expect(() => adam.step(net.parameters, gradient, options)).toThrow(expect.objectContaining(failure))
    expect(net.parameters).toEqual(before)
    expect(adam.steps).toBe(0)
    expect(adam.first.every((m) => m === 0)).toBe(true)
    net.parameters.fill(Number.NaN)
    expect(() => net.predict(new Float32Array(4))).toThrow(expect.objectContaining(failure))
    net.parameters.fill(Number.POSITIVE_INFINITY)
    expect(() => net.predict(new Float32Array(4).fill(1))).toThrow(expect.objectContaining(failure))
  })

  it.each([
    [[4], 4],
    [[4, 0, 2], 4],
    [[4, 2.5], 4],
    [[4, 9000], 4],
    [[4, 2], 9],
    [new Array<number>(18).fill(1), 34],
  ])('refuses sizes %j with %d parameters', (sizes, count) => {
    expect(() => new Network(sizes, new Float32Array(count))).toThrow(/BTRMIND_ERR_ARGUMENT/)
  })

  it.each([0, 5])('refuses %d numbers for states of four', (length) => {
    expect(() => network([4, 2]).predict(new Float32Array(length))).toThrow(/expected rows of 4, got/)
  })
})

describe('the addon checks what it is given', () => {
  const sizes = Uint32Array.of(4, 8, 3)
  const count = parameterCount([4, 8, 3])
  const floats = (length: number) => new Float32Array(length)
  const scratch = floats(native.mlpScratchLength(sizes, 2))
  const forward = (...changes: [number, unknown][]) => {
    const args: unknown[] = [sizes, floats(count), floats(8), floats(6), scratch]
    for (const [index, value] of changes) args[index] = value
    return () => native.mlpForward(...(args as unknown as Parameters<typeof native.mlpForward>))
  }
  const gradient = (...changes: [number, unknown][]) => {
    const args: unknown[] = [
      sizes,
      floats(count),
      floats(8),
      Uint8Array.of(0, 2),
      floats(2),
      undefined,
      1,
      floats(count),
      floats(2),
      scratch,
    ]
    for (const [index, value] of changes) args[index] = value
    return () => native.mlpGradient(...(args as unknown as Parameters<typeof native.mlpGradient>))
  }
  const adam = (...changes: [number, unknown][]) => {
    const args: unknown[] = [floats(9), floats(9), floats(9), floats(9), 1, 1e-3, 0.9, 0.999, 1e-8, 10]
    for (const [index, value] of changes) args[index] = value
    return () => native.mlpAdam(...(args as unknown as Parameters<typeof native.mlpAdam>))
  }

  it('takes what is right', () => {
    expect(forward()).not.toThrow()
    expect(gradient()).not.toThrow()
    expect(gradient([5, floats(2)])).not.toThrow()
    expect(adam()).not.toThrow()
  })

  it.each([
    ['sizes as an array', forward([0, [4, 8, 3]])],
    ['sizes as floats', forward([0, Float32Array.of(4, 8, 3)])],
    ['parameters in double', forward([1, new Float64Array(count)])],
    ['no input', forward([2, undefined])],
    ['a buffer for output', forward([3, new ArrayBuffer(24)])],
    ['a view', forward([4, new DataView(new ArrayBuffer(4096))])],
    ['actions as floats', gradient([3, floats(2)])],
    ['null weights', gradient([5, null])],
    ['a string for delta', gradient([6, '1'])],
    ['a null gradient', gradient([7, null])],
    ['a string step', adam([4, '1'])],
    ['half a step', adam([4, 1.5])],
    ['a number for the kernel', () => native.mlpKernel(1 as never)],
    ['nothing', () => (native.mlpForward as () => void)()],
    ['a string batch', () => native.mlpScratchLength(sizes, '2' as never)],
  ])('TypeError for %s', (_, call) => {
    expect(call).toThrow(TypeError)
  })

  it.each([
    ['one size', forward([0, Uint32Array.of(4)])],
    ['eighteen sizes', forward([0, new Uint32Array(18).fill(1)])],
    ['a size of 0', forward([0, Uint32Array.of(4, 0, 3)])],
    ['a size of 2^32 − 1', forward([0, Uint32Array.of(4, 2 ** 32 - 1, 3)])],
    ['too few parameters', forward([1, floats(count - 1)])],
    ['too many parameters', forward([1, floats(count + 1)])],
    ['no rows', forward([2, floats(0)])],
    ['half a row', forward([2, floats(6)])],
    ['a short output', forward([3, floats(5)])],
    ['a short scratch', forward([4, scratch.subarray(1)])],
    ['no actions', gradient([3, new Uint8Array(0)])],
    ['an unknown action', gradient([3, Uint8Array.of(0, 3)])],
    ['other targets than actions', gradient([4, floats(3)])],
    ['other weights than actions', gradient([5, floats(1)])],
    ['a negative delta', gradient([6, -1])],
    ['a delta that is not a number', gradient([6, Number.NaN])],
    ['a short gradient', gradient([7, floats(count - 1)])],
    ['short errors', gradient([8, floats(1)])],
    ['a detached gradient', gradient([7, detached(count)])],
    ['step 0', adam([4, 0])],
    ['short moments', adam([3, floats(8)])],
    ['β of 2', adam([6, 2])],
    ['a blend of other lengths', () => native.mlpBlend(floats(3), floats(2), 0.5)],
    ['a ratio of 2', () => native.mlpBlend(floats(3), floats(3), 2)],
    ['a batch of 0', () => native.mlpScratchLength(sizes, 0)],
    ['a batch of 65,537', () => native.mlpScratchLength(sizes, 65_537)],
    ['an unknown kernel', () => native.mlpKernel('avx9')],
  ])('RangeError for %s', (_, call) => {
    expect(call).toThrow(RangeError)
  })

  it('survives arrays that lie over one another', () => {
    // Results are meaningless then, but nothing outside of the arrays may be touched: sizes and actions lie in scratch.
    const length = native.mlpScratchLength(sizes, 2)
    const shared = new ArrayBuffer(4 * length)
    const overlaid = new Uint32Array(shared, 0, 3)
    overlaid.set([4, 8, 3])
    expect(forward([0, overlaid], [4, new Float32Array(shared)])).not.toThrow()
    overlaid.set([4, 8, 3])
    const actions = new Uint8Array(shared, 100, 2)
    const call = gradient([0, overlaid], [3, actions], [7, floats(count)], [9, new Float32Array(shared)])
    expect(call).not.toThrow()
  })
})

function detached(length: number): Float32Array {
  const array = new Float32Array(length)
  structuredClone(array, { transfer: [array.buffer] })
  return array
}
