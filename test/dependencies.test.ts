/** docs/dependencies.md says what package.json and the set-up ask for: all of it, and nothing more. */
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'

const read = (path: string) => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')
const manifest = JSON.parse(read('package.json'))
const lock = JSON.parse(read('package-lock.json'))

/** The rows of the table below a heading, without its head. */
function table(heading: string): string[][] {
  const section = read('docs/dependencies.md').split(`## ${heading}\n`)[1]?.split('\n## ')[0] ?? ''
  const rows = section.split('\n').filter((line) => line.startsWith('|'))
  return rows.slice(2).map((row) =>
    row
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  )
}

describe('docs/dependencies.md', () => {
  it.each([
    ['At run time', 'dependencies'],
    ['For development', 'devDependencies'],
  ])('%s: names and versions are those of %s', (heading, key) => {
    const documented = Object.fromEntries(table(heading).map(([name, version]) => [name, version]))
    expect(documented).toEqual(manifest[key])
    for (const [name, , why] of table(heading)) expect(why, name).not.toBe('')
  })

  it('versions are exact, and those of the lock file', () => {
    for (const [name, version] of Object.entries({ ...manifest.dependencies, ...manifest.devDependencies })) {
      expect(version).toMatch(/^\d+\.\d+\.\d+$/)
      expect(lock.packages[`node_modules/${name}`]).toMatchObject({ version })
    }
  })

  it('From Debian: the packages that set-up installs', () => {
    const documented = table('From Debian').flatMap(([names]) => names!.split(', '))
    const asked = [...read('scripts/setup.mjs').matchAll(/\bname: '([^']+)'/g)].map(([, name]) => name)
    expect(asked.length).toBeGreaterThan(0)
    expect(documented.sort()).toEqual(asked.sort())
  })

  it('has a lock file that npm ci takes: no optional platform package is left out', () => {
    for (const [path, entry] of Object.entries<{ optionalDependencies?: object }>(lock.packages)) {
      for (const name of Object.keys(entry.optionalDependencies ?? {})) {
        const found = [`${path}/node_modules/${name}`, `node_modules/${name}`].some((key) => key in lock.packages)
        expect(found, `${name}, of ${path}`).toBe(true)
      }
    }
  })
})
