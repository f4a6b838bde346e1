/** `npm run bench`: ours beside its peers, interleaved in one run. `--json` for machines, `--only NAME` for one part. */
import { parseArgs } from 'node:util'
import { table } from '../src/cli/output.js'
import { cannotMount } from '../test/helpers/volume.js'
import type { Row } from './measure.js'

interface Part {
  readonly title: string
  readonly volume: boolean
  /** Only when it is named. */
  readonly long?: boolean
  readonly load: () => Promise<{ rows(): Promise<Row[]> }>
}
const PARTS: Record<string, Part> = {
  usage: { title: 'usage()', volume: true, load: () => import('./usage.js') },
  subvolumes: { title: 'subvolumes', volume: true, load: () => import('./subvolumes.js') },
  trees: { title: 'large trees', volume: true, load: () => import('./trees.js') },
  progress: { title: 'progress of long work', volume: true, load: () => import('./progress.js') },
  memory: { title: 'memory as trees grow', volume: true, long: true, load: () => import('./memory.js') },
  loop: { title: 'monitor to action', volume: true, load: () => import('./loop.js') },
  agent: { title: 'network', volume: false, load: async () => ({ rows: (await import('./agent.js')).agentRows }) },
}

const { values } = parseArgs({ options: { json: { type: 'boolean' }, only: { type: 'string' } } })
if (values.only !== undefined && PARTS[values.only] === undefined) {
  process.stderr.write(`--only '${values.only}': one of ${Object.keys(PARTS).join(', ')}\n`)
  process.exit(2)
}

const rows: Row[] = []
for (const [name, part] of Object.entries(PARTS)) {
  if (values.only === undefined ? part.long : values.only !== name) continue
  if (part.volume && cannotMount !== undefined) {
    rows.push({ operation: part.title, peerName: '', skipped: cannotMount })
    continue
  }
  if (!values.json) process.stderr.write(`${part.title} …\n`)
  rows.push(...(await (await part.load()).rows()))
}

if (values.json) {
  process.stdout.write(`${JSON.stringify({ node: process.version, arch: process.arch, rows }, null, 2)}\n`)
} else {
  const figure = (value: number, unit: string) => `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ${unit}`
  const cells = rows.map((row) =>
    'skipped' in row
      ? [row.operation, '', row.peerName, '', '', `skipped: ${row.skipped}`]
      : [
          row.operation,
          figure(row.ours, row.unit),
          row.peerName,
          figure(row.peer, row.unit),
          Number.isFinite(row.ratio) ? `${row.ratio.toFixed(1)}×` : '–',
          row.target ?? '',
        ],
  )
  process.stdout.write(table(['operation', 'btrmind', 'beside', '', 'ratio', 'target'], cells, [1, 3, 4]))
}
