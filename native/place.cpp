#include "place.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cerrno>
#include <sstream>

#include "btrfs_compat.h"
#include "error.h"
#include "js.h"

namespace btrmind {

void requireOnVolume(const HandlePtr& handle, int fd, const std::string& path) {
  struct statfs stat;
  checkedCall(fstatfs(fd, &stat), "fstatfs", "see which volume it is on", path);
  if (static_cast<unsigned long>(stat.f_type) != BTRFS_SUPER_MAGIC) throw Failure{EXDEV, nullptr, {}, path};
  btrfs_ioctl_fs_info_args info = {};
  checkedIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_FS_INFO), &info, "see which volume it is on", path);
  if (uuidText(info.fsid) != handle->volume) throw Failure{EXDEV, nullptr, {}, path};
}

ScopedFd openOnVolume(const HandlePtr& handle, const std::string& path, int flags, const char* step) {
  int opened = ::open(path.c_str(), flags | O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (opened < 0) throw Failure{errno, "open", std::string(step) + " '" + path + "'"};
  ScopedFd fd(opened);
  requireOnVolume(handle, fd.get(), path);
  return fd;
}

namespace {

std::string readAll(const char* path) {
  ScopedFd fd(checkedCall(::open(path, O_RDONLY | O_CLOEXEC), "open", "read the mounts", path));
  std::string text;
  for (;;) {
    size_t had = text.size();
    text.resize(had + 16384);
    ssize_t got = ::read(fd.get(), &text[had], 16384);
    if (got < 0) throw Failure{errno, "read", "read the mounts", path};
    text.resize(had + static_cast<size_t>(got));
    if (got == 0) return text;
  }
}

// mountinfo writes blanks, newlines and backslashes as \040.
std::string unescape(const std::string& field) {
  std::string out;
  for (size_t at = 0; at < field.size(); at++) {
    if (field[at] == '\\' && at + 3 < field.size()) {
      out += static_cast<char>(std::stoi(field.substr(at + 1, 3), nullptr, 8));
      at += 3;
    } else {
      out += field[at];
    }
  }
  return out;
}

}  // namespace

std::vector<Mount> readMounts() {
  std::istringstream text(readAll("/proc/self/mountinfo"));
  std::vector<Mount> mounts;
  std::string line;
  while (std::getline(text, line)) {
    std::istringstream fields(line);
    std::string parent;
    Mount mount;
    if (!(fields >> mount.id >> parent >> mount.device >> mount.root >> mount.point)) continue;
    mount.root = unescape(mount.root);
    mount.point = unescape(mount.point);
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

const Mount& mountOf(const std::vector<Mount>& mounts, int fd) {
  struct statx stat;
  checkedCall(statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &stat), "statx", "see which mount it is on");
  std::string id = std::to_string(stat.stx_mnt_id);
  for (const Mount& mount : mounts)
    if (mount.id == id) return mount;
  throw Failure{ENOENT, nullptr, "find its mount in /proc/self/mountinfo"};
}

std::string descriptorPath(int fd) {
  char target[PATH_MAX];
  std::string link = "/proc/self/fd/" + std::to_string(fd);
  ssize_t length = checkedCall(static_cast<int>(readlink(link.c_str(), target, sizeof target)), "readlink",
                               "name an open directory", link);
  return std::string(target, static_cast<size_t>(length));
}

std::string volumePath(const Mount& mount, const std::string& absolute) {
  std::string inside = absolute == mount.point ? ""
                       : mount.point == "/"    ? absolute
                                               : absolute.substr(mount.point.size());
  std::string whole = mount.root == "/" ? inside : mount.root + inside;
  return whole.empty() ? whole : whole.substr(1);
}

bool isBeneath(const std::string& path, const std::string& directory) {
  if (directory.empty() || directory == "/") return path.size() > directory.size();
  return path.size() > directory.size() && path.compare(0, directory.size(), directory) == 0 &&
         path[directory.size()] == '/';
}

}  // namespace btrmind
