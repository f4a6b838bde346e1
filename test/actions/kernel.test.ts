import { describe } from 'vitest'
import { cannotMount } from '../helpers/volume.js'
import { kernelBench } from './bench.js'
import { actionSuite } from './suite.js'

describe.skipIf(cannotMount)('on a loop device', () => {
  actionSuite('kernel', kernelBench, ['temp', 'compress', 'balance', 'snapshots', 'journal', 'roots'])
})
