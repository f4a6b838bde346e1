export interface Range {
  readonly offset: number
  readonly length: number
}

/** What is free of a stretch: of a device, of a block group. Sorted by offset; no two holes touch. */
export class Holes {
  #holes: Range[]
  #largest: Range | undefined

  constructor(offset: number, length: number) {
    this.#holes = length > 0 ? [{ offset, length }] : []
  }

  /** The first of the largest; of length 0 where nothing is free. */
  get largest(): Range {
    if (this.#largest === undefined) {
      let best: Range = { offset: 0, length: 0 }
      for (const hole of this.#holes) if (hole.length > best.length) best = hole
      this.#largest = best
    }
    return this.#largest
  }

  /** The first that holds so much, of those at or after `from`. */
  firstFit(length: number, from = 0): Range | undefined {
    for (let at = this.#after(from); at < this.#holes.length; at++) {
      if (this.#holes[at]!.length >= length) return this.#holes[at]
    }
    return undefined
  }

  /** The beginning of a hole is free no more. */
  take({ offset }: Range, length: number): Range {
    const at = this.#after(offset)
    const hole = this.#holes[at]
    if (hole?.offset !== offset || hole.length < length) throw new RangeError(`${length} at ${offset} are not free`)
    const left = hole.length - length
    if (left > 0) this.#holes[at] = { offset: offset + length, length: left }
    else this.#holes.splice(at, 1)
    if (this.#largest === hole) this.#largest = undefined
    return { offset, length }
  }

  give({ offset, length }: Range): void {
    const at = this.#after(offset)
    const before = this.#holes[at - 1]
    const after = this.#holes[at]
    const joinsBefore = before !== undefined && before.offset + before.length === offset
    const joinsAfter = after !== undefined && offset + length === after.offset
    const hole = {
      offset: joinsBefore ? before.offset : offset,
      length: length + (joinsBefore ? before.length : 0) + (joinsAfter ? after.length : 0),
    }
    this.#holes.splice(at - Number(joinsBefore), Number(joinsBefore) + Number(joinsAfter), hole)
    this.#largest = undefined
  }

  /** Index of the first hole at or after `offset`. */
  #after(offset: number): number {
    let low = 0
    let high = this.#holes.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#holes[middle]!.offset < offset) low = middle + 1
      else high = middle
    }
    return low
  }
}
