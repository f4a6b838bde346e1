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
