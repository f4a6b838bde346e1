// A walk or a scan as JavaScript sees it: a cursor, and columns a batch.
#include "../walk.h"

#include <fcntl.h>

#include <cerrno>

#include "../js.h"
#include "../scan.h"
#include "files.h"
#include "ops.h"
#include "tally.h"

namespace btrmind {

namespace {

constexpr napi_type_tag kCursorTag{0x6274726d696e642dULL, 0x77616c6b2d312020ULL};

struct Cursor {
  explicit Cursor(std::unique_ptr<Files> files) : files(std::move(files)) {}
  std::unique_ptr<Files> files;
  std::atomic_flag busy = ATOMIC_FLAG_INIT;
};
using CursorPtr = std::shared_ptr<Cursor>;

Napi::Value wrapCursor(Napi::Env env, CursorPtr& cursor) { return wrapShared(env, cursor, kCursorTag); }

Napi::Value toJs(Napi::Env env, Batch& batch) {
  size_t rows = batch.rows();
  auto columns = Napi::Float64Array::New(env, rows * batch.columns);
  for (size_t row = 0; row < rows; row++) {
    for (size_t column = 0; column < batch.columns; column++)
      columns.Data()[column * rows + row] = batch.values[row * batch.columns + column];
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
  out.Set("waits", batch.waits);
  if (batch.done) out.Set("next", batch.next);
  return out;
}

// walkOpen(ticket, handle, root, seen, everything) → cursor
Napi::Value walkOpen(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle, ref = readRoot(args, 2), everything = args.boolean(4)](const Cancelled&) {
        return std::make_shared<Cursor>(std::make_unique<Walk>(Root(handle, ref), everything));
      },
      wrapCursor);
}

// scanOpen(ticket, handle, root, seen, since, extents, sharing, tally, prefix) → cursor
Napi::Value scanOpen(const Args& args) {
  HandlePtr handle = args.handle(1);
  ScanOptions options;
  options.since = args.u64(4);
  options.extents = args.boolean(5);
  options.sharing = args.boolean(6);
  if (!args.absent(7)) options.tally = readTally(args, 7);
  if (!args.absent(8)) options.prefix = args.path(8);
  options.extents |= options.tally != nullptr;
  return quick(
      args, handle,
      [handle, ref = readRoot(args, 2), options](const Cancelled&) {
        int fd = Root(handle, ref).directory("", O_RDONLY);
        if (fd < 0) throw Failure{-fd, "open", "open the directory", ref.path};
        return std::make_shared<Cursor>(std::make_unique<Scan>(ScopedFd(fd), options));
      },
      wrapCursor);
}

// scanRange(cursor, first, last): synchronous
Napi::Value scanRange(const Args& args) {
  CursorPtr cursor = unwrapShared<Cursor>(args.env(), args[0], kCursorTag);
  uint64_t first = args.u64(1), last = args.u64(2);
  auto* scan = cursor == nullptr ? nullptr : dynamic_cast<Scan*>(cursor->files.get());
  if (scan == nullptr) throw Failure{EBADF, nullptr, "choose the inodes of a scan"};
  if (cursor->busy.test_and_set()) throw Failure{EBUSY, nullptr, "choose the inodes while a batch is under way"};
  scan->range(first, last);
  cursor->busy.clear();
  return args.env().Undefined();
}

// filesNext(ticket, handle, cursor, rows) → { columns, paths, ends, skipped, done }
Napi::Value filesNext(const Args& args) {
  HandlePtr handle = args.handle(1);
  CursorPtr cursor = unwrapShared<Cursor>(args.env(), args[2], kCursorTag);
  size_t rows = args.u64(3);
  if (cursor == nullptr) throw Failure{EBADF, nullptr, "go on after the end was asked for"};
  if (cursor->busy.test_and_set()) throw Failure{EBUSY, nullptr, "go on while a batch is under way"};
  return quick(
      args, handle,
      [cursor, rows](const Cancelled& cancelled) {
        struct Free {
          std::atomic_flag& busy;
          ~Free() { busy.clear(); }
        } free{cursor->busy};
        return cursor->files->next(rows, cancelled);
      },
      toJs);
}

// filesClose(cursor): synchronous; a batch under way keeps it until it is read.
Napi::Value filesClose(const Args& args) {
  unwrapShared<Cursor>(args.env(), args[0], kCursorTag).reset();
  return args.env().Undefined();
}

}  // namespace

void defineWalk(Napi::Env env, Napi::Object exports) {
  define<walkOpen>(env, exports, "walkOpen");
  define<scanOpen>(env, exports, "scanOpen");
  define<scanRange>(env, exports, "scanRange");
  define<filesNext>(env, exports, "filesNext");
  define<filesClose>(env, exports, "filesClose");
}

}  // namespace btrmind
