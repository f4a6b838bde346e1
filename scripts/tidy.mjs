// clang-tidy over the addon's sources, one on each core. What passed is looked at again when it, a header or the
// description of the build or of the checks changed.
import { availableParallelism } from 'node:os'
import { basename, join } from 'node:path'
import { at, filesBelow, hashOf, nodePrefix, Stamp } from './tool.mjs'

const OUT = 'build-tidy'

export async function tidy(quietly) {
  const native = filesBelow('native')
  const shared = native.filter((file) => !file.endsWith('.cpp'))
  const stampOf = (file) =>
    new Stamp(
      join(OUT, `${file.replaceAll('/', '-')}.stamp`),
      hashOf([file, ...shared, '.clang-tidy', 'package-lock.json'], at()),
    )
  const sources = native.filter((file) => file.endsWith('.cpp'))
  const changed = sources.filter((file) => !stampOf(file).matches())
  if (changed.length > 0) {
    const prefix = nodePrefix()
    // For compile_commands.json, of clang: gcc's coverage options are not its.
    const configure = [at('node_modules/cmake-js/bin/cmake-js'), 'configure', '-D', '-d', at('native'), '-O', at(OUT)]
    await quietly('tidy', process.execPath, configure, prefix === undefined ? {} : { npm_config_nodedir: prefix })
  }
  const complaints = []
  const waiting = [...changed]
  const work = async () => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      try {
        await quietly(`tidy-${basename(file)}`, 'clang-tidy-19', ['--quiet', '-p', at(OUT), at(file)])
        stampOf(file).write()
      } catch (error) {
        complaints.push(error.message)
      }
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, work))
  if (complaints.length > 0) throw new Error(`${complaints.length} files\n${complaints.join('\n')}`)
  return { detail: `${changed.length} of ${sources.length} files` }
}
