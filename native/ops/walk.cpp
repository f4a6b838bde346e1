// A walk as JavaScript sees it: a cursor, and columns a batch.
#include "../walk.h"

#include <cerrno>

#include "../js.h"
#include "files.h"
#include "ops.h"

namespace btrmind {

namespace {

constexpr napi_type_tag kWalkTag{0x6274726d696e642dULL, 0x77616c6b2d312020ULL};

struct Cursor {
  explicit Cursor(Root root) : walk(std::move(root)) {}
  Walk walk;
  std::atomic_flag busy = ATOMIC_FLAG_INIT;
};

Napi::Value toJs(Napi::Env env, WalkBatch& batch) {
  size_t rows = batch.ends.size();
  auto columns = Napi::Float64Array::New(env, rows * WalkBatch::kColumns);
  for (size_t row = 0; row < rows; row++) {
    for (size_t column = 0; column < WalkBatch::kColumns; column++)
      columns.Data()[column * rows + row] = batch.values[row * WalkBatch::kColumns + column];
  }
  auto bytes = [&](const std::string& text) { return copied<Napi::Uint8Array>(env, text.data(), text.size()); };
  Napi::Object out = Napi::Object::New(env);
  out.Set("columns", columns);
  out.Set("paths", bytes(batch.paths));
  out.Set("ends", copied<Napi::Uint32Array>(env, batch.ends.data(), rows));
  Napi::Array skipped = Napi::Array::New(env, batch.skipped.size());
  for (uint32_t i = 0; i < batch.skipped.size(); i++) {
    Napi::Object skip = Napi::Object::New(env);
    skip.Set("reason", batch.skipped[i].reason);
    skip.Set("count", batch.skipped[i].count);
    skip.Set("example", bytes(batch.skipped[i].example));
    skipped.Set(i, skip);
  }
  out.Set("skipped", skipped);
  out.Set("done", batch.done);
  return out;
}

// walkOpen(ticket, handle, root, seen) → cursor
Napi::Value walkOpen(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle, ref = readRoot(args, 2)](const Cancelled&) { return std::make_shared<Cursor>(Root(handle, ref)); },
      [](Napi::Env env, std::shared_ptr<Cursor>& cursor) { return wrapShared(env, cursor, kWalkTag); });
}

// walkNext(ticket, handle, cursor, rows) → { columns, paths, ends, skipped, done }
Napi::Value walkNext(const Args& args) {
  HandlePtr handle = args.handle(1);
  auto cursor = unwrapShared<Cursor>(args.env(), args[2], kWalkTag);
  size_t rows = args.u64(3);
  if (cursor == nullptr) throw Failure{EBADF, nullptr, "go on with a closed walk"};
  if (cursor->busy.test_and_set()) throw Failure{EBUSY, nullptr, "go on with a walk that is under way"};
  return quick(
      args, handle,
      [cursor, rows](const Cancelled& cancelled) {
        WalkBatch batch = cursor->walk.next(rows, cancelled);
        cursor->busy.clear();
        return batch;
      },
      toJs);
}

// walkClose(cursor): synchronous; a batch under way keeps it until it is read.
Napi::Value walkClose(const Args& args) {
  unwrapShared<Cursor>(args.env(), args[0], kWalkTag).reset();
  return args.env().Undefined();
}

}  // namespace

void defineWalk(Napi::Env env, Napi::Object exports) {
  define<walkOpen>(env, exports, "walkOpen");
  define<walkNext>(env, exports, "walkNext");
  define<walkClose>(env, exports, "walkClose");
}

}  // namespace btrmind
