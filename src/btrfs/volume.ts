import { resolve } from 'node:path'
import { BtrfsError, BtrmindError } from '../errors.js'
import { type NativeHandle, native } from '../native.js'
import { type CallContext, type CallOptions, call } from './call.js'

/** What each family of functions gets: the open descriptor and who holds it. Internal. */
export class Volume {
  readonly #pending = new Set<Promise<unknown>>()
  readonly #stop = new AbortController()

  constructor(
    readonly handle: NativeHandle,
    readonly path: string,
    readonly uuid: string,
  ) {}

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
  call<T>(
    operation: string,
    context: CallContext,
    options: CallOptions | undefined,
    start: (ticket: number) => Promise<T>,
  ): Promise<T> {
    return this.track(this.#call(operation, { path: this.path, ...context }, options, start))
  }

  async #call<T>(...args: Parameters<typeof call<T>>): Promise<T> {
    try {
      return await call(...args)
    } catch (error) {
      if (!(error instanceof BtrfsError) || error.code !== 'EXDEV' || error.ioctl !== undefined) throw error
      const message = `'${error.path}' is not on volume ${this.uuid}`
      throw new BtrmindError('BTRMIND_ERR_WRONG_VOLUME', message, { cause: error })
    }
  }

  track<T>(work: Promise<T>): Promise<T> {
    this.#pending.add(work)
    const done = () => this.#pending.delete(work)
    work.then(done, done)
    return work
  }

  async close(): Promise<void> {
    this.#stop.abort()
    native.close(this.handle)
    await Promise.allSettled(this.#pending)
  }
}
