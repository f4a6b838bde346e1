/** What the demo plays on. Here the real one: a loopback volume, with a writer in a process of its own. */
import { type ChildProcess, fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type ActionSettings, type Clock, type Filesystem, openFilesystem } from '../../src/index.js'
import { MIB } from '../../src/units.js'
import { makeVolume, run } from '../../test/helpers/volume.js'

export interface Stage extends AsyncDisposable {
  readonly title: string
  readonly fs: Filesystem
  readonly roots: { temp: string[]; compress: string[]; snapshots: string[] }
  readonly actions: ActionSettings
  readonly intervalMs: number
  /** What the writer does now, in one line. */
  writer(): string
  /** What it wrote between two moments of Date.now(). */
  takenBytes(fromMs: number, toMs: number): number
  /** How to read the latency, where it needs that. */
  readonly latencyNote?: string
  /** Where time is simulated. */
  readonly clock?: Clock
}

const VOLUME_MIB = 3072
const LOGS = 48
const SNAPSHOTS = 6
/** Each log, and what only one snapshot holds. */
const LOG_MIB = 8
const BUILD_MIB = 48
const DATABASE_MIB = 860

/** The volume climbs to 75 %, where temporary files go; past 80 % logs are compressed, past 85 % old snapshots go. */
const PHASES = [
  { says: 'uploads pile up in tmp', seconds: 10, tempMiB: 36, keepMiB: 0 },
  { says: 'a database grows, uploads go on', seconds: 12, tempMiB: 20, keepMiB: 24 },
  { says: 'the database goes on growing', seconds: 20, tempMiB: 8, keepMiB: 30 },
  { says: 'the rush is over', seconds: 8, tempMiB: 8, keepMiB: 0 },
] as const

interface Report {
  readonly atMs: number
  readonly phase: number
  readonly writtenBytes: number
  readonly full: number
}

export async function kernelStage(say: (text: string) => void, signal: AbortSignal): Promise<Stage> {
  const undos: (() => unknown)[] = []
  const dispose = async () => {
    for (const undo of undos.splice(0).reverse()) await undo()
  }
  const startMs = performance.now()
  try {
    say(`making a btrfs volume of ${VOLUME_MIB / 1024} GiB on a loop device …`)
    const volume = makeVolume({ devicesMiB: [VOLUME_MIB] })
    undos.push(() => volume[Symbol.dispose]())
    await breathe(signal)
    const fs = await openFilesystem(volume.path)
    undos.push(() => fs.close())
    const at = (name: string) => join(volume.path, name)
    for (const name of ['tmp', 'archive', 'snapshots']) mkdirSync(at(name))

    say(`filling it: a database, ${LOGS * LOG_MIB} MiB of old logs, ${SNAPSHOTS} snapshots of ${BUILD_MIB} MiB each …`)
    run('fallocate', '--length', `${DATABASE_MIB}MiB`, at('database'))
    const log = logText(LOG_MIB * MIB)
    for (let index = 0; index < LOGS; index++) {
      await breathe(signal)
      writeBlocks(at(`archive/access-${index}.log`), log, 1)
    }
    await fs.createSubvolume(at('build'))
    const noise = randomBytes(MIB)
    for (let index = 0; index < SNAPSHOTS; index++) {
      await breathe(signal)
      writeBlocks(at('build/output'), noise, BUILD_MIB)
      await fs.snapshot(at('build'), at(`snapshots/build-${index}`), { readonly: true })
    }
    await fs.sync({ signal })

    const writer = startWriter(at('tmp'), at('database'))
    undos.push(() => writer.stop())
    say(`ready in ${((performance.now() - startMs) / 1000).toFixed(1)} s`)
    return {
      title: `btrmind on a real btrfs volume, ${VOLUME_MIB / 1024} GiB`,
      fs,
      intervalMs: 250,
      // What is hours and days elsewhere is seconds here.
      actions: {
        tempAgeHours: 4 / 3600,
        emergencyAgeMinutes: 0,
        inactiveDays: 2 / 86_400,
        keepSnapshots: 2,
        stepCompressBytes: 64 * MIB,
        cooldownMinutes: { temp: 4 / 60, compress: 1.5 / 60, snapshots: 1 / 60 },
      },
      roots: { temp: [at('tmp')], compress: [at('archive')], snapshots: [at('snapshots')] },
      writer: () => writer.says(),
      takenBytes: (fromMs, toMs) => writer.writtenBytes(toMs) - writer.writtenBytes(fromMs),
      [Symbol.asyncDispose]: dispose,
    }
  } catch (error) {
    await dispose()
    throw error
  }
}

function startWriter(directory: string, database: string) {
  const path = fileURLToPath(new URL('writer.mjs', import.meta.url))
  // In a session of its own: it is stopped in order, also on a terminal's Ctrl-C.
  const child = fork(path, [directory, database, JSON.stringify(PHASES)], { detached: true, execArgv: [] })
  const reports: Report[] = []
  child.on('message', (report: Report) => reports.push(report))
  return {
    says(): string {
      const { phase, writtenBytes, full } = reports.at(-1) ?? { phase: 0, writtenBytes: 0, full: 0 }
      const { says, tempMiB, keepMiB } = PHASES[phase]!
      const ended = child.exitCode === null && child.signalCode === null ? '' : ' (it ended)'
      const rates = keepMiB > 0 ? `${tempMiB} MiB/s + ${keepMiB} MiB/s to keep` : `${tempMiB} MiB/s`
      const failed = full > 0 ? `; ENOSPC ${full} times` : ''
      return `${says}: ${rates}, ${(writtenBytes / MIB).toFixed(0)} MiB so far${failed}${ended}`
    },
    writtenBytes(atMs: number): number {
      return reports.findLast((report) => report.atMs <= atMs)?.writtenBytes ?? 0
    },
    stop: () => stop(child),
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), 3000)
  await ended
  clearTimeout(timer)
}

/** Lets a Ctrl-C through. */
async function breathe(signal: AbortSignal): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve))
  signal.throwIfAborted()
}

function writeBlocks(path: string, block: Buffer, times: number): void {
  const file = openSync(path, 'w')
  try {
    for (let index = 0; index < times; index++) writeSync(file, block)
  } finally {
    closeSync(file)
  }
}

/** As a web server writes it: each line differs. btrfs compresses 128 KiB at a time, so that copies of it gain nothing. */
function logText(bytes: number): Buffer {
  const lines: string[] = []
  for (let line = 0, length = 0; length < bytes; line++) {
    const address = `10.${(line * 7) % 256}.${(line * 13) % 256}.${(line * 29) % 256}`
    const text = `${address} - - [21/Nov/2026:10:${line % 60}:00] "GET /item/${(line * 7919) % 100_003}" 200 ${(line * 31) % 9973}\n`
    length += text.length
    lines.push(text)
  }
  return Buffer.from(lines.join('')).subarray(0, bytes)
}
