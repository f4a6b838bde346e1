/** The package as a stranger gets it: packed, unpacked beside its three kinds of users, and used. */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { KernelFilesystem } from '../src/btrfs/filesystem.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const prefix = dirname(dirname(process.execPath))
const nodeDir = existsSync(join(prefix, 'include/node/node_api.h')) ? [`--nodedir=${prefix}`] : []
const subpaths = ['btrmind-native', 'btrmind-native/btrfs', 'btrmind-native/agent']

let project: string
let installed: string
const run = (command: string, ...args: string[]) =>
  execFileSync(command, args, { cwd: project, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
const write = (name: string, text: string) => writeFileSync(join(project, name), text)

/** What `npm install <tarball>` would do, without a registry. */
beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), 'btrmind-package-'))
  const modules = join(project, 'node_modules')
  installed = join(modules, 'btrmind-native')
  mkdirSync(installed, { recursive: true })
  execFileSync('npm', ['pack', '--silent', '--pack-destination', project], { cwd: root, stdio: 'pipe' })
  const tarball = readdirSync(project).find((name) => name.endsWith('.tgz'))
  run('tar', '-xzf', `${tarball}`, '--strip-components=1', '-C', installed)
  for (const name of [...Object.keys(manifest.dependencies), '@types/node']) {
    mkdirSync(dirname(join(modules, name)), { recursive: true })
    symlinkSync(join(root, 'node_modules', name), join(modules, name))
  }
  // As a link it would find the checkout's node-gyp.
  rmSync(join(modules, 'node-gyp-build'))
  cpSync(join(root, 'node_modules/node-gyp-build'), join(modules, 'node-gyp-build'), { recursive: true })
  write('package.json', '{ "type": "module" }')
}, 300_000)
afterAll(() => rmSync(project, { recursive: true, force: true }))

