/** compression and attributes: get, set. */
import type { Attributes, Compression } from '../btrfs/properties.js'
import { type Io, printJson } from './output.js'
import { openVolumeOf } from './place.js'

export interface JsonCommand {
  readonly json?: boolean
}

export async function getCompression(io: Io, path: string, { json }: JsonCommand): Promise<void> {
  const { fs, target } = await openVolumeOf(io, path)
  await using _ = fs
  const value = await fs.compressionProperty(target, { signal: io.signal })
  if (json) printJson(io, value ?? null)
  else io.stdout.write(`${value ?? 'nothing is set: the mount decides'}\n`)
}

/** @param value undefined: takes it away */
export async function setCompression(
  io: Io,
  path: string,
  value: string | undefined,
  { json }: JsonCommand,
): Promise<void> {
  const { fs, target } = await openVolumeOf(io, path)
  await using _ = fs
  await fs.setCompressionProperty(target, value as Compression | undefined, { signal: io.signal })
  if (json) printJson(io, (await fs.compressionProperty(target, { signal: io.signal })) ?? null)
}

export async function getAttributes(io: Io, path: string, { json }: JsonCommand): Promise<void> {
  const { fs, target } = await openVolumeOf(io, path)
  await using _ = fs
  const attributes = await fs.attributes(target, { signal: io.signal })
  if (json) return printJson(io, attributes)
  const set = Object.entries(attributes).flatMap(([name, on]) => (on ? [name] : []))
  io.stdout.write(`${set.length === 0 ? 'none' : set.join(' ')}\n`)
}

export async function setAttributes(
  io: Io,
  path: string,
  wanted: Partial<Attributes>,
  { json }: JsonCommand,
): Promise<void> {
  const { fs, target } = await openVolumeOf(io, path)
  await using _ = fs
  await fs.setAttributes(target, wanted, { signal: io.signal })
  if (json) printJson(io, await fs.attributes(target, { signal: io.signal }))
}
