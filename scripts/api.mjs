/**
 * What is made of the docstrings of the family functions, which stand there once: docs/api.md (`npm run docs` writes it;
 * a test holds the two together) and, by method-docs.mjs, what an editor shows on the methods of KernelFilesystem.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const root = fileURLToPath(new URL('..', import.meta.url))
const parse = (name) => {
  const text = readFileSync(join(root, 'src/btrfs', name), 'utf8')
  return ts.createSourceFile(name, text, ts.ScriptTarget.Latest, true)
}
const exported = (node) => node.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)

const FAMILIES = [
  ['Open and close', ['filesystem', 'directory', 'volume']],
  ['Space and state', ['info', 'usage', 'measure', 'statfs', 'statistics']],
  ['Subvolumes', ['subvolume-list', 'subvolumes', 'subvolume-trees', 'subvolume-deletion']],
  ['Files', ['scan', 'walk', 'batch', 'files']],
  ['Extents', ['extents', 'defragment', 'sharing', 'properties', 'encoded']],
  ['Reports of a tree', ['finders', 'reports']],
  [
    'What lies where',
    ['inspect', 'tree-search', 'items/reader', 'items/files', 'items/roots', 'items/space', 'items/qgroups'],
  ],
  ['Devices', ['devices', 'redundancy', 'resize']],
  [
    'Balance and scrub',
    [
      'operation',
      'balance-filters',
      'balance',
      'balance-plan',
      'balance-reclaim',
      'exclusive',
      'scrub',
      'scrub-progress',
    ],
  ],
  ['Quota', ['quota']],
  ['Settings', ['settings', 'trim', 'reclaim']],
  ['What every call takes', ['call']],
]

function methodsOfFilesystem() {
  const volume = parse('filesystem.ts').statements.find((node) => ts.isClassDeclaration(node))
  return new Map(volume.members.filter(ts.isMethodDeclaration).map((node) => [node.name.getText(), node]))
}
const functionsOf = (file) =>
  parse(`${file}.ts`).statements.filter((node) => ts.isFunctionDeclaration(node) && exported(node))

/** @returns the docstring of each method that a family function stands behind, as it is written */
export function methodDocs() {
  const methods = methodsOfFilesystem()
  const functions = FAMILIES.flatMap(([, files]) => files.flatMap(functionsOf))
  const documented = functions.filter((node) => methods.has(node.name.text) && node.jsDoc !== undefined)
  return new Map(documented.map((node) => [node.name.text, node.jsDoc.at(-1).getText()]))
}

/** @returns docs/api.md */
export function apiPage() {
  const methods = methodsOfFilesystem()
  const index = parse('index.ts').text
  const isShape = (node) => ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node)
  const isPublic = (file, name) =>
    index.includes(`export type * from './${file}.js'`) || new RegExp(`\\b${name}\\b`).test(index)
  const functions = [...index.matchAll(/^export \{([^}]*)\}/gm)].flatMap(([, names]) =>
    names.split(',').map((name) => name.trim()),
  )

  const sections = FAMILIES.map(([title, files]) => {
    const parts = [`## ${title}\n`]
    for (const file of files) {
      const { statements } = parse(`${file}.ts`)
      for (const node of functionsOf(file)) {
        const name = node.name.text
        const method = methods.get(name)
        if (method === undefined && !functions.includes(name)) continue
        parts.push(entry(method === undefined ? name : `fs.${name}`, method ?? node, node))
        methods.delete(name)
      }
      const shapes = statements.filter((node) => isShape(node) && exported(node) && isPublic(file, node.name.text))
      const shown = shapes.map(declaration)
      if (shown.length > 0) parts.push(`\`\`\`ts\n${shown.join('\n\n')}\n\`\`\`\n`)
    }
    return parts.join('\n')
  })
  const rest = [...methods.keys()].filter((name) => !['sync', 'close', '[Symbol.asyncDispose]'].includes(name))
  if (rest.length > 0) throw new Error(`no family of FAMILIES has ${rest.join(', ')}`)
  const types = parse('types.ts').statements.filter(exported)
  return [
    '# Every call',
    '',
    'Out of the docstrings of `src/btrfs`, by `npm run docs`. `fs` is what `openFilesystem()` gives; what stands',
    'without it is a function of the package. Each says: what it does · the kernel interface · the privilege that it',
    'needs · how long it takes. `fs.sync()` writes out and commits; `fs.close()` waits for quick calls and stops long',
    'ones, and afterwards every call fails with `EBADF`.',
    '',
    ...sections,
    '## Types',
    '',
    `\`\`\`ts\n${types.map(declaration).join('\n\n')}\n\`\`\``,
    '',
  ].join('\n')
}

function entry(name, shown, documented) {
  const parameters = shown.parameters.map((node) => node.getText().replace(/\s+/g, ' ').replace(/,? }/, ' }'))
  const result = documented.type === undefined ? '' : `: ${documented.type.getText().replace(/\s+/g, ' ')}`
  const [doc] = documented.jsDoc ?? []
  if (doc === undefined) throw new Error(`${name}() has no docstring`)
  const text = (comment) => (ts.getTextOfJSDocComment(comment) ?? '').trim()
  const lines = [
    `### ${name}()\n`,
    `\`\`\`ts\n${name}(${parameters.join(', ')})${result}\n\`\`\`\n`,
    `${text(doc.comment)}\n`,
  ]
  const tags = (doc.tags ?? []).filter((tag) => tag.tagName.text !== 'example')
  if (tags.length > 0) lines.push(`${tags.map((tag) => `- ${said(tag, text)}`).join('\n')}\n`)
  for (const tag of doc.tags ?? []) {
    if (tag.tagName.text === 'example') lines.push(`\`\`\`ts\n${text(tag.comment)}\n\`\`\`\n`)
  }
  return lines.join('\n')
}

function said(tag, text) {
  const raw = tag.getText().replace(/\n\s*\*\s*/g, ' ')
  const [, what, rest] = /^@(\w+)\s+([\s\S]*)$/.exec(raw.trim()) ?? [undefined, tag.tagName.text, text(tag.comment)]
  const [, name, meaning] = what === 'param' ? (/^(\S+)\s+([\s\S]*)$/.exec(rest) ?? []) : []
  if (name !== undefined) return `\`${name}\`: ${meaning.trim()}`
  return `${{ returns: 'gives', throws: 'throws' }[what] ?? what} ${rest.trim()}`
}

/** As it is written, without `export`; the docstring of an interface stays. */
function declaration(node) {
  const doc = node.jsDoc?.at(-1)
  const code = node.getText().replace(/^export /, '')
  return doc === undefined ? code : `${doc.getText()}\n${code}`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(join(root, 'docs/api.md'), apiPage())
