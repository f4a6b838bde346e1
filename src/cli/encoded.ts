/** encoded: a file's data as it lies on disk, as a stream that other programs can read too. */
import { once } from 'node:events'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { resolve } from 'node:path'
import { addAbortSignal, type Readable } from 'node:stream'
import { crc32 } from 'node:zlib'
import type { EncodedData } from '../btrfs/encoded.js'
import type { KernelFilesystem } from '../btrfs/filesystem.js'
import { BtrfsError, BtrmindError, quote } from '../errors.js'
import { formatBytes } from '../units.js'
import { type Io, printJson } from './output.js'
import { failed, openAbove, openVolumeOf } from './place.js'

const FORMAT = 'btrmind-encoded-1'
const MOST_BYTES = 128 * 1024
const ZEROS = Buffer.alloc(MOST_BYTES)

/** Lines of JSON; behind that of a piece its data, `bytes` long. */
interface Head {
  readonly format: string
  readonly sectorSizeBytes: number
}
interface Piece extends Omit<EncodedData, 'data'> {
  readonly bytes: number
  readonly crc32: number
}
interface End {
  readonly sizeBytes: number
  readonly pieces: number
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
  const line = (value: Head | Piece | End) => write(`${JSON.stringify(value)}\n`)
  const { sectorSizeBytes } = await fs.info({ signal: io.signal })
  let [sizeBytes, pieces] = [0, 0]
  for await (const { data: all, ...piece } of fs.readEncoded(target, { signal: io.signal })) {
    // A file that cannot be read has nothing before its error.
    if (pieces++ === 0) await line({ format: FORMAT, sectorSizeBytes })
    const hole = piece.compression === 'none' && ZEROS.subarray(0, all.length).equals(all)
    const data = hole ? new Uint8Array() : all
    await line({ ...piece, bytes: data.length, crc32: crc32(data) })
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
    if (json) printJson(io, { path: target, ...end })
    else io.stdout.write(`${formatBytes(end.sizeBytes)} in ${end.pieces} pieces\n`)
  } finally {
    source.destroy()
  }
}

async function make(io: Io, fs: KernelFilesystem, stream: Stream, target: string): Promise<End> {
  const head = await stream.line<Head>()
  const { sectorSizeBytes } = await fs.info({ signal: io.signal })
  if (head.format !== FORMAT) throw stream.bad(`is none of \`encoded read\`: it begins with ${quote(head.format)}`)
  if (head.sectorSizeBytes !== sectorSizeBytes)
    throw stream.bad(`is of sectors of ${head.sectorSizeBytes} bytes; this volume has ${sectorSizeBytes}`)
  const file = await opened(target, 'wx')
  try {
    const end = await pour(io, fs, stream, target, file)
    await file.truncate(end.sizeBytes)
    await file.sync()
    return end
  } catch (error) {
    await rm(target, { force: true })
    throw (error as NodeJS.ErrnoException).syscall === undefined ? error : failed('encoded write', error, target)
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

async function pour(io: Io, fs: KernelFilesystem, stream: Stream, target: string, file: FileHandle): Promise<End> {
  for (let pieces = 0; ; pieces++) {
    const next = await stream.line<Piece | End>()
    if (!('bytes' in next)) {
      if (next.pieces !== pieces) throw stream.bad(`has ${pieces} pieces; its end says ${next.pieces}`)
      return next
    }
    const { bytes, crc32: sum, encryption: _, compression, ...piece } = next
    const data = await stream.bytes(bytes)
    // The kernel does not look: what does not unpack would be found when somebody reads the file.
    if (crc32(data) !== sum) throw stream.bad(`is damaged: the piece at ${piece.startBytes} has another checksum`)
    if (compression !== 'none') await fs.writeEncoded(target, { ...piece, compression, data, signal: io.signal })
    else await writeAll(file, data, piece.startBytes)
  }
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

  async line<T>(): Promise<T> {
    let end = this.#rest.indexOf(10)
    for (; end < 0 && this.#rest.length < 4096; end = this.#rest.indexOf(10)) await this.#more()
    const text = this.#rest.subarray(0, Math.max(0, end)).toString()
    this.#rest = this.#rest.subarray(end + 1)
    try {
      return JSON.parse(text) as T
    } catch {
      throw this.bad(`is none of \`encoded read\`, or damaged: no JSON where it should be`)
    }
  }

  async bytes(count: number): Promise<Buffer> {
    if (!(count >= 0 && count <= MOST_BYTES)) throw this.bad(`is damaged: a piece of ${quote(count)} bytes`)
    while (this.#rest.length < count) await this.#more()
    const data = this.#rest.subarray(0, count)
    this.#rest = this.#rest.subarray(count)
    return data
  }

  async #more(): Promise<void> {
    const { value, done } = await this.#chunks.next()
    if (done) throw this.bad('ends too early')
    this.#rest = Buffer.concat([this.#rest, value])
  }
}
