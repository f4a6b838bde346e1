import { readdirSync, readFileSync } from 'node:fs'
import { getSystemErrorName } from 'node:util'
import * as v from 'valibot'
import { describe, expect, it } from 'vitest'
import { openFilesystem } from '../src/btrfs/filesystem.js'
import { BtrfsError, BtrmindError, check, ERRORS, HINTS, nearest, quote, reason } from '../src/errors.js'
import { native } from '../src/native.js'
import { cannotMount, makeVolume } from './helpers/volume.js'

describe('docs/errors.md', () => {
  const docs = readFileSync(new URL('../docs/errors.md', import.meta.url), 'utf8')
  const table = (heading: string) =>
    Object.fromEntries(
      [...docs.slice(docs.indexOf(heading)).matchAll(/^\| `([A-Z_0-9]+)` +\| (.*?) +\|$/gm)].map(([, code, text]) => [
        code,
        text,
      ]),
    )

  it('has the table of our own codes, word for word', () => {
    expect(table('## BtrmindError')).toEqual(ERRORS)
  })

  it('has the hints, word for word', () => {
    expect(table('## BtrfsError')).toEqual({ ...HINTS, ...ERRORS })
  })

  it('quotes a message as it is made', () => {
    const failure = { code: 'ENOSPC', errno: -28, text: 'No space left on device', ioctl: 'BTRFS_IOC_SNAP_CREATE_V2' }
    expect(docs).toContain(`\n${new BtrfsError('snapshot', failure, { path: '/a', dest: '/b' }).message}\n`)
  })
})

describe('BtrfsError', () => {
  const failure = { code: 'ENOSPC', errno: -28, text: 'No space left on device' }

  it('has a field for each thing that is known, and no others', () => {
    const error = new BtrfsError(
      'snapshot',
      { ...failure, ioctl: 'X', step: 'look', progress: { done: 1 } },
      { path: '/a' },
    )
    expect({ ...error }).toEqual({
      name: 'BtrfsError',
      code: 'ENOSPC',
      errno: -28,
      operation: 'snapshot',
      ioctl: 'X',
      step: 'look',
      path: '/a',
      hint: HINTS.ENOSPC,
      progress: { done: 1 },
    })
    expect(error.message).toBe(`ENOSPC: no space left on device, snapshot '/a' (X): could not look; ${HINTS.ENOSPC}`)
    expect(Object.keys(new BtrfsError('info', { ...failure, code: 'EIO' })).sort()).toEqual([
      'code',
      'errno',
      'name',
      'operation',
    ])
  })

  it('prefers the hint of the failure itself, and its path', () => {
    const error = new BtrfsError('x', { ...failure, hint: 'this very case', path: '/inner' }, { path: '/outer' })
    expect(error).toMatchObject({ hint: 'this very case', path: '/inner' })
    expect(reason('EPERM')).toBe('EPERM: needs root (CAP_SYS_ADMIN)')
    expect(reason('EIO')).toBe('EIO')
  })

  it.skipIf(cannotMount)('leads to the line that awaited the call, through every layer', async () => {
    using volume = makeVolume({ devicesMiB: [128] })
    await using fs = await openFilesystem(volume.path)
    async function theCaller(act: () => Promise<unknown>) {
      await act()
    }
    const calls: Record<string, () => Promise<unknown>> = {
      createSubvolume: () => fs.createSubvolume('none/x'),
      snapshot: () => fs.snapshot('none', 'x', { timeoutMs: 60_000 }),
      deleteSubvolume: () => fs.deleteSubvolume('none', { waitUntilFreed: true }),
      subvolume: () => fs.subvolume('none'),
      subvolumes: async () => {
        for await (const row of fs.subvolumes({ below: 'none' })) return row
      },
      openFilesystem: () => openFilesystem('/nowhere'),
      changed: async () => {
        for await (const row of fs.changed('nope')) return row
      },
      resizeDevice: () => fs.resizeDevice(7, 1024 ** 3),
    }
    for (const [operation, act] of Object.entries(calls)) {
      const error = await theCaller(act).catch((reason: unknown) => reason)
      expect(error).toBeInstanceOf(BtrfsError)
      expect(error).toMatchObject({ operation })
      expect((error as Error).stack, operation).toContain('theCaller')
    }
  })
})

describe('BtrmindError', () => {
  it('carries code, hint and cause', () => {
    const cause = new Error('why')
    const error = new BtrmindError('BTRMIND_ERR_GUARD', 'no', { hint: 'wait', cause })
    expect(error).toMatchObject({ name: 'BtrmindError', code: 'BTRMIND_ERR_GUARD', hint: 'wait', cause })
    expect(error.message).toBe('BTRMIND_ERR_GUARD: no; wait')
    expect(new BtrmindError('BTRMIND_ERR_GUARD', 'no')).not.toHaveProperty('hint', expect.anything())
  })
})

