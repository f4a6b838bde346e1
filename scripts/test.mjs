// Every check, in one run: set-up, format, lint (clang-tidy for C++), types, the parsers fuzzed, tests with coverage, and
// the native tests once more on an addon built with ASan and UBSan. Goes on after a failure, so that one run shows them all. Ends with one table.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { fuzz } from './fuzz.mjs'
import { instrumentedBuild, instrumentedEnvironment, nativeCoverage, sanitizerReports } from './instrumented.mjs'
import { tidy } from './tidy.mjs'
import { at, bold, dim, excerpt, filesBelow, green, logged, red, root, seconds, which, yellow } from './tool.mjs'

const SRC_LINES_PERCENT = 90
const NATIVE_LINES_PERCENT = 85
const FUZZ_SECONDS = 120
// The directories whose tests go through the addon.
const NATIVE_TESTS = ['native', 'btrfs', 'agent', 'monitor', 'actions', 'contract'].map((name) => `test/${name}/`)
const inCi = /^(1|true)$/.test(process.env.CI ?? '')

const rows = []
const counts = { passed: 0, failed: 0, skipped: 0 }

/** Runs one check; `work` returns what the table says of it, or throws. */
async function check(name, work) {
  const start = performance.now()
  const row = { name, status: 'passed' }
  rows.push(row)
  try {
    Object.assign(row, await work())
  } catch (error) {
    Object.assign(row, { status: 'failed', detail: error.message.split('\n')[0], output: error.message })
  }
  // What could not be checked is no success where nobody looks at the output.
  if (row.status === 'skipped' && inCi)
    Object.assign(row, { status: 'failed', detail: `${row.detail}; CI may not skip` })
  row.took = seconds(start)
  counts[row.status] += 1
  const paint = { passed: green, failed: red, skipped: yellow }[row.status]
  console.log(`${paint(row.status.padEnd(8))}${name}  ${dim(row.took)}${row.detail ? `  ${row.detail}` : ''}`)
  if (row.status === 'failed' && row.output) console.log(row.output)
  return row.status === 'passed'
}

const skipped = (detail) => ({ status: 'skipped', detail })

/** A command whose output matters only when it fails. */
async function quietly(name, command, args, env) {
  const log = at('build', `check-${name}.log`)
  rmSync(log, { force: true })
  const code = await logged(log, command, args, env)
  if (code !== 0) throw new Error(`exit code ${code}\n${excerpt(log, 60, 40)}`)
  return {}
}
const node = (name, script, ...args) => quietly(name, process.execPath, [at('node_modules', script), ...args])

