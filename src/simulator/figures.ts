/** What the kernel would read of the volume; src/btrfs works the figures out of it, as it does for a real one. */

import { PROFILE_RULES, STRIPE_BYTES } from '../btrfs/chunk-allocator.js'
import { type DeviceChunks, type Reading, type Space as SpaceRow, sum } from '../btrfs/space.js'
import { createRandom } from '../random.js'
import { MIB } from '../units.js'
import type { BlockGroup } from './blockgroup.js'
import type { Space } from './space.js'
import type { Nodes } from './tree.js'

const NO_ERRORS = { write: 0, read: 0, flush: 0, corruption: 0, generation: 0 }

export function readingOf(nodes: Nodes): Reading {
  const { space } = nodes
  const { devices, profiles } = space.chunks
  return {
    spaces: (['data', 'metadata', 'system'] as const).map((type): SpaceRow => {
      const profile = type === 'data' ? profiles.data : profiles.metadata
      return { type, profile, totalBytes: space.allocated(type), usedBytes: space.used(type) }
    }),
    devices: devices.map(({ devid, path, sizeBytes, allocatedBytes }) => ({
      ...{ devid, path, missing: false, sizeBytes, allocatedBytes, blockDeviceBytes: sizeBytes, errors: NO_ERRORS },
    })),
    chunks: space.chunks.groups.flatMap(chunkRows),
    statfsSizeBytes: sum(devices, (device) => device.sizeBytes) / PROFILE_RULES[profiles.data].copies,
    statfsFreeBytes: availableBytes(space),
    readOnly: false,
    reserveBytes: space.globalReserveBytes,
    reserveUsedBytes: 0,
    live: { reserved: 0, mayUse: space.pendingBytes },
    fragmentation: sampleFragmentation(nodes),
    failures: {},
  }
}

/** As native/fragmentation.cpp: so many pages, of so many extents, each from a pseudo-random inode on. */
const PAGES = 8
const PAGE_EXTENTS = 190

/** docs/fragmentation.md. One fixed seed: an unchanged volume gives the same figure. */
function sampleFragmentation(nodes: Nodes): Reading['fragmentation'] {
  const { files } = nodes
  const random = createRandom(0)
  let extents = 0
  let breaks = 0
  for (let page = 0; page < PAGES && files.length > 0; page++) {
    const inode = random.integer(files.at(-1)!.inode + 1)
    let left = PAGE_EXTENTS
    for (let at = nodes.fileFrom(inode); at < files.length && left > 0; at++) {
      let end: number | undefined
      for (const { start, diskBytes, count } of files[at]!.extents) {
        if (left === 0) break
        if (end !== undefined && end !== start) breaks++
        end = start + diskBytes
        extents += Math.min(left, count)
        left -= Math.min(left, count)
      }
    }
  }
  return { extents, breaks }
}

function chunkRows({ type, profile, stripes }: BlockGroup): DeviceChunks[] {
  const width = stripes.length * PROFILE_RULES[profile].devStripes
  return stripes.map(({ device, range }) => ({
    ...{ type, profile, devid: device.devid, stripes: width, bytes: range.length },
  }))
}

/**
 * f_bavail of btrfs_statfs: room in data block groups, and what btrfs_calc_avail_data_space makes of the rest (the
 * smallest devices first, each beside as many others as the profile takes). 0 once metadata can neither grow nor spare
 * the global reserve.
 */
function availableBytes(space: Space): number {
  const { copies, devsMin, devsMax } = PROFILE_RULES[space.chunks.profiles.data]
  const slack = space.allocated('metadata') - space.used('metadata')
  if (!space.chunks.canAllocate('metadata') && slack - 4 * MIB < space.globalReserveBytes) return 0
  const left = space.chunks.devices
    .map(({ unallocatedBytes }) => Math.floor(unallocatedBytes / STRIPE_BYTES) * STRIPE_BYTES - MIB)
    .filter((bytes) => bytes >= STRIPE_BYTES)
    .sort((a, b) => b - a)
  let raw = 0
  while (left.length >= devsMin) {
    const width = Math.min(devsMax || left.length, left.length)
    const smallest = left.at(-1)!
    if (smallest >= STRIPE_BYTES) {
      raw += smallest * width
      for (let index = left.length - width; index < left.length; index++) left[index]! -= smallest
    }
    left.pop()
  }
  const free = space.allocated('data') - space.used('data')
  return Math.floor((free + raw / copies) / 4096) * 4096
}
