#include "space_reading.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "error.h"
#include "js.h"

namespace btrmind {

namespace {

void readSpaces(int fd, Reading& out) {
  // Types × profiles and the global reserve are 37 at most, so one call does.
  constexpr size_t kSlots = 64;
  std::vector<uint64_t> room((sizeof(btrfs_ioctl_space_args) + kSlots * sizeof(btrfs_ioctl_space_info)) / 8);
  auto& answer = *reinterpret_cast<btrfs_ioctl_space_args*>(room.data());
  answer.space_slots = kSlots;
  checkedIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_SPACE_INFO), &answer, "read the space of each profile");
  const size_t spaces = std::min<size_t>(answer.total_spaces, kSlots);
  out.spaces.reserve(spaces);
  for (size_t i = 0; i < spaces; i++) {
    const btrfs_ioctl_space_info& space = answer.spaces[i];
    if (space.flags & BTRFS_SPACE_INFO_GLOBAL_RSV) {
      out.reserve = space.total_bytes;
      out.reserveUsed = space.used_bytes;
      continue;
    }
    if (space.flags & BTRFS_BLOCK_GROUP_RAID56_MASK) out.parity = true;
    out.spaces.push_back({space.flags, space.total_bytes, space.used_bytes});
  }
  auto rank = [](const Space& space) { return typeIndex(space.flags) * 16 + profileIndex(space.flags); };
  std::sort(out.spaces.begin(), out.spaces.end(), [&](const Space& a, const Space& b) { return rank(a) < rank(b); });
}

// Since 6.3 DEV_INFO tells the filesystem of a device. A seed belongs to another one, and is not counted.
bool isSeed(const btrfs_ioctl_dev_info_args& device, const btrfs_ioctl_fs_info_args& filesystem) {
  uint8_t fsid[BTRFS_FSID_SIZE];
  memcpy(fsid, device.unused, sizeof fsid);
  return !uuidIsZero(fsid) && memcmp(fsid, filesystem.fsid, sizeof fsid) != 0;
}

void readDevices(int fd, Reading& out) {
  auto add = [&](uint64_t devid) {
    out.devices.emplace_back();
    Device& device = out.devices.back();
    device.info.devid = devid;
    int returned = tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_DEV_INFO), &device.info);
    device.info.path[sizeof device.info.path - 1] = '\0';
    // Without a node the kernel gives no path, or "<missing disk>".
    device.missing = device.info.path[0] != '/';
    if (returned != 0 || isSeed(device.info, out.info)) out.devices.pop_back();
    if (returned < 0 && returned != -ENODEV)
      throw Failure{-returned, "BTRFS_IOC_DEV_INFO", "read device " + std::to_string(devid)};
  };
  for (uint64_t devid = 1; devid <= out.info.max_id && out.devices.size() < out.info.num_devices; devid++) add(devid);
  // The target of a running replace has devid 0.
  if (out.devices.size() < out.info.num_devices) add(0);
}

// On the only device lies all there is; the kernel need not be asked, nor permit it. False where a seed's block groups
// are among them, since these lie elsewhere.
bool chunksOfOnlyDevice(Reading& out) {
  if (out.info.num_devices != 1 || out.devices.size() != 1) return false;
  const btrfs_ioctl_dev_info_args& device = out.devices[0].info;
  uint64_t total = 0;
  for (const Space& space : out.spaces) {
    uint16_t copies = space.flags & BTRFS_BLOCK_GROUP_DUP ? 2 : 1;
    out.chunks.push_back({space.flags, device.devid, copies, copies * space.total});
    total += copies * space.total;
  }
  if (total == device.bytes_used) return true;
  out.chunks.clear();
  return false;
}

void readChunks(Handle& handle, Reading& out) {
  int returned = 0;
  if (!chunksOfOnlyDevice(out)) returned = handle.chunks.read(handle.fd(), out.info.generation, out.chunks);
  out.record("chunks", kChunks, returned);
}

