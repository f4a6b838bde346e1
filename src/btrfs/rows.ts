/** Rows that come many at a time and are unpacked one by one, as the caller asks for them. */

/** An async generator would do the same at several times the cost of a row. */
export class Rows<Row> implements AsyncIterableIterator<Row, undefined, void> {
  readonly #load: () => Promise<Iterator<Row> | undefined>
  readonly #close: () => Promise<unknown> | undefined
  #rows: Iterator<Row> | undefined
  #ended = false
  #waiting = 0
  #last: Promise<unknown> = Promise.resolve()

  /**
   * @param load gives the next of them each time it is called; undefined: there are no more
   * @param close is called once, where the caller stops before that
   */
  constructor(
    load: () => Promise<Iterator<Row> | undefined>,
    close: () => Promise<unknown> | undefined = () => undefined,
  ) {
    this.#load = load
    this.#close = close
  }

  next(): Promise<IteratorResult<Row, undefined>> {
    const row = this.#waiting === 0 ? this.#rows?.next() : undefined
    if (row !== undefined && !row.done) return Promise.resolve(row)
    return this.#inTurn(() => this.#more())
  }

  return(): Promise<IteratorResult<Row, undefined>> {
    return this.#inTurn(async () => {
      const wasOpen = !this.#ended
      this.#end()
      if (wasOpen) await this.#close()
      return { done: true, value: undefined }
    })
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async #more(): Promise<IteratorResult<Row, undefined>> {
    while (!this.#ended) {
      const row = this.#rows?.next()
      if (row !== undefined && !row.done) return row
      try {
        this.#rows = await this.#load()
      } catch (error) {
        this.#end()
        throw error
      }
      if (this.#rows === undefined) this.#end()
    }
    return { done: true, value: undefined }
  }

  #end(): void {
    this.#ended = true
    this.#rows = undefined
  }

  /** As calls of a generator: one after the other. */
  async #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const before = this.#last
    // Not the step's own promise: only where nobody else waits for that does an error's stack go on to the caller.
    let end = () => {}
    this.#last = new Promise<void>((resolve) => {
      end = resolve
    })
    this.#waiting++
    await before
    try {
      return await step()
    } finally {
      this.#waiting--
      end()
    }
  }
}
