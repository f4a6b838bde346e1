/**
 * README.md runs, from top to bottom, on one real volume: every ```js and ```ts block as a module, and every
 * `btrmind …` line of a ```sh block through the built command. `/mnt/pool` stands for the volume, `/var/lib/btrmind`
 * for a state directory. A line with `# until Ctrl-C` is interrupted after its first output. Other commands of ```sh
 * blocks are not run, but the scripts that they name must exist; ```text blocks are only read.
 */
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cannotMount, makeVolume, run, type TestVolume } from './helpers/volume.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const readme = readFileSync(join(root, 'README.md'), 'utf8')

interface Block {
  readonly language: string
  readonly line: number
  readonly code: string
}

const blocks: Block[] = [...readme.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map((match) => ({
  language: match[1]!,
  line: readme.slice(0, match.index).split('\n').length,
  code: match[2]!,
}))
const modules = blocks.filter(({ language }) => language === 'js' || language === 'ts')
const shellLines = blocks
  .filter(({ language }) => language === 'sh')
  .flatMap(({ line, code }) => code.split('\n').map((text, index) => ({ text: text.trim(), line: line + 1 + index })))
  .filter(({ text }) => text !== '' && !text.startsWith('#'))
const commands = shellLines.filter(({ text }) => /^(sudo |npx )*btrmind /.test(text))

describe('README.md', () => {
  it('opens with the two commands', () => {
    expect(shellLines.slice(0, 2).map(({ text }) => text.split(/\s+#/)[0])).toEqual(['npm run demo', 'npm test'])
  })

  it('marks every block with a language that says whether it runs', () => {
    expect(readme.split('\n').filter((line) => line.startsWith('```')).length).toBe(2 * blocks.length)
    for (const { language, line } of blocks)
      expect(['js', 'ts', 'sh', 'text', 'json', 'ini'], `line ${line}`).toContain(language)
  })

  it('has every call once, under a heading of its family', () => {
    const section = readme.split('\n## Every call\n')[1]!.split('\n## ')[0]!
    const rows = [...section.matchAll(/^\| (`\w+\(\)`.*?) \|/gm)].flatMap(([, calls]) => calls!.match(/\w+(?=\(\))/g)!)
    expect(rows.length).toBeGreaterThan(60) // test/btrfs/privilege.test.ts knows which
    expect(rows.filter((name, index) => rows.indexOf(name) !== index)).toEqual([])
    expect(section.match(/^### /gm)!.length).toBeGreaterThan(6)
  })

  it('names only scripts that exist', () => {
    for (const { text, line } of shellLines) {
      const script = /^npm run ([\w:-]+)/.exec(text)?.[1]
      if (script !== undefined) expect(manifest.scripts, `line ${line}`).toHaveProperty(script)
    }
  })
})

describe.skipIf(cannotMount)('README.md on a real volume', () => {
  let volume: TestVolume
  let scratch: string
  let stand: (text: string) => string

  beforeAll(() => {
    volume = makeVolume()
    run('btrfs', 'subvolume', 'create', join(volume.path, 'data'))
    for (const name of ['tmp', 'snapshots']) mkdirSync(join(volume.path, name))
    writeFileSync(join(volume.path, 'data/report.csv'), 'id,value\n'.repeat(1000))
    // Inside the package, so that its own name resolves as it does for users.
    mkdirSync(join(root, 'build'), { recursive: true })
    scratch = mkdtempSync(join(root, 'build/readme-'))
    stand = (text) => text.replaceAll('/mnt/pool', volume.path).replaceAll('/var/lib/btrmind', join(scratch, 'state'))
  })
  afterAll(() => {
    volume?.[Symbol.dispose]()
    if (scratch !== undefined) rmSync(scratch, { recursive: true, force: true })
  })

  /** Runs to its end, or until its first output and a Ctrl-C. */
  function finish(
    command: string,
    args: string[],
    untilOutput: boolean,
  ): Promise<{ code: number | null; text: string }> {
    return new Promise((resolve, reject) => {
      const child = spawn(command, args, { cwd: scratch, stdio: ['ignore', 'pipe', 'pipe'] })
      let text = ''
      child.stdout.on('data', (data) => {
        if (text === '' && untilOutput) child.kill('SIGINT')
        text += data
      })
      child.stderr.on('data', (data) => {
        text += data
      })
      child.once('error', reject)
      child.once('close', (code) => resolve({ code, text }))
    })
  }

  it.each(modules)('$language block at line $line', async ({ language, line, code }) => {
    const file = join(scratch, `line-${line}.${language === 'ts' ? 'mts' : 'mjs'}`)
    writeFileSync(file, stand(code))
    // Twice: who tries it tries it again.
    for (let turn = 0; turn < 2; turn++) {
      const { code: status, text } = await finish(process.execPath, ['--import', 'tsx', file], false)
      expect(status, text).toBe(0)
      expect(text).not.toMatch(/\.\d{4}/)
    }
  })

  it.each(commands)('line $line: $text', async ({ text: line }) => {
    const [command, comment] = stand(line).split(/\s+#\s*/)
    const words = command!.replace(/^(sudo |npx )*btrmind /, '').split(/\s+/)
    const untilOutput = comment?.includes('until Ctrl-C') ?? false
    const { code, text } = await finish(process.execPath, [join(root, manifest.bin.btrmind), ...words], untilOutput)
    expect(untilOutput ? [0, 130] : [0], text).toContain(code)
    expect(text).not.toBe('')
  })
})
