#include "place.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <string_view>

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

int trySubvolumeOf(int fd, uint64_t& id) {
  btrfs_ioctl_ino_lookup_args lookup = {};
  lookup.objectid = BTRFS_FIRST_FREE_OBJECTID;  // Of itself it needs no privilege, and fills the tree in.
  int returned = tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_INO_LOOKUP), &lookup);
  id = lookup.treeid;
  return returned;
}

uint64_t subvolumeOf(int fd, const std::string& path) {
  uint64_t id;
  int returned = trySubvolumeOf(fd, id);
  if (returned < 0) throw Failure{-returned, "BTRFS_IOC_INO_LOOKUP", "find the subvolume", path};
  return id;
}

ScopedFd openByNumber(int mount, uint64_t subvolume, uint64_t inode, uint64_t generation) {
  struct {
    file_handle header;
    uint32_t fid[5];  // the kernel's btrfs_fid without a parent, packed
  } handle = {};
  handle.header.handle_bytes = sizeof handle.fid;
  handle.header.handle_type = 0x4d;
  memcpy(handle.fid, &inode, sizeof inode);
  memcpy(handle.fid + 2, &subvolume, sizeof subvolume);
  handle.fid[4] = static_cast<uint32_t>(generation);
  int fd = open_by_handle_at(mount, &handle.header, O_RDONLY | O_NOATIME | O_NONBLOCK | O_CLOEXEC);
  if (fd >= 0 || errno == ENOENT || errno == ESTALE) return ScopedFd(fd);
  Failure failure{errno, "open_by_handle_at", "open a file by its number"};
  if (errno == EPERM) failure.hint = "needs root (CAP_DAC_READ_SEARCH)";
  throw failure;
}

namespace {

// mountinfo writes blanks, newlines and backslashes as \040.
std::string unescape(std::string_view field) {
  std::string out;
  for (size_t at = 0; at < field.size(); at++) {
    if (field[at] == '\\' && at + 3 < field.size()) {
      out += static_cast<char>((field[at + 1] - '0') * 64 + (field[at + 2] - '0') * 8 + (field[at + 3] - '0'));
      at += 3;
    } else {
      out += field[at];
    }
  }
  return out;
}

std::string_view cut(std::string_view& text, char end) {
  size_t length = std::min(text.find(end), text.size());
  std::string_view head = text.substr(0, length);
  text.remove_prefix(std::min(length + 1, text.size()));
  return head;
}

// Reading and parsing the table takes longer than deleting a subvolume; whether it changed, poll(2) says in a
// microsecond. (Of the mount namespace in which the process was when it asked first.)
class MountTable {
 public:
  MountsPtr read() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (fd_.get() < 0) {
      const char* path = "/proc/self/mountinfo";
      fd_ = ScopedFd(checkedCall(::open(path, O_RDONLY | O_CLOEXEC), "open", "read the mounts", path));
    }
    for (bool changed = hasChanged() || mounts_ == nullptr; changed; changed = hasChanged())
      mounts_ = std::make_shared<const std::vector<Mount>>(parseMounts(contents()));
    return mounts_;
  }

 private:
  bool hasChanged() {
    pollfd poll = {fd_.get(), POLLPRI, 0};
    return ::poll(&poll, 1, 0) != 0;
  }

  std::string contents() {
    constexpr size_t kPiece = 16384;
    std::string text;
    for (;;) {
      size_t had = text.size();
      text.resize(had + kPiece);
      ssize_t got = ::pread(fd_.get(), &text[had], kPiece, static_cast<off_t>(had));
      if (got < 0) throw Failure{errno, "pread", "read the mounts"};
      text.resize(had + static_cast<size_t>(got));
      if (got == 0) return text;
    }
  }

  std::mutex mutex_;
  ScopedFd fd_;
  MountsPtr mounts_;
};

}  // namespace

std::vector<Mount> parseMounts(std::string_view text) {
  std::vector<Mount> mounts;
  while (!text.empty()) {
    std::string_view line = cut(text, '\n');
    Mount mount;
    mount.id = cut(line, ' ');
    cut(line, ' ');  // its parent
    mount.device = cut(line, ' ');
    mount.root = unescape(cut(line, ' '));
    mount.point = unescape(cut(line, ' '));
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

MountsPtr readMounts() {
  static auto* table = new MountTable;  // never destroyed: lane threads may use it while the process exits
  return table->read();
}

const Mount& mountOf(const std::vector<Mount>& mounts, int fd) {
  struct statx stat;
  checkedCall(statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &stat), "statx", "see which mount it is on");
  std::string id = std::to_string(stat.stx_mnt_id);
  for (const Mount& mount : mounts)
    if (mount.id == id) return mount;
  throw Failure{ENOENT, nullptr, "find its mount in /proc/self/mountinfo"};
}

std::string mountPointOf(const std::string& path) {
  try {
    std::string longest;
    for (const Mount& mount : *readMounts()) {
      bool holds = path == mount.point || isBeneath(path, mount.point);
      if (holds && mount.point.size() >= longest.size()) longest = mount.point;
    }
    return longest;
  } catch (const Failure&) {
    return path;
  }
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
