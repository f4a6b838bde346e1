import { simulatedBench } from './bench.js'
import { actionSuite } from './suite.js'

actionSuite('simulator', simulatedBench, ['temp', 'compress', 'balance', 'snapshots', 'journal', 'roots'])
