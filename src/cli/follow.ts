import type { Operation } from '../btrfs/operation.js'
import type { Io } from './output.js'

/** The result; until then its progress on one line of a terminal, which is gone at the end. */
export async function follow<Progress, Result>(
  io: Io,
  operation: Operation<Progress, Result>,
  line: (progress: Progress) => string,
  { json = false }: { readonly json?: boolean | undefined } = {},
): Promise<Result> {
  if (io.stderr.isTTY !== true || json) return operation.result
  try {
    for await (const progress of operation) io.stderr.write(`\r${line(progress)}\u001b[K`)
    return await operation.result
  } finally {
    io.stderr.write('\r\u001b[K')
  }
}

/**
 * As follow(), for work of which what is done stays done: stopped, it gives how far it came, and by whom.
 * @param field of the progress, by which it is told from what other errors carry
 */
export async function followUntilStopped<Progress extends object, Result extends object>(
  io: Io,
  operation: Operation<Progress, Result>,
  line: (progress: Progress) => string,
  field: keyof Progress,
  options?: { readonly json?: boolean | undefined },
): Promise<{ readonly last: Progress | Result; readonly cut?: 'here' | 'elsewhere' }> {
  try {
    return { last: await follow(io, operation, line, options) }
  } catch (error) {
    const { code, progress } = error as { code?: string; progress?: Progress }
    if (code !== 'ECANCELED' || progress?.[field] === undefined) throw error
    return { last: progress, cut: io.signal.aborted ? 'here' : 'elsewhere' }
  }
}
