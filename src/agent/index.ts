/**
 * `btrmind-native/agent`: deep Q-learning on numbers alone. Nothing here knows of a filesystem: states and masks come
 * in, actions go out, and the caller pays the reward.
 */

export { createRandom, type Random, type RandomState, restoreRandom } from '../random.js'
export { type LoadedCheckpoint, loadCheckpoint, type SavedCheckpoint, saveCheckpoint } from './checkpoint.js'
export {
  bestAction,
  type Choice,
  Dqn,
  type DqnOptions,
  type DqnSnapshot,
  type Learned,
  qTargets,
} from './dqn.js'
export { HYPERPARAMETERS, type Hyper, hyperparameters } from './hyper.js'
export { Adam, initialParameters, type Layer, layersOf, type Minibatch, Network, parameterCount } from './network.js'
export { Replay, type ReplayContents, type Sampled, type Transition } from './replay.js'
export { calculateReward } from './reward.js'
