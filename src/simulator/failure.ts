import { constants } from 'node:os'
import { BtrfsError } from '../errors.js'

const TEXTS = {
  EBADF: 'Bad file descriptor',
  ECANCELED: 'Operation canceled',
  EEXIST: 'File exists',
  EINPROGRESS: 'Operation now in progress',
  EINVAL: 'Invalid argument',
  EISDIR: 'Is a directory',
  ELOOP: 'Too many levels of symbolic links',
  ENOENT: 'No such file or directory',
  ENOSPC: 'No space left on device',
  ENOTCONN: 'Transport endpoint is not connected',
  ENOTDIR: 'Not a directory',
  ENOTEMPTY: 'Directory not empty',
  EOPNOTSUPP: 'Operation not supported',
  EROFS: 'Read-only file system',
  ESTALE: 'Stale file handle',
} as const

/** What the kernel would have answered. */
export function failure(
  code: keyof typeof TEXTS,
  operation: string,
  context: { path?: string | undefined; dest?: string; progress?: unknown } = {},
): BtrfsError {
  const errno = -constants.errno[code]
  return new BtrfsError(operation, { code, errno, text: TEXTS[code], ...context })
}
