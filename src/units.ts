/** Bytes for people: 1.50 GiB; '?' for what is not known. */
export function formatBytes(bytes: number | undefined): string {
  if (bytes === undefined) return '?'
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let value = bytes
  let unit = 0
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(2)} ${units[unit]}`
}

export const KIB = 1024
export const MIB = 1024 ** 2
export const GIB = 1024 ** 3
export const HOUR_MS = 3_600_000
export const DAY_MS = 86_400_000
