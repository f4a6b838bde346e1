// A worker that uses the bare addon, started by child.ts: four hundred calls and an end, or calls without end.
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { parentPort, workerData } from 'node:worker_threads'

const native = createRequire(import.meta.url)('node-gyp-build')(fileURLToPath(new URL('../..', import.meta.url)))
const { path, endless } = workerData
const { handle, uuid } = await native.open(0, path)
parentPort.postMessage('started')

const kinds = [
  () => native.info(0, handle),
  () => native.subvolumes(0, handle, ''),
  () => native.open(0, path), // left to the garbage collector
  () => native.createSubvolume(0, handle, `${path}/there already`).catch((failure) => failure.code),
]
const calls = async () => await Promise.all(Array.from({ length: 400 }, (_, index) => kinds[index % kinds.length]()))

do {
  const results = await calls()
  if (!endless) parentPort.postMessage({ calls: results.length, refused: results[3], uuid })
} while (endless)
native.close(handle)
