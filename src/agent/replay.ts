import { BtrmindError } from '../errors.js'
import type { Random } from '../random.js'

/** What one decision led to. There is no terminal flag: keeping a volume is a continuing task. */
export interface Transition {
  /** Float32Array, [features], as the policy saw it. */
  readonly state: Float32Array
  readonly action: number
  readonly reward: number
  /** Float32Array, [features], at the next decision. */
  readonly nextState: Float32Array
  /** [actions]: what will be allowed there; all when left out. */
  readonly nextMask?: readonly boolean[]
}

/** The filled slots of a {@link Replay}, slot by slot. Row-major. */
export interface ReplayContents {
  readonly length: number
  /** The slot that is written next. */
  readonly cursor: number
  readonly capacity: number
  /** [length × features] */
  readonly states: Float32Array
  /** [length × features] */
  readonly nextStates: Float32Array
  /** [length] */
  readonly rewards: Float32Array
  /** [length] */
  readonly actions: Uint8Array
  /** [length × actions], 1 for allowed */
  readonly nextMasks: Uint8Array
}

/** Arrays that {@link Replay.sample} fills; like {@link ReplayContents}, with the batch's length. */
export type Sampled = Pick<ReplayContents, 'states' | 'nextStates' | 'rewards' | 'actions' | 'nextMasks'>

function arrays(length: number, features: number, actions: number): Sampled {
  return {
    states: new Float32Array(length * features),
    nextStates: new Float32Array(length * features),
    rewards: new Float32Array(length),
    actions: new Uint8Array(length),
    nextMasks: new Uint8Array(length * actions),
  }
}

/** Copies slot `from` of one set of arrays to slot `to` of another. */
function copySlot(source: Sampled, from: number, target: Sampled, to: number, features: number, actions: number): void {
  for (let i = 0; i < features; i++) {
    target.states[to * features + i] = source.states[from * features + i]!
    target.nextStates[to * features + i] = source.nextStates[from * features + i]!
  }
  for (let a = 0; a < actions; a++) target.nextMasks[to * actions + a] = source.nextMasks[from * actions + a]!
  target.rewards[to] = source.rewards[from]!
  target.actions[to] = source.actions[from]!
}

/**
 * The last `capacity` transitions, in a ring over flat arrays that are allocated once
 * (20,000 of four features and five actions: 0.9 MB). Samples uniformly, with replacement, filled slots only.
 */
export class Replay {
  readonly #slots: Sampled
  #length = 0
  #cursor = 0

  constructor(
    readonly capacity: number,
    readonly features: number,
    readonly actions: number,
  ) {
    this.#slots = arrays(capacity, features, actions)
  }

  get length(): number {
    return this.#length
  }

  /**
   * Takes a copy; the oldest transition makes room.
   * @throws BtrmindError BTRMIND_ERR_ARGUMENT for a wrong length, an unknown action, a number that is not finite, or a
   * mask that allows nothing: any of these would poison every later batch
   */
  add({ state, action, reward, nextState, nextMask }: Transition): void {
    const wrong = (what: string) => new BtrmindError('BTRMIND_ERR_ARGUMENT', `transition: ${what}`)
    for (const [name, values] of [
      ['state', state],
      ['nextState', nextState],
    ] as const) {
      if (values.length !== this.features) throw wrong(`${name} has ${values.length} features, not ${this.features}`)
      if (!values.every(Number.isFinite)) throw wrong(`${name} is not finite: ${values.join(', ')}`)
    }
    if (!Number.isInteger(action) || action < 0 || action >= this.actions) throw wrong(`no action ${action}`)
    if (!Number.isFinite(Math.fround(reward))) throw wrong(`the reward is ${reward}`)
    if (nextMask !== undefined && nextMask.length !== this.actions)
      throw wrong(`nextMask has ${nextMask.length} actions, not ${this.actions}`)
    if (nextMask?.includes(true) === false) throw wrong('nextMask allows no action')

    const slot = this.#cursor
    this.#slots.states.set(state, slot * this.features)
    this.#slots.nextStates.set(nextState, slot * this.features)
    this.#slots.rewards[slot] = reward
    this.#slots.actions[slot] = action
    for (let a = 0; a < this.actions; a++)
      this.#slots.nextMasks[slot * this.actions + a] = nextMask?.[a] === false ? 0 : 1
    this.#cursor = (slot + 1) % this.capacity
    this.#length = Math.min(this.#length + 1, this.capacity)
  }

  /** Arrays for {@link sample}, to be used again and again. */
  batch(size: number): Sampled {
    return arrays(size, this.features, this.actions)
  }

  /** Fills `into` with transitions drawn uniformly, with replacement. There must be at least one. */
  sample(random: Random, into: Sampled): void {
    if (this.#length === 0) throw new BtrmindError('BTRMIND_ERR_ARGUMENT', 'sample: the replay is empty')
    for (let row = 0; row < into.actions.length; row++)
      copySlot(this.#slots, random.integer(this.#length), into, row, this.features, this.actions)
  }

  /** A copy of what is filled. */
  contents(): ReplayContents {
    const { states, nextStates, rewards, actions, nextMasks } = this.#slots
    const length = this.#length
    return {
      length,
      cursor: this.#cursor,
      capacity: this.capacity,
      states: states.slice(0, length * this.features),
      nextStates: nextStates.slice(0, length * this.features),
      rewards: rewards.slice(0, length),
      actions: actions.slice(0, length),
      nextMasks: nextMasks.slice(0, length * this.actions),
    }
  }

  /** Puts contents back, slot for slot; into another capacity: the newest, oldest first. The replay must be empty. */
  restore(contents: ReplayContents): void {
    const { length, capacity, cursor } = contents
    const kept = Math.min(length, this.capacity)
    const same = capacity === this.capacity
    for (let slot = 0; slot < kept; slot++) {
      const from = same ? slot : (cursor - kept + slot + length) % length
      copySlot(contents, from, this.#slots, slot, this.features, this.actions)
    }
    this.#length = kept
    this.#cursor = same ? cursor : kept % this.capacity
  }
}
