/** The public surface, nothing else. */
export * from './btrfs/index.js'
export * from './monitor/index.js'
