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

int openat2(int directory, const char* path, int flags) {
  open_how how = {};
  // Without O_NOFOLLOW: a symlink is ELOOP wherever it stands.
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS;
  long fd = syscall(SYS_openat2, directory, path, &how, sizeof how);
  return fd < 0 ? -errno : static_cast<int>(fd);
}

// ENOSYS on old kernels; EPERM from runtimes whose seccomp filter is older than the call.
bool haveOpenat2() {
  static const bool have = [] {
    ScopedFd fd(openat2(AT_FDCWD, ".", O_PATH));
    return fd.get() >= 0;
  }();
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

int openName(int directory, const char* name, int flags) {
  ScopedFd fd(openat(directory, name, flags | O_CLOEXEC | O_NOFOLLOW));
  if (fd.get() < 0) {
    int error = errno;
    struct stat stat;
    bool isLink =
        error == ENOTDIR && fstatat(directory, name, &stat, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(stat.st_mode);
    return isLink ? -ELOOP : -error;
  }
  int mount = mountOf(directory);
  if (mount < 0) return -ENOSYS;
  return mountOf(fd.get()) == mount ? fd.release() : -EXDEV;
}

// `path`: shorter than PATH_MAX, clean.
int openBeneath(int directory, const std::string& path, int flags) {
  if (haveOpenat2()) return openat2(directory, path.c_str(), flags);
  ScopedFd at;
  for (size_t start = 0;;) {
    size_t slash = path.find('/', start);
    bool last = slash == std::string::npos;
    std::string name = path.substr(start, last ? slash : slash - start);
    int fd = openName(at.get() < 0 ? directory : at.get(), name.c_str(), last ? flags : O_PATH | O_DIRECTORY);
    if (fd < 0 || last) return fd;
    at = ScopedFd(fd);
    start = slash + 1;
  }
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

int openRoot(std::string path) {
  // A trailing slash would follow a symlink.
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd >= 0) return fd;
  int error = errno;
  struct stat stat;
  if (error == ENOTDIR && lstat(path.c_str(), &stat) == 0 && S_ISLNK(stat.st_mode)) error = ELOOP;
  throw Failure{error, "open", "open the root", path};
}

}  // namespace

bool FileRef::isStill(const struct stat& stat) const {
  return S_ISREG(stat.st_mode) && stat.st_ino == inode && static_cast<uint64_t>(stat.st_size) == size &&
         milliseconds(stat.st_mtim.tv_sec, stat.st_mtim.tv_nsec) == mtimeMs &&
         milliseconds(stat.st_ctim.tv_sec, stat.st_ctim.tv_nsec) == ctimeMs;
}

Root::Root(const HandlePtr& volume, const std::string& path) : fd_(openRoot(path)) {
  requireOnVolume(volume, fd_.get(), path);
  struct stat stat;
  checkedCall(fstat(fd_.get(), &stat), "fstat", "read the root", path);
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

int Root::pin(const FileRef& ref, int flags, Pinned& pinned) const {
  if (!isClean(ref.path)) return EXDEV;
  size_t slash = ref.path.rfind('/');
  bool top = slash == std::string::npos;
  int parent = directory(top ? std::string_view() : std::string_view(ref.path).substr(0, slash), O_PATH);
  if (parent < 0) return -parent;
  pinned.parent = ScopedFd(parent);
  pinned.name = ref.path.c_str() + (top ? 0 : slash + 1);
  // O_PATH first: opening a FIFO or a device that took the file's place would have effects.
  for (int how : {O_PATH, flags}) {
    int fd = openChild(parent, pinned.name, how);
    if (fd < 0) return fd == -ELOOP ? kChanged : -fd;
    pinned.file = ScopedFd(fd);
    if (fstat(fd, &pinned.stat) < 0) return errno;
    if (!ref.isStill(pinned.stat) || pinned.stat.st_dev != device_) return kChanged;
    if (flags == O_PATH) break;
  }
  return 0;
}

int openChild(int directory, const char* name, int flags) {
  return haveOpenat2() ? openat2(directory, name, flags) : openName(directory, name, flags);
}

}  // namespace btrmind
