/** encoded: a file's data as it lies on disk, as a stream that other programs can read too. */
import { once } from 'node:events'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { resolve } from 'node:path'
import { addAbortSignal, type Readable } from 'node:stream'
import { crc32 } from 'node:zlib'
import * as v from 'valibot'
import { ENCODINGS } from '../btrfs/encoded.js'
import type { KernelFilesystem } from '../btrfs/filesystem.js'
import { BtrfsError, BtrmindError, quote } from '../errors.js'
import { formatBytes } from '../units.js'
import { type Io, printJson } from './output.js'
import { failed, openAbove, openVolumeOf } from './place.js'

const FORMAT = 'btrmind-encoded-1'
const MOST_BYTES = 128 * 1024
const ZEROS = Buffer.alloc(MOST_BYTES)
const NO_DATA = new Uint8Array()

const whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const upTo = (most: number, least = 0) => v.pipe(whole, v.minValue(least), v.maxValue(most))
/**
 * Lines of JSON; behind that of a piece its data, `bytes` long. Each `crc32` is of all the records up to there: of each
 * line without its `crc32` and its newline, and of the data behind it.
 */
const headRecord = v.strictObject({ format: v.literal(FORMAT), sectorSizeBytes: whole })
const pieceRecord = v.strictObject({
  startBytes: whole,
  lengthBytes: upTo(MOST_BYTES, 1),
  unencodedLengthBytes: upTo(MOST_BYTES, 1),
  unencodedOffsetBytes: upTo(MOST_BYTES),
  compression: v.picklist(ENCODINGS),
  encryption: v.literal('none'),
  /** 0: zeros. */
  bytes: upTo(MOST_BYTES),
  crc32: upTo(0xffff_ffff),
})
const endRecord = v.strictObject({ sizeBytes: whole, pieces: whole, crc32: upTo(0xffff_ffff) })
type End = v.InferOutput<typeof endRecord>

function sumOf(line: object, data: Uint8Array, before: number): number {
  const { crc32: _, ...record } = line as { readonly crc32?: number }
  const sum = crc32(JSON.stringify(record), before)
  return data.length === 0 ? sum : crc32(data, sum) // of nothing it is 0, whatever was before
}

export async function read(io: Io, path: string, { json }: { readonly json?: boolean }): Promise<void> {
  if (io.stdout.isTTY === true && !json) {
    const hint = 'send them into a file or a pipe, or use --json'
    throw new BtrmindError('BTRMIND_ERR_ARGUMENT', 'bytes are not for a terminal', { hint })
  }
  const { fs, target } = await openVolumeOf(io, path)
  await using _ = fs
  const write = async (chunk: string | Uint8Array) => {
    if (!io.stdout.write(chunk)) await once(io.stdout, 'drain', { signal: io.signal })
  }
  const { sectorSizeBytes } = await fs.info({ signal: io.signal })
  let [sizeBytes, pieces, sum] = [0, 0, 0]
  const line = async (record: object, data: Uint8Array = NO_DATA) => {
    sum = sumOf(record, data, sum)
    await write(`${JSON.stringify('format' in record ? record : { ...record, crc32: sum })}\n`)
  }
  for await (const { data: all, ...piece } of fs.readEncoded(target, { signal: io.signal })) {
    // A file that cannot be read has nothing before its error.
    if (pieces++ === 0) await line({ format: FORMAT, sectorSizeBytes })
    const hole = piece.compression === 'none' && ZEROS.subarray(0, all.length).equals(all)
    const data = hole ? NO_DATA : all
    await line({ ...piece, bytes: data.length }, data)
    if (!json) await write(data)
    sizeBytes = piece.startBytes + piece.lengthBytes
  }
  if (pieces === 0) await line({ format: FORMAT, sectorSizeBytes })
  await line({ sizeBytes, pieces })
}

export async function write(
  io: Io,
  path: string,
  { input, json }: { readonly input?: string; readonly json?: boolean },
): Promise<void> {
  const target = resolve(path)
  await using fs = await openAbove(io, target)
  const source: Readable = input === undefined ? process.stdin : (await opened(input, 'r')).createReadStream()
  addAbortSignal(io.signal, source)
  try {
    const end = await make(io, fs, new Stream(source, input ?? 'standard input'), target)
    const { sizeBytes, pieces } = end
    if (json) printJson(io, { path: target, sizeBytes, pieces })
    else io.stdout.write(`${formatBytes(sizeBytes)} in ${pieces} pieces\n`)
  } finally {
    source.destroy()
  }
}

async function make(io: Io, fs: KernelFilesystem, stream: Stream, target: string): Promise<End> {
  const given = await stream.line()
  const { format } = Object(given) as { format?: unknown }
  if (format !== FORMAT) throw stream.bad(`is none of \`encoded read\`: its format is ${quote(format)}`)
  const head = stream.checked('its first line', headRecord, given)
  const { sectorSizeBytes } = await fs.info({ signal: io.signal })
  if (head.sectorSizeBytes !== sectorSizeBytes)
    throw stream.bad(`is of sectors of ${head.sectorSizeBytes} bytes; this volume has ${sectorSizeBytes}`)
  const file = await opened(target, 'wx')
  try {
    const end = await pour(io, fs, stream, target, file, sumOf(head, NO_DATA, 0))
    await file.truncate(end.sizeBytes)
    await file.sync()
    return end
  } catch (error) {
    await rm(target, { force: true })
    throw named(error, target)
  } finally {
    await file.close()
  }
}

