import * as v from 'valibot'
import { BtrmindError, check } from '../errors.js'
import { native } from '../native.js'
import { createRandom, type Random, type RandomState, restoreRandom } from '../random.js'
import { type Hyper, hyperparameters } from './hyper.js'
import { Adam, initialParameters, Network } from './network.js'
import { Replay, type ReplayContents, type Sampled, type Transition } from './replay.js'

export interface DqnOptions {
  /** Length of a state. Default 4: the features of the specification. */
  readonly features?: number
  /** Default 5; action 0 is the one that does nothing. */
  readonly actions?: number
  /** Everything random (first weights, exploration, sampling) follows from it. */
  readonly seed: number
  readonly hyper?: Partial<Hyper>
}

export interface Choice {
  readonly action: number
  /** Float32Array, [actions]: Q(s, ·), expected discounted reward × `rewardScale`; also of masked actions. */
  readonly q: Float32Array
  /** The action came from exploration, not from Q. */
  readonly explored: boolean
  readonly epsilon: number
}

export interface Learned {
  /** Training steps so far. */
  readonly step: number
  readonly loss: number
  /** ‖gradient‖ before clipping. */
  readonly gradNorm: number
  /** Mean |Q(s,a) − target| of the minibatch, in reward × `rewardScale`. */
  readonly meanTdError: number
  /** Mean of the targets: drifts away when learning diverges. */
  readonly meanTarget: number
}

/** Everything that a {@link Dqn} needs to go on to the bit; its arrays are copies. */
export interface DqnSnapshot {
  readonly sizes: readonly number[]
  readonly hyper: Hyper
  readonly decisions: number
  readonly steps: number
  readonly random: RandomState
  /** Float32Array each: for each layer kernel [in × out] row-major, then bias [out]. */
  readonly parameters: Float32Array
  readonly target: Float32Array
  readonly firstMoment: Float32Array
  readonly secondMoment: Float32Array
  readonly replay?: ReplayContents
}

/** argmax over what `allowed` lets through, in the row that starts at `offset`; the lowest index wins a tie. */
export function bestAction(
  q: Float32Array,
  allowed: ArrayLike<boolean | number>,
  offset = 0,
  actions = allowed.length,
): number {
  let best = -1
  for (let a = 0; a < actions; a++) {
    if (allowed[offset + a] && (best < 0 || q[offset + a]! > q[offset + best]!)) best = a
  }
  return best
}

/**
 * What Q(s, a) should be, for each transition of a batch:
 *
 *     y = k·r + γ · Q⁻(s′, argmax_{a′ allowed in s′} Q(s′, a′))
 *
 * with Q⁻ the target network, k the reward scale; with the plain method Q⁻ is passed for both. There is always a next
 * state to bootstrap from: a restart cuts the record off (truncation), it does not end the task.
 * @param picks Float32Array, [B × actions]: Q(s′, ·), which picks
 * @param values Float32Array, [B × actions]: Q⁻(s′, ·), which values
 * @param targets Float32Array, [B], overwritten
 */
export function qTargets(
  batch: Pick<Sampled, 'rewards' | 'nextMasks'>,
  picks: Float32Array,
  values: Float32Array,
  discountRatio: number,
  rewardScale: number,
  targets: Float32Array,
): void {
  const actions = values.length / targets.length
  for (let b = 0; b < targets.length; b++) {
    const next = bestAction(picks, batch.nextMasks, b * actions, actions)
    targets[b] = rewardScale * batch.rewards[b]! + discountRatio * values[b * actions + next]!
  }
}

const OPTIONS = v.strictObject({
  features: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(8192)), 4),
  actions: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(256)), 5),
  seed: v.pipe(v.number(), v.integer('an integer')),
  hyper: v.optional(v.custom<Partial<Hyper>>((value) => typeof value === 'object' && value !== null, 'a record')),
})

