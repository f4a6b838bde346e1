/** The demo's volume: a loopback one with a writer in a process of its own. */
import { type ChildProcess, fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type ActionSettings, type Clock, type Filesystem, openFilesystem } from '../../src/index.js'
import { makeVolume } from '../../test/helpers/volume.js'

export interface Stage extends AsyncDisposable {
  readonly title: string
  readonly fs: Filesystem
  readonly roots: { temp: string[]; compress: string[]; snapshots: string[] }
  /** What is days elsewhere is seconds here. */
  readonly actions: ActionSettings
  readonly intervalMs: number
  /** What fills the volume, in a few words. */
  writer(): string
  /** Where time is simulated. */
  readonly clock?: Clock
}

const MIB = 1024 * 1024

export async function kernelStage(say: (text: string) => void, signal: AbortSignal): Promise<Stage> {
  say('making a btrfs volume of 3 GiB on a loop device …')
  const volume = makeVolume({ devicesMiB: [3072] })
  let child: ChildProcess | undefined
  try {
    const fs = await openFilesystem(volume.path)
    const [temp, archive, snapshots, work] = ['tmp', 'archive', 'snapshots', 'work'].map((n) => join(volume.path, n))
    for (const directory of [temp!, archive!, snapshots!]) mkdirSync(directory)
    say('filling it: 480 MiB of logs that nobody reads any more, 6 snapshots that hold 40 MiB each …')
    for (let index = 0; index < 60; index++) {
      await breathe(signal)
      writeLog(join(archive!, `access-${index}.log`), 8 * MIB, index)
    }
    await fs.createSubvolume(work!)
    for (let index = 0; index < 6; index++) {
      await breathe(signal)
      writeFileSync(join(work!, 'build.img'), randomBytes(40 * MIB))
      await fs.snapshot(work!, join(snapshots!, `build-${index}`), { readonly: true })
    }
    writeFileSync(join(volume.path, 'database.img'), randomBytes(900 * MIB))
    await fs.sync()
    const rate = 48
    child = fork(fileURLToPath(new URL('writer.mjs', import.meta.url)), [temp!, String(rate)])
    let written = 0
    let full = 0
    child.on('message', (message: { written?: number; full?: boolean }) => {
      written = message.written ?? written
      if (message.full) full++
    })
    const writer = child
    return {
      title: `btrmind on a real btrfs volume of 3 GiB, ${volume.path}`,
      fs,
      intervalMs: 250,
      actions: {
        tempAgeHours: 4 / 3600,
        emergencyAgeMinutes: 0,
        inactiveDays: 2 / 86_400,
        keepSnapshots: 2,
        cooldownMinutes: { temp: 0.02, compress: 0, snapshots: 0.1 },
      },
      roots: { temp: [temp!], compress: [archive!], snapshots: [snapshots!] },
      writer: () => `a writer adds ${rate} MiB/s (${(written / MIB).toFixed(0)} MiB so far, ${full} times ENOSPC)`,
      async [Symbol.asyncDispose]() {
        await stop(writer)
        await fs.close()
        volume[Symbol.dispose]()
      },
    }
  } catch (error) {
    if (child !== undefined) await stop(child)
    volume[Symbol.dispose]()
    throw error
  }
}

/** Lets a Ctrl-C through. */
async function breathe(signal: AbortSignal): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve))
  signal.throwIfAborted()
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  await ended
}

/** Text as a web server's log has it: different in each line, and compressible to about a third. */
function writeLog(path: string, bytes: number, seed: number): void {
  const fd = openSync(path, 'w')
  let written = 0
  for (let line = 0; written < bytes; ) {
    let text = ''
    while (text.length < MIB / 2) {
      const address = `10.${(line * 7 + seed) % 256}.${(line * 13) % 256}.${(line * 29) % 256}`
      text += `${address} - - [21/Nov/2026:10:${line % 60}:00] "GET /item/${(line * 7919) % 100_003}" 200 ${(line * 31) % 9973}\n`
      line++
    }
    written += writeSync(fd, text)
  }
  closeSync(fd)
}
