import { describe, expect, it } from 'vitest'
import { measurementOf } from '../../src/btrfs/measure.js'
import { allocation, liveDataBytes, type Reading, seedBytes, utilisationPercent } from '../../src/btrfs/space.js'
import { usageOf } from '../../src/btrfs/usage.js'
import { GIB, MIB } from '../../src/units.js'

const NO_ERRORS = { write: 0, read: 0, flush: 0, corruption: 0, generation: 0 }
const device = { devid: 1, path: '/dev/sda', missing: false, sizeBytes: 10 * GIB, errors: NO_ERRORS }

/** One device of 10 GiB: 4 GiB of data, half used; metadata and system DUP. */
const reading: Reading = {
  spaces: [
    { type: 'data', profile: 'single', totalBytes: 4 * GIB, usedBytes: 2 * GIB },
    { type: 'metadata', profile: 'dup', totalBytes: 0.5 * GIB, usedBytes: 0.25 * GIB },
    { type: 'system', profile: 'dup', totalBytes: 0.5 * GIB, usedBytes: 0 },
  ],
  devices: [{ ...device, allocatedBytes: 6 * GIB, blockDeviceBytes: 10 * GIB }],
  chunks: undefined,
  statfsSizeBytes: 10 * GIB,
  statfsFreeBytes: 6 * GIB,
  readOnly: false,
  reserveBytes: 16 * MIB,
  reserveUsedBytes: 0,
  live: { reserved: 0.5 * GIB, mayUse: 0.5 * GIB },
  fragmentation: { extents: 8, breaks: 2 },
  failures: {},
}

describe('utilisation', () => {
  it('is raw data used and raw metadata and system allocated, over the size; live adds what is not flushed', () => {
    const space = allocation(reading)
    expect(utilisationPercent(reading, space)).toBe(40)
    expect(liveDataBytes(reading, space)).toBe(3 * GIB)
    expect(utilisationPercent(reading, space, 3 * GIB)).toBe(50)
    expect(measurementOf(reading, 'none', '/x')).toMatchObject({
      usedPercent: 40,
      liveUsedPercent: 50,
      metadataOverheadRatio: 0.2,
      unallocatedBytes: 4 * GIB,
      fragmentationRatio: 0.25,
    })
  })

  it('counts what is not flushed at the ratio of the data block groups there are', () => {
    const spaces = [{ type: 'data', profile: 'raid1c3', totalBytes: GIB, usedBytes: 0.5 * GIB } as const]
    const space = allocation({ ...reading, spaces })
    expect(utilisationPercent(reading, space, 0.75 * GIB)).toBe(22.5)
  })

  it('of an emptied volume with no data block group is that of its metadata', () => {
    const space = allocation({ ...reading, spaces: reading.spaces.slice(1) })
    expect(space.dataRatio).toBeUndefined()
    expect(utilisationPercent(reading, space)).toBe(20)
  })

  it('of a sprout leaves the seed’s block groups out', () => {
    // Of the 4 GiB of data 3 are the seed's; its own is half full, and 4 GiB are unallocated.
    const devices = [{ ...reading.devices[0]!, sizeBytes: 7 * GIB, allocatedBytes: 3 * GIB }]
    const sprout = { ...reading, devices, statfsFreeBytes: 4.5 * GIB }
    const space = allocation(sprout)
    expect(seedBytes(sprout, space)).toBe(3 * GIB)
    expect(utilisationPercent(sprout, space)).toBeCloseTo((100 * 2.5) / 7, 9)
    expect(utilisationPercent(sprout, space, 2.5 * GIB)).toBeCloseTo((100 * 3) / 7, 9)
    // A volume that can take nothing more has no bytes free for statfs.
    expect(utilisationPercent({ ...sprout, statfsFreeBytes: 0 }, space)).toBeCloseTo((100 * 3) / 7, 9)
    expect(seedBytes(reading, allocation(reading))).toBe(0)
  })

  it('in mixed block groups leaves the global reserve out of the promises', () => {
    const spaces = [{ type: 'data+metadata', profile: 'single', totalBytes: GIB, usedBytes: 0.5 * GIB } as const]
    const mixed = { ...reading, spaces, live: { reserved: MIB, mayUse: 20 * MIB }, reserveUsedBytes: 4 * MIB }
    expect(liveDataBytes(mixed, allocation(mixed))).toBe(0.5 * GIB + MIB + 8 * MIB)
    expect(liveDataBytes({ ...mixed, live: { reserved: 0, mayUse: 0 } }, allocation(mixed))).toBe(0.5 * GIB)
  })
})

describe('what cannot be read', () => {
  const fields = (changed: Partial<Reading>) => {
    const usage = usageOf({ ...reading, ...changed })
    for (const { field } of usage.unavailable)
      if (field in usage) expect(usage[field as keyof typeof usage]).toBe(undefined)
    return usage.unavailable
  }

  it('without a data block group: its ratio, and the estimates that rest on it', () => {
    const reason = 'no data block group'
    expect(fields({ spaces: reading.spaces.slice(1) })).toEqual([
      { field: 'freeEstimatedBytes', reason },
      { field: 'freeEstimatedMinBytes', reason },
      { field: 'dataRatio', reason },
    ])
  })

  it('without sysfs: live figures and slack', () => {
    const changed = {
      live: undefined,
      failures: { live: 'ENOENT' },
      devices: [{ ...device, allocatedBytes: 6 * GIB, blockDeviceBytes: undefined }],
    }
    expect(fields(changed).map((row) => row.field)).toEqual(['deviceSlackBytes', 'live'])
    expect(measurementOf({ ...reading, ...changed }, undefined, '/x')).toMatchObject({
      liveDataUsedBytes: undefined,
      liveUsedPercent: undefined,
      usedPercent: 40,
    })
  })

  it('on a missing device is no slack and no counters', () => {
    const gone = { ...device, devid: 2, path: undefined, missing: true, errors: undefined, blockDeviceBytes: undefined }
    const devices = [...reading.devices, { ...gone, allocatedBytes: 0 }]
    expect(usageOf({ ...reading, devices })).toMatchObject({ deviceSlackBytes: 0, deviceMissingBytes: 10 * GIB })
    expect(measurementOf({ ...reading, devices }, 'none', '/x')).toMatchObject({
      missingDevices: 1,
      devices: 2,
      deviceErrors: NO_ERRORS,
    })
    const none = measurementOf({ ...reading, devices: devices.slice(1) }, 'none', '/x')
    expect(none.deviceErrors).toBeUndefined()
  })
})