async function opened(path: string, flags: 'r' | 'wx'): Promise<FileHandle> {
  try {
    return await open(path, flags)
  } catch (error) {
    throw failed('encoded write', error, path)
  }
}

async function pour(
  io: Io,
  fs: KernelFilesystem,
  stream: Stream,
  target: string,
  file: FileHandle,
  head: number,
): Promise<End> {
  for (let [pieces, at, sum] = [0, 0, head]; ; pieces++) {
    const given = await stream.line()
    if (!('bytes' in Object(given))) {
      const end = stream.checked('its end', endRecord, given)
      if (end.pieces !== pieces) throw stream.bad(`has ${pieces} pieces; its end says ${end.pieces}`)
      if (end.sizeBytes !== at) throw stream.bad(`has ${at} bytes; its end says ${end.sizeBytes}`)
      if (end.crc32 !== sumOf(end, NO_DATA, sum)) throw stream.bad('is damaged: its end has another checksum')
      await stream.end()
      return end
    }
    const record = stream.checked(`the piece at ${at}`, pieceRecord, given)
    const { bytes, crc32: sumGiven, encryption: _, compression, ...piece } = record
    if (piece.startBytes !== at) throw stream.bad(`is damaged: the piece at ${at} says ${piece.startBytes}`)
    if (compression === 'none' ? bytes !== 0 && bytes !== piece.lengthBytes : bytes === 0)
      throw stream.bad(`is damaged: the piece at ${at}, of ${piece.lengthBytes} bytes, has ${bytes}`)
    const data = await stream.bytes(bytes)
    // The kernel does not look: what does not unpack would be found when somebody reads the file.
    sum = sumOf(Object(given), data, sum)
    if (sumGiven !== sum) throw stream.bad(`is damaged: the piece at ${at} has another checksum`)
    if (compression !== 'none') await fs.writeEncoded(target, { ...piece, compression, data, signal: io.signal })
    else await writeAll(file, data, at)
    at += piece.lengthBytes
  }
}

/** What Node says of a file, in the form of the others. */
function named(error: unknown, path: string): unknown {
  const raw = error instanceof Error && !(error instanceof BtrfsError) && 'errno' in error
  return raw ? failed('encoded write', error, path) : error
}

/** A quota or a full volume may take a part, and refuse only the rest. */
async function writeAll(file: FileHandle, data: Uint8Array, startBytes: number): Promise<void> {
  for (let done = 0; done < data.length; ) {
    const { bytesWritten } = await file.write(data, done, data.length - done, startBytes + done)
    done += bytesWritten
  }
}

/** Lines and bytes, one behind the other. */
class Stream {
  readonly #chunks: AsyncIterator<Buffer>
  #rest = Buffer.alloc(0)
  constructor(
    source: Readable,
    readonly name: string,
  ) {
    this.#chunks = source[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  }

  bad(text: string): BtrfsError {
    return new BtrfsError('encoded write', { code: 'EBADMSG', errno: -74, text: `${quote(this.name)} ${text}` })
  }

  async line(): Promise<unknown> {
    let end = this.#rest.indexOf(10)
    for (; end < 0 && this.#rest.length < 4096; end = this.#rest.indexOf(10)) await this.#more()
    const text = this.#rest.subarray(0, Math.max(0, end)).toString()
    this.#rest = this.#rest.subarray(end + 1)
    try {
      return JSON.parse(text)
    } catch {
      throw this.bad(`is none of \`encoded read\`, or damaged: no JSON where it should be`)
    }
  }

  /** The line, if it is what it should be. */
  checked<const S extends v.GenericSchema>(what: string, schema: S, line: unknown): v.InferOutput<S> {
    const parsed = v.safeParse(schema, line, { abortEarly: true })
    if (parsed.success) return parsed.output
    const { path, input } = parsed.issues[0]
    const where = path === undefined ? '' : ` '${path.map(({ key }) => String(key)).join('.')}'`
    throw this.bad(`is damaged: ${what} says${where} ${quote(input)}`)
  }

  async end(): Promise<void> {
    if (this.#rest.length > 0 || (await this.#next()) !== undefined) throw this.bad('goes on after its end')
  }

  async bytes(count: number): Promise<Buffer> {
    while (this.#rest.length < count) await this.#more()
    const data = this.#rest.subarray(0, count)
    this.#rest = this.#rest.subarray(count)
    return data
  }

  async #more(): Promise<void> {
    const chunk = await this.#next()
    if (chunk === undefined) throw this.bad('ends too early')
    this.#rest = Buffer.concat([this.#rest, chunk])
  }

  async #next(): Promise<Buffer | undefined> {
    try {
      const { value, done } = await this.#chunks.next()
      return done ? undefined : value
    } catch (error) {
      throw named(error, this.name)
    }
  }
}
