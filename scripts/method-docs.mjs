// The types that the package carries: each method of KernelFilesystem with what its family function says of it. An
// editor shows a method's own docstring only, and the sources have each text once. After tsc, which knows no such step.
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { methodDocs } from './api.mjs'
import { at } from './tool.mjs'

/** @param text of a .d.ts. Docstrings that are there already are replaced: tsc leaves a file that it need not change. */
export function withDocs(text, docs) {
  const source = ts.createSourceFile('filesystem.d.ts', text, ts.ScriptTarget.Latest, true)
  const members = source.statements.filter(ts.isClassDeclaration).flatMap(({ members }) => [...members])
  let out = text
  for (const node of members.reverse()) {
    const doc = docs.get(node.name?.getText())
    if (doc === undefined) continue
    const [from, to] = [node.jsDoc?.[0]?.pos ?? node.getStart(), node.getStart()]
    out = `${out.slice(0, from)}${doc.replace(/\n\s*\*/g, '\n     *')}\n    ${out.slice(to)}`
  }
  return out
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const file = at('dist/btrfs/filesystem.d.ts')
  writeFileSync(file, withDocs(readFileSync(file, 'utf8'), methodDocs()))
}
