// The addon as the package carries it: the set-up's build, stripped, where node-gyp-build looks. It speaks Node-API,
// so one file serves every Node; the C library is part of its name.
import { execFileSync } from 'node:child_process'
import { mkdirSync, renameSync, rmSync } from 'node:fs'
import { at } from './tool.mjs'

execFileSync(process.execPath, [at('scripts/setup.mjs'), '--for', 'package'], { stdio: 'inherit' })

const libc = process.report.getReport().header.glibcVersionRuntime === undefined ? 'musl' : 'glibc'
const directory = at('prebuilds', `${process.platform}-${process.arch}`)
const name = `btrmind-native.${libc}.node`
mkdirSync(directory, { recursive: true })
const half = at('prebuilds', `${name}.${process.pid}`)
try {
  execFileSync('strip', ['-o', half, at('build/Release/btrmind_native.node')])
  renameSync(half, `${directory}/${name}`)
} finally {
  rmSync(half, { force: true })
}
