/** What scripts/fuzz.mjs needs of the repository. */
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { brotliDecompressSync } from 'node:zlib'
import { expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const names = [...readFileSync(`${root}test/fuzz/targets.h`, 'utf8').matchAll(/\{"([\w-]+)", \w+\}/g)].map(
  ([, name]) => name!,
)

it('has a corpus for each target, of whole inputs', () => {
  expect(names.length).toBeGreaterThan(10)
  for (const name of names) {
    const path = `${root}test/fuzz/corpus/${name}.br`
    expect(existsSync(path), `${name}: npm run fuzz -- --target ${name} --keep`).toBe(true)
    const packed = brotliDecompressSync(readFileSync(path))
    let at = 0
    let inputs = 0
    for (; at < packed.length; inputs++) at += 4 + packed.readUInt32LE(at)
    expect([name, at]).toEqual([name, packed.length])
    expect(inputs, name).toBeGreaterThan(0)
  }
})
