/** A peer that lives in Python: its interpreter and its imports are there before the clock runs. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { run } from '../test/helpers/volume.js'

const PYTHON = '/usr/bin/python3'

/** Why `module` cannot be had; undefined when it can. */
export function cannotImport(module: string): string | undefined {
  try {
    run(PYTHON, '-c', `import ${module}`)
    return undefined
  } catch (error) {
    return `not installed: ${(error as Error).message.trim().split('\n').at(-1)}`
  }
}

export interface PythonPeer extends AsyncDisposable {
  /** Runs the expression once. */
  ask(): Promise<void>
  /** What each took inside Python, in seconds. */
  readonly seconds: readonly number[]
}

/** @param expression is what is timed, after the statements of `before`; `path` is at hand to both */
export function pythonPeer(path: string, before: string, expression: string): PythonPeer {
  const script = `
import sys, time
path = sys.argv[1]
${before}
for line in sys.stdin:
    start = time.perf_counter()
    result = ${expression}
    print(time.perf_counter() - start, flush=True)
    del result
`
  const python = spawn(PYTHON, ['-c', script, path], { stdio: ['pipe', 'pipe', 'inherit'] })
  const exit = once(python, 'exit')
  const answers = createInterface({ input: python.stdout })[Symbol.asyncIterator]()
  const seconds: number[] = []
  return {
    seconds,
    async ask() {
      python.stdin.write('\n')
      const { value, done } = await answers.next()
      if (done) throw new Error(`python3 ended while it was asked for ${expression}`)
      seconds.push(Number(value))
    },
    async [Symbol.asyncDispose]() {
      python.stdin.end()
      await exit
    },
  }
}
