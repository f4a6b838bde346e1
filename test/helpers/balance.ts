/** Started by balance.test.ts: `balance.ts <how it ends> <volume>`; ends in the middle of a balance. */
import { setTimeout } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { openFilesystem } from '../../src/btrfs/filesystem.js'

const [how, path] = process.argv.slice(2)

if (how === 'nobody') {
  process.setgroups?.([])
  process.setgid?.(65_534)
  process.setuid?.(65_534)
  const fs = await openFilesystem(path!)
  const code = (promise: Promise<unknown>) =>
    promise.then(
      () => 'permitted',
      (error) => error.code,
    )
  const codes = [fs.balance({ data: {} }).result, fs.balanceStatus(), fs.cancelBalance()].map(code)
  process.stdout.write(JSON.stringify(await Promise.all(codes)))
} else if (how === 'worker.terminate') {
  const worker = new Worker(new URL('./balance-worker.mjs', import.meta.url), { workerData: path, execArgv: [] })
  await new Promise((resolve) => worker.once('message', resolve))
  await worker.terminate()
} else {
  const fs = await openFilesystem(path!)
  let over = true
  while ((await fs.balanceStatus()) === undefined) {
    // Also another one, when the last was over before it was seen.
    if (over) {
      over = false
      void fs.balance({ data: {} }).result.finally(() => {
        over = true
      })
    }
    await setTimeout(1)
  }
  process.stdout.write('running\n')
  if (how === 'process.exit') process.exit(7)
  if (how === 'an exception') throw new Error('on purpose')
}
