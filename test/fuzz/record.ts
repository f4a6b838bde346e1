/**
 * Started by scripts/fuzz.mjs: makes volumes with something of everything, and lets the fuzz targets write down what
 * the kernel answers there: `record.ts <program> <directory of the corpus>`.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openFilesystem } from '../../src/btrfs/filesystem.js'
import { makeVolume, run } from '../helpers/volume.js'

const [program, corpus] = process.argv.slice(2) as [string, string]
const scratch = mkdtempSync(join(tmpdir(), 'btrmind-record-'))

function keep(target: string, bytes: Uint8Array): void {
  const directory = join(corpus, target)
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, createHash('sha1').update(bytes).digest('hex')), bytes)
}

function record(target: string, path: string, ...parameters: number[]): void {
  const file = join(scratch, 'tape')
  const env = { FUZZ_TARGET: target, FUZZ_RECORD: file, FUZZ_PATH: path, FUZZ_PARAMETERS: parameters.join(' ') }
  execFileSync(program, { env, stdio: ['ignore', 'ignore', 'inherit'] })
  keep(target, readFileSync(file))
}

const number = (value: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

const LAYOUTS = [{ devicesMiB: [256] }, { devicesMiB: [256, 256, 256], data: 'raid5', metadata: 'raid1' }]
for (const layout of LAYOUTS) {
  using volume = makeVolume(layout)
  await using fs = await openFilesystem(volume.path)
  const at = (path: string) => join(volume.path, path)
  await fs.enableQuota()
  await fs.createSubvolume(at('sub'))
  await fs.createSubvolume(at('sub/inner'))
  mkdirSync(at('sub/directory/deeper'), { recursive: true })
  writeFileSync(at('sub/inline'), 'small')
  writeFileSync(at('sub/directory/file'), Buffer.alloc(300_000, 'btrmind'))
  writeFileSync(at('sub/directory/deeper/\u00fcml'), '')
  symlinkSync('file', at('sub/directory/link'))
  linkSync(at('sub/inline'), at('sub/directory/hard'))
  // More names in one directory than an INODE_REF holds.
  for (let i = 0; i < 30; i++) linkSync(at('sub/inline'), at(`sub/directory/${'n'.repeat(240)}${i}`))
  run('fallocate', '-l', '1M', at('sub/reserved'))
  run('btrfs', 'property', 'set', at('sub/inner'), 'compression', 'zstd')
  writeFileSync(at('sub/inner/compressed'), 'text that is compressed '.repeat(20_000))
  run('cp', '--reflink=always', at('sub/directory/file'), at('sub/cloned'))
  run('truncate', '-s', '5M', at('sub/cloned'))
  await fs.sync()
  await fs.snapshot(at('sub'), at('snapshot'), { readonly: true })
  await fs.createQgroup('1/1')
  await fs.assignQgroup('0/256', '1/1')
  await fs.limitQgroup('1/1', { referencedBytes: 2 ** 30, exclusiveBytes: 2 ** 29 })
  await fs.sync()

  for (const path of ['sub', 'sub/inner', 'snapshot']) {
    record('scan', at(path), 0, 0, 0, 63)
    record('scan', at(path), 8, 1, 0, 3)
    record('scan', at(path), 0, 1, 1, 63)
    record('tally', at(path), 5, 2, 256, 2 ** 40)
  }
  record('subvolumes', volume.path)
  for (const { logicalBytes } of await fs.blockGroups()) record('users', volume.path, logicalBytes, 1, 256, 257)
  record('chunks', volume.path)
  record('block-groups', volume.path, 1)
  record('quota', volume.path)
  for (const file of ['sub/inline', 'sub/directory/file', 'sub/cloned', 'sub/reserved', 'sub/inner/compressed'])
    record('extents', at(file), 0, 2 ** 40, Number(run('stat', '-c', '%i', at(file))))
  for (const file of ['sub/directory/file', 'sub/inner/compressed', 'sub/reserved']) {
    record('defragment', at(file), 0, 2 ** 40, 1, 1, 400_000)
    record('defragment', at(file), 4096, 65_536, 0, 0, 400_000)
  }
  record('fragmentation', volume.path)
  record('space', volume.path)
  keep('text', readFileSync('/proc/self/mountinfo'))
}
keep('text', Buffer.from('18446744073709551615'))
keep('lzo-size', Buffer.concat([number(0), readFileSync(process.argv[1]!), Buffer.alloc(9000)]))
// Two items: an INODE_REF of two names, an INODE_EXTREF of one.
const item = (type: number, data: Buffer) => {
  const kindAndLength = Buffer.alloc(8)
  kindAndLength.writeUInt32LE(type)
  kindAndLength.writeUInt32LE(data.length, 4)
  return Buffer.concat([number(9), number(257), number(256), kindAndLength, data])
}
const name = (text: string) => Buffer.concat([Buffer.from([text.length, 0]), Buffer.from(text)])
const names = Buffer.concat([number(2), name('one'), number(3), name('another')])
const extended = Buffer.concat([number(256), number(4), name('third')])
keep('answer', Buffer.concat([number(2), item(12, names), item(13, extended)]))
rmSync(scratch, { recursive: true })
