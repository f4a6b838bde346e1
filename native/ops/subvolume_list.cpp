// Which subvolumes there are, and what is known of one.
#include <btrfsutil.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "../btrfs_compat.h"
#include "../place.h"
#include "../task.h"
#include "btrfsutil_error.h"
#include "ops.h"

namespace btrmind {

namespace {

using Info = struct btrfs_util_subvolume_info;

constexpr uint64_t kRootIsReadonly = 1;  // on-disk root item flag (BTRFS_ROOT_SUBVOL_RDONLY)

// One row: id, parent id, generation, generation at creation, flags, ctime, otime; three UUIDs; a path.
struct Rows {
  std::vector<double> numbers;
  std::vector<uint8_t> uuids;
  std::string paths;
  std::vector<uint32_t> pathEnds;

  void add(const Info& info, const std::string& path) {
    for (double value : {exact(info.id, "subvolume id"), exact(info.parent_id, "parent id"),
                         exact(info.generation, "generation"), exact(info.otransid, "generation at creation"),
                         info.flags & kRootIsReadonly ? 1.0 : 0.0, milliseconds(info.ctime), milliseconds(info.otime)})
      numbers.push_back(value);
    for (const uint8_t* uuid : {info.uuid, info.parent_uuid, info.received_uuid})
      uuids.insert(uuids.end(), uuid, uuid + 16);
    paths += path;
    pathEnds.push_back(static_cast<uint32_t>(paths.size()));
  }

 private:
  static double milliseconds(const timespec& time) {
    return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec / 1000000);
  }
};

Napi::Value toJs(Napi::Env env, Rows& rows) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("length", static_cast<double>(rows.pathEnds.size()));
  out.Set("numbers", copied<Napi::Float64Array>(env, rows.numbers.data(), rows.numbers.size()));
  out.Set("uuids", copied<Napi::Uint8Array>(env, rows.uuids.data(), rows.uuids.size()));
  out.Set("paths",
          copied<Napi::Uint8Array>(env, reinterpret_cast<const uint8_t*>(rows.paths.data()), rows.paths.size()));
  out.Set("pathEnds", copied<Napi::Uint32Array>(env, rows.pathEnds.data(), rows.pathEnds.size()));
  return out;
}

// A directory, and the subvolume that holds it; paths from the top of the volume.
struct Place {
  uint64_t id = 0;
  std::string directory;
  std::string subvolume;
  ScopedFd root;  // only where tree search is not permitted: the subvolume's own directory
};

