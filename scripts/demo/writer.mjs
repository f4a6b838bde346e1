// What the demo's loop has to keep up with: writes temporary files and a database that stays, phase after phase.
// node writer.mjs TEMP_DIRECTORY DATABASE PHASES, as JSON [{ says, seconds, tempMiB, keepMiB }], MiB a second; the last
// phase lasts. Sends { atMs, phase, writtenBytes, full } to its parent, and ends with it.
import { randomBytes } from 'node:crypto'
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'

const MIB = 1024 * 1024
const BLOCK = 4 * MIB
const TICK_MS = 50

const [directory, database] = process.argv.slice(2)
const phases = JSON.parse(process.argv[4])
const block = randomBytes(BLOCK)
const keep = openSync(database, 'a')
let writtenBytes = 0
let full = 0
let files = 0
let running = true
process.on('SIGTERM', () => {
  running = false
})
process.on('disconnect', () => process.exit(0))

/** What is due is written; after a stall at most a second's worth, so that it comes in no burst. */
const due = { temp: 0, keep: 0 }
const startMs = performance.now()
for (let lastMs = startMs; running; await setTimeout(TICK_MS)) {
  const nowMs = performance.now()
  const { tempMiB, keepMiB, index } = phaseAt((nowMs - startMs) / 1000)
  const seconds = Math.min(1, (nowMs - lastMs) / 1000)
  lastMs = nowMs
  due.temp = Math.min(due.temp + tempMiB * MIB * seconds, Math.max(BLOCK, tempMiB * MIB))
  due.keep = Math.min(due.keep + keepMiB * MIB * seconds, Math.max(BLOCK, keepMiB * MIB))
  for (; due.temp >= BLOCK && running; due.temp -= BLOCK) attempt(writeTemporary)
  for (; due.keep >= BLOCK && running; due.keep -= BLOCK) attempt(() => writeSync(keep, block))
  if (process.connected) process.send({ atMs: Date.now(), phase: index, writtenBytes, full })
}
if (process.connected) process.disconnect()

function phaseAt(seconds) {
  let endSeconds = 0
  const index = phases.findIndex((phase) => {
    endSeconds += phase.seconds
    return seconds < endSeconds
  })
  const last = index < 0 ? phases.length - 1 : index
  return { ...phases[last], index: last }
}

function attempt(write) {
  block.writeUInt32LE(files)
  try {
    writtenBytes += write()
  } catch (error) {
    if (error.code !== 'ENOSPC') throw error
    full++
  }
}

function writeTemporary() {
  const path = join(directory, `upload-${files++}.part`)
  const file = openSync(path, 'w')
  try {
    return writeSync(file, block)
  } catch (error) {
    rmSync(path, { force: true })
    throw error
  } finally {
    closeSync(file)
  }
}