/** Runs vitest with its output shown, and adds its tests to the counts. */
function vitest(name, args, env = {}) {
  const file = at('build', `vitest-${name}.json`)
  rmSync(file, { force: true })
  const { status, signal } = spawnSync(
    process.execPath,
    [
      at('node_modules/vitest/vitest.mjs'),
      'run',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${file}`,
      ...args,
    ],
    { cwd: root, stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, ...env } },
  )
  if (!existsSync(file)) throw new Error(`vitest ended early (${signal ?? status})`)
  const report = JSON.parse(readFileSync(file, 'utf8'))
  counts.passed += report.numPassedTests
  counts.failed += report.numFailedTests
  counts.skipped += report.numPendingTests + report.numTodoTests
  const detail = `${report.numPassedTests} tests, ${report.numFailedTests} failed, ${report.numPendingTests} skipped`
  return { ok: report.success && report.numFailedTestSuites === 0, status, detail }
}

/** Why tests on real volumes cannot run here; the answer of the helper that makes the volumes. */
function whyNoVolumes() {
  const code = "import { cannotMount } from './test/helpers/volume.ts'; console.log(cannotMount ?? '')"
  const { stdout } = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], {
    cwd: root,
    encoding: 'utf8',
  })
  return stdout.trim()
}

function finish() {
  const width = Math.max(...rows.map((row) => row.name.length))
  console.log(`\n${bold('check'.padEnd(width))}  ${bold('result ')}  ${bold('   time')}`)
  for (const { name, status, took, detail } of rows) {
    const paint = { passed: green, failed: red, skipped: yellow }[status]
    console.log(`${name.padEnd(width)}  ${paint(status.padEnd(7))}  ${took.padStart(7)}  ${detail ?? ''}`)
  }
  console.log(`\n${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
  process.exitCode = counts.failed > 0 ? 1 : 0
}

async function main() {
  mkdirSync(at('build'), { recursive: true })
  const ready = await check('set-up', () => {
    const { status } = spawnSync(process.execPath, [at('scripts/setup.mjs'), '--for', 'test'], { stdio: 'inherit' })
    if (status !== 0) throw new Error('see above')
  })
  if (!ready) return finish()

  const [, , , , instrumented] = await Promise.all([
    check('format and lint', () => node('lint', '@biomejs/biome/bin/biome', 'check', '--error-on-warnings', '.')),
    check('types', () => node('types', 'typescript/bin/tsc', '-p', at('tsconfig.json'))),
    check('C++ format', () => {
      if (!which('clang-format-19')) return skipped('no clang-format-19')
      const sources = [...filesBelow('native'), ...filesBelow('test/fuzz')].filter((file) => /\.(cpp|h)$/.test(file))
      return quietly('clang-format', 'clang-format-19', ['--dry-run', '-Werror', ...sources])
    }),
    check('C++ lint', () => {
      const missing = ['clang-tidy-19', 'cmake'].filter((command) => !which(command))
      return missing.length === 0 ? tidy(quietly) : skipped(`no ${missing.join(', no ')}`)
    }),
    check('sanitized build', () => (which('cmake') ? instrumentedBuild(quietly) : skipped('no cmake'))),
    check('parsers, fuzzed', () => {
      const can = which('clang++-19') && existsSync('/usr/lib/llvm-19/lib/clang/19/lib/linux')
      return can ? fuzz({ seconds: FUZZ_SECONDS }) : skipped('no clang++-19 with libFuzzer')
    }),
  ])

  const noVolumes = whyNoVolumes()
  if (noVolumes) console.log(yellow(bold(`\n  TESTS ON REAL VOLUMES ARE SKIPPED: ${noVolumes}\n`)))
  await check('real volumes', () => (noVolumes ? skipped(noVolumes) : {}))

  let coverageOk = false
  const summary = at('coverage/coverage-summary.json')
  rmSync(summary, { force: true })
  await check('tests', () => {
    const run = vitest('tests', ['--coverage', ...(noVolumes ? ['--coverage.thresholds.lines=0'] : [])])
    coverageOk = existsSync(summary) && linesPercent(summary) >= SRC_LINES_PERCENT
    const failed = !run.ok || (run.status !== 0 && coverageOk)
    return { status: failed ? 'failed' : 'passed', detail: run.detail }
  })
  await check(`lines of src ≥ ${SRC_LINES_PERCENT} %`, () => {
    if (noVolumes) return skipped('needs real volumes')
    if (!existsSync(summary)) throw new Error('not measured: tests failed')
    return { status: coverageOk ? 'passed' : 'failed', detail: `${linesPercent(summary)} %` }
  })

  if (!instrumented) return finish()
  await check('tests, ASan + UBSan + LSan', () => {
    const directories = NATIVE_TESTS.filter((directory) => existsSync(at(directory)))
    const config = ['--config', 'test/helpers/instrumented.config.ts', '--root', root]
    const run = vitest('sanitized', [...config, ...directories], instrumentedEnvironment())
    const reports = sanitizerReports()
    const failed = !run.ok || run.status !== 0 || reports.length > 0
    const detail = `${run.detail}, ${reports.length} reports`
    return { status: failed ? 'failed' : 'passed', detail, output: reports.join('\n\n') }
  })
  await check(`lines of native ≥ ${NATIVE_LINES_PERCENT} %`, async () => {
    if (!which('gcovr')) return skipped('no gcovr')
    const { percent, files } = await nativeCoverage(quietly)
    if (noVolumes) return skipped(`${percent} %, but it needs real volumes`)
    return { status: percent >= NATIVE_LINES_PERCENT ? 'passed' : 'failed', detail: `${percent} %`, output: files }
  })
  finish()
}

const linesPercent = (summary) => JSON.parse(readFileSync(summary, 'utf8')).total.lines.pct

await main()
