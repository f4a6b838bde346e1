// Files that share data: deduplication, clones.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <memory>
#include <vector>

#include "../btrfs_compat.h"
#include "../named.h"
#include "../outcome.h"
#include "../task.h"
#include "ops.h"

namespace btrmind {

namespace {

struct Span {
  uint64_t from, length, to;  // offset in the source, bytes, offset in the destination
};

int attributesOf(int fd) {
  int flags = 0;
  return tryIoctl(fd, BTRMIND_REQUEST(FS_IOC_GETFLAGS), &flags) < 0 ? 0 : flags;
}

std::string endsBefore(uint64_t size) {
  return "the source ends at " + std::to_string(size) + ", before the range does";
}

// EINVAL means one of several things: which one it was.
std::string whyInvalid(int source, int destination, const Span& span, bool dedupe = false) {
  struct stat from, to;
  if (fstat(source, &from) < 0 || fstat(destination, &to) < 0) return {};
  auto size = static_cast<uint64_t>(from.st_size);
  if (span.from > size || span.length > size - span.from) return endsBefore(size);
  auto end = static_cast<uint64_t>(to.st_size);
  if (dedupe && span.to + span.length > end)
    return "the destination ends at " + std::to_string(end) + ", before the range does";
  bool same = from.st_dev == to.st_dev && from.st_ino == to.st_ino;
  if (same && span.from < span.to + span.length && span.to < span.from + span.length)
    return "the two ranges of the one file overlap";
  if ((attributesOf(source) ^ attributesOf(destination)) & FS_NOCOW_FL)
    return "one of them is without copy-on-write and checksums (NOCOW), the other is not: such two cannot share data";
  auto block = static_cast<uint64_t>(from.st_blksize);
  std::string blocks = "multiples of " + std::to_string(block);
  if (span.from % block != 0 || span.to % block != 0) return "where a range begins must be one of the " + blocks;
  if (span.length % block != 0)
    return "the length must be one of the " + blocks + ", or reach to the end of both files";
  return "one of them may keep no checksums and the other does (mount option nodatasum): such two cannot share data";
}

constexpr napi_type_tag kCountersTag{0x6274726d696e642dULL, 0x6465647570652d31ULL};
constexpr uint64_t kDedupeBytes = 16 << 20;       // the kernel's limit for one destination
constexpr size_t kDedupeFiles = 120;              // the arguments must fit a page
constexpr uint64_t kDedupeBytesACall = 64 << 20;  // in which it cannot be stopped
constexpr int kDiffers = -1;

struct Destination {
  std::string path;
  uint64_t offset;
  uint64_t deduped = 0;
  int code = 0;  // 0, kDiffers or errno
  std::string hint = {};
  ScopedFd fd = ScopedFd();
};

// How far it is, for whoever asks meanwhile.
struct Counters {
  std::atomic<uint64_t> done{0}, deduped{0}, total{UINT64_MAX};
};
using CountersPtr = std::shared_ptr<Counters>;

// One call for destinations that are all as far as each other.
void dedupe(int source, uint64_t from, uint64_t length, const std::vector<Destination*>& to) {
  std::vector<char> room(sizeof(btrfs_ioctl_same_args) + to.size() * sizeof(btrfs_ioctl_same_extent_info));
  auto* args = reinterpret_cast<btrfs_ioctl_same_args*>(room.data());
  args->logical_offset = from;
  args->length = length;
  args->dest_count = static_cast<uint16_t>(to.size());
  for (size_t i = 0; i < to.size(); i++) {
    args->info[i].fd = to[i]->fd.get();
    args->info[i].logical_offset = to[i]->offset + to[i]->deduped;
  }
  int returned = tryIoctl(source, BTRMIND_REQUEST(BTRFS_IOC_FILE_EXTENT_SAME), args);
  for (size_t i = 0; i < to.size(); i++) {
    const btrfs_ioctl_same_extent_info& info = args->info[i];
    Destination& one = *to[i];
    one.code = returned < 0 ? -returned : info.status == BTRFS_SAME_DATA_DIFFERS ? kDiffers : -info.status;
    if (one.code == EINVAL) one.hint = whyInvalid(source, one.fd.get(), {from, length, one.offset + one.deduped}, true);
    if (one.code == EPERM || one.code == EACCES) one.hint = "needs write permission on it, or to be its owner";
    if (one.code == 0) one.deduped += std::min<uint64_t>(info.bytes_deduped, length);
  }
}

// A page of destinations through the whole range, each until it differs or fails: a piece for all of them before the
// next one, for which the source need not be read again.
void dedupeAll(int source, uint64_t from, uint64_t length, std::vector<Destination*> left, Counters& counters,
               const Cancelled& cancelled) {
  for (uint64_t at = 0; at < length && !left.empty(); at += kDedupeBytes) {
    uint64_t piece = std::min(length - at, kDedupeBytes);
    size_t atOnce = std::max<size_t>(1, kDedupeBytesACall / piece);
    for (size_t first = 0; first < left.size(); first += atOnce) {
      if (cancelled) {
        for (Destination* one : left)
          if (one->code == 0 && one->deduped < length) one->code = ECANCELED;
        return;
      }
      auto begin = left.begin() + static_cast<std::ptrdiff_t>(first);
      std::vector<Destination*> some(begin, begin + static_cast<std::ptrdiff_t>(std::min(atOnce, left.size() - first)));
      dedupe(source, from + at, piece, some);
      for (const Destination* one : some) {
        counters.deduped += one->deduped - at;
        counters.done += one->code != 0 || one->deduped != at + piece ? length - at : piece;
      }
    }
    auto isOut = [&](const Destination* one) { return one->code != 0 || one->deduped != at + piece; };
    left.erase(std::remove_if(left.begin(), left.end(), isOut), left.end());
  }
}

// deduplicateCounters() → counters. Synchronous.
Napi::Value deduplicateCounters(const Args& args) {
  return wrapShared(args.env(), std::make_shared<Counters>(), kCountersTag);
}

// deduplicateDone(counters) → { doneBytes, totalBytes, dedupedBytes }. Synchronous.
Napi::Value deduplicateDone(const Args& args) {
  CountersPtr counters = unwrapShared<Counters>(args.env(), args[0], kCountersTag);
  Napi::Object out = Napi::Object::New(args.env());
  uint64_t total = counters->total;
  // Where the range ends after the source does, more than all of it fails.
  out.Set("doneBytes", number(args.env(), std::min<uint64_t>(counters->done, total), "doneBytes"));
  out.Set("totalBytes", total == UINT64_MAX ? args.env().Undefined() : number(args.env(), total, "totalBytes"));
  out.Set("dedupedBytes", number(args.env(), counters->deduped, "dedupedBytes"));
  return out;
}

Napi::Value destinationsToJs(Napi::Env env, const std::vector<Destination>& destinations) {
  Napi::Array out = Napi::Array::New(env, destinations.size());
  for (uint32_t i = 0; i < destinations.size(); i++) {
    const Destination& one = destinations[i];
    Napi::Object row = Napi::Object::New(env);
    row.Set("dedupedBytes", number(env, one.deduped, "dedupedBytes"));
    row.Set("code", one.code == kDiffers ? "DIFFERS" : outcomeName(one.code));
    row.Set("errno", one.code > 0 ? -one.code : 0);
    row.Set("hint", one.hint);
    out.Set(i, row);
  }
  return out;
}

struct Deduplicated {
  std::vector<Destination> destinations;
  bool cancelled = false;
};

// deduplicate(ticket, handle, source, start, length or undefined, paths, starts, counters) → { dedupedBytes, code, …
// } of each
Napi::Value deduplicate(const Args& args) {
  HandlePtr handle = args.handle(1);
  std::string source = args.path(2);
  uint64_t start = args.u64(3);
  uint64_t length = args.absent(4) ? UINT64_MAX : args.u64(4);
  if (!args[5].IsArray() || !args[6].IsTypedArray()) throw Napi::TypeError::New(args.env(), "paths and offsets");
  auto paths = args[5].As<Napi::Array>();
  auto offsets = args[6].As<Napi::TypedArray>();
  if (offsets.TypedArrayType() != napi_float64_array || offsets.ElementLength() != paths.Length())
    throw Napi::TypeError::New(args.env(), "offsets: expected Float64Array, one a path");
  CountersPtr counters = unwrapShared<Counters>(args.env(), args[7], kCountersTag);
  auto destinations = std::make_shared<std::vector<Destination>>();
  for (uint32_t i = 0; i < paths.Length(); i++) {
    double at = offsets.As<Napi::Float64Array>()[i];
    Napi::Value path = paths[i];
    if (!path.IsString() || !(at >= 0 && at < 0x1p53)) throw Napi::TypeError::New(args.env(), "a path and an offset");
    destinations->push_back({path.As<Napi::String>().Utf8Value(), static_cast<uint64_t>(at)});
  }
  return longRunning(
      args, handle,
      [handle, source, start, length, destinations, counters](const Cancelled& cancelled) {
        NamedFile from = openNamed(handle, source, Kinds::file, O_RDONLY);
        auto size = static_cast<uint64_t>(from.stat.st_size);
        uint64_t whole = length == UINT64_MAX ? size - std::min(size, start) : length;
        std::vector<Destination>& all = *destinations;
        counters->total = std::min(whole, size - std::min(size, start)) * all.size();
        for (size_t first = 0; first < all.size(); first += kDedupeFiles) {
          std::vector<Destination*> page;
          for (size_t i = first; i < std::min(all.size(), first + kDedupeFiles); i++) {
            if (cancelled) {
              all[i].code = ECANCELED;
              continue;
            }
            try {
              all[i].fd = openNamed(handle, all[i].path, Kinds::file, O_RDONLY).fd;
              // With a length the kernel says so; of an empty source, all of it is the same as nothing.
              if (length == UINT64_MAX && start > 0 && start >= size) {
                Failure failure{EINVAL, nullptr, "begin there"};
                failure.hint = endsBefore(size);
                throw failure;
              }
              page.push_back(&all[i]);
            } catch (const Failure& failure) {
              all[i].code = failure.error;
              all[i].hint = failure.error == EXDEV ? "it is on another volume" : failure.hint;
              counters->done += whole;
            }
          }
          dedupeAll(from.fd.get(), start, whole, page, *counters, cancelled);
          for (Destination* one : page) one->fd = ScopedFd();
        }
        bool cut = std::any_of(all.begin(), all.end(), [](const Destination& one) { return one.code == ECANCELED; });
        return Deduplicated{std::move(all), cut};
      },
      [](Napi::Env env, Deduplicated& out) -> Napi::Value {
        if (!out.cancelled) return destinationsToJs(env, out.destinations);
        Failure failure{ECANCELED, nullptr, "compare all of it"};
        auto kept = std::make_shared<Deduplicated>(std::move(out));
        failure.output = [kept](Napi::Env env) { return destinationsToJs(env, kept->destinations); };
        throw failure;
      },
      nullptr);
}

// A new file, taken away again unless it is kept.
class NewFile {
 public:
  NewFile(const HandlePtr& handle, const std::string& path, mode_t mode) {
    size_t slash = path.rfind('/');
    name_ = path.substr(slash + 1);
    std::string directory = slash == 0 ? "/" : path.substr(0, slash);
    constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    directory_ = ScopedFd(checkedCall(::open(directory.c_str(), kDirectory), "open", "open the directory", directory));
    requireOnVolume(handle, directory_.get(), path);
    constexpr int kNew = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    fd_ = ScopedFd(checkedCall(openat(directory_.get(), name_.c_str(), kNew, mode), "open", "create the file", path));
  }
  ~NewFile() {
    struct stat mine, there;
    if (fd_.get() < 0 || fstat(fd_.get(), &mine) < 0) return;
    // Not what somebody else has put in its place.
    if (fstatat(directory_.get(), name_.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_ino == mine.st_ino &&
        there.st_dev == mine.st_dev)
      unlinkat(directory_.get(), name_.c_str(), 0);
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  int fd() const { return fd_.get(); }
  void keep() { fd_ = ScopedFd(); }

 private:
  ScopedFd directory_, fd_;
  std::string name_;
};

// A new file is without copy-on-write where its directory is, or the mount; two that differ cannot share. It can be
// changed while it is empty.
void likeSource(int source, int made, const std::string& path) {
  auto set = [&](int flags) {
    int returned = tryIoctl(made, BTRMIND_REQUEST(FS_IOC_SETFLAGS), &flags);
    if (returned < 0) throw Failure{-returned, "FS_IOC_SETFLAGS", "make it NOCOW or not, as the source is", path};
  };
  int flags = attributesOf(made);
  int wanted = attributesOf(source) & FS_NOCOW_FL;
  if ((flags & FS_NOCOW_FL) == wanted) return;
  // The kernel takes no file that is or was compressed for this.
  if (flags & FS_COMPR_FL) set(flags &= ~FS_COMPR_FL);
  set((flags & ~FS_NOCOW_FL) | wanted);
}

void cloneInto(int source, int destination, const Span& span, bool all, const std::string& from,
               const std::string& to) {
  btrfs_ioctl_clone_range_args range = {};
  range.src_fd = source;
  range.src_offset = span.from;
  range.src_length = span.length;
  range.dest_offset = span.to;
  bool whole = all && span.from == 0 && span.to == 0;
  int returned = whole ? tryIoctl(destination, BTRMIND_REQUEST(BTRFS_IOC_CLONE),
                                  reinterpret_cast<void*>(static_cast<intptr_t>(source)))
                       : tryIoctl(destination, BTRMIND_REQUEST(BTRFS_IOC_CLONE_RANGE), &range);
  if (returned >= 0) return;
  Failure failure{-returned, whole ? "BTRFS_IOC_CLONE" : "BTRFS_IOC_CLONE_RANGE", "share the data", from, to};
  struct stat stat;
  if (-returned == EINVAL && fstat(source, &stat) == 0) {
    auto size = static_cast<uint64_t>(stat.st_size);
    failure.hint =
        whyInvalid(source, destination, {span.from, all ? size - std::min(size, span.from) : span.length, span.to});
  }
  throw failure;
}

// Its failures name both.
NamedFile openDestination(const HandlePtr& handle, const std::string& source, const std::string& destination) {
  try {
    return openNamed(handle, destination, Kinds::file, O_WRONLY);
  } catch (Failure& failure) {
    if (failure.error == EXDEV) throw;
    failure.path = source;
    failure.dest = destination;
    if (failure.error == ENOENT) failure.hint = "the destination is not there; with `create` it is made";
    throw;
  }
}

NamedFile openSource(const HandlePtr& handle, const std::string& source) {
  try {
    return openNamed(handle, source, Kinds::file, O_RDONLY);
  } catch (Failure& failure) {
    if (failure.error == ENOENT) failure.hint = "the source is not there";
    throw;
  }
}

// clone(ticket, handle, source, destination, sourceStart, length or undefined, destinationStart, create)
// On the long lane: it settles when the kernel is done, which has no way to be stopped in it.
Napi::Value clone(const Args& args) {
  HandlePtr handle = args.handle(1);
  std::string source = args.path(2), destination = args.path(3);
  bool all = args.absent(5), create = args.boolean(7);
  // 0: to the end.
  Span span{args.u64(4), all ? 0 : args.u64(5), args.u64(6)};
  return longRunning(
      args, handle,
      [=](const Cancelled& cancelled) {
        NamedFile from = openSource(handle, source);
        if (cancelled) throw Failure{ECANCELED, nullptr, "begin"};
        if (create) {
          mode_t mode = from.stat.st_mode & 0777;
          NewFile made(handle, destination, mode);
          // What the umask has taken away.
          checkedCall(fchmod(made.fd(), mode), "fchmod", "give it the source's permissions", source);
          likeSource(from.fd.get(), made.fd(), source);
          cloneInto(from.fd.get(), made.fd(), span, all, source, destination);
          made.keep();
        } else {
          NamedFile to = openDestination(handle, source, destination);
          cloneInto(from.fd.get(), to.fd.get(), span, all, source, destination);
        }
        return Nothing{};
      },
      toUndefined, nullptr);
}

}  // namespace

void defineSharing(Napi::Env env, Napi::Object exports) {
  define<deduplicateCounters>(env, exports, "deduplicateCounters");
  define<deduplicateDone>(env, exports, "deduplicateDone");
  define<deduplicate>(env, exports, "deduplicate");
  define<clone>(env, exports, "clone");
}

}  // namespace btrmind
