// Compressing a file that is there already, and guessing what that would give.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>

#include "../btrfs_compat.h"
#include "../defragment.h"
#include "../extents.h"
#include "../lzo_size.h"
#include "../task.h"
#include "files.h"
#include "ops.h"

namespace btrmind {

namespace {

constexpr int kOpenForReading = O_RDONLY | O_NONBLOCK | O_NOCTTY;

struct Compressed {
  int code = 0;
  std::optional<uint64_t> before = std::nullopt;
  std::optional<uint64_t> after = std::nullopt;
};

// Rewrites [start, start + kSliceBytes) compressed, unless there is nothing to do; in a hole, `start` is moved to the
// slice that ends it. 0 or the outcome; `rewritten` tells.
int compressSlice(int fd, uint64_t& start, uint64_t size, uint32_t type, const Cancelled& cancelled, bool& rewritten) {
  Extents extents;
  int code = readExtents(fd, start, kSliceBytes, cancelled, extents);
  if (code != 0) return code;
  if (extents.count == 0) {
    uint64_t next = 0;
    code = nextExtent(fd, std::min(start + kSliceBytes, size), size, cancelled, next);
    // The slice before it, since the caller goes on from there.
    start = next == size ? size : next / kSliceBytes * kSliceBytes - kSliceBytes;
    return code;
  }
  // A snapshot or a reflink may have been made since the last slice.
  if (extents.sharedBytes > 0) return kShared;
  // What lies inline, in metadata, would gain no data space.
  if (extents.bytes == extents.inlineBytes || extents.compressedBytes > 0) return 0;
  rewritten = true;
  DefragmentRequest request;
  request.flags |= BTRFS_DEFRAG_RANGE_COMPRESS;
  request.type = type;
  return defragmentRange(fd, request, start, kSliceBytes);
}

// `extents`: of the whole file, since nothing is rewritten if any part of it is shared.
int compressPinned(int fd, const FileRef& ref, const Extents& extents, uint32_t type, const Cancelled& cancelled) {
  int code = compressible(fd, ref.inode);
  if (code != 0) return code;
  if (extents.sharedBytes > 0) return kShared;
  bool rewritten = false;
  for (uint64_t start = 0; start < ref.size; start += kSliceBytes) {
    struct stat stat;
    if (fstat(fd, &stat) < 0) return errno;
    if (!ref.isStill(stat)) return kChanged;
    code = compressSlice(fd, start, ref.size, type, cancelled, rewritten);
    if (code != 0) return code;
  }
  return rewritten || extents.compressedBytes == 0 ? 0 : kCompressed;
}

// compressFile(ticket, handle, root, seen, paths, ends, identity, type) of one file → { code, before?, after? }
// On the long lane: it settles when the kernel really has let go of the file.
Napi::Value compressFile(const Args& args) {
  HandlePtr handle = args.handle(1);
  auto type = static_cast<uint32_t>(args.u64(7));
  return longRunning(
      args, handle,
      [handle, ref = readRoot(args, 2), refs = readRefs(args, 4), type](const Cancelled& cancelled) {
        Root root(handle, ref);
        Pinned pinned;
        Compressed out;
        out.code = root.pin(refs.at(0), kOpenForReading, pinned);
        if (out.code != 0) return out;
        int fd = pinned.file.get();
        // FIEMAP waits for what is being written; only then the tree has the extents.
        const Cancelled never{false};
        Extents extents;
        out.code = readExtents(fd, 0, UINT64_MAX, never, extents);
        if (out.code != 0) return out;
        out.before = diskBytes(fd, refs[0].inode);
        out.code = compressPinned(fd, refs[0], extents, type, cancelled);
        int code = readExtents(fd, 0, UINT64_MAX, never, extents);
        if (out.code == 0) out.code = code;
        out.after = diskBytes(fd, refs[0].inode);
        return out;
      },
      [](Napi::Env env, Compressed& out) -> Napi::Value {
        auto figures = [before = out.before, after = out.after](Napi::Env env) -> Napi::Object {
          Napi::Object object = Napi::Object::New(env);
          if (before) object.Set("diskBytesBefore", number(env, *before, "diskBytesBefore"));
          if (after) object.Set("diskBytesAfter", number(env, *after, "diskBytesAfter"));
          return object;
        };
        if (out.code == ECANCELED) {
          Failure failure{ECANCELED, nullptr, "compress the whole file"};
          failure.output = figures;
          throw failure;
        }
        Napi::Object object = figures(env);
        object.Set("code", outcomeName(out.code));
        return object;
      },
      nullptr);
}

// Up to kSamples blocks, evenly spaced; holes are passed over.
constexpr uint64_t kSamples = 16;

int estimate(int fd, uint64_t size, const Cancelled& cancelled, double& ratio) {
  btrfs_ioctl_fs_info_args info = {};
  int returned = tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_FS_INFO), &info);
  if (returned < 0) return -returned;
  const size_t sector = info.sectorsize;
  posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
  auto block = std::make_unique<uint8_t[]>(kCompressionBlock);
  uint64_t blocks = (size + kCompressionBlock - 1) / kCompressionBlock;
  uint64_t samples = std::min(blocks, kSamples);
  uint64_t whole = 0, compressed = 0, next = 0;
  for (uint64_t i = 0; i < samples; i++) {
    if (cancelled) return ECANCELED;
    uint64_t index = samples < 2 ? 0 : i * (blocks - 1) / (samples - 1);
    off_t data = lseek(fd, static_cast<off_t>(std::max(next, index) * kCompressionBlock), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) return errno;
    index = static_cast<uint64_t>(data) / kCompressionBlock;
    next = index + 1;
    ssize_t got = pread(fd, block.get(), kCompressionBlock, static_cast<off_t>(index * kCompressionBlock));
    if (got < 0) return errno;
    whole += (static_cast<size_t>(got) + sector - 1) / sector * sector;
    compressed += lzoDiskBytes(block.get(), static_cast<size_t>(got), sector);
  }
  ratio = whole == 0 ? 1 : static_cast<double>(compressed) / static_cast<double>(whole);
  return 0;
}

// estimateCompressedRatio(ticket, handle, root, seen, paths, ends, identity) of one file → { code, ratio }
Napi::Value estimateCompressedRatio(const Args& args) {
  struct Out {
    int code;
    double ratio;
  };
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle, ref = readRoot(args, 2), refs = readRefs(args, 4)](const Cancelled& cancelled) {
        Root root(handle, ref);
        Pinned pinned;
        // Reading it must not make an inactive file look active; O_NOATIME is for its owner and root.
        Out out{root.pin(refs.at(0), kOpenForReading | O_NOATIME, pinned), 1};
        if (out.code == 0) out.code = estimate(pinned.file.get(), refs[0].size, cancelled, out.ratio);
        return out;
      },
      [](Napi::Env env, Out& out) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        object.Set("code", outcomeName(out.code));
        object.Set("ratio", out.ratio);
        return object;
      });
}

}  // namespace

void defineCompress(Napi::Env env, Napi::Object exports) {
  define<compressFile>(env, exports, "compressFile");
  define<estimateCompressedRatio>(env, exports, "estimateCompressedRatio");
}

}  // namespace btrmind
