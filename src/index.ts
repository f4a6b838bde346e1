/** The public surface, nothing else. */
export * from './btrfs/index.js'
