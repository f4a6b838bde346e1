/**
 * Real btrfs volumes on loop devices: backing files → loop devices → mkfs → mount; taken away in reverse, also after
 * a failure. Only tests, the bench and the demo use this; src never starts a process.
 */
import { execFileSync, type StdioOptions } from 'node:child_process'
import { closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'

export interface VolumeOptions {
  /** Size of each backing file in MiB. Default one of 512. */
  devicesMiB?: number[]
  /** Further loop devices that are not part of the volume: the last of `loops` and `images`. */
  sparesMiB?: number[]
  /** mkfs.btrfs -d and -m. */
  data?: string
  metadata?: string
  mkfs?: string[]
  mountOptions?: string
}

export interface TestVolume extends Disposable {
  /** Mount point. */
  readonly path: string
  readonly loops: readonly string[]
  readonly images: readonly string[]
  readonly directory: string
}

/** Why kernel tests cannot run here; undefined when they can. */
export const cannotMount: string | undefined = probe()

function probe(): string | undefined {
  if (process.getuid?.() !== 0) return 'not root'
  try {
    run('mkfs.btrfs', '--version')
    run('losetup', '--find')
    return undefined
  } catch (error) {
    return `no loop devices or no mkfs.btrfs: ${(error as Error).message.split('\n')[0]}`
  }
}

/** What stops a whole process group. */
const STOPS: unknown[] = ['SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGTERM']

/** Runs a reference tool and gives its output; throws with its stderr. */
export function run(command: string, ...args: string[]): string {
  // The sanitizers that scripts/test.mjs preloads are for node: they slow the tools down, and find their leaks.
  const usesNode = [command, ...args].some((word) => basename(word) === 'node')
  const env = usesNode ? process.env : { ...process.env, LD_PRELOAD: undefined }
  // In a session of its own: a terminal's Ctrl-C must not stop umount or losetup half-way. (Not in the types.)
  const detached = { detached: true }
  const stdio: StdioOptions = ['ignore', 'pipe', 'pipe']
  const start = () => execFileSync(command, args, { ...detached, encoding: 'utf8', env, stdio, maxBuffer: 1 << 28 })
  try {
    return start()
  } catch (error) {
    // The signal to the group came after the fork and before the new session: the command itself never ran.
    const { signal } = error as { signal?: NodeJS.Signals | null }
    if (!STOPS.includes(signal)) throw error
    return start()
  }
}

const live = new Set<() => void>()
process.once('exit', () => {
  for (const undo of [...live].reverse()) undo()
})

export function makeVolume(options: VolumeOptions = {}): TestVolume {
  const undos: (() => void)[] = []
  const dispose = () => {
    live.delete(dispose)
    for (const undo of undos.splice(0).reverse()) {
      try {
        undo()
      } catch (error) {
        process.stderr.write(`clean-up: ${(error as Error).message}\n`)
      }
    }
  }
  live.add(dispose)
  try {
    const directory = mkdtempSync(join(tmpdir(), 'btrmind-'))
    undos.push(() => rmSync(directory, { recursive: true, force: true }))
    const images: string[] = []
    const loops: string[] = []
    const sizes = options.devicesMiB ?? [512]
    for (const [index, mib] of [...sizes, ...(options.sparesMiB ?? [])].entries()) {
      const image = join(directory, `disk${index}.img`)
      const fd = openSync(image, 'w')
      ftruncateSync(fd, mib * 1024 * 1024)
      closeSync(fd)
      const loop = run('losetup', '--find', '--show', image).trim()
      undos.push(() => run('losetup', '--detach', loop))
      images.push(image)
      loops.push(loop)
    }
    const mkfs = ['-q', '-f', ...(options.mkfs ?? [])]
    if (options.data !== undefined) mkfs.push('-d', options.data)
    if (options.metadata !== undefined) mkfs.push('-m', options.metadata)
    run('mkfs.btrfs', ...mkfs, ...loops.slice(0, sizes.length))
    const path = join(directory, 'mnt')
    mkdirSync(path)
    run('btrfs', 'device', 'scan', ...loops.slice(0, sizes.length))
    run('mount', ...(options.mountOptions === undefined ? [] : ['-o', options.mountOptions]), loops[0]!, path)
    undos.push(() => unmount(path))
    return { path, loops, images, directory, [Symbol.dispose]: dispose }
  } catch (error) {
    dispose()
    throw error
  }
}

/** Somebody who looks into it must not keep it: the error is still told. */
function unmount(path: string): void {
  try {
    run('umount', path)
  } catch (error) {
    run('umount', '--lazy', path)
    throw error
  }
}
