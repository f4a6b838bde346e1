// Create, snapshot, delete: libbtrfsutil's 1.1 names, which every release exports.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "../beneath.h"
#include "../btrfs_compat.h"
#include "../place.h"
#include "../subvolume_tree.h"
#include "../task.h"
#include "btrfsutil_error.h"
#include "deletable.h"
#include "files.h"
#include "ops.h"

namespace btrmind {

void checkedUtil(btrfs_util_error error, const char* ioctl, const std::string& path, const std::string& dest) {
  if (error == BTRFS_UTIL_OK) return;
  int number = errno;
  Failure failure{number, nullptr, {}, path, dest};
  if (error == BTRFS_UTIL_ERROR_SUBVOL_CREATE_FAILED || error == BTRFS_UTIL_ERROR_SNAP_CREATE_FAILED ||
      error == BTRFS_UTIL_ERROR_SNAP_DESTROY_FAILED) {
    failure.ioctl = ioctl;  // the call itself: the operation's name says what failed
  } else {
    std::string text = btrfs_util_strerror(error);
    const std::string prefix = "Could not ";
    if (text.compare(0, prefix.size(), prefix) == 0) {
      failure.step = text.substr(prefix.size());
    } else {
      failure.hint = text;  // "Not a Btrfs subvolume"
    }
  }
  throw failure;
}

namespace {

constexpr ino_t kSubvolumeInode = BTRFS_FIRST_FREE_OBJECTID;

// "/a/b" → "/a" and "b". Paths come absolute and normal from TypeScript.
struct Split {
  explicit Split(const std::string& path)
      : parent(path.substr(0, std::max<size_t>(path.rfind('/'), 1))), name(path.substr(path.rfind('/') + 1)) {}
  std::string parent, name;
};

ScopedFd openParent(const HandlePtr& handle, const Split& split) {
  return openOnVolume(handle, split.parent, O_DIRECTORY, "open the directory");
}

void requireName(const std::string& path) {
  if (path.size() < 2 || path[0] != '/' || path.back() == '/')
    throw Failure{EINVAL, nullptr, "use it: an absolute path with a name at its end is needed", path};
}

// Quota groups that a new subvolume belongs to from the start.
class Inherit {
 public:
  explicit Inherit(const std::vector<uint64_t>& groups) {
    if (groups.empty()) return;
    checkedUtil(btrfs_util_create_qgroup_inherit(0, &raw_), nullptr);
    for (uint64_t group : groups) {
      btrfs_util_error error = btrfs_util_qgroup_inherit_add_group(&raw_, group);
      if (error == BTRFS_UTIL_OK) continue;
      btrfs_util_destroy_qgroup_inherit(raw_);
      checkedUtil(error, nullptr);
    }
  }
  ~Inherit() {
    if (raw_ != nullptr) btrfs_util_destroy_qgroup_inherit(raw_);
  }
  Inherit(const Inherit&) = delete;
  Inherit& operator=(const Inherit&) = delete;
  btrfs_util_qgroup_inherit* get() { return raw_; }

