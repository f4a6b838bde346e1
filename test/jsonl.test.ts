import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { encodeLine, openJsonLines, readJsonLines } from '../src/jsonl.js'
import { cannotMount, makeVolume } from './helpers/volume.js'

interface Row {
  n: number
  pad?: string
}
const isRecord = (value: unknown): value is Row => typeof (value as Row | null)?.n === 'number'

let directory: string
let path: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'actions-jsonl-'))
  path = join(directory, 'rows.jsonl')
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

async function write(rows: Row[], maxBytes?: number): Promise<void> {
  const { file } = await openJsonLines(path, { isRecord, maxBytes })
  for (const row of rows) await file.append(row, { sync: true })
  await file.close()
}
const numbers = async () => {
  const { file, records, problems } = await openJsonLines(path, { isRecord })
  await file.close()
  return { n: records.map((row) => row.n), problems }
}

describe('openJsonLines()', () => {
  it('gives back what was written, over several openings, one JSON object a line', async () => {
    await write([{ n: 1, pad: 'ü\n"' }, { n: 2 }])
    await write([{ n: 3 }])
    expect(await numbers()).toEqual({ n: [1, 2, 3], problems: [] })
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n')
    expect(lines.map((line) => (JSON.parse(line) as { record: Row }).record.n)).toEqual([1, 2, 3])
    expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  it('drops a line torn at any byte, and goes on after it', async () => {
    await write([{ n: 1 }, { n: 2, pad: 'long enough to cut' }])
    const whole = readFileSync(path)
    const first = encodeLine({ n: 1 }).length
    for (let length = first + 1; length < whole.length; length += 7) {
      writeFileSync(path, whole.subarray(0, length))
      const { n, problems } = await numbers()
      expect(n).toEqual([1])
      expect(problems).toEqual([`'${path}' ended in a torn line, which was dropped`])
      await write([{ n: 5 }])
      expect(await numbers()).toEqual({ n: [1, 5], problems: [] })
    }
  })

  it('treats a last line of zeros (a power cut on some file systems) as torn', async () => {
    await write([{ n: 1 }])
    appendFileSync(path, Buffer.alloc(100))
    expect((await numbers()).n).toEqual([1])
    expect(await numbers()).toEqual({ n: [1], problems: [] })
  })

  it('sets a damaged file aside, keeps what proves itself, and never overwrites an earlier one', async () => {
    for (const aside of ['corrupt-1', 'corrupt-2']) {
      writeFileSync(path, '')
      await write([{ n: 1 }, { n: 2 }, { n: 3 }])
      const damaged = readFileSync(path, 'utf8').replace('"n":2', '"n":7')
      writeFileSync(path, damaged)
      const { n, problems } = await numbers()
      expect(n).toEqual([1, 3])
      expect(problems).toEqual([`'${path}' was damaged (1 of 3 lines); it was set aside as '${path}.${aside}'`])
      expect(readFileSync(`${path}.${aside}`, 'utf8')).toBe(damaged)
      expect(await numbers()).toEqual({ n: [1, 3], problems: [] })
    }
  })

  it('takes a record of another kind for damage', async () => {
    writeFileSync(path, encodeLine({ other: 1 }) + encodeLine({ n: 2 }))
    expect((await numbers()).n).toEqual([2])
    expect(existsSync(`${path}.corrupt-1`)).toBe(true)
  })

  it('keeps one older file when it grows too large', async () => {
    const rows = Array.from({ length: 50 }, (_, n) => ({ n, pad: 'x'.repeat(50) }))
    await write(rows, 1_000)
    expect(statSync(path).size).toBeLessThanOrEqual(1_000)
    expect(statSync(`${path}.1`).size).toBeLessThanOrEqual(1_000)
    const { n } = await numbers()
    expect(n).toEqual(rows.slice(-n.length).map((row) => row.n))
    expect(n.length).toBeGreaterThan(10)
  })

  it('a record in a file that was deleted is none, and that is said', async () => {
    const { file } = await openJsonLines(path, { isRecord })
    await file.append({ n: 1 }, { sync: true })
    rmSync(path)
    await expect(file.append({ n: 2 })).rejects.toMatchObject({ code: 'BTRMIND_ERR_STATE' })
    await expect(file.append({ n: 3 }, { sync: true })).rejects.toThrow(`'${path}': it was deleted`)
    await file.close()
    expect(existsSync(path)).toBe(false)
  })

  it('keeps the order of appends that nobody waited for', async () => {
    const { file } = await openJsonLines(path, { isRecord })
    await Promise.all(Array.from({ length: 100 }, (_, n) => file.append({ n })))
    await file.close()
    expect((await numbers()).n).toEqual(Array.from({ length: 100 }, (_, n) => n))
    await expect(file.append({ n: 1 })).rejects.toMatchObject({ code: 'BTRMIND_ERR_STATE' })
  })

  it('hands records over one by one, whatever the pieces that the file is read in', async () => {
    const rows = Array.from({ length: 3_000 }, (_, n) => ({ n, pad: 'ä'.repeat(n % 90) }))
    writeFileSync(path, rows.map(encodeLine).join(''))
    const seen: Row[] = []
    const { file, records } = await openJsonLines(path, { isRecord, onRecord: (row) => seen.push(row) })
    await file.close()
    expect(records).toEqual([])
    expect(seen).toEqual(rows)
  })

  it('says which file it is when it cannot be had', async () => {
    path = join(directory, 'none', 'rows.jsonl')
    await expect(openJsonLines(path, { isRecord })).rejects.toMatchObject({ code: 'BTRMIND_ERR_STATE' })
    await expect(openJsonLines(path, { isRecord })).rejects.toThrow(`'${path}': ENOENT`)
  })
})

describe('readJsonLines()', () => {
  it('passes by what does not prove itself, and changes nothing', async () => {
    await write([{ n: 1 }, { n: 2 }, { n: 3 }])
    const damaged = `${readFileSync(path, 'utf8').replace('"n":2', '"n":7')}{"crc`
    writeFileSync(path, damaged)
    writeFileSync(`${path}.1`, encodeLine({ n: 0 }))
    const seen: number[] = []
    expect(await readJsonLines(path, { isRecord, onRecord: ({ n }) => seen.push(n) })).toEqual({ skippedLines: 2 })
    expect(seen).toEqual([0, 1, 3])
    expect(readFileSync(path, 'utf8')).toBe(damaged)
    expect(readdirSync(directory)).toEqual(['rows.jsonl', 'rows.jsonl.1'])
  })

  it('finds nothing where there is no file, and says what it cannot read', async () => {
    const onRecord = () => expect.unreachable()
    expect(await readJsonLines(path, { isRecord, onRecord })).toEqual({ skippedLines: 0 })
    mkdirSync(path)
    await expect(readJsonLines(path, { isRecord, onRecord })).rejects.toMatchObject({
      code: 'BTRMIND_ERR_STATE',
      message: expect.stringContaining('EISDIR'),
    })
  })
})

describe.skipIf(cannotMount)('on a full volume', () => {
  it('an append fails with ENOSPC and leaves no half line', async () => {
    using volume = makeVolume({ devicesMiB: [128], mkfs: ['--mixed'] })
    path = join(volume.path, 'rows.jsonl')
    await using file = (await openJsonLines(path, { isRecord })).file
    await file.append({ n: 1 }, { sync: true })
    const filler = join(volume.path, 'filler')
    for (const size of [1 << 20, 4096]) {
      try {
        for (;;) appendFileSync(filler, Buffer.alloc(size, 1), { flush: true } as never)
      } catch (error) {
        expect((error as NodeJS.ErrnoException).code).toBe('ENOSPC')
      }
    }
    const failed = await file
      .append({ n: 2, pad: 'x'.repeat(1 << 20) }, { sync: true })
      .catch((error: unknown) => error)
    expect(failed).toMatchObject({ code: 'BTRMIND_ERR_STATE', cause: { code: 'ENOSPC' } })
    rmSync(filler)
    await file.append({ n: 3 }, { sync: true })
    await file.close()
    expect(await numbers()).toEqual({ n: [1, 3], problems: [] })
  })
})
