import type { NativeHandle } from './handle.js'

/** A balance to be started; opaque. */
export type NativeBalance = { readonly __balance: unique symbol }

export interface NativeBalanceProgress {
  expected: number
  considered: number
  completed: number
}

/** Filters of one type, 14 numbers: src/btrfs/balance-filters.ts names them. */
type Filters = Float64Array

export interface NativeBalanceStatus {
  state: 'running' | 'paused'
  force: boolean
  counters: NativeBalanceProgress
  data?: Filters
  metadata?: Filters
  system?: Filters
}

// native/ops/balance.cpp
export interface BalanceNative {
  /** No type: to be resumed. */
  balancePrepare(force: boolean, data?: Filters, metadata?: Filters, system?: Filters): NativeBalance
  /** Rejects with ECANCELED and the counters as `progress`. */
  balance(ticket: number, handle: NativeHandle, balance: NativeBalance): Promise<NativeBalanceProgress>
  balancePause(ticket: number, handle: NativeHandle, balance: NativeBalance): Promise<void>
  /** Whichever runs. Cancels also one that is paused. */
  balanceControl(ticket: number, handle: NativeHandle, pause: boolean): Promise<void>
  balanceStatus(ticket: number, handle: NativeHandle): Promise<NativeBalanceStatus | undefined>
}