/**
 * Deep Q-learning (Mnih et al. 2015) with a double target (van Hasselt et al. 2016), a soft target network and action
 * masks, for a task that never ends. Sees only numbers; works on the calling thread, in microseconds to half a
 * millisecond. docs/learning.md lists where it departs from the papers.
 * @example
 * const dqn = new Dqn({ seed: 7 })
 * const { action } = dqn.act(state, [true, true, false, true, true])
 * dqn.remember({ state, action, reward: calculateReward(91, 88.5), nextState })
 * dqn.learn()
 */
export class Dqn {
  readonly hyper: Hyper
  /** The online network: acts and learns. */
  readonly network: Network
  /** Follows the online network slowly, and values the next states. */
  readonly target: Network
  readonly replay: Replay
  readonly #adam: Adam
  readonly #gradient: Float32Array
  readonly #buffers: Buffers
  #random: Random
  #decisions = 0

  /** @throws BtrmindError BTRMIND_ERR_OPTION, BTRMIND_ERR_ARGUMENT */
  constructor(options: DqnOptions) {
    const { features, actions, seed, hyper } = check('Dqn', OPTIONS, options)
    this.hyper = hyperparameters(hyper)
    this.#random = createRandom(seed)
    const sizes = [features, ...this.hyper.hiddenSizes, actions]
    this.network = new Network(sizes, initialParameters(sizes, this.#random))
    this.target = new Network(sizes, this.network.parameters.slice())
    this.replay = new Replay(this.hyper.replayCapacity, features, actions)
    this.#adam = new Adam(this.network.parameters.length)
    this.#gradient = new Float32Array(this.network.parameters.length)
    this.#buffers = buffers(this.replay, this.hyper.batchSize)
  }

  /**
   * Goes on from a snapshot, to the bit when nothing is overridden.
   * @param overrides hyper-parameters to change; the layers' sizes cannot
   * @throws BtrmindError BTRMIND_ERR_ARGUMENT
   */
  static restore(snapshot: DqnSnapshot, overrides: Partial<Omit<Hyper, 'hiddenSizes'>> = {}): Dqn {
    const features = snapshot.sizes[0]!
    const actions = snapshot.sizes.at(-1)!
    const hiddenSizes = snapshot.sizes.slice(1, -1)
    const dqn = new Dqn({ features, actions, seed: 0, hyper: { ...snapshot.hyper, ...overrides, hiddenSizes } })
    dqn.network.parameters.set(snapshot.parameters)
    dqn.target.parameters.set(snapshot.target)
    dqn.#adam.first.set(snapshot.firstMoment)
    dqn.#adam.second.set(snapshot.secondMoment)
    dqn.#adam.steps = snapshot.steps
    dqn.#decisions = snapshot.decisions
    dqn.#random = restoreRandom(snapshot.random)
    if (snapshot.replay !== undefined) dqn.replay.restore(snapshot.replay)
    return dqn
  }

  /** Decisions made by {@link act} so far. */
  get decisions(): number {
    return this.#decisions
  }

  /** Training steps made so far. */
  get steps(): number {
    return this.#adam.steps
  }

  /** The share of decisions that explore: falls in a line from `epsilonStart` to `epsilonEnd`. */
  get epsilon(): number {
    const { epsilonStart, epsilonEnd, epsilonDecisions } = this.hyper
    return epsilonStart + (epsilonEnd - epsilonStart) * Math.min(1, this.#decisions / epsilonDecisions)
  }

  /**
   * ε-greedy: the allowed action of the highest Q; with probability ε an allowed one at random, of which
   * `explorationNoOpRatio` are action 0. A few µs.
   * @param state Float32Array, [features]
   * @param mask [actions], true where allowed; all when left out
   * @throws BtrmindError BTRMIND_ERR_MODEL when Q is not finite, BTRMIND_ERR_ARGUMENT for wrong lengths or when
   * nothing is allowed
   */
  act(state: Float32Array, mask?: readonly boolean[]): Choice {
    const { epsilon } = this
    const { action, q } = this.greedy(state, mask)
    this.#decisions++
    const explored = this.#random.next() < epsilon
    return { action: explored ? this.#explore(mask) : action, q, explored, epsilon }
  }

  /** As {@link act} without exploring; changes nothing. */
  greedy(state: Float32Array, mask?: readonly boolean[]): { action: number; q: Float32Array } {
    if (state.length !== this.network.features)
      throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `state: ${state.length} features, not ${this.network.features}`)
    if (mask !== undefined && mask.length !== this.network.actions)
      throw new BtrmindError('BTRMIND_ERR_ARGUMENT', `mask: ${mask.length} actions, not ${this.network.actions}`)
    const q = this.network.predict(state)
    const action = bestAction(q, mask ?? ALL, 0, q.length)
    if (action < 0) throw new BtrmindError('BTRMIND_ERR_ARGUMENT', 'mask: no action is allowed')
    return { action, q }
  }

  #explore(mask?: readonly boolean[]): number {
    const noOp = mask?.[0] !== false
    const others = Array.from({ length: this.network.actions }, (_, a) => a).filter((a) => a > 0 && mask?.[a] !== false)
    const stay = this.#random.next() < this.hyper.explorationNoOpRatio
    if (others.length === 0 || (noOp && stay)) return 0
    return others[this.#random.integer(others.length)]!
  }

  /** Keeps a transition for learning. @throws BtrmindError BTRMIND_ERR_ARGUMENT, see {@link Replay.add} */
  remember(transition: Transition): void {
    this.replay.add(transition)
  }

  /**
   * One training step: a minibatch of the replay, its targets, Adam on the loss, and the target network moved by τ.
   * Half a millisecond for 64 transitions.
   * @returns undefined while the replay holds less than `warmupTransitions`
   * @throws BtrmindError BTRMIND_ERR_MODEL when something is not finite; then no parameter has changed
   */
  learn(): Learned | undefined {
    const { hyper, network, target, replay } = this
    if (replay.length < hyper.warmupTransitions) return undefined
    const { batch, picks, values, targets, errors } = this.#buffers
    replay.sample(this.#random, batch)
    target.predict(batch.nextStates, values)
    if (hyper.double) network.predict(batch.nextStates, picks)
    qTargets(batch, hyper.double ? picks : values, values, hyper.discountRatio, hyper.rewardScale, targets)

    const { states, actions } = batch
    const delta = hyper.loss === 'huber' ? 1 : Number.POSITIVE_INFINITY
    const loss = network.gradient({ states, actions, targets }, delta, this.#gradient, errors)
    if (!Number.isFinite(loss)) throw new BtrmindError('BTRMIND_ERR_MODEL', `the loss is ${loss}`)
    const gradNorm = this.#adam.step(network.parameters, this.#gradient, hyper)
    native.mlpBlend(target.parameters, network.parameters, hyper.targetBlendRatio)
    return {
      step: this.#adam.steps,
      loss,
      gradNorm,
      meanTdError: mean(errors.map(Math.abs)),
      meanTarget: mean(targets),
    }
  }

  /** A copy of everything, for {@link saveCheckpoint}. */
  snapshot(): DqnSnapshot {
    return {
      sizes: this.network.sizes,
      hyper: this.hyper,
      decisions: this.#decisions,
      steps: this.#adam.steps,
      random: this.#random.state(),
      parameters: this.network.parameters.slice(),
      target: this.target.parameters.slice(),
      firstMoment: this.#adam.first.slice(),
      secondMoment: this.#adam.second.slice(),
      replay: this.replay.contents(),
    }
  }
}

/** Stands for a mask that allows everything: bestAction() reads only as many as there are actions. */
const ALL: readonly boolean[] = Array.from({ length: 256 }, () => true)

/** What {@link Dqn.learn} needs each time. */
function buffers(replay: Replay, size: number) {
  return {
    batch: replay.batch(size),
    picks: new Float32Array(size * replay.actions),
    values: new Float32Array(size * replay.actions),
    targets: new Float32Array(size),
    errors: new Float32Array(size),
  }
}
type Buffers = ReturnType<typeof buffers>

function mean(values: Float32Array): number {
  let sum = 0
  for (const value of values) sum += value
  return sum / values.length
}
