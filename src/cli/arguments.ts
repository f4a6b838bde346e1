/** Readers of option values, for commander. */
import { InvalidArgumentError } from 'commander'

export const number = (least: number, most: number) => (text: string) => {
  const value = Number(text)
  if (text.trim() === '' || !(value >= least && value <= most))
    throw new InvalidArgumentError(`expected a number from ${least} to ${most}.`)
  return value
}
export const whole = (least: number, most: number) => (text: string) => {
  const value = number(least, most)(text)
  if (!Number.isInteger(value)) throw new InvalidArgumentError('expected a whole number.')
  return value
}
export const position = (text: string, before: [number, number][] | undefined) => {
  const [, devid, bytes] = /^(\d+):(\d+)$/.exec(text) ?? []
  if (devid === undefined) throw new InvalidArgumentError('expected a device id and bytes, like 1:4096.')
  return [...(before ?? []), [Number(devid), Number(bytes)]] as [number, number][]
}
export const list = (text: string, before: string[] | undefined) => [...(before ?? []), text]
export const attribute = (text: string, before: Record<string, boolean> | undefined) => {
  const [, name, state] = /^(\w+)=(on|off)$/.exec(text) ?? []
  if (name === undefined) throw new InvalidArgumentError('expected a name and on or off, like nocow=on.')
  return { ...before, [name]: state === 'on' }
}

const UNITS = ['', 'k', 'm', 'g', 't', 'p']
/** "10GiB", "512M", "4096": powers of 1024. */
export const size = (text: string): number => {
  const [, digits, unit = ''] = /^(\d+(?:\.\d+)?)([kmgtp]?)(?:i?b)?$/i.exec(text) ?? []
  const value = Math.round(Number(digits) * 1024 ** UNITS.indexOf(unit.toLowerCase()))
  if (digits === undefined || !Number.isSafeInteger(value))
    throw new InvalidArgumentError('expected a size, like 10GiB or 4096.')
  return value
}
export const sizeOrNone = (text: string): number | 'none' => (text === 'none' ? text : size(text))
/** `bytes` may be Infinity: all there is. */
export interface NewSize {
  readonly sign: '' | '+' | '-'
  readonly bytes: number
}
/** "+1GiB", "-1GiB", "10GiB", "max". */
export const newSize = (text: string): NewSize => {
  if (text === 'max') return { sign: '', bytes: Number.POSITIVE_INFINITY }
  const [, sign, rest] = /^([+-]?)(.*)$/.exec(text) as unknown as [string, '' | '+' | '-', string]
  return { sign, bytes: size(rest) }
}
export const onOff = (text: string): boolean => {
  if (text !== 'on' && text !== 'off') throw new InvalidArgumentError('expected on or off.')
  return text === 'on'
}
/** A tree by name or id. */
export const tree = (text: string): string | number => (/^\d+$/.test(text) ? Number(text) : text)
/** "256", "256:1", "256:1:0": objectid, type, offset. */
export const treeKey = (text: string): { objectid: bigint; type?: number; offset?: bigint } => {
  const [, objectid, type, offset] = /^(\d+)(?::(\d+)(?::(\d+))?)?$/.exec(text) ?? []
  if (objectid === undefined) throw new InvalidArgumentError('expected a key, like 256:1:0 (objectid, type, offset).')
  return {
    objectid: BigInt(objectid),
    ...(type === undefined ? {} : { type: Number(type) }),
    ...(offset === undefined ? {} : { offset: BigInt(offset) }),
  }
}
