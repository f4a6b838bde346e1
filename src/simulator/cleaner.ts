import type { Node, Nodes, SubvolumeRecord } from './tree.js'

const ROOT_NODE_BYTES = 16_384

/** The kernel's cleaner thread: drops deleted subvolumes node by node, in the time that the clock gives it. */
export class Cleaner {
  /** Oldest first; `left` is what is still to drop of each. */
  readonly #queue: { readonly record: SubvolumeRecord; readonly left: Node[] }[] = []
  #awake = false
  #credit = 0
  #atMs: number
  readonly #nodes: Nodes
  readonly #nodesPerSecond: number
  constructor(nodes: Nodes, nodesPerSecond: number, nowMs: number) {
    this.#nodes = nodes
    this.#nodesPerSecond = nodesPerSecond
    this.#atMs = nowMs
  }

  add(record: SubvolumeRecord): void {
    this.#queue.push({ record, left: [record.root] })
  }
  /** A commit does this; until then a deletion only waits. */
  wake(): void {
    this.#awake = this.#queue.length > 0
  }
  isDone(record: SubvolumeRecord): boolean {
    return !this.#queue.some((deleted) => deleted.record === record)
  }

  runUntil(ms: number): void {
    const passedMs = ms - this.#atMs
    this.#atMs = ms
    if (!this.#awake || passedMs <= 0) return
    this.#credit += (passedMs / 1000) * this.#nodesPerSecond
    while (this.#queue.length > 0 && this.#credit >= 1) {
      const { left } = this.#queue[0]!
      this.#credit -= this.#nodes.dropAll(left, Math.floor(this.#credit))
      if (left.length > 0) return
      this.#queue.shift()
      this.#nodes.space.shrinkMetadata(ROOT_NODE_BYTES)
    }
    if (this.#queue.length === 0) {
      this.#awake = false
      this.#credit = 0
    }
  }
}
