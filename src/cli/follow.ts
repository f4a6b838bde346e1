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
