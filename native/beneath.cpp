#include "beneath.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>

#include "error.h"
#include "place.h"

namespace btrmind {

namespace {

constexpr uint64_t kNoSymlinks = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
constexpr uint64_t kBeneath = kNoSymlinks | RESOLVE_BENEATH | RESOLVE_NO_XDEV;

int openat2(int directory, const char* path, int flags, uint64_t resolve) {
  open_how how = {};
  // Without O_NOFOLLOW: a symlink is ELOOP wherever it stands.
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  how.resolve = resolve;
  long fd = syscall(SYS_openat2, directory, path, &how, sizeof how);
  return fd < 0 ? -errno : static_cast<int>(fd);
}

// ENOSYS on old kernels; EPERM from runtimes whose seccomp filter is older than the call. Asked with an argument that
// the call refuses before it does anything: so no lack of descriptors or memory is taken for a lack of it.
bool haveOpenat2() {
  static const bool have = syscall(SYS_openat2, -1, nullptr, nullptr, 0) < 0 && errno != ENOSYS && errno != EPERM;
  return have;
}

// statx tells it from 5.8 on, which has openat2 as well; /proc does everywhere.
int mountOf(int fd) {
  char path[64], line[128];
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  FILE* file = fopen(path, "re");
  if (file == nullptr) return -1;
  int mount = -1;
  while (fgets(line, sizeof line, file) != nullptr && sscanf(line, "mnt_id: %d", &mount) != 1) {
  }
  fclose(file);
  return mount;
}

// A symlink is ELOOP here too.
int openNoFollow(int directory, const char* name, int flags) {
  int fd = openat(directory, name, flags | O_CLOEXEC | O_NOFOLLOW);
  if (fd >= 0) return fd;
  int error = errno;
  struct stat stat;
  bool isLink = error == ENOTDIR && fstatat(directory, name, &stat, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(stat.st_mode);
  return isLink ? -ELOOP : -error;
}

int openName(int directory, const char* name, int flags) {
  ScopedFd fd(openNoFollow(directory, name, flags));
  if (fd.get() < 0) return fd.get();
  int mount = mountOf(directory);
  if (mount < 0) return -ENOSYS;
  return mountOf(fd.get()) == mount ? fd.release() : -EXDEV;
}

// One component after the other, each by `openOne`.
int openEach(int directory, const std::string& path, int flags, int (*openOne)(int, const char*, int)) {
  ScopedFd at;
  for (size_t start = 0;;) {
    size_t slash = path.find('/', start);
    bool last = slash == std::string::npos;
    std::string name = path.substr(start, last ? slash : slash - start);
    int fd = openOne(at.get() < 0 ? directory : at.get(), name.c_str(), last ? flags : O_PATH | O_DIRECTORY);
    if (fd < 0 || last) return fd;
    at = ScopedFd(fd);
    start = slash + 1;
  }
}

// `path`: shorter than PATH_MAX, clean.
int openBeneath(int directory, const std::string& path, int flags) {
  return haveOpenat2() ? openat2(directory, path.c_str(), flags, kBeneath) : openEach(directory, path, flags, openName);
}

// No component that is empty, "." or "..", and no NUL to end it early.
bool isClean(std::string_view path) {
  if (path.find('\0') != std::string_view::npos) return false;
  while (!path.empty()) {
    size_t slash = path.find('/');
    std::string_view name = path.substr(0, slash);
    if (name.empty() || name == "." || name == "..") return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
  return false;
}

std::string named(const RootRef::Seen& directory) {
  return "inode " + std::to_string(directory.inode) + " of subvolume " + std::to_string(directory.subvolume);
}

Failure notWhatWasSeen(const RootRef& ref, const std::string& now) {
  return Failure{ESTALE, nullptr, "find " + named(*ref.seen) + " there, but " + now, ref.path};
}

}  // namespace

int openWithoutSymlinks(const std::string& path, int flags) {
  if (haveOpenat2()) return openat2(AT_FDCWD, path.c_str(), flags, kNoSymlinks);
  ScopedFd top(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  return top.get() < 0 ? -errno : openEach(top.get(), path == "/" ? "." : path.substr(1), flags, openNoFollow);
}

ScopedFd openRoot(const HandlePtr& volume, const RootRef& ref) {
  if (ref.seen && ref.path.empty()) {
    ScopedFd fd = openByNumber(volume->fd(), ref.seen->subvolume, ref.seen->inode, 0);
    if (fd.get() < 0)
      throw Failure{ENOENT, "open_by_handle_at", "open subvolume " + std::to_string(ref.seen->subvolume)};
    return fd;
  }
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NONBLOCK;
  std::string path = ref.path;
  // A trailing slash would follow a symlink.
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  ScopedFd fd(ref.seen ? openWithoutSymlinks(path, kFlags) : openNoFollow(AT_FDCWD, path.c_str(), kFlags));
  if (fd.get() == -ELOOP && ref.seen) throw notWhatWasSeen(ref, "a symlink");
  if (fd.get() < 0) throw Failure{-fd.get(), "open", "open the root", path};
  requireOnVolume(volume, fd.get(), path);
  if (ref.seen) {
    struct stat stat;
    checkedCall(fstat(fd.get(), &stat), "fstat", "read the root", path);
    RootRef::Seen now{stat.st_ino, subvolumeOf(fd.get(), path)};
    if (now.inode != ref.seen->inode || now.subvolume != ref.seen->subvolume) throw notWhatWasSeen(ref, named(now));
  }
  return fd;
}

bool FileRef::isStill(const struct stat& stat) const {
  return S_ISREG(stat.st_mode) && stat.st_ino == inode && static_cast<uint64_t>(stat.st_size) == size &&
         milliseconds(stat.st_mtim.tv_sec, stat.st_mtim.tv_nsec) == mtimeMs &&
         milliseconds(stat.st_ctim.tv_sec, stat.st_ctim.tv_nsec) == ctimeMs;
}

bool FileRef::wasReadSince(const struct stat& stat) const {
  return milliseconds(stat.st_atim.tv_sec, stat.st_atim.tv_nsec) > atimeMs;
}

Root::Root(const HandlePtr& volume, const RootRef& ref) : fd_(openRoot(volume, ref)) {
  struct stat stat;
  checkedCall(fstat(fd_.get(), &stat), "fstat", "read the root", ref.path);
  device_ = stat.st_dev;
}

int Root::directory(std::string_view path, int flags) const {
  flags |= O_DIRECTORY;
  if (path.empty()) {
    int fd = openat(fd_.get(), ".", flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
  }
  if (!isClean(path)) return -EXDEV;
  ScopedFd at;
  for (;;) {
    int from = at.get() < 0 ? fd_.get() : at.get();
    size_t cut = path.size() < PATH_MAX ? std::string_view::npos : path.rfind('/', PATH_MAX - 1);
    bool last = cut == std::string_view::npos;
    int fd = openBeneath(from, std::string(path.substr(0, cut)), last ? flags : O_PATH | O_DIRECTORY);
    if (fd < 0) return fd;
    at = ScopedFd(fd);
    if (last) break;
    path.remove_prefix(cut + 1);
  }
  // Every subvolume has a device number of its own, and none leads back without a mount.
  struct stat stat;
  if (fstat(at.get(), &stat) < 0) return -errno;
  return stat.st_dev == device_ ? at.release() : -EXDEV;
}

template <class IsRight>
int Root::open(const std::string& path, int flags, Pinned& pinned, IsRight isRight) const {
  if (!isClean(path)) return EXDEV;
  size_t slash = path.rfind('/');
  bool top = slash == std::string::npos;
  int parent = directory(top ? std::string_view() : std::string_view(path).substr(0, slash), O_PATH);
  if (parent < 0) return -parent;
  pinned.parent = ScopedFd(parent);
  pinned.name = path.c_str() + (top ? 0 : slash + 1);
  // O_PATH first: opening a FIFO or a device that took the file's place would have effects.
  for (int how : {O_PATH, flags}) {
    int fd = openChild(parent, pinned.name, how);
    if (fd < 0) return fd == -ELOOP ? kChanged : -fd;
    pinned.file = ScopedFd(fd);
    if (fstat(fd, &pinned.stat) < 0) return errno;
    if (!isRight(pinned.stat) || pinned.stat.st_dev != device_) return kChanged;
    if (flags == O_PATH) break;
  }
  return 0;
}

int Root::pin(const FileRef& ref, int flags, Pinned& pinned) const {
  return open(ref.path, flags, pinned,
              [&](const struct stat& stat) { return ref.isStill(stat) && !ref.wasReadSince(stat); });
}

int Root::open(const std::string& path, int flags, Pinned& pinned) const {
  return open(path, flags, pinned, [](const struct stat& stat) { return S_ISREG(stat.st_mode); });
}

int openChild(int directory, const char* name, int flags) {
  return haveOpenat2() ? openat2(directory, name, flags, kBeneath) : openName(directory, name, flags);
}

}  // namespace btrmind