ScopedFd climbToRoot(int fd) {
  ScopedFd at(checkedCall(::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "openat", "open the directory"));
  for (;;) {
    struct stat stat;
    checkedCall(fstat(at.get(), &stat), "fstat", "look for the subvolume that holds it");
    if (stat.st_ino == BTRFS_FIRST_FREE_OBJECTID) return at;
    ScopedFd up(checkedCall(::openat(at.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "openat",
                            "look for the subvolume that holds it"));
    struct stat above;
    checkedCall(fstat(up.get(), &above), "fstat", "look for the subvolume that holds it");
    if (above.st_dev != stat.st_dev) throw Failure{EPERM, nullptr, "look above a mount of part of a subvolume"};
    at = std::move(up);
  }
}

bool maySearch(int fd) {
  uint64_t standard = 0;
  return btrfs_util_get_default_subvolume_fd(fd, &standard) == BTRFS_UTIL_OK || errno != EPERM;
}

Place locate(int fd) {
  Place place;
  checkedUtil(btrfs_util_subvolume_id_fd(fd, &place.id), nullptr);
  MountsPtr mounts = readMounts();
  const Mount& mount = mountOf(*mounts, fd);
  place.directory = volumePath(mount, descriptorPath(fd));
  if (!maySearch(fd)) {
    place.root = climbToRoot(fd);
    place.subvolume = volumePath(mount, descriptorPath(place.root.get()));
    return place;
  }
  char* path = nullptr;
  checkedUtil(btrfs_util_subvolume_path_fd(fd, place.id, &path), nullptr);
  place.subvolume = path;
  free(path);
  return place;
}

class Iterator {
 public:
  Iterator(int fd, uint64_t top) {
    checkedUtil(btrfs_util_create_subvolume_iterator_fd(fd, top, 0, &iterator_), nullptr);
  }
  ~Iterator() { btrfs_util_destroy_subvolume_iterator(iterator_); }
  Iterator(const Iterator&) = delete;
  Iterator& operator=(const Iterator&) = delete;

  bool next(std::string& path, Info& info) {
    for (;;) {
      char* text = nullptr;
      btrfs_util_error error = btrfs_util_subvolume_iterator_next_info(iterator_, &text, &info);
      int number = errno;
      std::unique_ptr<char, decltype(&free)> owned(text, free);
      if (error == BTRFS_UTIL_ERROR_STOP_ITERATION) return false;
      // Deleted between two steps.
      if (error == BTRFS_UTIL_ERROR_SUBVOLUME_NOT_FOUND || (error != BTRFS_UTIL_OK && number == ENOENT)) continue;
      errno = number;
      checkedUtil(error, nullptr);
      path = text;
      return true;
    }
  }

 private:
  btrfs_util_subvolume_iterator* iterator_ = nullptr;
};

Rows list(const HandlePtr& handle, const std::string& below, const Cancelled& cancelled) {
  ScopedFd opened;
  if (!below.empty()) opened = openOnVolume(handle, below, O_DIRECTORY, "open the directory to list below");
  int fd = below.empty() ? handle->fd() : opened.get();
  Place place = locate(fd);
  const bool privileged = place.root.get() < 0;
  const bool everything = below.empty();
  // Without tree search: what lies below the subvolume, as far as the caller may look.
  Iterator subvolumes(privileged ? fd : place.root.get(), !privileged ? 0 : everything ? 5 : place.id);
  const std::string above = (privileged && everything) || place.subvolume.empty() ? "" : place.subvolume + "/";
  Rows rows;
  std::string path;
  Info info;
  while (subvolumes.next(path, info)) {
    if (cancelled) throw Failure{ECANCELED, nullptr, "list all subvolumes"};
    path = above + path;
    if (everything || isBeneath(path, place.directory)) rows.add(info, path);
  }
  return rows;
}

// subvolumes(ticket, handle, below): '' is the whole volume
Napi::Value listAll(const Args& args) {
  HandlePtr handle = args.handle(1);
  std::string below = args.path(2);
  return quick(
      args, handle, [=](const Cancelled& cancelled) { return list(handle, below, cancelled); },
      [](Napi::Env env, Rows& rows) { return toJs(env, rows); });
}

// Of any directory in it, which the library's own needs privilege for.
Info infoOf(int fd, const std::string& path) {
  btrfs_ioctl_get_subvol_info_args raw = {};
  // Linux 6.18 returns 1, a leftover of its own search, on success.
  int returned = tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_GET_SUBVOL_INFO), &raw);
  if (returned < 0) throw Failure{-returned, "BTRFS_IOC_GET_SUBVOL_INFO", "read the subvolume", path};
  Info info = {};
  info.id = raw.treeid;
  info.parent_id = raw.parent_id;
  info.flags = raw.flags;
  memcpy(info.uuid, raw.uuid, sizeof info.uuid);
  memcpy(info.parent_uuid, raw.parent_uuid, sizeof info.parent_uuid);
  memcpy(info.received_uuid, raw.received_uuid, sizeof info.received_uuid);
  info.generation = raw.generation;
  info.otransid = raw.otransid;
  info.ctime = {static_cast<time_t>(raw.ctime.sec), raw.ctime.nsec};
  info.otime = {static_cast<time_t>(raw.otime.sec), raw.otime.nsec};
  return info;
}

// subvolume(ticket, handle, path): one row, the subvolume that holds it
Napi::Value one(const Args& args) {
  HandlePtr handle = args.handle(1);
  std::string path = args.path(2);
  return quick(
      args, handle,
      [=](const Cancelled&) {
        struct stat stat;
        checkedCall(::stat(path.c_str(), &stat), "stat", "look at it", path);
        // Opening a device node or a pipe would do things: its directory is in the same subvolume.
        std::string directory = S_ISDIR(stat.st_mode) ? path : path.substr(0, std::max<size_t>(path.rfind('/'), 1));
        ScopedFd fd = openOnVolume(handle, directory, O_DIRECTORY, "open it");
        Rows rows;
        rows.add(infoOf(fd.get(), path), locate(fd.get()).subvolume);
        return rows;
      },
      [](Napi::Env env, Rows& rows) { return toJs(env, rows); });
}

}  // namespace

void defineSubvolumeList(Napi::Env env, Napi::Object exports) {
  define<listAll>(env, exports, "subvolumes");
  define<one>(env, exports, "subvolume");
}

}  // namespace btrmind
