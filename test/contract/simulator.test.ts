import { simulatorBench } from './benches.js'
import { filesystemContract } from './filesystem.js'

filesystemContract('simulator', () => simulatorBench())
