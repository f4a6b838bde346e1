/**
 * vitest for the ASan/UBSan/gcov build of the addon (scripts/test.mjs): workers exit in order, so that leaks are
 * looked for and counters are written. Vitest ends its own with SIGTERM, which stops an exit that is under way.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { defineConfig, mergeConfig } from 'vitest/config'
import { ForksPoolWorker, type PoolOptions } from 'vitest/node'
import base from '../../vitest.config.js'

class PatientWorker extends ForksPoolWorker {
  override readonly name = 'patient'

  override async stop(): Promise<void> {
    const worker = (this as unknown as { fork: ChildProcess }).fork
    if (worker.exitCode !== null || worker.signalCode !== null) return
    const exit = once(worker, 'exit')
    if (worker.connected) worker.disconnect()
    await exit
  }
}

const prelude = encodeURIComponent(`
  process.once('disconnect', () => process.exit())
  // Only workers look for leaks: a look that fails would fail a child whose exit code is tested.
  process.env.ASAN_OPTIONS += ':detect_leaks=0'
`)

export default mergeConfig(
  base,
  defineConfig({
    test: {
      // 22,000 training steps, minutes here: that they learn says nothing more about memory than the few of dqn.test.ts.
      exclude: ['test/agent/mdp.test.ts'],
      pool: { name: 'patient', createPoolWorker: (options: PoolOptions) => new PatientWorker(options) },
      execArgv: [`--import=data:text/javascript,${prelude}`],
      teardownTimeout: 60_000,
    },
  }),
)
