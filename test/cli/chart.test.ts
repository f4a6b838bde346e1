import { describe, expect, it } from 'vitest'
import { chart, percentile } from '../../src/cli/chart.js'
import { bar, table } from '../../src/cli/output.js'

describe('chart', () => {
  it('draws eighths, newest at the right', () => {
    expect(chart([0, 25, 50, 75, 100], { width: 5, height: 2, min: 0, max: 100 })).toEqual(['   ▄█', ' ▄███'])
    expect(chart([100, 0, 12.5], { width: 2, height: 1, min: 0, max: 100 })).toEqual([' ▁'])
  })

  it('leaves gaps, and room for what is to come', () => {
    expect(chart([100, undefined, 100], { width: 5, height: 1, min: 0, max: 100 })).toEqual(['  █ █'])
    expect(chart([], { width: 3, height: 1, min: 0, max: 100 })).toEqual(['   '])
  })

  it('cuts off what is beyond its range', () => {
    expect(chart([-50, 500], { width: 2, height: 1, min: 0, max: 100 })).toEqual([' █'])
  })
})

it('percentile is nearest-rank', () => {
  const values = [5, 1, 4, 2, 3]
  expect([0, 50, 99, 100].map((percent) => percentile(values, percent))).toEqual([1, 3, 5, 5])
  expect(percentile([], 50)).toBeUndefined()
})

it('bar is never wider than it may be', () => {
  expect([-1, 0.5, 2].map((ratio) => bar(ratio, 4))).toEqual(['░░░░', '██░░', '████'])
})

it('table pads to the widest cell, numbers to the right, nothing at the end', () => {
  expect(
    table(
      ['id', 'name'],
      [
        ['7', 'a'],
        ['1234', ''],
      ],
      [0],
    ),
  ).toBe('  id  name\n   7  a\n1234\n')
})
