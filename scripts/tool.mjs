// What the scripts share. No dependencies: set-up runs before there are any.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('..', import.meta.url))
export const at = (...parts) => join(root, ...parts)

const colour = process.stdout.isTTY && !process.env.NO_COLOR
const paint = (code) => (text) => (colour ? `\x1b[${code}m${text}\x1b[0m` : text)
export const red = paint(31)
export const green = paint(32)
export const yellow = paint(33)
export const dim = paint(2)
export const bold = paint(1)

export const seconds = (sinceMs) => `${((performance.now() - sinceMs) / 1000).toFixed(1)} s`

/** Something that the user can act on: the message is all there is to say, a stack would only hide it. */
export class Problem extends Error {}

/** Full path of the first of these commands that exists; sbin counts, though users often lack it in PATH. */
export function which(...names) {
  const places = [...(process.env.PATH ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin']
  for (const name of names) {
    for (const place of places) {
      const path = name.startsWith('/') ? name : join(place, name)
      try {
        accessSync(path, constants.X_OK)
        return path
      } catch {}
    }
  }
  return undefined
}

/** Runs a command with its output in a log file; resolves to its exit code (127: could not start). */
export function logged(log, command, args, env = {}) {
  mkdirSync(dirname(log), { recursive: true })
  const out = openSync(log, 'a')
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, env: { ...process.env, ...env }, stdio: ['ignore', out, out] })
    const done = (code) => {
      closeSync(out)
      resolve(code)
    }
    child.once('error', (error) => {
      writeFileSync(out, `${error.message}\n`)
      done(127)
    })
    child.once('close', (code, signal) => done(code ?? `signal ${signal}`))
  })
}

/** What a log says that matters: its beginning (npm puts the reason there) and its end (make does), indented. */
export function excerpt(log, first = 12, last = 24) {
  const lines = readFileSync(log, 'utf8').trimEnd().split('\n')
  if (lines.length > first + last) lines.splice(first, lines.length - first - last, '…')
  return lines.map((line) => `    ${line}`).join('\n')
}

/** The running node's prefix where its headers are beside it: they cannot be downloaded everywhere. */
export function nodePrefix() {
  const prefix = dirname(dirname(process.execPath))
  return existsSync(join(prefix, 'include/node/node_api.h')) ? prefix : undefined
}

/** Every file below a directory of the project, sorted; none when it does not exist. */
export function filesBelow(directory) {
  try {
    return readdirSync(at(directory), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(root.length))
      .sort()
  } catch {
    return []
  }
}

/** One hash over files of the project (absent ones count as absent) and anything else that the result depends on. */
export function hashOf(files, ...rest) {
  const hash = createHash('sha256')
  for (const file of files) {
    hash.update(`\0${file}\0`)
    try {
      hash.update(readFileSync(at(file)))
    } catch {}
  }
  return hash.update(JSON.stringify(rest)).digest('hex')
}

/** A file that says for which inputs a result was made; written after the result, so a killed run leaves none. */
export class Stamp {
  constructor(file, hash) {
    this.file = at(file)
    this.hash = hash
  }
  matches() {
    try {
      return readFileSync(this.file, 'utf8') === this.hash
    } catch {
      return false
    }
  }
  write() {
    mkdirSync(dirname(this.file), { recursive: true })
    writeFileSync(this.file, this.hash)
  }
}
