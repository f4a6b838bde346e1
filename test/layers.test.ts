/** Imports go down only; those of one layer do not know each other; nothing starts a process. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const below = (directory: string, pattern: RegExp) =>
  readdirSync(join(root, directory), { recursive: true, encoding: 'utf8' }).filter((file) => pattern.test(file))
const read = (file: string) => readFileSync(join(root, file), 'utf8')

/** From the top. A file or directory of src may import what stands in a later line, or is its own. */
const LAYERS = [
  ['cli', 'daemon'],
  ['index.ts'],
  ['loop.ts'],
  ['loop'],
  ['policies'],
  ['actions', 'agent', 'simulator'],
  ['monitor'],
  ['btrfs'],
  ['native.ts'],
  ['native'],
  ['jsonl.ts'],
  ['files.ts'],
  ['errors.ts', 'units.ts', 'clock.ts', 'random.ts'],
]
const room = (file: string) => file.split('/')[0]!
const rank = (file: string) => LAYERS.findIndex((layer) => layer.includes(room(file)))

const sources = below('src', /\.ts$/)
const imports = sources.flatMap((file) =>
  [...read(`src/${file}`).matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map(([, target]) => ({
    file,
    target: relative('src', join('src', dirname(file), target!)).replace(/\.js$/, '.ts'),
  })),
)

describe('src', () => {
  it('has a layer for every file', () => {
    expect(sources.filter((file) => rank(file) === -1)).toEqual([])
    expect(imports.length).toBeGreaterThan(sources.length)
  })

  it('imports only downwards', () => {
    const upwards = imports.filter(({ file, target }) => room(file) !== room(target) && rank(file) >= rank(target))
    expect(upwards).toEqual([])
  })

  it('has no circles, of types neither', () => {
    const left = new Set(sources)
    const edges = () => imports.filter(({ file, target }) => left.has(file) && left.has(target))
    // What imports nothing that is left, or is imported by nothing, is in no circle.
    for (let before = 0; left.size !== before; ) {
      before = left.size
      const [from, to] = [new Set(edges().map(({ file }) => file)), new Set(edges().map(({ target }) => target))]
      for (const file of left) if (!from.has(file) || !to.has(file)) left.delete(file)
    }
    expect([...left]).toEqual([])
  })

  it('gives the agent numbers only, and its arithmetic', () => {
    const allowed = /^(agent\/|native\.ts|files\.ts|errors\.ts|units\.ts|clock\.ts|random\.ts)/
    expect(imports.filter(({ file, target }) => room(file) === 'agent' && !allowed.test(target))).toEqual([])
  })

  it('loads the addon in one file', () => {
    const loaders = sources.filter((file) => /node-gyp-build|createRequire|\.node'/.test(read(`src/${file}`)))
    expect(loaders).toEqual(['native.ts'])
  })

  it('starts no process', () => {
    expect(sources.filter((file) => /child_process|node:cluster/.test(read(`src/${file}`)))).toEqual([])
  })

  it('has neither unseeded chance nor a clock of its own where results must repeat', () => {
    const strict = sources.filter((file) => ['agent', 'simulator', 'policies'].includes(room(file)))
    const wild = /Math\.random|Date\.now|new Date\(\)|performance\.now|process\.hrtime/
    expect(strict.filter((file) => wild.test(read(`src/${file}`)))).toEqual([])
  })
})

describe('native', () => {
  const files = below('native', /\.(cpp|h|inc)$/)

  it('starts no process', () => {
    const starts = /\b(fork|vfork|execv\w*|execl\w*|posix_spawn\w*|popen|system)\s*\(/
    expect(files.filter((file) => starts.test(read(`native/${file}`).replace(/\/\/.*$/gm, '')))).toEqual([])
  })

  it('makes threads in one file, and calls ioctl(2) in one', () => {
    const having = (pattern: RegExp) =>
      files.filter((file) => pattern.test(read(`native/${file}`).replace(/\/\/.*$/gm, ''))).sort()
    expect(having(/std::(thread|async|jthread)\b|pthread_create\s*\(|napi_create_async_work|AsyncWorker/)).toEqual([
      'task.cpp',
    ])
    expect(having(/(^|[^\w.>"])ioctl\s*\(/m)).toEqual(['error.cpp'])
  })

  it('builds every source that is there', () => {
    const listed = read('native/sources.txt').trim().split('\n')
    expect(below('native', /\.cpp$/).sort()).toEqual([...listed].sort())
  })
})
