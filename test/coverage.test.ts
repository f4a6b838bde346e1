import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string) => readFileSync(root + path, 'utf8')
const table = read('docs/coverage.md')
const rows = [...table.matchAll(/^\| (\w+) \| (\d+) \| ([\w ]+) \| (.*?) \| (.*?) \|$/gm)].map(
  ([, name, number, status, by, test]) => ({
    name: name!,
    number: Number(number),
    status: status!,
    by: by!,
    test: test!,
  }),
)
const native = readdirSync(`${root}native`, { recursive: true, encoding: 'utf8' })
  .filter((path) => /\.(cpp|h)$/.test(path))
  .map((path) => read(`native/${path}`))
  .join('\n')
/** libbtrfsutil calls these for us. */
const THROUGH_LIBRARY: Readonly<Record<string, string>> = {
  SUBVOL_CREATE_V2: 'btrfs_util_create_subvolume_fd',
  SNAP_CREATE_V2: 'btrfs_util_create_snapshot_fd2',
  SNAP_DESTROY: 'btrfs_util_delete_subvolume_fd',
  SUBVOL_SETFLAGS: 'btrfs_util_set_subvolume_read_only_fd',
  GET_SUBVOL_ROOTREF: 'btrfs_util_create_subvolume_iterator_fd',
  INO_LOOKUP_USER: 'btrfs_util_create_subvolume_iterator_fd',
}

describe('docs/coverage.md', () => {
  it('has a row for every ioctl that the header names, with its number', () => {
    const header = '/usr/include/linux/btrfs.h'
    expect(existsSync(header), 'the kernel headers').toBe(true)
    const lines = readFileSync(header, 'utf8').replaceAll(/\\\n/g, ' ')
    const named = [...lines.matchAll(/^#define BTRFS_IOC_(\w+)\s+(?:_IO[RW]*\(BTRFS_IOCTL_MAGIC, (\d+)|FS_IOC_)/gm)]
    expect(named.length).toBeGreaterThan(60)
    for (const [, name, number] of named) {
      const row = rows.find((row) => row.name === name)
      expect(row, name).toBeDefined()
      if (number !== undefined) expect([name, row!.number]).toEqual([name, Number(number)])
    }
  })

  it.each(rows.filter(({ status }) => status === 'bound'))(
    '$name is called, and tested through $by',
    ({ name, by, test }) => {
      const through = THROUGH_LIBRARY[name]
      expect(native).toContain(through ?? `BTRMIND_REQUEST(BTRFS_IOC_${name})`)
      const method = /^`(\w+)\(\)`$/.exec(by)![1]!
      const path = /^`(.+)`$/.exec(test)![1]!
      expect(read(path)).toMatch(new RegExp(`\\b${method}\\(`))
      expect(read('src/btrfs/filesystem.ts') + read('src/btrfs/devices.ts')).toMatch(new RegExp(`\\b${method}\\(`))
    },
  )

  it('calls nothing bound that is not called, and nothing superseded by what is not bound', () => {
    const status = new Map(rows.map((row) => [row.name, row.status]))
    for (const [, name] of native.matchAll(/BTRMIND_REQUEST\(BTRFS_IOC_(\w+)\)/g))
      expect([name, status.get(name!)]).toEqual([name, 'bound'])
    for (const { name, status: now, by } of rows)
      if (now === 'superseded') expect([name, status.get(by)]).toEqual([name, 'bound'])
    for (const { status: now } of rows) expect(['bound', 'superseded', 'gone', 'to come']).toContain(now)
  })

  it('names each function of libbtrfsutil: those that are called as bound, the others with what is used instead', () => {
    const called = new Set([...native.matchAll(/\b(btrfs_util_\w+)\(/g)].map(([, name]) => name!))
    const listed = [...table.matchAll(/^\| `(btrfs_util_\w+)` \| (\w+) \| (.+) \|$/gm)]
    const bound = listed.filter(([, , status]) => status === 'bound').map(([, name]) => name!)
    expect(bound.sort()).toEqual([...called].sort())
    const header = readFileSync('/usr/include/btrfsutil.h', 'utf8')
    const declared = new Set([...header.matchAll(/\b(btrfs_util_\w+)\(/g)].map(([, name]) => name!))
    const names = listed.map(([, name]) => name!)
    expect([...declared].filter((name) => !names.includes(name))).toEqual([])
    expect(declared.size).toBeGreaterThan(30)
    for (const [, name, status, by] of listed.filter(([, , status]) => status !== 'bound')) {
      expect([name, status]).toEqual([name, 'superseded'])
      const other = /^`(\w+)`$/.exec(by!)?.[1]
      if (other !== undefined)
        expect(
          listed.some(([, listedName]) => listedName === other),
          name,
        ).toBe(true)
    }
  })
})
