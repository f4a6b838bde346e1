import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const script = fileURLToPath(new URL('./child.ts', import.meta.url))

export interface Ended {
  readonly code: number | null
  readonly signal: string | null
  /** The JSON line that it printed. */
  readonly said: unknown
  readonly stderr: string
}

/** Starts one of child.ts's programs. */
export function startChild(program: string, path: string) {
  const child: ChildProcess = spawn(process.execPath, ['--import', 'tsx', '--expose-gc', script, program, path], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  const firstLine = new Promise<string>((resolve) => {
    child.stdout?.on('data', (data) => {
      stdout += data
      if (stdout.includes('\n')) resolve(stdout)
    })
  })
  child.stderr?.on('data', (data) => {
    stderr += data
  })
  const ended = new Promise<Ended>((resolve) =>
    child.once('close', (code, signal) =>
      resolve({ code, signal, said: stdout === '' ? undefined : JSON.parse(stdout), stderr }),
    ),
  )
  return { child, firstLine, ended }
}
