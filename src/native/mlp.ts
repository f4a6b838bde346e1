/**
 * native/ops/mlp.cpp: synchronous and without tickets. Arrays are read and written in place; their layout is in
 * native/mlp/mlp.h. A wrong type is a TypeError, a wrong length or value a RangeError.
 */
export interface MlpNative {
  mlpScratchLength(sizes: Uint32Array, batch: number): number
  mlpForward(
    sizes: Uint32Array,
    parameters: Float32Array,
    input: Float32Array,
    output: Float32Array,
    scratch: Float32Array,
  ): void
  /** Gives the loss; overwrites `gradient` and `errors` (prediction − target). */
  mlpGradient(
    sizes: Uint32Array,
    parameters: Float32Array,
    input: Float32Array,
    actions: Uint8Array,
    targets: Float32Array,
    weights: Float32Array | undefined,
    huberDelta: number,
    gradient: Float32Array,
    errors: Float32Array,
    scratch: Float32Array,
  ): number
  /** Gives the gradient's norm before the clipping; if that is not finite, nothing was changed. `step` starts at 1. */
  mlpAdam(
    parameters: Float32Array,
    gradient: Float32Array,
    first: Float32Array,
    second: Float32Array,
    step: number,
    learningRate: number,
    beta1: number,
    beta2: number,
    epsilon: number,
    clipNorm: number,
  ): number
  /** target ← target + ratio·(source − target) */
  mlpBlend(target: Float32Array, source: Float32Array, ratio: number): void
  /** The instruction set in use: 'avx2' or 'baseline'; given one, the process changes to it (RangeError: not here). */
  mlpKernel(name?: string): string
}
