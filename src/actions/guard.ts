/** The one gate before the executor. Pure: facts in, verdict out. docs/actions.md repeats RULES; a test holds them. */
import type { Sample } from '../monitor/sample.js'
import { formatBytes, GIB, MIB } from '../units.js'
import type { ActionOptions } from './options.js'
import { ACTIONS, type ActionName } from './table.js'

/** The figures of a sample that decisions rest on. */
export type VolumeFacts = Pick<
  Sample,
  | 'timeMs'
  | 'source'
  | 'usedPercent'
  | 'liveUsedPercent'
  | 'sizeBytes'
  | 'freeBytes'
  | 'unallocatedBytes'
  | 'metadataOverheadRatio'
  | 'metadataSlackBytes'
  | 'devices'
  | 'missingDevices'
  | 'exclusiveOperation'
  | 'readOnly'
>

/** What is known of an action's candidates. */
export interface CandidateFacts {
  /** 0 for none. */
  readonly items: number
  /** Why there are none, in one sentence. */
  readonly nothing: string
}

export interface LastActed {
  readonly timeMs: number
  /** It tried and achieved nothing. */
  readonly fruitless: boolean
}

export interface GuardFacts {
  readonly sample: VolumeFacts
  readonly roots: Readonly<Record<'temp' | 'compress' | 'snapshots', readonly string[]>>
  /** Undefined: not looked yet. */
  readonly candidates: Readonly<Partial<Record<ActionName, CandidateFacts>>>
  /** Why the last look for candidates failed. */
  readonly blind: Readonly<Partial<Record<ActionName, string>>>
  /** Raw bytes that a logical byte of metadata takes; undefined when usage() could not say. */
  readonly metadataRatio: number | undefined
  /** Logical bytes of metadata block groups that may come free; undefined: unknown. */
  readonly metadataGainBytes: number | undefined
  readonly lastActed: Readonly<Partial<Record<ActionName, LastActed>>>
  /** What the kernel has not let go of, in one sentence: an action, or a look for candidates. */
  readonly underWay: string | undefined
  readonly options: Pick<ActionOptions, 'cooldownMinutes' | 'metadataReserveBlockGroups'>
  readonly emergency: boolean
}

export type RefusalCode =
  | 'still-under-way'
  | 'read-only'
  | 'no-root'
  | 'not-looked-yet'
  | 'nothing-to-do'
  | 'cool-down'
  | 'fruitless'
  | 'no-room'
  | 'figures-unknown'
  | 'devices-missing'
  | 'exclusive-operation'
  | 'metadata-slack'
  | 'unallocated'
  | 'nothing-to-merge'

export interface Refusal {
  readonly allowed: false
  readonly action: ActionName
  readonly code: RefusalCode
  /** One sentence for people. */
  readonly reason: string
}
export type Verdict = { readonly allowed: true } | Refusal

/** An action that tried and achieved nothing rests so long. */
export const FRUITLESS_REST_MINUTES = 15
/** A rewrite needs room for the new extents before the old ones are free. */
export const COMPRESS_ROOM_BYTES = 64 * MIB

interface Rule {
  readonly code: RefusalCode
  readonly actions: readonly ActionName[]
  /** For the docs. */
  readonly when: string
  /** The reason to refuse, or undefined. */
  refuses(facts: GuardFacts, action: ActionName): string | undefined
}

const ALL: readonly ActionName[] = ['temp', 'compress', 'balance', 'snapshots']
const ROOTED: readonly ActionName[] = ['temp', 'compress', 'snapshots']

