/**
 * A volume whose disk stops answering this process, and answers again: a loop device on a file of another volume,
 * whose disk is throttled to next to nothing, reads and writes, by the block I/O controller, for this process alone. What waits for it is
 * in the kernel, uninterruptibly, as with a dying disk.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { cannotMount, makeVolume, run, type TestVolume } from './volume.js'

const BLKIO = ['/sys/fs/cgroup/blkio', '/sys/fs/cgroup/unified', '/sys/fs/cgroup'].find(
  (path) =>
    existsSync(join(path, 'blkio.throttle.read_bps_device')) ||
    (existsSync(join(path, 'cgroup.subtree_control')) &&
      readFileSync(join(path, 'cgroup.subtree_control'), 'utf8').includes('io')),
)

/** Why no volume can be stalled here; undefined when one can. */
export const cannotStall = cannotMount ?? (BLKIO === undefined ? 'no block I/O controller (cgroup)' : undefined)

export interface StallableVolume extends TestVolume {
  /** Nothing of it is in memory after this, but what the mount itself reads. */
  remount(): void
  stall(): void
  resume(): void
}

export function makeStallableVolume(): StallableVolume {
  const outer = makeVolume({ devicesMiB: [1024], mountOptions: 'nodatacow' })
  let inner: TestVolume | undefined
  const tmpdir = process.env.TMPDIR
  try {
    process.env.TMPDIR = outer.path
    inner = makeVolume({ devicesMiB: [256] })
  } finally {
    if (tmpdir === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = tmpdir
    if (inner === undefined) outer[Symbol.dispose]()
  }
  const [loop] = inner.loops
  const { path } = inner
  // Else the other volume's page cache answers.
  run('losetup', '--direct-io=on', loop!)
  const device = readFileSync(`/sys/block/${basename(outer.loops[0]!)}/dev`, 'utf8').trim()
  const group = join(BLKIO!, `btrmind-stall-${basename(loop!)}`)
  const limit = (bytesPerSecond: number | undefined) => {
    for (const way of ['read', 'write']) {
      const [file, text] = existsSync(join(group, `blkio.throttle.${way}_bps_device`))
        ? [`blkio.throttle.${way}_bps_device`, `${device} ${bytesPerSecond ?? 0}`]
        : ['io.max', `${device} ${way[0]}bps=${bytesPerSecond ?? 'max'}`]
      writeFileSync(join(group, file), text)
    }
  }
  const home = join(BLKIO!, ownGroup(), 'cgroup.procs')
  mkdirSync(group)
  const resume = () => {
    limit(undefined)
    writeFileSync(home, `${process.pid}`)
  }
  return {
    ...inner,
    remount() {
      run('umount', path)
      run('mount', loop!, path)
    },
    stall() {
      limit(1024)
      writeFileSync(join(group, 'cgroup.procs'), `${process.pid}`)
    },
    resume,
    [Symbol.dispose]() {
      resume()
      rmdirSync(group)
      inner[Symbol.dispose]()
      outer[Symbol.dispose]()
    },
  }
}

/** Where this process is in the hierarchy of BLKIO. */
function ownGroup(): string {
  const line = readFileSync('/proc/self/cgroup', 'utf8')
    .split('\n')
    .find((row) => (BLKIO!.endsWith('blkio') ? /^\d+:[^:]*\bblkio\b/.test(row) : row.startsWith('0::')))
  return line?.split(':')[2] ?? '/'
}
