#include "walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "error.h"

namespace btrmind {

namespace {

constexpr size_t kMaxOpen = 32;
constexpr size_t kBufferBytes = 32 << 10;
constexpr size_t kMaxPathBytes = 256 << 10;
constexpr size_t kMaxEntries = 16 << 10;

// The kernel's record; glibc does not give it away.
struct RawEntry {
  uint64_t inode;
  int64_t offset;
  uint16_t length;
  uint8_t type;
  char name[];
};

// Reading a directory would otherwise dirty its inode, which costs metadata on a volume that may have none left.
// `open` gives a descriptor or -errno; O_NOATIME is for owners and root.
template <class Open>
ScopedFd openDirectory(Open open, int& error) {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC;
  int fd = open(kFlags | O_NOATIME);
  if (fd == -EPERM) fd = open(kFlags);
  error = fd < 0 ? -fd : 0;
  return ScopedFd(fd);
}

// It went away, or became something else, since its parent was read.
bool vanished(int error) { return error == ENOENT || error == ENOTDIR || error == ELOOP || error == ESTALE; }

}  // namespace

Walk::Walk(Root root, bool everything) : root_(std::move(root)), everything_(everything) {
  int error = 0;
  ScopedFd fd = openDirectory([&](int flags) { return root_.directory("", flags); }, error);
  struct stat stat;
  if (error == 0 && fstat(fd.get(), &stat) < 0) error = errno;
  if (error != 0) throw Failure{error, "open", "open the root"};
  push(std::move(fd), stat.st_ino);
}

Batch Walk::next(size_t rows, const Cancelled& cancelled) {
  Batch batch;
  batch.values.reserve(rows * batch.columns);
  if (everything_ && atRoot_) {
    struct statx stat;
    checkedCall(statx(frames_.back().fd.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stat), "statx", "read the root");
    add("", stat, batch);
  }
  atRoot_ = false;
  for (size_t entries = 0; entries < kMaxEntries && batch.ends.size() < rows && batch.paths.size() < kMaxPathBytes;
       entries++) {
    if (frames_.empty() || cancelled) break;
    Entry entry;
    if (!read(frames_.back(), entry, batch)) {
      leave(batch);
    } else if (entry.type == DT_DIR) {
      enter(entry.name, batch);
    } else if (everything_ || entry.type == DT_REG || entry.type == DT_UNKNOWN) {
      look(entry.name, batch);
    }
  }
  batch.done = frames_.empty();
  return batch;
}

// The next entry, or false at the end. `entry` points into the frame's buffer.
bool Walk::read(Frame& frame, Entry& entry, Batch& batch) {
  for (;;) {
    if (frame.at == frame.end) {
      long got = syscall(SYS_getdents64, frame.fd.get(), frame.buffer.data(), frame.buffer.size());
      if (got < 0 && !vanished(errno)) skip(batch, errnoName(errno), "");
      if (got <= 0) return false;
      frame.at = 0;
      frame.end = static_cast<size_t>(got);
    }
    auto* raw = reinterpret_cast<const RawEntry*>(frame.buffer.data() + frame.at);
    frame.at += raw->length;
    frame.offset = raw->offset;
    if (strcmp(raw->name, ".") == 0 || strcmp(raw->name, "..") == 0) continue;
    entry = {raw->name, raw->type};
    return true;
  }
}

void Walk::enter(const char* name, Batch& batch) {
  int error = 0;
  ScopedFd fd = openDirectory([&](int flags) { return openChild(frames_.back().fd.get(), name, flags); }, error);
  struct stat stat;
  if (error == 0 && fstat(fd.get(), &stat) < 0) error = errno;
  if (error != 0) {
    if (!vanished(error)) skip(batch, error == EXDEV ? "MOUNT" : errnoName(error), name);
    return;
  }
  if (stat.st_dev != root_.device()) return skip(batch, "SUBVOLUME", name);
  if (everything_) {
    struct statx row;
    if (statx(fd.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS, &row) == 0) add(name, row, batch);
  }
  path_.append(name).push_back('/');
  push(std::move(fd), stat.st_ino);
}

void Walk::push(ScopedFd fd, uint64_t inode) {
  Frame frame;
  frame.fd = std::move(fd);
  frame.inode = inode;
  frame.pathLength = path_.size();
  if (spareBuffers_.empty()) {
    frame.buffer.resize(kBufferBytes);
  } else {
    frame.buffer = std::move(spareBuffers_.back());
    spareBuffers_.pop_back();
  }
  frames_.push_back(std::move(frame));
  if (frames_.size() - firstOpen_ <= kMaxOpen) return;
  Frame& evicted = frames_[firstOpen_++];
  evicted.fd = ScopedFd();
  spareBuffers_.push_back(std::move(evicted.buffer));
}

void Walk::leave(Batch& batch) {
  Frame child = std::move(frames_.back());
  frames_.pop_back();
  while (!frames_.empty()) {
    Frame& frame = frames_.back();
    path_.resize(frame.pathLength);
    if (frames_.size() > firstOpen_) break;
    // The child's ".." is nearly always the way back; if the child was moved meanwhile, look for it from the root.
    int error = 0;
    struct stat stat;
    auto up = [&](int flags) {
      int fd = openat(child.fd.get(), "..", flags);
      return fd < 0 ? -errno : fd;
    };
    auto down = [&](int flags) {
      std::string_view path(path_);
      return root_.directory(path.substr(0, path.empty() ? 0 : path.size() - 1), flags);
    };
    auto isIt = [&](const ScopedFd& fd) {
      return fd.get() >= 0 && fstat(fd.get(), &stat) == 0 && stat.st_dev == root_.device() &&
             stat.st_ino == frame.inode;
    };
    ScopedFd fd = openDirectory(up, error);
    if (!isIt(fd)) fd = openDirectory(down, error);
    firstOpen_ = frames_.size() - 1;
    if (isIt(fd) && lseek(fd.get(), frame.offset, SEEK_SET) == frame.offset) {
      frame.fd = std::move(fd);
      frame.buffer = std::move(child.buffer);
      frame.at = frame.end = 0;
      return;
    }
    skip(batch, "CHANGED", "");
    frames_.pop_back();
  }
  firstOpen_ = std::min(firstOpen_, frames_.size());
  if (spareBuffers_.size() < kMaxOpen) spareBuffers_.push_back(std::move(child.buffer));
}

void Walk::look(const char* name, Batch& batch) {
  struct statx stat;
  int directory = frames_.back().fd.get();
  if (statx(directory, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &stat) < 0) {
    if (!vanished(errno)) skip(batch, errnoName(errno), name);
    return;
  }
  if (S_ISDIR(stat.stx_mode)) return enter(name, batch);
  if (!everything_ && !S_ISREG(stat.stx_mode)) return;
  // A file can be a mount point too.
  if (stat.stx_attributes & STATX_ATTR_MOUNT_ROOT) return skip(batch, "MOUNT", name);
  add(name, stat, batch);
}

void Walk::add(const char* name, const struct statx& stat, Batch& batch) {
  auto time = [](const statx_timestamp& at) { return milliseconds(at.tv_sec, at.tv_nsec); };
  const double row[] = {
      static_cast<double>(stat.stx_ino),
      static_cast<double>(stat.stx_size),
      static_cast<double>(stat.stx_blocks) * 512,
      time(stat.stx_atime),
      time(stat.stx_mtime),
      time(stat.stx_ctime),
      static_cast<double>(stat.stx_mode),
      static_cast<double>(stat.stx_nlink),
  };
  batch.add(row, path_, name);
}

void Walk::skip(Batch& batch, const char* reason, const char* name) {
  for (Skip& known : batch.skipped) {
    if (known.reason == reason) {
      known.count++;
      return;
    }
  }
  std::string example = path_ + name;
  if (!example.empty() && example.back() == '/') example.pop_back();
  batch.skipped.push_back({reason, 1, example});
}

}  // namespace btrmind
