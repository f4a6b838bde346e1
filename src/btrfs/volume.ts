import { setMaxListeners } from 'node:events'
import { resolve } from 'node:path'
import { setImmediate, setTimeout as sleep } from 'node:timers/promises'
import { BtrfsError, BtrmindError } from '../errors.js'
import { type NativeHandle, native } from '../native.js'
import { type CallContext, type CallOptions, call, nextTicket } from './call.js'

/** That close() waits for calls that nobody waits for any more. */
const LINGER_MS = 250

/** What each family of functions gets: the open descriptor and who holds it. Internal. */
export class Volume {
  #inFlight = 0
  readonly #closing: (() => void)[] = []
  readonly #stop = new AbortController()

  constructor(
    readonly handle: NativeHandle,
    readonly path: string,
    readonly uuid: string,
    /** Of another, which holds the descriptor as well. */
    private readonly isShare = false,
  ) {
    setMaxListeners(0, this.#stop.signal)
  }

  /** A path that the caller gave: absolute, or relative to the directory that was opened. */
  resolve(path: string): string {
    return resolve(this.path, path)
  }

  /** Aborted by close(): long operations hang their cancel on it. */
  get closing(): AbortSignal {
    return this.#stop.signal
  }

  /**
   * As `call`, and close() waits for it. Where the addon found a path on another volume (EXDEV of its own, of no ioctl),
   * everybody hears it as what it is.
   */
  async call<T>(
    operation: string,
    context: CallContext,
    options: CallOptions | undefined,
    start: (ticket: number) => Promise<T>,
  ): Promise<T> {
    this.#inFlight++
    try {
      return await call(operation, { path: this.path, ...context }, options, start)
    } catch (error) {
      if (!(error instanceof BtrfsError) || error.code !== 'EXDEV' || error.ioctl !== undefined) throw error
      const message = `'${error.path}' is not on volume ${this.uuid}`
      throw new BtrmindError('BTRMIND_ERR_WRONG_VOLUME', message, { cause: error })
    } finally {
      this.#landed()
    }
  }

  /** As `call`, for what may take hours: close() cancels it. */
  callLong<T>(
    operation: string,
    context: CallContext,
    options: CallOptions | undefined,
    start: (ticket: number) => Promise<T>,
  ): Promise<T> {
    return this.call(operation, context, options, async (given) => {
      const ticket = given === 0 ? nextTicket() : given
      const cancel = () => native.cancel(ticket)
      this.closing.addEventListener('abort', cancel)
      try {
        return await start(ticket)
      } finally {
        this.closing.removeEventListener('abort', cancel)
      }
    })
  }

  /** close() waits for it. Awaited here and nowhere else, so that an error's stack leads on to the caller. */
  async track<T>(work: Promise<T>): Promise<T> {
    this.#inFlight++
    try {
      return await work
    } finally {
      this.#landed()
    }
  }

  /** The same volume, open until its own close(): for what must be put right also after close() of this one. */
  share(operation: string): Promise<Volume> {
    return this.call(operation, {}, undefined, async () => {
      return new Volume(native.share(this.handle), this.path, this.uuid, true)
    })
  }

  #landed(): void {
    if (--this.#inFlight === 0) for (const resolve of this.#closing.splice(0)) resolve()
  }

  async close(): Promise<void> {
    this.#stop.abort()
    const isHeld = native.close(this.handle)
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => this.#closing.push(resolve))
      await setImmediate() // their callers hear of it first
    }
    if (this.isShare) return
    // A call that was aborted may still be in the kernel; not for ever, since the disk may hang.
    for (const until = performance.now() + LINGER_MS; isHeld() && performance.now() < until; ) await sleep(1)
    // What they bring home is dropped when it arrives: by the second turn of the event loop.
    for (let turn = 0; turn < 2; turn++) await setImmediate()
  }
}
