// Space and devices: what SPACE_INFO, DEV_INFO, the chunk tree, statfs and sysfs know, in one hop and raw. The figures
// that people read are worked out from these in src/btrfs/space.ts.
#include <linux/fs.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "../btrfs_compat.h"
#include "../fragmentation.h"
#include "../task.h"
#include "ops.h"

namespace btrmind {

namespace {

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

constexpr uint64_t kMixed = BTRFS_BLOCK_GROUP_DATA | BTRFS_BLOCK_GROUP_METADATA;

// Indices into TYPES and PROFILES of src/btrfs/space.ts, which are in the order of the kernel's flags.
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

void readSpaces(int fd, Reading& out) {
  // Types × profiles and the global reserve are 37 at most, so one call does.
  constexpr size_t kSlots = 64;
  std::vector<uint64_t> room((sizeof(btrfs_ioctl_space_args) + kSlots * sizeof(btrfs_ioctl_space_info)) / 8);
  auto& answer = *reinterpret_cast<btrfs_ioctl_space_args*>(room.data());
  answer.space_slots = kSlots;
  checkedIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_SPACE_INFO), &answer, "read the space of each profile");
  out.spaces.reserve(answer.total_spaces);
  for (uint64_t i = 0; i < answer.total_spaces; i++) {
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
  out.devices.reserve(out.info.num_devices);
  auto add = [&](uint64_t devid) {
    out.devices.emplace_back();
    Device& device = out.devices.back();
    device.info.devid = devid;
    int returned = tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_DEV_INFO), &device.info);
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

Reading read(Handle& handle, uint32_t parts) {
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

// Numbers in one array, in the order that unpack() of src/btrfs/space.ts has: an object a row costs ten times as much.
Napi::Float64Array pack(Napi::Env env, const Reading& in) {
  constexpr size_t kHead = 13, kSpace = 4, kDevice = 10, kChunk = 5;
  size_t length = kHead + in.spaces.size() * kSpace + in.devices.size() * kDevice + in.chunks.size() * kChunk;
  auto figures = Napi::Float64Array::New(env, length);
  double* at = figures.Data();
  auto put = [&](double value) { *at++ = value; };
  auto bytes = [&](uint64_t value) { put(exact(value, "a byte count")); };
  auto when = [&](Part part, uint64_t value) { in.have& part ? bytes(value) : put(kAbsent); };
  uint64_t block = static_cast<uint64_t>(in.stat.f_bsize);
  put(static_cast<double>(in.spaces.size()));
  put(static_cast<double>(in.devices.size()));
  put(static_cast<double>(in.chunks.size()));
  bytes(in.stat.f_blocks * block);
  bytes(in.stat.f_bavail * block);
  put(in.stat.f_flags & ST_RDONLY ? 1 : 0);
  bytes(in.reserve);
  bytes(in.reserveUsed);
  put(in.have & kChunks ? 1 : 0);
  when(kLive, in.live.reserved);
  when(kLive, in.live.mayUse);
  when(kFragmentation, in.fragmentation.extents);
  when(kFragmentation, in.fragmentation.breaks);
  for (const Space& space : in.spaces) {
    put(typeIndex(space.flags));
    put(profileIndex(space.flags));
    bytes(space.total);
    bytes(space.used);
  }
  for (const Device& device : in.devices) {
    bytes(device.info.devid);
    bytes(device.info.total_bytes);
    bytes(device.info.bytes_used);
    put(device.missing ? 1 : 0);
    put(device.blockDeviceBytes);
    for (double count : device.errors) put(count);
  }
  for (const Chunks& row : in.chunks) {
    put(typeIndex(row.flags));
    put(profileIndex(row.flags));
    bytes(row.devid);
    put(row.stripes);
    bytes(row.bytes);
  }
  return figures;
}

// space(ticket, handle, parts)
Napi::Value space(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle, parts = static_cast<uint32_t>(args.u64(2))](const Cancelled&) { return read(*handle, parts); },
      [](Napi::Env env, Reading& in) -> Napi::Value {
        Napi::Object out = Napi::Object::New(env);
        out.Set("figures", pack(env, in));
        Napi::Array paths = Napi::Array::New(env, in.devices.size());
        for (uint32_t i = 0; i < in.devices.size(); i++)
          if (!in.devices[i].missing) paths.Set(i, in.devices[i].path());
        out.Set("paths", paths);
        if (in.have & kErrors) {
          Napi::Array uuids = Napi::Array::New(env, in.devices.size());
          for (uint32_t i = 0; i < in.devices.size(); i++) uuids.Set(i, uuidText(in.devices[i].info.uuid));
          out.Set("uuids", uuids);
        }
        if (in.have & kExclusive) out.Set("exclusiveOperation", in.exclusive);
        if (!in.failures.empty()) {
          Napi::Object failures = Napi::Object::New(env);
          for (const auto& [name, error] : in.failures) failures.Set(name, errnoName(error));
          out.Set("failures", failures);
        }
        return out;
      });
}

// statfs(ticket, handle) → [size, free]: for when nothing else answers.
Napi::Value statfs(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle](const Cancelled&) {
        struct statfs stat;
        checkedCall(fstatfs(handle->fd(), &stat), "fstatfs", "read free space");
        return stat;
      },
      [](Napi::Env env, struct statfs& stat) -> Napi::Value {
        uint64_t block = static_cast<uint64_t>(stat.f_bsize);
        Napi::Object out = Napi::Object::New(env);
        out.Set("sizeBytes", number(env, stat.f_blocks * block, "size"));
        out.Set("freeBytes", number(env, stat.f_bavail * block, "free"));
        return out;
      });
}

}  // namespace

void defineSpace(Napi::Env env, Napi::Object exports) {
  define<space>(env, exports, "space");
  define<statfs>(env, exports, "statfs");
}

}  // namespace btrmind
