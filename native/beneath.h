// Paths beneath a root that an operator named, and nowhere else: never through a symlink, across a mount, into a nested
// subvolume, or up through "..". openat2(2) does it in one call; where that is missing (kernel < 5.6, an old container
// runtime), each component is opened with O_NOFOLLOW and its mount compared. No JavaScript in here.
#pragma once
#include <sys/stat.h>

#include <optional>
#include <string>
#include <string_view>

#include "handle.h"
#include "outcome.h"

namespace btrmind {

// As JavaScript has it: exact to 0.24 µs in this century. Both sides of a comparison must come from here, or from
// node:fs, which computes the same.
inline double milliseconds(int64_t seconds, uint32_t nanoseconds) {
  return static_cast<double>(seconds) * 1e3 + nanoseconds / 1e6;
}

// A file as it was seen by a walk.
struct FileRef {
  std::string path;  // relative to the root
  uint64_t inode;
  uint64_t size;
  double mtimeMs;
  double ctimeMs;
  double atimeMs;  // not a number: when it was read does not matter
  bool isStill(const struct stat& stat) const;
  bool wasReadSince(const struct stat& stat) const;
};

// A file, and the directory that holds it, both pinned by descriptors.
struct Pinned {
  ScopedFd parent;
  ScopedFd file;
  const char* name = nullptr;  // points into the path that was asked for
  struct stat stat;
};

// A directory that somebody named, and what it was when it was looked up, if that is to hold still.
struct RootRef {
  struct Seen {
    uint64_t inode, subvolume;
  };
  std::string path;
  std::optional<Seen> seen = std::nullopt;
};

// Opened for reading. With `seen`: no symlink in the whole path, and the same directory still; mount points on the way
// are fine; and where no path is given either, whatever is mounted over it (CAP_DAC_READ_SEARCH). Without: its last
// component is no symlink.
// Throws Failure: ENOENT, ENOTDIR, ELOOP (a symlink), ESTALE (not what was seen), EXDEV (another volume).
ScopedFd openRoot(const HandlePtr& volume, const RootRef& ref);

// `path`: absolute, as realpath(3) gives it. Descriptor or -errno; ELOOP where any of its components is a symlink.
int openWithoutSymlinks(const std::string& path, int flags);

class Root {
 public:
  Root(const HandlePtr& volume, const RootRef& ref);  // throws as openRoot
  dev_t device() const { return device_; }
  // A directory beneath the root, "" for itself; of any depth, PATH_MAX does not matter. Descriptor or -errno.
  int directory(std::string_view path, int flags) const;
  // Opens `ref` with `flags` (O_PATH, or O_RDONLY for a regular file only) if it still is what was seen, and unread.
  // The outcome.
  int pin(const FileRef& ref, int flags, Pinned& pinned) const;
  // Opens whatever regular file has that name now. The outcome.
  int open(const std::string& path, int flags, Pinned& pinned) const;

 private:
  template <class IsRight>
  int open(const std::string& path, int flags, Pinned& pinned, IsRight isRight) const;
  ScopedFd fd_;
  dev_t device_;
};

// One name in `directory`, not followed if a symlink, not crossing a mount (EXDEV). Descriptor or -errno.
int openChild(int directory, const char* name, int flags);

}  // namespace btrmind
