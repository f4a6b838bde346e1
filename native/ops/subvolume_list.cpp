// Which subvolumes there are, and what is known of one.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "../btrfs_compat.h"
#include "../place.h"
#include "../subvolume_tree.h"
#include "../task.h"
#include "btrfsutil_error.h"
#include "ops.h"

namespace btrmind {

namespace {

constexpr uint64_t kRootIsReadonly = 1;  // on-disk root item flag (BTRFS_ROOT_SUBVOL_RDONLY)

// One row: kNumbers numbers, three UUIDs as text, a path. src/btrfs/subvolume-list.ts reads it.
struct Rows {
  static constexpr size_t kNumbers = 13;
  std::vector<double> numbers;
  std::string uuids;
  std::string paths;
  std::vector<uint32_t> pathEnds;
  Mount mount;  // that the volume was opened through

  void reserve(size_t rows) {
    numbers.reserve(rows * kNumbers);
    uuids.reserve(rows * 3 * 36);
    pathEnds.reserve(rows);
  }

  void add(const SubvolumeInfo& info, const std::string& path) {
    for (double value :
         {exact(info.id, "subvolume id"), exact(info.parent_id, "parent id"), exact(info.dir_id, "directory"),
          exact(info.generation, "generation"), exact(info.otransid, "generation at creation"),
          exact(info.ctransid, "generation of the last change"), exact(info.stransid, "generation when sent"),
          exact(info.rtransid, "generation when received"), info.flags & kRootIsReadonly ? 1.0 : 0.0,
          milliseconds(info.otime), milliseconds(info.ctime), milliseconds(info.stime), milliseconds(info.rtime)})
      numbers.push_back(value);
    for (const uint8_t* uuid : {info.uuid, info.parent_uuid, info.received_uuid}) appendUuid(uuids, uuid);
    paths += path;
    pathEnds.push_back(static_cast<uint32_t>(paths.size()));
  }

 private:
  static double milliseconds(const timespec& time) {
    const int64_t ms = time.tv_sec * 1000 + time.tv_nsec / 1000000;
    return static_cast<double>(ms);
  }
};

template <class Text>
Napi::Uint8Array bytesOf(Napi::Env env, const Text& text) {
  return copied<Napi::Uint8Array>(env, reinterpret_cast<const uint8_t*>(text.data()), text.size());
}

Napi::Value toJs(Napi::Env env, Rows& rows) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("numbers", copied<Napi::Float64Array>(env, rows.numbers.data(), rows.numbers.size()));
  out.Set("uuids", bytesOf(env, rows.uuids));
  out.Set("paths", bytesOf(env, rows.paths));
  out.Set("pathEnds", copied<Napi::Uint32Array>(env, rows.pathEnds.data(), rows.pathEnds.size()));
  out.Set("mountRoot", bytesOf(env, rows.mount.root));
  out.Set("mountPoint", bytesOf(env, rows.mount.point));
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
  place.subvolume = subvolumePath(fd, place.id);
  return place;
}

// Without tree search: the library asks what GET_SUBVOL_ROOTREF and INO_LOOKUP_USER let the caller see.
class Iterator {
 public:
  explicit Iterator(int fd) { checkedUtil(btrfs_util_create_subvolume_iterator_fd(fd, 0, 0, &iterator_), nullptr); }
  ~Iterator() { btrfs_util_destroy_subvolume_iterator(iterator_); }
  Iterator(const Iterator&) = delete;
  Iterator& operator=(const Iterator&) = delete;

  bool next(std::string& path, SubvolumeInfo& info) {
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
  const bool everything = below.empty();
  Rows rows;
  rows.mount = mountOf(*readMounts(), handle->fd());
  if (place.root.get() < 0) {
    forEachSubvolume(fd, cancelled, [&](const SubvolumeInfo& info, const std::string& path, size_t atMost) {
      if (rows.pathEnds.empty()) rows.reserve(everything ? atMost : 0);
      if (everything || isBeneath(path, place.directory)) rows.add(info, path);
    });
    return rows;
  }
  // What lies below the subvolume, as far as the caller may look.
  Iterator subvolumes(place.root.get());
  const std::string above = place.subvolume.empty() ? "" : place.subvolume + "/";
  std::string path;
  SubvolumeInfo info;
  while (subvolumes.next(path, info)) {
    if (cancelled) throw Failure{ECANCELED, nullptr, "list all subvolumes"};
    path.insert(0, above);
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
SubvolumeInfo infoOf(int fd, const std::string& path) {
  btrfs_ioctl_get_subvol_info_args raw = {};
  // Linux 6.18 returns 1, a leftover of its own search, on success.
  int returned = tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_GET_SUBVOL_INFO), &raw);
  if (returned < 0) throw Failure{-returned, "BTRFS_IOC_GET_SUBVOL_INFO", "read the subvolume", path};
  SubvolumeInfo info = {};
  info.id = raw.treeid;
  info.parent_id = raw.parent_id;
  info.flags = raw.flags;
  memcpy(info.uuid, raw.uuid, sizeof info.uuid);
  memcpy(info.parent_uuid, raw.parent_uuid, sizeof info.parent_uuid);
  memcpy(info.received_uuid, raw.received_uuid, sizeof info.received_uuid);
  info.generation = raw.generation;
  info.dir_id = raw.dirid;
  info.ctransid = raw.ctransid;
  info.otransid = raw.otransid;
  info.stransid = raw.stransid;
  info.rtransid = raw.rtransid;
  info.ctime = {static_cast<time_t>(raw.ctime.sec), raw.ctime.nsec};
  info.otime = {static_cast<time_t>(raw.otime.sec), raw.otime.nsec};
  info.stime = {static_cast<time_t>(raw.stime.sec), raw.stime.nsec};
  info.rtime = {static_cast<time_t>(raw.rtime.sec), raw.rtime.nsec};
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
        rows.mount = mountOf(*readMounts(), handle->fd());
        rows.add(infoOf(fd.get(), path), locate(fd.get()).subvolume);
        return rows;
      },
      [](Napi::Env env, Rows& rows) { return toJs(env, rows); });
}

// subvolumeById(ticket, handle, id): one row
Napi::Value byId(const Args& args) {
  HandlePtr handle = args.handle(1);
  uint64_t id = args.u64(2);
  return quick(
      args, handle,
      [handle, id](const Cancelled&) {
        SubvolumeInfo info = {};
        checkedUtil(btrfs_util_subvolume_info_fd(handle->fd(), id, &info), nullptr);
        Rows rows;
        rows.mount = mountOf(*readMounts(), handle->fd());
        rows.add(info, subvolumePath(handle->fd(), id));
        return rows;
      },
      [](Napi::Env env, Rows& rows) { return toJs(env, rows); });
}

}  // namespace

void defineSubvolumeList(Napi::Env env, Napi::Object exports) {
  define<listAll>(env, exports, "subvolumes");
  define<one>(env, exports, "subvolume");
  define<byId>(env, exports, "subvolumeById");
}

}  // namespace btrmind
