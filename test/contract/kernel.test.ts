import { describe } from 'vitest'
import { cannotMount } from '../helpers/volume.js'
import { kernelBench } from './benches.js'
import { filesystemContract } from './filesystem.js'

describe.skipIf(cannotMount)('on a loop device', () => {
  filesystemContract('kernel', () => kernelBench())
})
