// A page of any tree's items, as the kernel gives it.
#include <limits>
#include <vector>

#include "../task.h"
#include "../tree_search.h"
#include "ops.h"

namespace btrmind {

namespace {

struct Page {
  std::vector<uint8_t> bytes;
  uint32_t items = 0;
};

// treeSearch(ticket, handle, tree, min objectid, type, offset, max objectid, type, offset, since) → { bytes, items }:
// one after the other transid, objectid, offset (8 each), type, length (4 each), and the data
Napi::Value treeSearch(const Args& args) {
  HandlePtr handle = args.handle(1);
  uint64_t tree = args.u64(2), since = args.u64(9);
  Key first{args.u64(3), static_cast<uint32_t>(args.u64(4)), args.u64(5)};
  Key last{args.u64(6), static_cast<uint32_t>(args.u64(7)), args.u64(8)};
  return quick(
      args, handle,
      [=](const Cancelled&) {
        Page page;
        SearchLimits limits;
        limits.calls = 1;
        limits.generation = since;
        const uint8_t* begin = nullptr;
        const uint8_t* end = nullptr;
        int returned = searchTree(
            handle->fd(), tree, first, last,
            [&](const Item& item) {
              if (begin == nullptr) begin = item.data - sizeof(btrfs_ioctl_search_header);
              end = item.data + item.length;
              page.items++;
              return true;
            },
            limits);
        if (returned < 0) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "read the tree"};
        page.bytes.assign(begin, end);
        return page;
      },
      [](Napi::Env env, Page& page) -> Napi::Value {
        Napi::Object out = Napi::Object::New(env);
        out.Set("bytes", copied<Napi::Uint8Array>(env, page.bytes.data(), page.bytes.size()));
        out.Set("items", page.items);
        return out;
      });
}

}  // namespace

void defineTree(Napi::Env env, Napi::Object exports) { define<treeSearch>(env, exports, "treeSearch"); }

}  // namespace btrmind
