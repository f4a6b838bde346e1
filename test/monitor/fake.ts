import { setImmediate as turn } from 'node:timers/promises'
import type { CallOptions } from '../../src/btrfs/call.js'
import type { Measurement } from '../../src/btrfs/measure.js'
import type { Statfs } from '../../src/btrfs/statfs.js'
import type { Clock } from '../../src/clock.js'
import { BtrfsError } from '../../src/errors.js'
import type { Watched } from '../../src/monitor/monitor.js'

export const MEASURED: Measurement = {
  deviceSizeBytes: 1_000_000_000,
  unallocatedBytes: 300_000_000,
  dataUsedBytes: 400_000_000,
  liveDataUsedBytes: 450_000_000,
  dataAllocatedBytes: 500_000_000,
  metadataUsedBytes: 40_000_000,
  metadataAllocatedBytes: 100_000_000,
  globalReserveBytes: 5_000_000,
  seedBytes: 0,
  metadataOverheadRatio: 0.2,
  usedPercent: 60,
  liveUsedPercent: 65,
  freeBytes: 380_000_000,
  fragmentationRatio: 0.1,
  deviceErrors: { write: 0, read: 0, flush: 0, corruption: 1, generation: 0 },
  missingDevices: 0,
  devices: 1,
  exclusiveOperation: 'none',
  readOnly: false,
  unavailable: [],
}

export function failure(code: string, operation = 'measure'): BtrfsError {
  return new BtrfsError(operation, { code, errno: -1, text: code }, { path: '/fake' })
}

/** Queries that answer when the test says so, or settle on abort as the kernel's do. */
export class FakeVolume implements Watched {
  readonly path = '/fake'
  readonly uuid = '11111111-2222-3333-4444-555555555555'
  asked = { measure: 0, statfs: 0 }
  /** What each query waits for; it is asked anew for every query. */
  measured: () => Promise<Measurement> = async () => MEASURED
  stated: () => Promise<Statfs> = async () => ({ sizeBytes: 900, freeBytes: 360, usedPercent: 60 })

  measure(options?: CallOptions): Promise<Measurement> {
    this.asked.measure++
    return untilAborted(this.measured(), options)
  }
  statfs(options?: CallOptions): Promise<Statfs> {
    this.asked.statfs++
    return untilAborted(this.stated(), options)
  }
}

async function untilAborted<T>(answer: Promise<T>, { signal }: CallOptions = {}): Promise<T> {
  let onAbort = () => {}
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal?.reason)
  })
  signal?.addEventListener('abort', onAbort)
  return Promise.race([answer, aborted]).finally(() => signal?.removeEventListener('abort', onAbort))
}

export class FakeClock implements Clock {
  nowMs = 1_790_000_000_000
  wallMs = () => this.nowMs
  elapsedMs = () => this.nowMs
}

/** Lets what is ready run. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await turn()
}
