import * as v from 'valibot'
import { describe, expect, it } from 'vitest'
import {
  balanceLimit,
  type GuardFacts,
  guard,
  metadataBlockGroupBytes,
  type RefusalCode,
  RULES,
  type VolumeFacts,
  verdicts,
} from '../../src/actions/guard.js'
import { actionOptions } from '../../src/actions/options.js'
import { ACTIONS, type ActionName } from '../../src/actions/table.js'
import { GIB, MIB } from '../../src/units.js'

const NOW = 1_700_000_000_000
const minutesAgo = (minutes: number) => NOW - minutes * 60_000

const sample: VolumeFacts = {
  timeMs: NOW,
  source: 'kernel',
  usedPercent: 80,
  liveUsedPercent: 81,
  sizeBytes: 100 * GIB,
  freeBytes: 20 * GIB,
  unallocatedBytes: 10 * GIB,
  metadataOverheadRatio: 0.1,
  metadataSlackBytes: 5 * GIB,
  devices: 1,
  missingDevices: 0,
  exclusiveOperation: 'none',
  readOnly: false,
}
const found = { items: 3, nothing: 'none is old enough' }
const facts: GuardFacts = {
  sample,
  roots: { temp: ['/v/tmp'], compress: ['/v'], snapshots: ['/v/snapshots'] },
  candidates: { temp: found, compress: found, snapshots: found },
  blind: {},
  metadataRatio: 2,
  metadataGainBytes: GIB,
  lastActed: {},
  underWay: undefined,
  options: v.parse(actionOptions, {}),
  emergency: false,
}
const withSample = (change: Partial<VolumeFacts>): GuardFacts => ({ ...facts, sample: { ...sample, ...change } })

/** One refusal for each rule: what is wrong, whom it stops, and what it says. */
const CASES: { code: RefusalCode; facts: GuardFacts; stops: ActionName[]; says: string }[] = [
  {
    code: 'still-under-way',
    facts: { ...facts, underWay: 'an action has been under way for 30 s (at work)' },
    stops: ['temp', 'compress', 'balance', 'snapshots'],
    says: 'an action has been under way for 30 s (at work)',
  },
  {
    code: 'read-only',
    facts: withSample({ readOnly: true }),
    stops: ['temp', 'compress', 'balance', 'snapshots'],
    says: 'the volume is read-only',
  },
  {
    code: 'no-root',
    facts: { ...facts, roots: { temp: [], compress: [], snapshots: [] } },
    stops: ['temp', 'compress', 'snapshots'],
    says: 'no temporary directories were named (--temp)',
  },
  {
    code: 'not-looked-yet',
    facts: { ...facts, candidates: {} },
    stops: ['temp', 'compress', 'snapshots'],
    says: 'its candidates are still being looked for',
  },
  {
    code: 'nothing-to-do',
    facts: { ...facts, candidates: { ...facts.candidates, compress: { ...found, items: 0 } } },
    stops: ['compress'],
    says: 'none is old enough',
  },
  {
    code: 'cool-down',
    facts: {
      ...facts,
      lastActed: {
        temp: { timeMs: NOW, fruitless: false },
        balance: { timeMs: minutesAgo(60), fruitless: false },
        snapshots: { timeMs: minutesAgo(6), fruitless: false },
      },
    },
    stops: ['balance'],
    says: 'it rests for 1380 more minutes',
  },
  {
    code: 'fruitless',
    facts: { ...facts, lastActed: { temp: { timeMs: minutesAgo(14), fruitless: true } } },
    stops: ['temp'],
    says: 'it tried and achieved nothing, and rests for 1 more minute',
  },
  {
    code: 'no-room',
    facts: withSample({ freeBytes: 63 * MIB }),
    stops: ['compress'],
    says: 'only 63.00 MiB are free, and a rewrite takes room before it gives any',
  },
  {
    code: 'figures-unknown',
    facts: withSample({ metadataSlackBytes: undefined, unallocatedBytes: undefined }),
    stops: ['balance'],
    says: 'unknown: metadata slack, unallocated bytes',
  },
  {
    code: 'devices-missing',
    facts: withSample({ devices: 2, missingDevices: 1 }),
    stops: ['balance'],
    says: '1 of 2 devices are missing; new chunks would be made without them',
  },
  {
    code: 'exclusive-operation',
    facts: withSample({ exclusiveOperation: 'device add' }),
    stops: ['balance'],
    says: "'device add' holds the volume",
  },
  {
    code: 'metadata-slack',
    facts: withSample({ metadataSlackBytes: 4 * GIB - 1 }),
    stops: ['balance'],
    says: 'metadata slack is 4.00 GiB; 3.00 GiB must stay, and a block group has 1.00 GiB',
  },
  {
    code: 'unallocated',
    facts: withSample({ unallocatedBytes: 2 * GIB - 1 }),
    stops: ['balance'],
    says: '2.00 GiB are unallocated; a metadata chunk to move into takes 2.00 GiB',
  },
  {
    code: 'nothing-to-merge',
    facts: { ...facts, metadataGainBytes: 0 },
    stops: ['balance'],
    says: 'no two metadata block groups would fit into one',
  },
]

