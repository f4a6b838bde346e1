// Where a file's data lies: FIEMAP.
#include "../extents.h"

#include <fcntl.h>

#include <memory>
#include <vector>

#include "../named.h"
#include "ops.h"

namespace btrmind {

namespace {

// One page of rows.
constexpr size_t kRowsACall = 4096;
constexpr size_t kColumns = 4;

struct FileMap {
  std::vector<double> rows;
  bool more = false;
  HandlePtr file;  // where it was opened for this page and there are more
};

// fileMap(ticket, handle, path or file, start, end, sync) → { rows: [logical, physical, length, flags] of each, more,
// file? }; `file` takes the path's place from then on.
Napi::Value fileMap(const Args& args) {
  HandlePtr handle = args.handle(1);
  HandlePtr opened = args[2].IsExternal() ? args.handle(2) : nullptr;
  std::string path = opened ? std::string() : args.path(2);
  uint64_t start = args.u64(3);
  uint64_t end = args.absent(4) ? UINT64_MAX : args.u64(4);
  return quick(
      args, handle,
      [handle, opened, path, start, end, sync = args.boolean(5)](const Cancelled& cancelled) {
        FileMap map;
        map.file =
            opened ? opened : std::make_shared<Handle>(openNamed(handle, path, Kinds::file, O_RDONLY).fd.release());
        int code = forEachExtent(map.file->fd(), start, end, sync, cancelled, [&](const fiemap_extent& extent) {
          map.more = map.rows.size() == kRowsACall * kColumns;
          if (map.more) return false;
          map.rows.push_back(exact(extent.fe_logical, "logicalBytes"));
          map.rows.push_back(exact(extent.fe_physical, "physicalBytes"));
          map.rows.push_back(exact(extent.fe_length, "lengthBytes"));
          map.rows.push_back(extent.fe_flags);
          return true;
        });
        if (code != 0) throw Failure{code, "FS_IOC_FIEMAP", "read where its data lies", path};
        if (!map.more || opened) map.file = nullptr;
        return map;
      },
      [](Napi::Env env, FileMap& map) -> Napi::Value {
        Napi::Object out = Napi::Object::New(env);
        out.Set("rows", copied<Napi::Float64Array>(env, map.rows.data(), map.rows.size()));
        out.Set("more", map.more);
        if (map.file != nullptr) out.Set("file", wrapHandle(env, std::move(map.file)));
        return out;
      });
}

}  // namespace

void defineExtents(Napi::Env env, Napi::Object exports) { define<fileMap>(env, exports, "fileMap"); }

}  // namespace btrmind
