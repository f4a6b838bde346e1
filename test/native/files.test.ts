/** What TypeScript never passes, passed to the addon: a TypeError or a failure each time, never an abort. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type NativeFiles, type NativeHandle, native } from '../../src/native.js'
import { cannotMount, makeVolume, type TestVolume } from '../helpers/volume.js'

describe.skipIf(cannotMount)('native arguments', () => {
  let volume: TestVolume
  let handle: NativeHandle
  beforeAll(async () => {
    volume = makeVolume()
    handle = (await native.open(0, volume.path)).handle
  })
  afterAll(() => {
    if (handle !== undefined) native.close(handle)
    volume?.[Symbol.dispose]()
  })
  const none: NativeFiles = [new Uint8Array(), new Uint32Array(), new Float64Array()]
  const one = (path = 'f', end = path.length, identity = [1, 2, 3, 4, 5]): NativeFiles => [
    Buffer.from(path),
    new Uint32Array([end]),
    new Float64Array(identity),
  ]

  it('files: columns of the wrong type, length, order or range', async () => {
    const remove = (files: unknown) => native.removeFiles(0, handle, volume.path, undefined, ...(files as NativeFiles))
    for (const files of [
      [],
      [1, 2, 3],
      [new Uint8Array(), new Uint32Array(), new Float32Array()],
      [new Uint8Array(), new Uint32Array(1), new Float64Array(4)],
      one('f', 2),
      [Buffer.from('abc'), new Uint32Array([2, 1]), new Float64Array(10)],
      one('f', 1, [-1, 2, 3, 4, 5]),
      one('f', 1, [Number.NaN, 2, 3, 4, 5]),
      one('f', 1, [1, 2 ** 53, 3, 4, 5]),
    ])
      expect(() => remove(files)).toThrow(TypeError)
    for (const seen of [1, [5, 6], new Float64Array(1), new Float64Array([-1, 5]), new Float32Array(2)])
      expect(() => native.walkOpen(0, handle, volume.path, seen as never, false)).toThrow(TypeError)
    expect(await remove(none)).toEqual({ codes: new Int32Array(), names: {} })
    expect(await remove(one('a\0b'))).toEqual({ codes: new Int32Array([18]), names: { 18: 'EXDEV' } })
    for (const call of ['fileExtents', 'estimateCompressedRatio'] as const) {
      await expect(native[call](0, handle, volume.path, undefined, ...none)).rejects.toMatchObject({ code: 'EINVAL' })
      expect(() => native[call](0, {} as never, volume.path, undefined, ...none)).toThrow(TypeError)
    }
    await expect(native.compressFile(0, handle, volume.path, undefined, ...none, 2)).rejects.toMatchObject({
      code: 'EINVAL',
    })
    expect(() => native.compressFile(0, handle, volume.path, undefined, ...one(), 'lzo' as never)).toThrow(TypeError)
  })

  it('walks and balances: foreign, closed and busy objects', async () => {
    expect(() => native.filesNext(0, handle, {} as never, 1)).toThrow(TypeError)
    expect(() => native.filesNext(0, handle, handle as never, 1)).toThrow(TypeError)
    const walk = await native.walkOpen(0, handle, volume.path, undefined, false)
    // Two at once; on a quick machine the first is often over before the second comes.
    const codes: string[] = []
    for (let round = 0; round < 2_000 && codes.length === 0; round++) {
      const shared = await native.walkOpen(0, handle, volume.path, undefined, false)
      const next = async () => native.filesNext(0, handle, shared, 1)
      for (const result of await Promise.allSettled([next(), next(), next(), next()])) {
        if (result.status === 'rejected') codes.push(result.reason.code)
      }
      native.filesClose(shared)
    }
    expect([...new Set(codes)]).toEqual(['EBUSY'])
    expect(await native.filesNext(0, handle, walk, 1)).toMatchObject({ done: true })
    expect(() => native.balance(0, handle, walk as never)).toThrow(TypeError)
    native.filesClose(walk)
    native.filesClose(walk)
    await expect(async () => native.filesNext(0, handle, walk, 1)).rejects.toMatchObject({ code: 'EBADF' })
    for (const filters of [1, {}, new Float64Array(3), new Float32Array(2)])
      expect(() => native.balancePrepare(filters as never)).toThrow(TypeError)
    await expect(native.walkOpen(0, handle, '/proc', undefined, false)).rejects.toMatchObject({ code: 'EXDEV' })
  })
})