describe('guard()', () => {
  it('allows everything on a healthy volume', () => {
    expect(verdicts(facts)).toEqual(ACTIONS.map(() => ({ allowed: true })))
  })

  it.each(CASES)('$code', ({ code, facts, stops, says }) => {
    const refused = verdicts(facts).filter((verdict) => !verdict.allowed)
    expect(refused.map(({ action }) => action)).toEqual(stops)
    expect(refused[0]).toMatchObject({ code, reason: says })
    expect(RULES.find((rule) => rule.code === code)?.actions).toEqual(expect.arrayContaining(stops))
  })

  it('has a case for each rule', () => {
    expect(CASES.map(({ code }) => code)).toEqual(RULES.map(({ code }) => code))
  })

  it('never refuses to do nothing', () => {
    for (const { facts } of CASES) expect(guard('none', facts)).toEqual({ allowed: true })
  })

  it('in an emergency nothing rests', () => {
    const rested: GuardFacts = {
      ...facts,
      lastActed: { temp: { timeMs: NOW, fruitless: true }, balance: { timeMs: NOW, fruitless: false } },
    }
    expect(guard('temp', { ...rested, emergency: true })).toEqual({ allowed: true })
    expect(guard('temp', rested)).toMatchObject({ code: 'fruitless' })
  })

  it('a clock that was set back stops nothing', () => {
    const future: GuardFacts = {
      ...facts,
      lastActed: { balance: { timeMs: NOW + 365 * 86_400_000, fruitless: false } },
    }
    expect(guard('balance', future)).toEqual({ allowed: true })
  })

  it('a statfs sample leaves only balance out', () => {
    const { timeMs, usedPercent, sizeBytes, freeBytes } = sample
    const verdict = verdicts({ ...facts, sample: { timeMs, source: 'statfs', usedPercent, sizeBytes, freeBytes } })
    expect(verdict.map(({ allowed }) => allowed)).toEqual([true, true, true, false, true])
  })
})

describe('balanceLimit()', () => {
  it('keeps the reserve even if every block group that it may touch vanishes', () => {
    for (const devices of [1, 2, 6]) {
      for (const sizeBytes of [GIB, 40 * GIB, 4_000 * GIB]) {
        for (let slack = 0; slack < 12 * GIB; slack += 100 * MIB) {
          const limit = balanceLimit(withSample({ devices, sizeBytes, metadataSlackBytes: slack }))
          const size = metadataBlockGroupBytes(sizeBytes)
          expect(Number.isInteger(limit)).toBe(true)
          if (limit > 0) expect(slack - limit * size).toBeGreaterThanOrEqual((2 + devices) * size)
        }
      }
    }
  })

  it('knows the kernel’s block group sizes', () => {
    expect(metadataBlockGroupBytes(GIB)).toBe(112 * MIB)
    expect(metadataBlockGroupBytes(128 * MIB)).toBe(16 * MIB)
    expect(metadataBlockGroupBytes(50 * GIB)).toBe(256 * MIB)
    expect(metadataBlockGroupBytes(51 * GIB)).toBe(GIB)
  })
})