/** In order: the first that refuses gives the reason. */
export const RULES: readonly Rule[] = [
  {
    code: 'still-under-way',
    actions: ALL,
    when: 'an action or a look for candidates is still in the kernel (a disk that hangs)',
    refuses: ({ underWay }) => underWay,
  },
  {
    code: 'read-only',
    actions: ALL,
    when: 'the volume is mounted read-only, or went so after an error',
    refuses: ({ sample }) => (sample.readOnly === true ? 'the volume is read-only' : undefined),
  },
  {
    code: 'no-root',
    actions: ROOTED,
    when: 'the operator named no directory for it',
    refuses: ({ roots }, action) => {
      if (action === 'temp') return roots.temp.length > 0 ? undefined : 'no temporary directories were named (--temp)'
      if (action === 'compress') return roots.compress.length > 0 ? undefined : 'no directories to compress were named'
      return roots.snapshots.length > 0 ? undefined : 'no snapshot directories were named (--snapshots)'
    },
  },
  {
    code: 'not-looked-yet',
    actions: ROOTED,
    when: 'its candidates are still being looked for, or could not be',
    refuses: ({ candidates, blind }, action) => {
      if (candidates[action] !== undefined) return undefined
      const why = blind[action]
      return why === undefined
        ? 'its candidates are still being looked for'
        : `its candidates could not be looked for: ${why}`
    },
  },
  {
    code: 'nothing-to-do',
    actions: ROOTED,
    when: 'it has no candidates (snapshots: none above the floor)',
    refuses: ({ candidates }, action) => (candidates[action]?.items === 0 ? candidates[action].nothing : undefined),
  },
  {
    code: 'cool-down',
    actions: ALL,
    when: 'it acted less than `cooldownMinutes` ago (the emergency deletion of temporary files never rests)',
    refuses: (facts, action) =>
      action === 'none' ? undefined : rest(facts, action, facts.options.cooldownMinutes[action], 'it rests'),
  },
  {
    code: 'fruitless',
    actions: ALL,
    when: `less than ${FRUITLESS_REST_MINUTES} minutes ago it tried and achieved nothing (the emergency deletion of temporary files never rests)`,
    refuses: (facts, action) =>
      facts.lastActed[action]?.fruitless
        ? rest(facts, action, FRUITLESS_REST_MINUTES, 'it tried and achieved nothing, and rests')
        : undefined,
  },
  {
    code: 'no-room',
    actions: ['compress'],
    when: `less than ${formatBytes(COMPRESS_ROOM_BYTES)} are free: a rewrite takes room before it gives any`,
    refuses: ({ sample }) =>
      sample.freeBytes < COMPRESS_ROOM_BYTES
        ? `only ${formatBytes(sample.freeBytes)} are free, and a rewrite takes room before it gives any`
        : undefined,
  },
  {
    code: 'figures-unknown',
    actions: ['balance'],
    when: 'metadata slack, unallocated bytes, devices, exclusive operation or metadata profile are unknown',
    refuses: ({ sample, metadataRatio }) => {
      const needed: Record<string, unknown> = {
        'metadata slack': sample.metadataSlackBytes,
        'unallocated bytes': sample.unallocatedBytes,
        devices: sample.devices,
        'exclusive operation': sample.exclusiveOperation,
        'metadata profile': metadataRatio,
      }
      const unknown = Object.keys(needed).filter((name) => needed[name] === undefined)
      return unknown.length > 0 ? `unknown: ${unknown.join(', ')}` : undefined
    },
  },
  {
    code: 'devices-missing',
    actions: ['balance'],
    when: 'a device is missing: new chunks would be made without it',
    refuses: ({ sample }) =>
      (sample.missingDevices ?? 0) > 0
        ? `${sample.missingDevices} of ${sample.devices} devices are missing; new chunks would be made without them`
        : undefined,
  },
  {
    code: 'exclusive-operation',
    actions: ['balance'],
    when: 'another exclusive operation runs or is paused',
    refuses: ({ sample }) =>
      sample.exclusiveOperation === 'none' ? undefined : `'${sample.exclusiveOperation}' holds the volume`,
  },
  {
    code: 'metadata-slack',
    actions: ['balance'],
    when: 'giving one block group back would leave less metadata slack than (2 + devices) block groups',
    refuses: (facts) => {
      const { slack, keep, size } = metadataRoom(facts)
      return balanceLimit(facts) > 0
        ? undefined
        : `metadata slack is ${formatBytes(slack)}; ${formatBytes(keep)} must stay, and a block group has ${formatBytes(size)}`
    },
  },
  {
    code: 'unallocated',
    actions: ['balance'],
    when: 'unallocated space does not hold one more metadata chunk to move into',
    refuses: (facts) => {
      const have = facts.sample.unallocatedBytes ?? 0
      const need = metadataRoom(facts).size * (facts.metadataRatio ?? 1)
      return have < need
        ? `${formatBytes(have)} are unallocated; a metadata chunk to move into takes ${formatBytes(need)}`
        : undefined
    },
  },
  {
    code: 'nothing-to-merge',
    actions: ['balance'],
    when: 'there are not two metadata block groups that would fit into one',
    refuses: ({ metadataGainBytes }) =>
      metadataGainBytes === 0 ? 'no two metadata block groups would fit into one' : undefined,
  },
]

function rest(facts: GuardFacts, action: ActionName, minutes: number, why: string): string | undefined {
  const last = facts.lastActed[action]
  if (last === undefined || facts.emergency) return undefined
  const left = minutes - (facts.sample.timeMs - last.timeMs) / 60_000
  // More than all of it left: the clock was set back, which must not stop an action for years.
  if (left <= 0 || left > minutes) return undefined
  return `${why} for ${Math.ceil(left)} more minute${left > 1 ? 's' : ''}`
}

/**
 * The largest metadata block group that the kernel makes (fs/btrfs/volumes.c, decide_stripe_size_regular): 256 MiB, or
 * 1 GiB past 50 GiB, and a tenth of the volume at most, rounded up to 16 MiB.
 */
export function metadataBlockGroupBytes(deviceSizeBytes: number): number {
  const tenth = Math.ceil(deviceSizeBytes / 10 / (16 * MIB)) * 16 * MIB
  return Math.min(deviceSizeBytes > 50 * GIB ? GIB : 256 * MIB, tenth)
}

function metadataRoom({ sample, options }: GuardFacts) {
  const size = metadataBlockGroupBytes(sample.sizeBytes)
  const keep = size * (options.metadataReserveBlockGroups ?? 2 + (sample.devices ?? 1))
  return { size, keep, slack: sample.metadataSlackBytes ?? 0 }
}

/** How many metadata block groups may go, so that the reserve stays even if each of them vanishes. */
export function balanceLimit(facts: GuardFacts): number {
  const { size, keep, slack } = metadataRoom(facts)
  return Math.max(0, Math.floor((slack - keep) / size))
}

/** @returns allowed, or what the first rule that refuses says */
export function guard(action: ActionName, facts: GuardFacts): Verdict {
  for (const rule of RULES) {
    if (!rule.actions.includes(action)) continue
    const reason = rule.refuses(facts, action)
    if (reason !== undefined) return { allowed: false, action, code: rule.code, reason }
  }
  return { allowed: true }
}

/** By action id. What is refused leaves the argmax and the target's max. */
export function verdicts(facts: GuardFacts): readonly Verdict[] {
  return ACTIONS.map(({ name }) => guard(name, facts))
}
