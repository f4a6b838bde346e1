import type { NativeHandle } from './handle.js'

/** A page of items: of each transid, objectid, offset (8 bytes each), type, length (4 each), and the data. */
export interface NativeTreePage {
  bytes: Uint8Array<ArrayBuffer>
  items: number
}

/** native/ops/tree.cpp */
export interface TreeNative {
  /** `keys`: the first and the last, both included, each objectid, type, offset. */
  treeSearch(
    ticket: number,
    handle: NativeHandle,
    tree: bigint,
    ...keysAndSince: [bigint, number, bigint, bigint, number, bigint, since: bigint]
  ): Promise<NativeTreePage>
}
