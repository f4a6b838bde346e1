/** Started by the tests of the CLI: runs the command line given, as nobody from where it opens the volume. */
import { main } from '../../src/cli/main.js'

const { signal } = new AbortController()
process.exitCode = await main(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
  // Asked for when the command is loaded: nobody could not read it where the clone lies in root's home.
  get signal() {
    if (process.getuid?.() === 0) process.setgroups?.([])
    process.setgid?.(65_534)
    process.setuid?.(65_534)
    return signal
  },
})
