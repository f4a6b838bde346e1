import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'

it('.ci/run is npm test with nothing skipped, whatever its host says', () => {
  const directory = mkdtempSync(join(tmpdir(), 'btrmind-ci-'))
  try {
    writeFileSync(join(directory, 'npm'), '#!/bin/sh\necho "CI=$CI npm $*"\n', { mode: 0o755 })
    const PATH = `${directory}:/usr/bin:/bin`
    expect(execFileSync('bash', ['.ci/run'], { env: { PATH, CI: '' }, encoding: 'utf8' })).toBe('CI=true npm test\n')
  } finally {
    rmSync(directory, { recursive: true })
  }
})
