import { readFileSync } from 'node:fs'
import * as v from 'valibot'
import { describe, expect, it } from 'vitest'
import { RULES } from '../../src/actions/guard.js'
import { actionOptions } from '../../src/actions/options.js'
import { ACTIONS } from '../../src/actions/table.js'

const text = readFileSync(new URL('../../docs/actions.md', import.meta.url), 'utf8')

/** Rows of the table below a header. */
function table(header: string): string[][] {
  const lines = text.split('\n')
  const rows: string[][] = []
  for (let line = lines.indexOf(header) + 2; lines[line]?.startsWith('|'); line++) {
    rows.push(
      lines[line]!.slice(1, -1)
        .split('|')
        .map((cell) => cell.trim()),
    )
  }
  return rows
}

describe('docs/actions.md', () => {
  it('has the actions', () => {
    const rows = ACTIONS.map(({ id, name, description, undo }) => [`${id}`, name, description, undo])
    expect(table('| id | name | what it does | undo |')).toEqual(rows)
  })

  it('has the guard’s rules, in order', () => {
    const rows = RULES.map(({ code, actions, when }) => [`\`${code}\``, actions.join(', '), when])
    expect(table('| code | actions | when |')).toEqual(rows)
  })

  it('has the options and their defaults', () => {
    const defaults = v.parse(actionOptions, {}) as Record<string, unknown>
    const rows = Object.keys(actionOptions.entries).map((option) => {
      const value = defaults[option]
      return [`\`${option}\``, value === undefined ? '' : `\`${JSON.stringify(value).replaceAll('"', '')}\``]
    })
    expect(table('| option | default | meaning |').map((row) => row.slice(0, 2))).toEqual(rows)
  })
})
