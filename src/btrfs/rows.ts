/** Rows that come in one go and are unpacked one by one, as the caller asks for them. */

/** An async generator would do the same at several times the cost of a row. */
export class Rows<Row> implements AsyncIterableIterator<Row> {
  #load: (() => Promise<Iterator<Row>>) | undefined
  #rows: Iterator<Row> | undefined

  /** @param load is called when the first row is asked for */
  constructor(load: () => Promise<Iterator<Row>>) {
    this.#load = load
  }

  next(): Promise<IteratorResult<Row>> {
    if (this.#rows !== undefined) return Promise.resolve(this.#rows.next())
    return this.#first()
  }

  async #first(): Promise<IteratorResult<Row>> {
    const load = this.#load
    if (load === undefined) return { done: true, value: undefined }
    this.#load = undefined
    this.#rows = await load()
    return this.#rows.next()
  }

  async return(): Promise<IteratorResult<Row>> {
    this.#load = undefined
    this.#rows = undefined
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}
