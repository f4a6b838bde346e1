// Defragmenting and recompressing, for whoever names the files.
#include "../defragment.h"

#include <fcntl.h>

#include <cerrno>
#include <deque>
#include <memory>
#include <optional>

#include "../beneath.h"
#include "../extents.h"
#include "../named.h"
#include "files.h"
#include "ops.h"

namespace btrmind {

namespace {

constexpr napi_type_tag kPreparedTag{0x6274726d696e642dULL, 0x6465667261672d31ULL};
constexpr int kOpenForReading = O_RDONLY | O_NONBLOCK | O_NOCTTY;

// A file whose new extents may not be on disk yet.
struct Pending {
  ScopedFd fd;
  uint64_t inode, before, given;
};

// Disk bytes of files that are done with, before and after.
struct DiskBytes {
  uint64_t before = 0, after = 0;
  bool unread = false;  // not permitted
};

// What is asked of every file of an operation, one after the other, and how far it is in the one under way.
struct Prepared {
  DefragmentRequest request;
  std::atomic<uint64_t> done{0}, total{0};
  // Waiting for each file to be written out would make a tree of small ones several times slower: they are measured
  // some files later. Only the thread of the file under way touches these.
  std::deque<Pending> pending;
  uint64_t pendingBytes = 0;

  void settleOldest(DiskBytes& sums) {
    Pending one = std::move(pending.front());
    pending.pop_front();
    pendingBytes -= one.given;
    auto after = flush(one.fd.get()) == 0 ? diskBytes(one.fd.get(), one.inode) : std::nullopt;
    if (!after) return;
    sums.before += one.before;
    sums.after += *after;
  }
};
using PreparedPtr = std::shared_ptr<Prepared>;
constexpr size_t kPendingFiles = 64;
constexpr uint64_t kPendingBytes = 64 << 20;

struct Done {
  Defragmented file;
  DiskBytes disk = {};
};

void setDiskBytes(Napi::Env env, Napi::Object object, const DiskBytes& disk) {
  object.Set("diskBytesBefore", number(env, disk.before, "diskBytesBefore"));
  object.Set("diskBytesAfter", number(env, disk.after, "diskBytesAfter"));
  object.Set("unread", disk.unread);
}

// defragmentPrepare(flags, threshold, type, level, start, length, slice, skipShared, skipCompressed) → prepared
Napi::Value defragmentPrepare(const Args& args) {
  auto prepared = std::make_shared<Prepared>();
  DefragmentRequest& request = prepared->request;
  request.flags |= args.u64(0);
  request.threshold = static_cast<uint32_t>(args.u64(1));
  request.type = static_cast<uint32_t>(args.u64(2));
  request.level = static_cast<int>(args.real(3));
  request.start = args.u64(4);
  request.length = args.absent(5) ? UINT64_MAX : args.u64(5);
  request.slice = args.u64(6);
  request.skipShared = args.boolean(7);
  request.skipCompressed = args.boolean(8);
  if (request.slice == 0) throw Napi::RangeError::New(args.env(), "a slice of 0 bytes");
  return wrapShared(args.env(), prepared, kPreparedTag);
}

// defragmentDone(prepared) → { doneBytes, totalBytes } of the file under way. Synchronous.
Napi::Value defragmentDone(const Args& args) {
  PreparedPtr prepared = unwrapShared<Prepared>(args.env(), args[0], kPreparedTag);
  Napi::Object out = Napi::Object::New(args.env());
  out.Set("doneBytes", number(args.env(), prepared->done, "doneBytes"));
  out.Set("totalBytes", number(args.env(), prepared->total, "totalBytes"));
  return out;
}

NamedFile openOne(const HandlePtr& handle, const RootRef& root, const std::optional<std::string>& inner) {
  if (!inner) return openNamed(handle, root.path, Kinds::file, O_RDONLY);
  Pinned pinned;
  int code = Root(handle, root).open(*inner, kOpenForReading, pinned);
  if (code > 0) throw Failure{code, "open", "open the file"};
  NamedFile file;
  // No file any more: nobody's fault, and there is none to rewrite.
  if (code == 0) file = {std::move(pinned.file), pinned.stat};
  return file;
}

// Failures with a reason that the code does not tell.
Failure refused(int code, uint64_t flags) {
  Failure failure{code, "BTRFS_IOC_DEFRAG_RANGE", "rewrite the file"};
  if (code != EOPNOTSUPP && code != EINVAL) return failure;
  if (flags & BTRFS_DEFRAG_RANGE_NOCOMPRESS) failure.hint = "`nocompress` needs Linux 6.17";
  if (flags & BTRFS_DEFRAG_RANGE_COMPRESS_LEVEL) failure.hint = "`level` needs Linux 6.15";
  return failure;
}

// defragmentFile(ticket, handle, prepared, root, seen, inner) → { code, givenBytes, … } of one file: the one that the
// root itself is, or `inner` (bytes) beneath it; and disk bytes of files of earlier calls, or its own.
Napi::Value defragmentFile(const Args& args) {
  HandlePtr handle = args.handle(1);
  PreparedPtr prepared = unwrapShared<Prepared>(args.env(), args[2], kPreparedTag);
  std::optional<std::string> inner;
  if (!args.absent(5)) inner = args.path(5);
  auto toJs = [](Napi::Env env, const Done& done) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("code", outcomeName(done.file.code));
    object.Set("givenBytes", number(env, done.file.given, "givenBytes"));
    object.Set("sharedBytes", number(env, done.file.shared, "sharedBytes"));
    object.Set("compressedBytes", number(env, done.file.compressed, "compressedBytes"));
    setDiskBytes(env, object, done.disk);
    return object;
  };
  prepared->done = prepared->total = 0;
  return longRunning(
      args, handle,
      [handle, prepared, ref = readRoot(args, 3), inner](const Cancelled& cancelled) {
        Done done;
        const DefragmentRequest& request = prepared->request;
        NamedFile file = openOne(handle, ref, inner);
        int fd = file.fd.get();
        if (fd < 0) done.file.code = kChanged;
        if (done.file.code == 0 && request.flags & BTRFS_DEFRAG_RANGE_COMPRESS)
          done.file.code = compressible(fd, file.stat.st_ino);
        if (done.file.code != 0) return done;
        Range range = rangeOf(request, static_cast<uint64_t>(file.stat.st_size));
        prepared->total = range.end - range.start;
        done.file.code = flush(fd);
        if (done.file.code != 0) return done;
        auto before = diskBytes(fd, file.stat.st_ino);
        defragment(fd, range, request, cancelled, prepared->done, done.file);
        done.disk.unread = !before;
        if (before && done.file.given == 0) done.disk.before = done.disk.after = *before;
        if (before && done.file.given > 0) {
          prepared->pending.push_back({std::move(file.fd), file.stat.st_ino, *before, done.file.given});
          prepared->pendingBytes += done.file.given;
        }
        while (prepared->pending.size() > kPendingFiles || prepared->pendingBytes > kPendingBytes)
          prepared->settleOldest(done.disk);
        return done;
      },
      [toJs, prepared](Napi::Env env, Done& done) -> Napi::Value {
        if (done.file.code <= 0) return toJs(env, done);
        Failure failure = refused(done.file.code, prepared->request.flags);
        failure.output = [toJs, done](Napi::Env env) { return toJs(env, done); };
        throw failure;
      },
      nullptr);
}

// defragmentSettle(ticket, handle, prepared) → disk bytes of the files that are not counted yet. The last call.
Napi::Value defragmentSettle(const Args& args) {
  PreparedPtr prepared = unwrapShared<Prepared>(args.env(), args[2], kPreparedTag);
  return longRunning(
      args, args.handle(1),
      [prepared](const Cancelled&) {
        DiskBytes sums;
        while (!prepared->pending.empty()) prepared->settleOldest(sums);
        return sums;
      },
      [](Napi::Env env, DiskBytes& sums) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        setDiskBytes(env, object, sums);
        return object;
      },
      nullptr);
}

}  // namespace

void defineDefragment(Napi::Env env, Napi::Object exports) {
  define<defragmentPrepare>(env, exports, "defragmentPrepare");
  define<defragmentDone>(env, exports, "defragmentDone");
  define<defragmentFile>(env, exports, "defragmentFile");
  define<defragmentSettle>(env, exports, "defragmentSettle");
}

}  // namespace btrmind
