// Fills a directory at a steady rate until it is told to stop: what the demo's loop has to keep up with.
// node writer.mjs DIRECTORY MIB_PER_SECOND; prints bytes written so far, and "full" on ENOSPC.
import { randomBytes } from 'node:crypto'
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'

const [directory, rate] = [process.argv[2], Number(process.argv[3])]
const FILE = 4 * 1024 * 1024
const block = randomBytes(FILE)
let written = 0
let running = true
process.on('SIGTERM', () => {
  running = false
})
process.on('disconnect', () => process.exit(0))

for (let index = 0; running; index++) {
  const path = join(directory, `upload-${index}.part`)
  try {
    const fd = openSync(path, 'w')
    block.writeUInt32LE(index)
    writeSync(fd, block)
    closeSync(fd)
    written += FILE
    process.send?.({ written })
  } catch (error) {
    if (error.code !== 'ENOSPC') throw error
    process.send?.({ full: true })
    rmSync(path, { force: true })
    await setTimeout(200)
  }
  await setTimeout((1000 * FILE) / (rate * 1024 * 1024))
}
process.disconnect?.()