// What is promised to dirty pages, and what is being written. Data moves from the one to the other and on to what
// SPACE_INFO calls used: read in that order, nothing is missed.
int readLive(SysfsFiles& sysfs, const std::string& allocation, Live& live) {
  for (const char* type : {"data/", "mixed/"}) {
    int returned = sysfs.read(allocation + type + "bytes_may_use", live.mayUse);
    if (returned == 0) returned = sysfs.read(allocation + type + "bytes_reserved", live.reserved);
    if (returned != -ENOENT) return returned;
  }
  return -ENOENT;
}

void readBlockDevice(SysfsFiles& sysfs, Device& device) {
  uint64_t bytes = 0;
  int returned = sysfs.blockDeviceBytes(device.path(), bytes);
  if (returned == 0) device.blockDeviceBytes = static_cast<double>(bytes);
  // Pulled out while mounted: the kernel still has the name, but there is no such device any more.
  if (returned == -ENOENT || returned == -ENODEV) device.missing = true;
}

int readErrors(int fd, Device& device) {
  btrfs_ioctl_get_dev_stats stats = {};
  stats.devid = device.info.devid;
  stats.nr_items = BTRFS_DEV_STAT_VALUES_MAX;
  int returned = tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_GET_DEV_STATS), &stats);
  if (returned != 0) return returned;
  for (int i = 0; i < BTRFS_DEV_STAT_VALUES_MAX; i++)
    device.errors[i] = exact(stats.values[i], "a device error counter");
  return 0;
}

}  // namespace

constexpr uint64_t kMixed = BTRFS_BLOCK_GROUP_DATA | BTRFS_BLOCK_GROUP_METADATA;

uint8_t typeIndex(uint64_t flags) {
  switch (flags & BTRFS_BLOCK_GROUP_TYPE_MASK) {
    case BTRFS_BLOCK_GROUP_DATA:
      return 0;
    case BTRFS_BLOCK_GROUP_METADATA:
      return 1;
    case kMixed:
      return 2;
    case BTRFS_BLOCK_GROUP_SYSTEM:
      return 3;
    default:
      throw Failure{EOPNOTSUPP, nullptr, "understand block group flags " + std::to_string(flags)};
  }
}

uint8_t profileIndex(uint64_t flags) {
  uint64_t profile = flags & BTRFS_BLOCK_GROUP_PROFILE_MASK;
  if (profile == 0) return 0;
  return static_cast<uint8_t>(__builtin_ctzll(profile / BTRFS_BLOCK_GROUP_RAID0) + 1);
}

Reading readSpace(Handle& handle, uint32_t parts) {
  Reading out = {};
  int fd = handle.fd();
  out.info.flags = BTRFS_FS_INFO_FLAG_GENERATION;
  checkedIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_FS_INFO), &out.info, "read the filesystem's identity");
  std::string sysfs = "/sys/fs/btrfs/" + uuidText(out.info.fsid) + "/";
  if (parts & kLive) out.record("live", kLive, readLive(handle.sysfs, sysfs + "allocation/", out.live));
  readSpaces(fd, out);
  readDevices(fd, out);
  checkedCall(fstatfs(fd, &out.stat), "fstatfs", "read free space");
  if (parts & kChunks || (parts & kParityChunks && out.parity)) readChunks(handle, out);
  if (parts & kExclusive)
    out.record("exclusiveOperation", kExclusive, handle.sysfs.read(sysfs + "exclusive_operation", out.exclusive));
  int errorsFailed = 0;
  for (Device& device : out.devices) {
    if (parts & kBlockDevices && !device.missing) readBlockDevice(handle.sysfs, device);
    if (parts & kErrors && !device.missing && errorsFailed == 0) errorsFailed = readErrors(fd, device);
  }
  if (parts & kErrors) out.record("errors", kErrors, errorsFailed);
  if (parts & kFragmentation) out.record("fragmentation", kFragmentation, sampleFragmentation(fd, out.fragmentation));
  return out;
}

}  // namespace btrmind