 private:
  btrfs_util_qgroup_inherit* raw_ = nullptr;
};

std::vector<uint64_t> readGroups(const Args& args, size_t index) {
  if (args.absent(index)) return {};
  if (!args[index].IsTypedArray() || args[index].As<Napi::TypedArray>().TypedArrayType() != napi_biguint64_array)
    throw Napi::TypeError::New(args.env(), "argument " + std::to_string(index) + ": expected a BigUint64Array");
  auto array = args[index].As<Napi::BigUint64Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

// The kernel takes no notice of them while quota is off; before 6.8 neither of groups that are not there.
void requireGroups(const HandlePtr& handle, const std::vector<uint64_t>& groups, const std::string& path) {
  if (groups.empty()) return;
  const std::string all = "/sys/fs/btrfs/" + handle->volume + "/qgroups";
  if (access(all.c_str(), F_OK) != 0) throw Failure{ENOTCONN, nullptr, "inherit", path};
  for (uint64_t group : groups) {
    std::string level = std::to_string(group >> 48), id = std::to_string(group & ((1ULL << 48) - 1));
    std::string place = all;
    place.append("/").append(level).append("_").append(id);
    if (access(place.c_str(), F_OK) == 0) continue;
    Failure failure{ENOENT, nullptr, "inherit", path};
    failure.hint = "there is no quota group ";
    failure.hint.append(level).append("/").append(id);
    throw failure;
  }
}

// createSubvolume(ticket, handle, path, inherit)
Napi::Value create(const Args& args) {
  HandlePtr handle = args.handle(1);
  std::string path = args.path(2);
  requireName(path);
  std::vector<uint64_t> groups = readGroups(args, 3);
  return quick(
      args, handle,
      [handle, path, groups](const Cancelled&) {
        Split split(path);
        ScopedFd parent = openParent(handle, split);
        requireGroups(handle, groups, path);
        Inherit inherit(groups);
        checkedUtil(btrfs_util_create_subvolume_fd(parent.get(), split.name.c_str(), 0, nullptr, inherit.get()),
                    "BTRFS_IOC_SUBVOL_CREATE_V2", path);
        return Nothing{};
      },
      toUndefined);
}

void requireId(uint64_t expected, uint64_t id, const std::string& path) {
  if (id == expected) return;
  std::string step = "find subvolume " + std::to_string(expected) + " there, but subvolume " + std::to_string(id);
  throw Failure{ESTALE, nullptr, step, path};
}

// With `id` that subvolume, whatever is mounted over it or has come to its path.
ScopedFd openSource(const HandlePtr& handle, const std::string& path, const std::optional<uint64_t>& id) {
  if (!id) return openOnVolume(handle, path, O_DIRECTORY, "open the source");
  try {
    ScopedFd fd = openByNumber(handle->fd(), *id, kSubvolumeInode, 0);
    if (fd.get() < 0) throw Failure{ENOENT, "open_by_handle_at", "open the source", path};
    return fd;
  } catch (const Failure& failure) {
    if (failure.error != EPERM) throw;
  }
  ScopedFd fd = openOnVolume(handle, path, O_DIRECTORY, "open the source");
  requireId(*id, subvolumeOf(fd.get(), path), path);
  return fd;
}

// snapshot(ticket, handle, source, destination, readonly, inherit, id). The last may be undefined.
Napi::Value snapshot(const Args& args) {
  HandlePtr handle = args.handle(1);
  std::string source = args.path(2), destination = args.path(3);
  requireName(source);
  requireName(destination);
  std::vector<uint64_t> groups = readGroups(args, 5);
  int flags = args.boolean(4) ? BTRFS_UTIL_CREATE_SNAPSHOT_READ_ONLY : 0;
  std::optional<uint64_t> id;
  if (!args.absent(6)) id = args.u64(6);
  return quick(
      args, handle,
      [=](const Cancelled&) {
        Split split(destination);
        ScopedFd from = openSource(handle, source, id);
        struct stat stat;
        checkedCall(fstat(from.get(), &stat), "fstat", "look at the source", source);
        if (stat.st_ino != kSubvolumeInode) {
          Failure failure{EINVAL, nullptr, {}, source};
          failure.hint = "the source is not a subvolume but a directory inside one";
          throw failure;
        }
        ScopedFd parent = openParent(handle, split);
        requireGroups(handle, groups, destination);
        Inherit inherit(groups);
        checkedUtil(
            btrfs_util_create_snapshot_fd2(from.get(), parent.get(), split.name.c_str(), flags, nullptr, inherit.get()),
            "BTRFS_IOC_SNAP_CREATE_V2", source, destination);
        return Nothing{};
      },
      toUndefined);
}

// As deletable.h's, by a path.
void requireUnmounted(const Split& split, int parent, const std::string& path) {
  MountsPtr mounts = readMounts();
  const Mount& home = mountOf(*mounts, parent);
  std::string directory = descriptorPath(parent);
  std::string absolute = (directory == "/" ? "" : directory) + "/" + split.name;
  std::string whole = "/" + volumePath(home, absolute);
  for (const Mount& mount : *mounts) {
    if (mount.point == absolute || isBeneath(mount.point, absolute))
      throw refusal(EBUSY, path, "'" + mount.point + "' is a mount point; unmount it first");
    if (mount.device == home.device && (mount.root == whole || isBeneath(mount.root, whole)))
      throw refusal(EBUSY, path, "it is mounted at '" + mount.point + "'; unmount it first");
  }
}

// Its descriptor is closed again at once: the cleaner leaves a subvolume alone while anything in it is open.
uint64_t idOf(int parent, const std::string& name) {
  const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  ScopedFd fd(checkedCall(::openat(parent, name.c_str(), flags), "openat", "open the subvolume"));
  uint64_t id = 0;
  checkedUtil(btrfs_util_subvolume_id_fd(fd.get(), &id), nullptr);
  return id;
}

// EPERM has several causes, and only the first is what it says.
template <class Id>
std::string whyNotPermitted(int fd, Id id) {
  uint64_t standard = 0;
  if (btrfs_util_get_default_subvolume_fd(fd, &standard) != BTRFS_UTIL_OK)
    return "needs root (CAP_SYS_ADMIN), or the mount option user_subvol_rm_allowed";
  if (standard == id()) return "it is the volume's default subvolume; set another one first";
  return "an active swap file or a running send holds it";
}

// Unlinked, and the cleaner is not done with them. Needs CAP_SYS_ADMIN.
std::vector<double> beingDeleted(int fd) {
  uint64_t* ids = nullptr;
  size_t count = 0;
  checkedUtil(btrfs_util_deleted_subvolumes_fd(fd, &ids, &count), nullptr);
  std::unique_ptr<uint64_t, decltype(&free)> owned(ids, free);
  std::vector<double> out;
  out.reserve(count);
  for (size_t at = 0; at < count; at++) out.push_back(exact(ids[at], "subvolume id"));
  return out;
}

// What the caller knows of the subvolume and of the directory that holds it; nothing else is deleted.
struct Expected {
  std::optional<uint64_t> id;
  std::optional<RootRef::Seen> parent;
};

ScopedFd openHolder(const HandlePtr& handle, const Split& split, const Expected& expected) {
  if (expected.parent) return openRoot(handle, {split.parent, expected.parent});
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  int fd = expected.id ? openWithoutSymlinks(split.parent, kFlags) : ::open(split.parent.c_str(), kFlags);
  if (fd < 0) throw Failure{expected.id ? -fd : errno, "open", "open the directory that holds it"};
  return ScopedFd(fd);
}

// By id the kernel looks up the name itself: between that and locking the directory a bystander that is renamed into
// its place is hit a hundred times less often than between our own comparison and a deletion by name. False where the
// kernel cannot (before 5.7, idmapped mounts, a path of more than 4 KiB) or not for this caller.
bool destroyById(int parent, uint64_t id, const std::string& path) {
  btrfs_ioctl_vol_args_v2 args = {};
  args.flags = BTRFS_SUBVOL_SPEC_BY_ID;
  args.devid = id;  // `subvolid`, before headers had that name
  int returned = tryIoctl(parent, BTRMIND_REQUEST(BTRFS_IOC_SNAP_DESTROY_V2), &args);
  if (returned == -ENOTTY || returned == -EOPNOTSUPP || returned == -EPERM || returned == -ENAMETOOLONG) return false;
  if (returned < 0) throw Failure{-returned, "BTRFS_IOC_SNAP_DESTROY_V2", {}, path};
  return true;
}

void destroyByName(int parent, const std::string& name, const std::string& path) {
  btrfs_util_error error = btrfs_util_delete_subvolume_fd(parent, name.c_str(), 0);
  if (error != BTRFS_UTIL_OK && errno == EPERM) {
    Failure failure = refusal(EPERM, path, whyNotPermitted(parent, [&] { return idOf(parent, name); }));
    failure.ioctl = "BTRFS_IOC_SNAP_DESTROY";
    throw failure;
  }
  checkedUtil(error, "BTRFS_IOC_SNAP_DESTROY", path);
}

uint64_t removeSubvolume(const HandlePtr& handle, const std::string& path, bool flush, const Expected& expected) {
  Split split(path);
  ScopedFd parent = openHolder(handle, split, expected);
  struct stat stat;
  checkedCall(fstatat(parent.get(), split.name.c_str(), &stat, AT_SYMLINK_NOFOLLOW), "fstatat", "look at it", path);
  requireUnmounted(split, parent.get(), path);
  requireOnVolume(handle, parent.get(), path);
  if (!S_ISDIR(stat.st_mode) || stat.st_ino != kSubvolumeInode) throw refusal(EINVAL, path, "it is not a subvolume");
  if (flush) beingDeleted(parent.get());  // without the privilege to watch it go, do not begin
  uint64_t id = flush || expected.id ? idOf(parent.get(), split.name) : 0;
  if (expected.id) requireId(*expected.id, id, path);
  if (!expected.id || !destroyById(parent.get(), id, path)) destroyByName(parent.get(), split.name, path);
  // Wakes the cleaner, too.
  if (flush) checkedIoctl(parent.get(), BTRMIND_REQUEST(BTRFS_IOC_SYNC), nullptr, "flush the deletion", path);
  return id;
}

// By its name in the directory that holds it, which is opened by its number: of any depth.
void destroyInParent(const HandlePtr& handle, uint64_t id, const std::string& place) {
  SubvolumeInfo info = {};
  checkedUtil(btrfs_util_subvolume_info_fd(handle->fd(), id, &info), nullptr);
  ScopedFd parent = openByNumber(handle->fd(), info.parent_id, info.dir_id, 0);
  if (parent.get() < 0) throw Failure{ENOENT, "open_by_handle_at", "open the directory that holds it", place};
  const std::string name = place.substr(place.rfind('/') + 1);
  requireId(id, idOf(parent.get(), name), place);
  destroyByName(parent.get(), name, place);
}

// deleteSubvolumeById(ticket, handle, id, flush): wherever it is, also outside of what is mounted
Napi::Value removeById(const Args& args) {
  HandlePtr handle = args.handle(1);
  uint64_t id = args.u64(2);
  bool flush = args.boolean(3);
  return quick(
      args, handle,
      [=](const Cancelled&) {
        const std::string text = subvolumePath(handle->fd(), id);
        requireUnmounted(handle, text, text);
        if (!destroyById(handle->fd(), id, text)) destroyInParent(handle, id, text);
        if (flush) checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_SYNC), nullptr, "flush the deletion", text);
        return Nothing{};
      },
      toUndefined);
}

// deleteSubvolume(ticket, handle, path, flush, id, parent) → its id where `flush`. The last two may be undefined.
Napi::Value remove(const Args& args) {
  HandlePtr handle = args.handle(1);
  std::string path = args.path(2);
  requireName(path);
  bool flush = args.boolean(3);
  Expected expected{{}, readSeen(args, 5)};
  if (!args.absent(4)) expected.id = args.u64(4);
  return quick(
      args, handle, [=](const Cancelled&) { return removeSubvolume(handle, path, flush, expected); },
      [](Napi::Env env, uint64_t& id) -> Napi::Value { return number(env, id, "subvolume id"); });
}

// deletedSubvolumes(ticket, handle) → ids
Napi::Value deletedSubvolumes(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle, [handle](const Cancelled&) { return beingDeleted(handle->fd()); },
      [](Napi::Env env, std::vector<double>& ids) -> Napi::Value {
        return copied<Napi::Float64Array>(env, ids.data(), ids.size());
      });
}

