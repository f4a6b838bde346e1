import { resolve } from 'node:path'
import { type KernelFilesystem, openFilesystem } from '../btrfs/filesystem.js'
import type { CompressionBytes, ReportOptions, ReportProgress, UsedBytes } from '../btrfs/reports.js'
import { formatBytes } from '../units.js'
import { follow } from './follow.js'
import { type Io, printJson, table } from './output.js'

export interface ReportCommand {
  readonly json?: boolean
  readonly nested?: boolean
  readonly consistent?: boolean
}
const line = ({ inodes, subvolumes }: ReportProgress) =>
  `${inodes} files and directories, ${subvolumes} subvolumes done`
const optionsOf = (io: Io, { nested, consistent }: ReportCommand): ReportOptions => ({
  nested,
  consistent,
  signal: io.signal,
})
const percent = (ratio: number | undefined) => (ratio === undefined ? '' : `${(100 * ratio).toFixed(0)} %`)

/** A tree without what lies in nested subvolumes may look emptier than it is. */
async function tellLeftOut(io: Io, fs: KernelFilesystem, path: string, { nested }: ReportCommand): Promise<void> {
  if (nested) return
  let count = 0
  for await (const _ of fs.subvolumes({ below: resolve(path), signal: io.signal })) count++
  if (count > 0)
    io.stdout.write(`${count} ${count === 1 ? 'subvolume in it is' : 'subvolumes in it are'} left out: --nested\n`)
}

export async function compression(io: Io, path: string, command: ReportCommand): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  const report = await follow(io, fs.compression(optionsOf(io, command)), line, command)
  if (command.json) return printJson(io, report)
  const row = (name: string, bytes: CompressionBytes) => [
    name,
    percent(bytes.ratio),
    formatBytes(bytes.diskBytes),
    formatBytes(bytes.uncompressedBytes),
    formatBytes(bytes.referencedBytes),
  ]
  const rows = [...report.algorithms.map((bytes) => row(bytes.algorithm, bytes)), row('all', report)]
  io.stdout.write(table(['algorithm', 'ratio', 'on disk', 'uncompressed', 'referenced'], rows, [1, 2, 3, 4]))
  const { files, extents, references, inlineExtents } = report
  io.stdout.write(`\n${files} files: ${extents} extents, ${references} references to them, ${inlineExtents} inline\n`)
  await tellLeftOut(io, fs, path, command)
}

export async function du(io: Io, path: string, command: ReportCommand & { readonly depth: number }): Promise<void> {
  await using fs = await openFilesystem(path, { signal: io.signal })
  const { depth, nested } = command
  const report = await follow(io, fs.du({ depth, nested, signal: io.signal }), line, command)
  if (command.json) return printJson(io, report)
  const row = ({ totalBytes, exclusiveBytes, files }: UsedBytes, name: string) => {
    return [formatBytes(totalBytes), formatBytes(exclusiveBytes), String(files), name]
  }
  const rows = [...report.directories.map((directory) => row(directory, directory.path)), row(report, path)]
  io.stdout.write(table(['total', 'exclusive', 'files', 'path'], rows, [0, 1, 2]))
  io.stdout.write(`\n${formatBytes(report.setSharedBytes)} of it shared, each extent counted once\n`)
  await tellLeftOut(io, fs, path, command)
}

export async function fragmentation(io: Io, path: string, command: ReportCommand & { readonly worst: number }) {
  await using fs = await openFilesystem(path, { signal: io.signal })
  const options = { ...optionsOf(io, command), worst: command.worst }
  const report = await follow(io, fs.fragmentation(options), line, command)
  if (command.json) return printJson(io, report)
  const { files, extents, breaks, ratio, scatteredFiles } = report
  io.stdout.write(
    `${files} files, ${extents} extents; ${breaks} of them lie apart from the one before: ${percent(ratio)}\n`,
  )
  io.stdout.write(`${scatteredFiles} files are in more than one piece\n`)
  await tellLeftOut(io, fs, path, command)
  if (report.runs.length > 0) {
    const rows = report.runs.map(({ from, to, files }) => [from === to ? `${from}` : `${from}–${to}`, String(files)])
    io.stdout.write(`\n${table(['pieces', 'files'], rows, [0, 1])}`)
  }
  if (report.worst.length === 0) return
  const worst = report.worst.map(({ breaks, sizeBytes, path }) => [String(breaks + 1), formatBytes(sizeBytes), path])
  io.stdout.write(`\n${table(['pieces', 'size', 'most scattered'], worst, [0, 1])}`)
}
