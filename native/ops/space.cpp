// Space and devices: what SPACE_INFO, DEV_INFO, the chunk tree, statfs and sysfs know, in one hop and raw. The figures
// that people read are worked out from these in src/btrfs/space.ts.
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include <string>

#include "../space_reading.h"
#include "../task.h"
#include "ops.h"

namespace btrmind {

namespace {

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
      [handle, parts = static_cast<uint32_t>(args.u64(2))](const Cancelled&) { return readSpace(*handle, parts); },
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
