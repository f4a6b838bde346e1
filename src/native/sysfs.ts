import type { NativeHandle } from './handle.js'

/** native/ops/sysfs.cpp: attributes below /sys/fs/btrfs/<uuid> */
export interface SysfsNative {
  /** Names one a line; of each its text, or the name of the errno. */
  sysfsRead(
    ticket: number,
    handle: NativeHandle,
    names: string,
  ): Promise<{ texts: (string | undefined)[]; codes: (string | undefined)[] }>
  sysfsWrite(ticket: number, handle: NativeHandle, name: string, text: string): Promise<void>
}
