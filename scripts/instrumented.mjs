// The addon built with ASan, UBSan and gcov by native/CMakeLists.txt, and how to run and read it.
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { at, filesBelow, hashOf, nodePrefix, Stamp } from './tool.mjs'

const OUT = 'build-sanitized'
// In the open, since tests drop their privileges: checkouts often lie in a home directory.
let reports

/** CMake rebuilds what changed; everything when the build's description did, or the checkout moved. */
export async function instrumentedBuild(quietly) {
  const prefix = nodePrefix()
  const stamp = new Stamp(join(OUT, 'stamp'), hashOf(['native/CMakeLists.txt', 'package-lock.json'], at(), prefix))
  const command = stamp.matches() ? 'build' : 'rebuild'
  const options = ['-D', '-d', at('native'), '-O', at(OUT, 'build'), '--CDSANITIZE=ON', '--CDCOVERAGE=ON', '-p', '2']
  const cmakeJs = at('node_modules/cmake-js/bin/cmake-js')
  const env = prefix === undefined ? {} : { npm_config_nodedir: prefix }
  await quietly('sanitized-build', process.execPath, [cmakeJs, command, ...options], env)
  stamp.write()
  return {}
}

/** What makes node load that build, and its errors end the process. Reports go to files: a worker's output may be lost. */
export function instrumentedEnvironment() {
  reports = mkdtempSync(join(tmpdir(), 'btrmind-reports-'))
  chmodSync(reports, 0o1777)
  for (const file of filesBelow(OUT)) if (file.endsWith('.gcda')) rmSync(at(file))
  // Leaks are looked for in node alone: the reference tools that tests start (mkfs.btrfs) free nothing at their end.
  writeFileSync(at(OUT, `${basename(process.execPath)}.options`), 'detect_leaks=1')
  const library = (name) => execFileSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' }).trim()
  // Shallow stacks and a small quarantine: node itself is not what is looked at.
  const lean = ['malloc_context_size=12', 'quarantine_size_mb=16']
  const shared = ['abort_on_error=1', `log_path=${join(reports, 'report')}`]
  return {
    BTRMIND_NATIVE_PREBUILD: at(OUT),
    LD_PRELOAD: `${library('libasan.so')} ${library('libstdc++.so')}`,
    // exitcode: for leaks, which sanitizerReports() judges.
    ASAN_OPTIONS: [
      ...shared,
      ...lean,
      'exitcode=0',
      'detect_leaks=0',
      `include_if_exists=${at(OUT, '%b.options')}`,
    ].join(':'),
    UBSAN_OPTIONS: [...shared, 'print_stacktrace=1'].join(':'),
    // Those without privilege cannot add to the counters, which is no news for what the tests read.
    GCOV_ERROR_FILE: '/dev/null',
  }
}

/** Every error, and the leaks of our own: those whose memory the addon asked for, not V8 or another addon. */
export function sanitizerReports() {
  const texts = readdirSync(reports).map((file) => readFileSync(join(reports, file), 'utf8'))
  rmSync(reports, { recursive: true, force: true })
  return texts.flatMap((text) => {
    // Looking for leaks may itself fail, when V8 unmaps memory meanwhile: that says nothing of ours.
    if (text.includes('LeakSanitizer has encountered a fatal error')) return []
    if (!text.includes('LeakSanitizer: detected memory leaks')) return text.trim() === '' ? [] : [text]
    return text.split(/\n\n+/).filter((part) => /^(Direct|Indirect) leak/.test(part) && isOurs(part))
  })
}

/** Goes up the stack past the allocator and the standard library: is the first other frame in the addon? */
function isOurs(leak) {
  const frames = leak.split('\n').slice(1)
  const first = frames.find((frame) => !/libsanitizer|\/c\+\+\/|libstdc\+\+|libc\.so/.test(frame)) ?? ''
  return /\/native\/|node-addon-api|btrmind_native\.node/.test(first)
}

export async function nativeCoverage(quietly) {
  const json = at('build/native-coverage.json')
  rmSync(json, { force: true })
  const search = ['--root', at(), '--filter', at('native/'), '--object-directory', at(OUT, 'build'), at(OUT, 'build')]
  await quietly('gcovr', 'gcovr', [...search, '--json-summary', json])
  const { line_percent: percent, files } = JSON.parse(readFileSync(json, 'utf8'))
  const rows = files.map((file) => `    ${file.filename.padEnd(40)} ${file.line_covered}/${file.line_total}`)
  return { percent, files: rows.join('\n') }
}