describe('check()', () => {
  const schema = v.strictObject({
    readonly: v.optional(v.boolean(), false),
    limits: v.optional(v.strictObject({ low: v.number() })),
  })

  it('gives the defaults', () => {
    expect(check('call', schema, {})).toEqual({ readonly: false })
  })

  it('names the unknown option and the nearest one', () => {
    expect(() => check('call', schema, { readOnly: true })).toThrow(
      "BTRMIND_ERR_OPTION: call: unknown option 'readOnly'; did you mean 'readonly'?",
    )
    expect(() => check('call', schema, { completelyDifferent: true })).toThrow('valid: readonly, limits')
    expect(() => check('call', v.strictObject({}), { a: 1 })).toThrow('it takes no options')
  })

  it('deep inside, those of that place', () => {
    expect(() => check('call', schema, { limits: { low: 1, lwo: 1 } })).toThrow(
      "BTRMIND_ERR_OPTION: call: unknown option 'limits.lwo'; did you mean 'low'?",
    )
    const listed = v.strictObject({
      rows: v.array(v.strictObject({ path: v.string() })),
      each: v.record(v.string(), v.strictObject({ name: v.string() })),
    })
    expect(() => check('call', listed, { rows: [{ path: '' }, { path: '', pathh: '' }], each: {} })).toThrow(
      "unknown option 'rows.1.pathh'; did you mean 'path'?",
    )
    expect(() => check('call', listed, { rows: [], each: { a: { name: '', nmae: '' } } })).toThrow(
      "did you mean 'name'?",
    )
  })

  it('shows the shape where it is no object at all', () => {
    expect(() => check('call', schema, 'text')).toThrow(
      "call: expected an object like { readonly, limits }, got 'text'",
    )
    expect(() => check('call', schema, undefined)).toThrow(
      'expected an object like { readonly, limits }, got undefined',
    )
    expect(() => check('call', schema, { limits: 7 })).toThrow(
      "call: option 'limits': expected an object like { low }, got 7",
    )
    const list = v.array(v.strictObject({ path: v.string() }))
    expect(() => check('call', list, ['a'])).toThrow("expected an object like { path }, got 'a'")
  })

  it('quotes the bad value, also deep inside', () => {
    expect(() => check('call', schema, { readonly: 'yes' })).toThrow(
      "BTRMIND_ERR_ARGUMENT: call: option 'readonly': expected boolean, got 'yes'",
    )
    expect(() => check('call', schema, { limits: { low: 'x' } })).toThrow(
      "call: option 'limits.low': expected number, got 'x'",
    )
    expect(() => check('call', schema, 'text')).toThrow("got 'text'")
    expect(() => check('call', schema, null)).toThrow('got null')
  })

  it('keeps it on one line', () => {
    expect(quote('x'.repeat(100))).toBe(`'${'x'.repeat(77)}…'`)
    expect(quote(12n)).toBe('12n')
    expect(quote({ a: 1 })).toBe('Object')
    expect(quote(Object.create(null))).toBe('object')
    expect(quote([1, 'b'])).toBe("[1, 'b']")
    expect(quote([1, 2, 3, 4])).toBe('[1, 2, 3, …]')
    expect(quote([Symbol('s')])).toBe('[Symbol(s)]')
    expect(quote(() => 1)).toBe('a function')
    expect(quote(null)).toBe('null')
    expect(nearest('redonly', ['readonly'])).toBe("did you mean 'readonly'?")
  })
})

describe('the addon', () => {
  const junk = [undefined, null, -1, 1.5, Number.NaN, '', {}, [], Symbol('s'), 1n << 70n, () => 0, new Uint8Array(3)]
  const functions = native as unknown as Record<string, (...args: unknown[]) => unknown>
  /** What it refuses is a TypeError or RangeError, or a failure as data; at once or by a rejected promise. */
  async function refuses(name: string, ...args: unknown[]): Promise<void> {
    try {
      const result = await functions[name]?.(...args)
      if (name === 'walkOpen') functions.filesClose?.(result)
    } catch (error) {
      const known = error instanceof TypeError || error instanceof RangeError
      expect(known || (error as { failure?: boolean }).failure, name).toBe(true)
    }
  }

  it('answers wrong types with an error, and never ends the process', async () => {
    for (const name of Object.keys(functions)) {
      for (const first of junk) for (const second of junk) await refuses(name, first, second, second, second, second)
    }
    await expect(async () => functions.info?.(0, {})).rejects.toThrow(TypeError)
    await expect(async () => functions.open?.(0, 7)).rejects.toThrow('argument 1: expected a path')
  })

  it.skipIf(cannotMount)('does so behind a real handle, too', async () => {
    using volume = makeVolume({ devicesMiB: [128] })
    const { handle } = await native.open(0, volume.path)
    for (const name of Object.keys(functions).filter((name) => name !== 'close')) {
      for (const value of junk) {
        await refuses(name, 0, handle, value, value, value, value)
        await refuses(name, 0, handle, volume.path, value, value, value)
      }
    }
    expect(readdirSync(volume.path)).toEqual([])
    native.close(handle)
  })

  it('names every errno that Linux has, those that Node does not know included', async () => {
    expect(getSystemErrorName(-2)).toBe('ENOENT')
    await expect(native.open(0, '/nowhere')).rejects.toMatchObject({ failure: true, code: 'ENOENT', errno: -2 })
    await expect(native.open(0, 'x'.repeat(5000))).rejects.toMatchObject({ code: 'ENAMETOOLONG', ioctl: 'open' })
  })
})

describe('JSON of an error', () => {
  it('has its message and all that is known', () => {
    const failure = {
      code: 'EPERM',
      errno: -1,
      text: 'no',
      ioctl: 'BTRFS_IOC_SCRUB',
      step: 'look',
      progress: { done: 1 },
    }
    const error = new BtrfsError('scrub', failure, { path: '/mnt/a', dest: '/mnt/b' })
    expect(JSON.parse(JSON.stringify({ error })).error).toEqual({
      name: 'BtrfsError',
      message: error.message,
      code: 'EPERM',
      errno: -1,
      operation: 'scrub',
      ioctl: 'BTRFS_IOC_SCRUB',
      step: 'look',
      path: '/mnt/a',
      dest: '/mnt/b',
      hint: HINTS.EPERM,
      progress: { done: 1 },
    })
    const ours = new BtrmindError('BTRMIND_ERR_STATE', 'no')
    expect(JSON.parse(JSON.stringify(ours))).toEqual({
      name: 'BtrmindError',
      message: ours.message,
      code: 'BTRMIND_ERR_STATE',
    })
  })
})
