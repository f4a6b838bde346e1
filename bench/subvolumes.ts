/** Create, snapshot and delete against the command that does the same. A snapshot costs a commit, whoever asks. */
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { openFilesystem } from '../src/btrfs/filesystem.js'
import { makeVolume, run } from '../test/helpers/volume.js'
import { type BenchRow, medians, row } from './measure.js'

/** @param rounds fewer are quicker and less certain */
export async function rows(rounds = 40): Promise<BenchRow[]> {
  using volume = makeVolume({ devicesMiB: [2048] })
  await using fs = await openFilesystem(volume.path)
  const btrfs = (...args: string[]) => promisify(execFile)('btrfs', ['subvolume', ...args])
  const source = join(volume.path, 'source')
  run('btrfs', 'subvolume', 'create', source)
  let count = 0
  const fresh = () => join(volume.path, `s${count++}`)

  const create = await medians(
    { ours: { run: () => fs.createSubvolume(fresh()), times: 5 }, peer: { run: () => btrfs('create', fresh()) } },
    rounds,
  )
  const snapshot = await medians(
    {
      ours: { run: () => fs.snapshot(source, fresh()), times: 2 },
      peer: { run: () => btrfs('snapshot', source, fresh()), times: 2 },
    },
    rounds,
  )
  // Each deletes what was made above, oldest first.
  let gone = 0
  const next = () => join(volume.path, `s${gone++}`)
  const remove = await medians(
    { ours: { run: () => fs.deleteSubvolume(next()), times: 2 }, peer: { run: () => btrfs('delete', next()) } },
    rounds,
  )
  // A hundred small files, as a container's layer has.
  const small = async () => {
    const path = fresh()
    await fs.createSubvolume(path)
    for (let i = 0; i < 100; i++) writeFileSync(join(path, `${i}`), 'some content')
    await fs.sync()
    return path
  }
  let path = ''
  const prepare = async () => {
    path = await small()
  }
  const freed = await medians(
    {
      ours: { run: () => fs.deleteSubvolume(path, { waitUntilFreed: true }), prepare },
      peer: {
        run: async () => {
          await btrfs('delete', '--commit-each', path) // else its sync waits for the next commit, half a minute
          await btrfs('sync', volume.path)
        },
        prepare,
      },
    },
    Math.ceil(rounds / 4),
  )
  return [
    row('delete a small subvolume until it is freed', 'spawning btrfs delete, sync', freed.ours, freed.peer, {
      target: '≤ 10 ms',
    }),
    row('create a subvolume', 'spawning btrfs', create.ours, create.peer, { unit: 'µs', target: '≥ 50×' }),
    row('delete a subvolume', 'spawning btrfs', remove.ours, remove.peer, { unit: 'µs', target: '≥ 50×' }),
    row('snapshot', 'spawning btrfs', snapshot.ours, snapshot.peer, { unit: 'µs', target: '≥ 1.7×' }),
  ]
}