describe('the packed package', () => {
  it('holds what it needs and nothing else', () => {
    const allowed = [
      ...manifest.files.map((path: string) => path.split('/')[0]),
      'package.json',
      'README.md',
      'LICENSE',
    ]
    expect(readdirSync(installed).filter((name) => !allowed.includes(name))).toEqual([])
    for (const file of ['README.md', 'LICENSE', 'CHANGELOG.md', 'docs/dependencies.md', 'binding.gyp']) {
      expect(existsSync(join(installed, file)), file).toBe(true)
    }
    expect(readdirSync(join(installed, 'scripts'))).toEqual(['btrfsutil.mjs'])
  })

  /** What npm runs on `npm install`, where `node-gyp` is a script of ours that says so. */
  function install(directory: string) {
    const bin = join(project, 'bin')
    mkdirSync(bin, { recursive: true })
    writeFileSync(join(bin, 'node-gyp'), '#!/bin/sh\necho "node-gyp $*"\n', { mode: 0o755 })
    const modules = join(project, 'node_modules')
    for (const [name, file] of Object.entries({ 'node-gyp-build': 'bin.js', 'node-gyp-build-test': 'build-test.js' })) {
      rmSync(join(bin, name), { force: true })
      symlinkSync(join(modules, 'node-gyp-build', file), join(bin, name))
    }
    const env = { ...process.env, PATH: `${bin}:${process.env.PATH}` }
    const { scripts } = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'))
    return spawnSync('sh', ['-c', scripts.install], { cwd: directory, env, encoding: 'utf8' })
  }

  it('installs without a compiler where its prebuilt addon loads', () => {
    const { scripts, gypfile } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'))
    expect(gypfile).toBe(false)
    for (const name of ['preinstall', 'postinstall', 'prepare']) expect(scripts).not.toHaveProperty(name)
    expect(install(installed)).toMatchObject({ status: 0, stdout: '', stderr: '' })
  })

  it('is built from its source where none does', () => {
    const bare = join(project, 'node_modules/bare')
    cpSync(installed, bare, { recursive: true })
    rmSync(join(bare, 'prebuilds'), { recursive: true })
    expect(install(bare)).toMatchObject({ status: 0, stdout: 'node-gyp rebuild\n' })
    // Its description finds all that it names, node-addon-api too.
    const gyp = join(root, 'node_modules/node-gyp/bin/node-gyp.js')
    const { status, stderr } = spawnSync(process.execPath, [gyp, 'configure', ...nodeDir], {
      cwd: bare,
      encoding: 'utf8',
    })
    expect(status, stderr).toBe(0)
    const sources = readFileSync(join(bare, 'native/sources.txt'), 'utf8').trim().split('\n')
    const makefile = readFileSync(join(bare, 'build/btrmind_native.target.mk'), 'utf8')
    for (const source of sources) expect(makefile).toContain(`native/${source.replace(/\.cpp$/, '.o')}`)
    const headers = /-I(\S*node-addon-api)\b/.exec(makefile)?.[1]
    expect(existsSync(join(bare, 'build', headers!, 'napi.h')) || existsSync(join(headers!, 'napi.h'))).toBe(true)
    rmSync(bare, { recursive: true })
  })

  it('says which package is missing without libbtrfsutil’s header', () => {
    const { status, stderr } = spawnSync('g++', ['-nostdinc', '-I.', '-E', 'native/btrfsutil_library.h'], {
      cwd: installed,
      encoding: 'utf8',
    })
    expect(status).toBe(1)
    expect(stderr).toContain('libbtrfsutil is missing: install libbtrfsutil-dev (Debian, Ubuntu)')
  })

  it('has the sources of the addon as binding.gyp lists them', () => {
    const sources = readFileSync(join(installed, 'native/sources.txt'), 'utf8').trim().split('\n')
    for (const source of sources) expect(existsSync(join(installed, 'native', source)), source).toBe(true)
  })

  it('is imported as ESM, and loads its prebuilt addon', () => {
    write(
      'esm.mjs',
      `${subpaths.map((path, index) => `import * as m${index} from '${path}'`).join('\n')}
       console.log(JSON.stringify([m0, m1, m2].map((m) => Object.keys(m).length)))
       const failure = await m0.openFilesystem('/proc').catch((error) => error)
       console.log(failure.code)`,
    )
    const [counts, code] = run('node', 'esm.mjs').trim().split('\n')
    for (const count of JSON.parse(counts!)) expect(count).toBeGreaterThan(0)
    expect(code).toBe('ENOTTY')
  })

  it('gives CommonJS the same module through require()', () => {
    write(
      'cjs.cjs',
      `const required = ${JSON.stringify(subpaths)}.map((path) => require(path))
       import('btrmind-native').then((m) => console.log(m.openFilesystem === required[0].openFilesystem))`,
    )
    expect(run('node', '--no-warnings', 'cjs.cjs').trim()).toBe('true')
  })

  it('brings the command, which npm can link', () => {
    const main = join(installed, manifest.bin.btrmind)
    expect(readFileSync(main, 'utf8')).toMatch(/^#!\/usr\/bin\/env node\n/)
    mkdirSync(join(project, 'node_modules/.bin'))
    symlinkSync(main, join(project, 'node_modules/.bin/btrmind'))
    expect(run(process.execPath, 'node_modules/.bin/btrmind', '--version').trim()).toBe(manifest.version)
    expect(run(process.execPath, 'node_modules/.bin/btrmind', '--help')).toContain('Usage: btrmind')
  })

  it('has, for an editor to show, what each method does, needs and throws', () => {
    const types = readFileSync(join(installed, 'dist/btrfs/filesystem.d.ts'), 'utf8')
    const methods = Object.getOwnPropertyNames(KernelFilesystem.prototype)
    for (const name of methods) {
      if (['constructor', 'path', 'uuid', 'sync', 'close'].includes(name)) continue
      const [, doc] = new RegExp(`/\\*\\*((?:(?!\\*/)[^])*)\\*/\\n    ${name}\\(`).exec(types) ?? []
      expect(doc, name).toMatch(/@throws|rejects/)
    }
  })

  it.each([
    ['types.ts', 'nodenext', 'nodenext', false],
    ['types.ts', 'esnext', 'bundler', true],
    ['types.cts', 'nodenext', 'nodenext', true],
    ['types.cts', 'node20', 'node16', true],
  ])('has types for %s with module %s, resolution %s', (file, module, moduleResolution, skipLibCheck) => {
    write(
      file,
      `import { BtrfsError, openFilesystem, type Usage } from 'btrmind-native'
       import type { Filesystem } from 'btrmind-native/btrfs'
       import { calculateReward } from 'btrmind-native/agent'
       export async function use(path: string): Promise<Usage> {
         await using fs: Filesystem = await openFilesystem(path)
         const reward: number = calculateReward(95, 92)
         if (reward !== 20) throw new BtrfsError('use', { code: 'EINVAL', errno: -22, text: 'reward' })
         return fs.usage()
       }
       // @ts-expect-error: the path is not a number
       export const wrong = () => use(1)`,
    )
    const compilerOptions = {
      ...{ module, moduleResolution, target: 'es2022', lib: ['es2023', 'esnext.disposable'], types: ['node'] },
      ...{ strict: true, noEmit: true, skipLibCheck },
    }
    write('tsconfig.json', JSON.stringify({ compilerOptions, files: [file] }))
    const tsc = join(root, 'node_modules/typescript/bin/tsc')
    expect(spawnSync(process.execPath, [tsc, '-p', project], { encoding: 'utf8' }).stdout).toBe('')
  })
})

describe('the prebuilt addon', () => {
  const addon = () => {
    const directory = join(installed, 'prebuilds', `${process.platform}-${process.arch}`)
    return readdirSync(directory).map((name) => join(directory, name))
  }

  it('is one stripped file for every Node, named for its C library', () => {
    expect(addon()).toHaveLength(1)
    expect(addon()[0]).toMatch(/\/btrmind-native\.(glibc|musl)\.node$/)
    expect(run('readelf', '--sections', '--wide', addon()[0]!)).not.toMatch(/\.symtab|\.debug_info/)
    expect(statSync(addon()[0]!).size).toBeLessThan(1.5 * 1024 ** 2)
  })

  it('exports nothing but the entry points of Node-API', () => {
    const symbols = run('nm', '--dynamic', '--defined-only', '--format=posix', addon()[0]!).trim().split('\n')
    expect(symbols.map((line) => line.split(' ')[0]).sort()).toEqual([
      'napi_register_module_v1',
      'node_api_module_get_api_version_v1',
    ])
  })

  it('needs no library of btrfs on the host', () => {
    expect(run('readelf', '--dynamic', addon()[0]!)).not.toMatch(/NEEDED.*btrfs/)
  })
})
