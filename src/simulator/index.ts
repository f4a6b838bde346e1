export { SimulatedClock } from './clock.js'
export { SimulatedFilesystem } from './filesystem.js'
export type { FileOptions, VolumeOptions } from './options.js'
export { SimulatedVolume } from './volume.js'
