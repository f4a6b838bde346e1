/** Started by usage.test.ts under strace, which slows the kernel down: asks for the usage of a volume twice at once. */
import { openFilesystem } from '../../src/btrfs/filesystem.js'

await using fs = await openFilesystem(process.argv[2]!)
const [first, second] = await Promise.all([fs.usage(), fs.usage()])
process.stdout.write(JSON.stringify([first.deviceAllocatedBytes, second.deviceAllocatedBytes]))
