import { readFile } from 'node:fs/promises'

/**
 * Whether nothing can be written to the volume that `path` (absolute, without symlinks) is on, by any of its mounts:
 * statfs only tells of the one mount. False where its mount is not found.
 */
export async function volumeIsReadOnly(path: string): Promise<boolean> {
  let [longest, readOnly] = [-1, false]
  for (const line of (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')) {
    const [own, superblock] = line.split(' - ')
    const at = own
      ?.split(' ')[4]
      ?.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
    const options = superblock?.split(' ')[2]
    if (at === undefined || options === undefined) continue
    // The last one lies on top.
    if (at.length < longest || !(at === '/' || path === at || path.startsWith(`${at}/`))) continue
    longest = at.length
    readOnly = options.split(',').includes('ro')
  }
  return readOnly
}
