// A worker that starts a balance with the bare addon; its parent, balance.ts, ends it.
import { createRequire } from 'node:module'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parentPort, workerData } from 'node:worker_threads'

const native = createRequire(import.meta.url)('node-gyp-build')(fileURLToPath(new URL('../..', import.meta.url)))
const { handle } = await native.open(0, workerData)
let over = true
const end = () => {
  over = true
}
while ((await native.balanceStatus(0, handle)) === undefined) {
  // Also another one, when the last was over before it was seen.
  if (over) native.balance(0, handle, native.balancePrepare(false, new Float64Array(14))).then(end, end)
  over = false
  await setTimeout(1)
}
parentPort.postMessage('running')
