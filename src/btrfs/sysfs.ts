/** Attributes of the volume in /sys/fs/btrfs/<uuid>, several in one hop. */
import { reason } from '../errors.js'
import { native } from '../native.js'
import type { CallOptions } from './call.js'
import type { Unavailable } from './types.js'
import type { Volume } from './volume.js'

export class Attributes {
  readonly #values = new Map<string, string>()
  readonly #codes = new Map<string, string>()

  static async read(volume: Volume, operation: string, names: readonly string[], options: CallOptions) {
    const { texts, codes } = await volume.call(operation, {}, options, (ticket) =>
      native.sysfsRead(ticket, volume.handle, names.join('\n')),
    )
    const attributes = new Attributes()
    for (const [row, name] of names.entries()) {
      const text = texts[row]
      if (text === undefined) attributes.#codes.set(name, codes[row] ?? '')
      else attributes.#values.set(name, text.trimEnd())
    }
    return attributes
  }

  /** Undefined: this kernel has it not, or does not let it be read. */
  text(name: string): string | undefined {
    return this.#values.get(name)
  }

  /** Undefined also for what is no whole number that fits. */
  number(name: string): number | undefined {
    return wholeNumber(this.#values.get(name))
  }

  /** Why `field` is undefined that stands in `name`; undefined where it does not. */
  why(field: string, name: string): Unavailable | undefined {
    const code = this.#codes.get(name)
    if (code === undefined) return undefined
    return { field, reason: code === 'ENOENT' ? `this kernel has no sysfs ${name}` : reason(code) }
  }
}

export function wholeNumber(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d+$/.test(text)) return undefined
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : undefined
}
