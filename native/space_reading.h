// Space and devices: what SPACE_INFO, DEV_INFO, the chunk tree, statfs and sysfs know, raw. No JavaScript here.
#pragma once
#include <sys/statfs.h>

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "btrfs_compat.h"
#include "chunks.h"
#include "fragmentation.h"
#include "handle.h"

namespace btrmind {

constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();

// What a caller wants beyond SPACE_INFO, DEV_INFO and statfs. src/native.ts has the same numbers.
enum Part : uint32_t {
  kChunks = 1,         // bytes of each profile on each device
  kParityChunks = 2,   // the same, where there is RAID5 or RAID6
  kLive = 4,           // data that is not flushed yet
  kBlockDevices = 8,   // size of the devices below
  kErrors = 16,        // GET_DEV_STATS
  kExclusive = 32,     // exclusive_operation
  kFragmentation = 64  // the sample of file extents
};

struct Space {
  uint64_t flags, total, used;
};

struct Device {
  btrfs_ioctl_dev_info_args info;
  bool missing;
  double blockDeviceBytes = kAbsent;
  double errors[BTRFS_DEV_STAT_VALUES_MAX] = {kAbsent, kAbsent, kAbsent, kAbsent, kAbsent};
  const char* path() const { return reinterpret_cast<const char*>(info.path); }
};

struct Live {
  uint64_t reserved, mayUse;
};

struct Reading {
  btrfs_ioctl_fs_info_args info;
  std::vector<Space> spaces;
  uint64_t reserve = 0, reserveUsed = 0;
  bool parity = false;
  std::vector<Device> devices;
  std::vector<Chunks> chunks;
  struct statfs stat;
  Live live = {};
  Fragmentation fragmentation;
  std::string exclusive;
  uint32_t have = 0;  // parts that were read
  std::vector<std::pair<const char*, int>> failures;

  void record(const char* name, Part part, int returned) {
    if (returned == 0)
      have |= part;
    else
      failures.emplace_back(name, -returned);
  }
};

// Indices into TYPES and PROFILES of src/btrfs/space.ts, which are in the order of the kernel's flags.
uint8_t typeIndex(uint64_t flags);
uint8_t profileIndex(uint64_t flags);

// Throws Failure.
Reading readSpace(Handle& handle, uint32_t parts);

}  // namespace btrmind
