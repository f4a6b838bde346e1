import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { KernelFilesystem } from '../src/btrfs/filesystem.js'

const page = readFileSync(fileURLToPath(new URL('../docs/api.md', import.meta.url)), 'utf8')

it('docs/api.md is what the docstrings say; `npm run docs` writes it anew', async () => {
  const script = '../scripts/api.mjs'
  const { apiPage } = (await import(script)) as { apiPage: () => string }
  expect(page).toBe(apiPage())
})

it('docs/api.md names the types of what a call takes, and each is of the package', () => {
  expect(page).not.toMatch(/Parameters<|ReturnType<|typeof \w+>/)
  const described = [...page.matchAll(/^(?:interface|type) (\w+)/gm)].map(([, name]) => name!)
  const exported = readFileSync(fileURLToPath(new URL('../src/btrfs/index.ts', import.meta.url)), 'utf8')
  const wholly = [...exported.matchAll(/export type \* from '(.*)\.js'/g)].map(([, file]) =>
    readFileSync(fileURLToPath(new URL(`../src/btrfs/${file}.ts`, import.meta.url)), 'utf8'),
  )
  const known = (name: string) =>
    new RegExp(`\\b${name}\\b`).test(exported) ||
    wholly.some((text) => new RegExp(`^export (interface|type) ${name}\\b`, 'm').test(text))
  expect(described.length).toBeGreaterThan(100)
  expect(described.filter((name) => !known(name))).toEqual([])
})

it('docs/api.md has every method, with an error that it may end in', () => {
  const hidden = ['constructor', 'path', 'uuid', 'sync', 'close']
  for (const name of Object.getOwnPropertyNames(KernelFilesystem.prototype)) {
    if (hidden.includes(name)) continue
    const section = page.split(`### fs.${name}()\n`)[1]?.split('\n##')[0]
    expect(section, name).toMatch(/throws |rejects /)
  }
})
