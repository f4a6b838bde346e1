/**
 * An append-only file of JSON lines, each proving itself by a checksum:
 * `{"crc32":"1c291ca3","record":{…}}`. A torn last line (power cut, full disk) is dropped; a file that is damaged
 * anywhere else is set aside, what still proves itself is carried over, and the caller is told.
 */
import { constants } from 'node:fs'
import { type FileHandle, link, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { crc32 } from 'node:zlib'
import { BtrmindError } from './errors.js'
import { openRegular, replaceFile, syncDirectory } from './files.js'

export interface JsonLinesOptions<T> {
  /** Tells a record from something else; what it refuses counts as damaged. */
  readonly isRecord: (value: unknown) => value is T
  /** Gets each record, oldest first, in place of `records`: a long file is then never in memory as a whole. */
  readonly onRecord?: (record: T) => void
  /** Past this size the file becomes `<path>.1` (replacing the one before) and a new one begins. Default 8 MiB. */
  readonly maxBytes?: number
}

export interface OpenedJsonLines<T> {
  readonly file: JsonLines<T>
  /** Oldest first, from `<path>.1` and `path`; empty with `onRecord`. */
  readonly records: T[]
  /** One sentence each: a torn line dropped, a damaged file set aside. Empty when all was well. */
  readonly problems: string[]
}

const HEAD = '{"crc32":"'
const MIDDLE = '","record":'
const HEAD_LENGTH = HEAD.length + 8 + MIDDLE.length

function checksum(text: string): string {
  return crc32(text).toString(16).padStart(8, '0')
}

/** One record as its line, with the newline. */
export function encodeLine(record: unknown): string {
  const text = JSON.stringify(record)
  return `${HEAD}${checksum(text)}${MIDDLE}${text}}\n`
}

function decodeLine(line: string): unknown {
  if (!line.startsWith(HEAD) || !line.endsWith('}')) return undefined
  const text = line.slice(HEAD_LENGTH, -1)
  if (line.slice(HEAD.length, HEAD_LENGTH) !== checksum(text) + MIDDLE) return undefined
  return JSON.parse(text) as unknown
}

/**
 * Opens the file, or makes it (mode 0600); reads what is there.
 * @throws BtrmindError BTRMIND_ERR_STATE when it cannot be read or written
 */
export async function openJsonLines<T>(path: string, options: JsonLinesOptions<T>): Promise<OpenedJsonLines<T>> {
  const { isRecord, maxBytes = 8 * 1024 ** 2 } = options
  const records: T[] = []
  const onRecord = options.onRecord ?? ((record: T) => records.push(record))
  try {
    const older = await load(`${path}.1`, isRecord, onRecord)
    const newer = await load(path, isRecord, onRecord)
    const problems = [...(await repair(`${path}.1`, older, isRecord)), ...(await repair(path, newer, isRecord))]
    const handle = await openRegular(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
    await handle.truncate(newer.goodBytes)
    await syncDirectory(dirname(path))
    return { file: new JsonLines<T>(path, handle, newer.goodBytes, maxBytes), records, problems }
  } catch (cause) {
    throw stateError(path, cause)
  }
}

/**
 * Reads without changing anything, also while another process writes: a line that does not prove itself is passed by.
 * @returns how many lines were passed by
 * @throws BtrmindError BTRMIND_ERR_STATE when it cannot be read
 */
export async function readJsonLines<T>(
  path: string,
  options: { readonly isRecord: (value: unknown) => value is T; readonly onRecord: (record: T) => void },
): Promise<{ readonly skippedLines: number }> {
  try {
    const older = await load(`${path}.1`, options.isRecord, options.onRecord)
    const newer = await load(path, options.isRecord, options.onRecord)
    return { skippedLines: older.damaged + newer.damaged + Number(older.torn) + Number(newer.torn) }
  } catch (cause) {
    throw stateError(path, cause)
  }
}

interface Loaded {
  /** Lines, blank or bad ones counted, without a torn last one. */
  readonly lines: number
  readonly damaged: number
  readonly torn: boolean
  readonly goodBytes: number
}

async function load<T>(
  path: string,
  isRecord: (value: unknown) => value is T,
  onRecord: (record: T, line: Buffer) => void,
): Promise<Loaded> {
  let lines = 0
  let damaged = 0
  let torn = false
  let goodBytes = 0
  for await (const { piece, whole } of readPieces(path)) {
    for (const line of piece) {
      if (torn) damaged++ // A bad line is torn only if it is the last one.
      torn = false
      lines++
      const record = whole ? decodeLine(line.toString()) : undefined
      if (record !== undefined && isRecord(record)) {
        onRecord(record, line)
        goodBytes += line.length + 1
      } else torn = true
    }
  }
  return { lines: torn ? lines - 1 : lines, damaged, torn, goodBytes }
}

/** Lines without their newlines; `whole` is false for a last one that has none. Nothing where there is no file. */
async function* readPieces(path: string): AsyncGenerator<{ piece: Buffer[]; whole: boolean }> {
  let file: FileHandle
  try {
    file = await openRegular(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  await using _closed = file
  let rest: Buffer = Buffer.alloc(0)
  for (;;) {
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(64 * 1024))
    if (bytesRead === 0) break
    const text = Buffer.concat([rest, buffer.subarray(0, bytesRead)])
    const piece: Buffer[] = []
    let from = 0
    for (let to = text.indexOf(10); to >= 0; to = text.indexOf(10, from)) {
      piece.push(text.subarray(from, to))
      from = to + 1
    }
    yield { piece, whole: true }
    rest = text.subarray(from)
  }
  if (rest.length > 0) yield { piece: [rest], whole: false }
}

/** Sets a damaged file aside and leaves its good lines in its place. One sentence for what was wrong. */
async function repair<T>(path: string, found: Loaded, isRecord: (value: unknown) => value is T): Promise<string[]> {
  if (found.damaged > 0) {
    const good: (string | Buffer)[] = []
    await load(path, isRecord, (_record, line) => good.push(line, '\n'))
    const aside = await setAside(path)
    await replaceFile(path, good)
    return [`'${path}' was damaged (${found.damaged} of ${found.lines} lines); it was set aside as '${aside}'`]
  }
  return found.torn ? [`'${path}' ended in a torn line, which was dropped`] : []
}

async function setAside(path: string): Promise<string> {
  for (let n = 1; ; n++) {
    const aside = `${path}.corrupt-${n}`
    try {
      await link(path, aside) // Never overwrites an earlier one; `path` is then replaced as a whole.
      return aside
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
  }
}

function stateError(path: string, cause: unknown): BtrmindError {
  if (cause instanceof BtrmindError) return cause
  return new BtrmindError('BTRMIND_ERR_STATE', `'${path}': ${(cause as Error).message}`, { cause })
}

/** See {@link openJsonLines}. Appends are serial; each is whole or not there. */
export class JsonLines<T> {
  #last: Promise<void> = Promise.resolve()
  #closed = false

  constructor(
    readonly path: string,
    private handle: FileHandle,
    private sizeBytes: number,
    private readonly maxBytes: number,
  ) {}

  /**
   * @param options.sync wait until it is on the disk (fdatasync). Default false.
   * @throws BtrmindError BTRMIND_ERR_STATE; `cause.code` is the errno name (ENOSPC on a full disk)
   */
  append(record: T, options: { readonly sync?: boolean } = {}): Promise<void> {
    const line = Buffer.from(encodeLine(record))
    const work = this.#last.then(() => this.#write(line, options.sync ?? false))
    this.#last = work.catch(() => undefined)
    return work
  }

  async #write(line: Buffer, sync: boolean): Promise<void> {
    if (this.#closed) throw new BtrmindError('BTRMIND_ERR_STATE', `'${this.path}' was closed`)
    try {
      // Whoever looks for it finds nothing, so it is no record.
      if ((await this.handle.stat()).nlink === 0) throw new Error('it was deleted while it was written to')
      if (this.sizeBytes > 0 && this.sizeBytes + line.length > this.maxBytes) await this.#rotate()
      try {
        let written = 0
        while (written < line.length) {
          written += (await this.handle.write(line, written, line.length - written, this.sizeBytes + written))
            .bytesWritten
        }
        if (sync) await this.handle.datasync()
      } catch (error) {
        // What was written of it would be a damaged line once the next one follows.
        await this.handle.truncate(this.sizeBytes).catch(() => undefined)
        throw error
      }
    } catch (cause) {
      throw stateError(this.path, cause)
    }
    this.sizeBytes += line.length
  }

  async #rotate(): Promise<void> {
    // The new file first: on a full disk it fails here, with the old one still in place.
    const next = await openRegular(`${this.path}.new`, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, 0o600)
    try {
      await this.handle.sync()
      await rename(this.path, `${this.path}.1`)
      await rename(`${this.path}.new`, this.path)
    } catch (error) {
      await next.close()
      throw error
    }
    await this.handle.close()
    this.handle = next
    this.sizeBytes = 0
    await syncDirectory(dirname(this.path))
  }

  /** Writes out and closes. Idempotent. */
  async close(): Promise<void> {
    await this.#last
    if (this.#closed) return
    this.#closed = true
    await this.handle.sync().catch(() => undefined)
    await this.handle.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
