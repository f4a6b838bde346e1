/** Runs command lines in this process, so that their coverage counts. */
import { spawnSync } from 'node:child_process'
import { Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { main } from '../../src/cli/main.js'
import type { Io } from '../../src/cli/output.js'

export interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

function collector(isTTY: boolean, onText: (text: string) => void) {
  const stream = new Writable({
    write(chunk, _encoding, done) {
      onText(String(chunk))
      done()
    },
  })
  return Object.assign(stream, { isTTY })
}

export async function btrmind(
  argv: readonly string[],
  { isTTY = false, signal = new AbortController().signal, onOut = (_: string) => {}, onErr = (_: string) => {} } = {},
): Promise<Ran> {
  let out = ''
  let err = ''
  const io: Io = {
    stdout: collector(isTTY, (text) => {
      out += text
      onOut(text)
    }),
    stderr: collector(isTTY, (text) => {
      err += text
      onErr(text)
    }),
    signal,
  }
  const code = await main(argv, io)
  return { code, out, err }
}

export const jsonLines = (text: string): unknown[] =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown)

/** In a process of its own, as uid 65534. */
export const asNobody = (...argv: string[]) =>
  spawnSync(process.execPath, ['--import', 'tsx', NOBODY, ...argv], { encoding: 'utf8' })
const NOBODY = fileURLToPath(new URL('../helpers/cli-as-nobody.ts', import.meta.url))
