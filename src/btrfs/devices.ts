import { check } from '../errors.js'
import { native, SpacePart } from '../native.js'
import type { CallOptions } from './call.js'
import { callOptions } from './options.js'
import { type SpaceDevice, unpack } from './space.js'
import type { Device } from './types.js'
import type { Volume } from './volume.js'

/**
 * The devices of the volume, by devid; missing ones too, seeds not. BTRFS_IOC_DEV_INFO, GET_DEV_STATS, sysfs · no
 * privilege · quick.
 * @throws BtrfsError EBADF, ETIMEDOUT
 * @example
 * for (const d of await fs.devices()) if (d.missing || (d.errors?.corruption ?? 0) > 0) console.log('look at', d)
 */
export async function devices(volume: Volume, options?: CallOptions): Promise<Device[]> {
  const raw = await volume.call('devices', {}, check('devices', callOptions, options ?? {}), (t) =>
    native.space(t, volume.handle, SpacePart.blockDevices | SpacePart.errors),
  )
  return unpack(raw).devices.map((device, index) => deviceOf(device, raw.uuids![index]!))
}

/** Pure. Internal: the simulator's figures come the same way. */
export function deviceOf({ blockDeviceBytes, ...device }: SpaceDevice, uuid: string): Device {
  return {
    devid: device.devid,
    uuid,
    path: device.path,
    missing: device.missing,
    sizeBytes: device.sizeBytes,
    allocatedBytes: device.allocatedBytes,
    unallocatedBytes: device.sizeBytes - device.allocatedBytes,
    slackBytes: blockDeviceBytes === undefined ? undefined : blockDeviceBytes - device.sizeBytes,
    errors: device.errors,
  }
}
