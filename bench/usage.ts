/** usage() against the command that prints the same figures, and against python3-btrfs inside a running Python. */
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { openFilesystem } from '../src/btrfs/filesystem.js'
import { cannotMount, makeVolume, run, type VolumeOptions } from '../test/helpers/volume.js'
import { median, medians, type Row, row } from './measure.js'
import { cannotImport, pythonPeer } from './python.js'

/** Calls before the first that counts: by then V8 has compiled what it will compile. */
const WARM_UP = 3000

interface Case {
  readonly name: string
  readonly options: VolumeOptions
  readonly fillMiB: number
  readonly targets?: { readonly command: string; readonly python: string }
  readonly warmUp?: number
}
const VOLUMES: readonly Case[] = [
  { name: 'one device', options: { devicesMiB: [4096] }, fillMiB: 0 },
  {
    name: 'RAID10 on 4 devices, 130 block groups',
    options: { devicesMiB: [131_072, 131_072, 131_072, 131_072], data: 'raid10', metadata: 'raid1' },
    fillMiB: 250_000,
  },
  {
    name: '6000 block groups',
    // Sparse; metadata in one copy, since writing it twice takes as long again.
    options: { devicesMiB: [7 << 20], metadata: 'single' },
    fillMiB: 6000 << 10,
    targets: { command: '≥ 3×', python: '≥ 15×' },
    warmUp: 100,
  },
]

/** @param rounds fewer are quicker and less certain */
export async function rows(rounds = 40): Promise<Row[]> {
  if (cannotMount !== undefined) return [{ operation: 'usage()', peerName: 'btrfs', skipped: cannotMount }]
  const out: Row[] = []
  for (const volume of VOLUMES) out.push(...(await onVolume(volume, rounds)))
  return out
}

async function onVolume(given: Case, rounds: number): Promise<Row[]> {
  const { name, options, fillMiB, targets, warmUp = WARM_UP } = given
  using volume = makeVolume(options)
  if (fillMiB > 0) run('fallocate', '--length', `${fillMiB}MiB`, join(volume.path, 'file'))
  run('sync', '--file-system', volume.path)
  // As on a volume in use: most commits make no chunk.
  writeFileSync(join(volume.path, 'last'), 'x')
  run('sync', '--file-system', volume.path)
  await using fs = await openFilesystem(volume.path)
  for (let i = 0; i < warmUp; i++) await fs.usage()
  const operation = `usage(), ${name}`
  const ours = { run: () => fs.usage(), times: 25 }
  const command = () => promisify(execFile)('btrfs', ['filesystem', 'usage', '-b', volume.path])
  const peerName = 'spawning btrfs filesystem usage -b'
  const spawned = await medians({ ours, peer: { run: command } }, rounds)
  const against = [
    row(operation, peerName, spawned.ours, spawned.peer, { unit: 'µs', target: targets?.command ?? '≥ 80×' }),
  ]
  return [...against, await againstPython(volume.path, operation, ours, rounds, targets?.python)]
}

async function againstPython(
  path: string,
  operation: string,
  ours: { run: () => unknown; times: number },
  rounds: number,
  target: string | undefined,
): Promise<Row> {
  const peerName = 'python3-btrfs'
  const skipped = cannotImport('btrfs')
  if (skipped !== undefined) return { operation, peerName, skipped }
  await using python = pythonPeer(path, 'import btrfs\nfs = btrfs.FileSystem(path)', 'fs.usage()')
  const times = 5
  const measured = await medians({ ours, python: { run: python.ask, times } }, rounds)
  const own = median(python.seconds.slice(times))
  return row(operation, peerName, measured.ours, own * 1000, { unit: 'µs', ...(target && { target }) })
}