// setReadonly(ticket, handle, path, readonly)
Napi::Value setReadonly(const Args& args) {
  HandlePtr handle = args.handle(1);
  std::string path = args.path(2);
  bool readonly = args.boolean(3);
  return quick(
      args, handle,
      [=](const Cancelled&) {
        ScopedFd fd = openOnVolume(handle, path, O_DIRECTORY, "open the subvolume");
        struct stat stat;
        checkedCall(fstat(fd.get(), &stat), "fstat", "look at it", path);
        if (stat.st_ino != kSubvolumeInode)
          throw refusal(EINVAL, path, "it is not a subvolume but a directory inside one");
        checkedUtil(btrfs_util_set_subvolume_read_only_fd(fd.get(), readonly), "BTRFS_IOC_SUBVOL_SETFLAGS", path);
        return Nothing{};
      },
      toUndefined);
}

// setReadonlyById(ticket, handle, id, readonly): wherever it is, also outside of what is mounted
Napi::Value setReadonlyById(const Args& args) {
  HandlePtr handle = args.handle(1);
  uint64_t id = args.u64(2);
  bool readonly = args.boolean(3);
  return quick(
      args, handle,
      [=](const Cancelled&) {
        ScopedFd fd = openByNumber(handle->fd(), id, kSubvolumeInode, 0);
        if (fd.get() < 0) throw Failure{ENOENT, "open_by_handle_at", "open the subvolume by its id"};
        checkedUtil(btrfs_util_set_subvolume_read_only_fd(fd.get(), readonly), "BTRFS_IOC_SUBVOL_SETFLAGS");
        return Nothing{};
      },
      toUndefined);
}

}  // namespace

void defineSubvolume(Napi::Env env, Napi::Object exports) {
  define<create>(env, exports, "createSubvolume");
  define<snapshot>(env, exports, "snapshot");
  define<remove>(env, exports, "deleteSubvolume");
  define<removeById>(env, exports, "deleteSubvolumeById");
  define<deletedSubvolumes>(env, exports, "deletedSubvolumes");
  define<setReadonly>(env, exports, "setReadonly");
  define<setReadonlyById>(env, exports, "setReadonlyById");
}

}  // namespace btrmind
