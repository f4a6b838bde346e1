import { expect, test } from 'vitest'
import { Rows } from '../../src/btrfs/rows.js'

/** Pages in the order given, each after a while; an Error among them is thrown. */
function paged(...pages: (number[] | Error)[]) {
  const told = { loads: 0, closed: 0 }
  const rows = new Rows<number>(
    async () => {
      told.loads++
      await new Promise((resolve) => setTimeout(resolve, 1))
      const page = pages.shift()
      if (page instanceof Error) throw page
      return page?.values()
    },
    async () => {
      told.closed++
    },
  )
  return { rows, told }
}

test('pages come one after the other, empty ones too, and nothing is loaded before it is asked for', async () => {
  const { rows, told } = paged([1, 2], [], [3])
  await new Promise((resolve) => setTimeout(resolve, 5))
  expect(told.loads).toBe(0)
  const seen: number[] = []
  for await (const row of rows) seen.push(row)
  expect(seen).toEqual([1, 2, 3])
  expect(told).toEqual({ loads: 4, closed: 0 })
  expect(await rows.next()).toEqual({ done: true, value: undefined })
  expect(told.loads).toBe(4)
})

test('whoever does not wait for the last row gets them in order all the same', async () => {
  const { rows } = paged([1, 2], [3])
  const asked = await Promise.all([rows.next(), rows.next(), rows.next(), rows.next(), rows.next()])
  expect(asked.map(({ value }) => value)).toEqual([1, 2, 3, undefined, undefined])
})

test('leaving early closes once; asked again there is nothing', async () => {
  const { rows, told } = paged([1, 2], [3])
  for await (const row of rows) if (row === 1) break
  expect(told).toEqual({ loads: 1, closed: 1 })
  await rows.return()
  expect(await rows.next()).toEqual({ done: true, value: undefined })
  expect(told).toEqual({ loads: 1, closed: 1 })
})

test('leaving while rows are on their way waits for them', async () => {
  const { rows, told } = paged([1], [2])
  const [first, left] = await Promise.all([rows.next(), rows.return()])
  expect(first.value).toBe(1)
  expect(left.done).toBe(true)
  expect(told).toEqual({ loads: 1, closed: 1 })
})

test('what a page throws is thrown once, and ends them', async () => {
  const { rows, told } = paged([1], new Error('no more to be had'), [2])
  expect((await rows.next()).value).toBe(1)
  await expect(rows.next()).rejects.toThrow('no more to be had')
  expect(await rows.next()).toEqual({ done: true, value: undefined })
  expect(told).toEqual({ loads: 2, closed: 0 })
})
