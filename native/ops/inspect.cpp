// What lies where: block groups and their stripes, files at a logical address, names of an inode.
#include <string>
#include <vector>

#include "../block_groups.h"
#include "../directories.h"
#include "../task.h"
#include "../users.h"
#include "ops.h"

namespace btrmind {

namespace {

// blockGroups(ticket, handle) → { groups, flags, stripes }, by logical address
Napi::Value blockGroups(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle, [handle](const Cancelled& cancelled) { return readBlockGroups(handle->fd(), cancelled); },
      [](Napi::Env env, BlockGroups& groups) -> Napi::Value {
        Napi::Object out = Napi::Object::New(env);
        out.Set("groups", copied<Napi::Float64Array>(env, groups.groups.data(), groups.groups.size()));
        out.Set("flags", copied<Napi::BigUint64Array>(env, groups.flags.data(), groups.flags.size()));
        out.Set("stripes", copied<Napi::Float64Array>(env, groups.stripes.data(), groups.stripes.size()));
        return out;
      });
}

Napi::Value toArray(Napi::Env env, const std::vector<std::string>& texts) {
  Napi::Array out = Napi::Array::New(env, texts.size());
  for (uint32_t i = 0; i < texts.size(); i++)
    out.Set(i, copied<Napi::Uint8Array>(env, reinterpret_cast<const uint8_t*>(texts[i].data()), texts[i].size()));
  return out;
}

// inodePaths(ticket, handle, subvolume, inode) → paths as bytes, from the subvolume's top
Napi::Value inodePaths(const Args& args) {
  HandlePtr handle = args.handle(1);
  uint64_t tree = args.u64(2), inode = args.u64(3);
  return quick(
      args, handle,
      [handle, tree, inode](const Cancelled&) {
        Directories directories(handle->fd());
        return namesOf(handle->fd(), tree, inode, directories);
      },
      [](Napi::Env env, std::vector<std::string>& paths) { return toArray(env, paths); });
}

// logicalFiles(ticket, handle, logical, wholeExtent) → [{ inode, offset, subvolume, paths }]
Napi::Value logicalFiles(const Args& args) {
  HandlePtr handle = args.handle(1);
  uint64_t logical = args.u64(2);
  bool wholeExtent = args.boolean(3);
  return quick(
      args, handle,
      [handle, logical, wholeExtent](const Cancelled& cancelled) {
        return usersOf(handle->fd(), logical, wholeExtent, cancelled);
      },
      [](Napi::Env env, std::vector<User>& users) -> Napi::Value {
        Napi::Array out = Napi::Array::New(env, users.size());
        for (uint32_t i = 0; i < users.size(); i++) {
          Napi::Object row = Napi::Object::New(env);
          row.Set("inode", number(env, users[i].inode, "inode"));
          row.Set("offset", number(env, users[i].offset, "offset"));
          row.Set("subvolume", number(env, users[i].subvolume, "subvolume id"));
          row.Set("paths", toArray(env, users[i].paths));
          out.Set(i, row);
        }
        return out;
      });
}

}  // namespace

void defineInspect(Napi::Env env, Napi::Object exports) {
  define<blockGroups>(env, exports, "blockGroups");
  define<inodePaths>(env, exports, "inodePaths");
  define<logicalFiles>(env, exports, "logicalFiles");
}

}  // namespace btrmind
