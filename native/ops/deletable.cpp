#include "deletable.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "../btrfs_compat.h"
#include "../btrfsutil_library.h"
#include "../place.h"
#include "ops.h"

namespace btrmind {

Failure refusal(int error, const std::string& path, std::string hint) {
  Failure failure{error, nullptr, {}, path};
  failure.hint = std::move(hint);
  return failure;
}

void requireUnmounted(const HandlePtr& handle, const std::string& place, const std::string& path) {
  MountsPtr mounts = readMounts();
  const Mount& home = mountOf(*mounts, handle->fd());
  const std::string whole = "/" + place;
  for (const Mount& mount : *mounts) {
    if (mount.device != home.device) continue;
    if (mount.root == whole || isBeneath(mount.root, whole))
      throw refusal(EBUSY, path, "it is mounted at '" + mount.point + "'; unmount it first");
    if (!isBeneath(whole, mount.root)) continue;
    const std::string inner = whole.substr(mount.root == "/" ? 0 : mount.root.size());
    const std::string absolute = (mount.point == "/" ? "" : mount.point) + inner;
    for (const Mount& on : *mounts)
      if (on.point == absolute || isBeneath(on.point, absolute))
        throw refusal(EBUSY, path, "'" + on.point + "' is a mount point; unmount it first");
  }
}

namespace {

// One of a tree that is to be deleted as a whole.
struct Member {
  std::string path;   // absolute; empty: it is named by its id
  std::string place;  // from the top of the volume
  uint64_t id, parentId, directory;
  bool opened;        // read-only, and made writable before something is taken out of it
  bool parentOpened;  // so is the one that holds it
};

// Of whoever is no administrator the kernel asks more (user_subvol_rm_allowed).
bool isAdministrator(int fd, uint64_t& standard) {
  return btrfs_util_get_default_subvolume_fd(fd, &standard) == BTRFS_UTIL_OK || errno != EPERM;
}

// What the process may not do to a directory, as an errno, or 0. A read-only subvolume that is made writable before is
// none; what lies behind that is not known.
int denied(int at, const char* name, int wanted, bool opened) {
  if (faccessat(at, name, wanted, AT_EACCESS) == 0) return 0;
  return opened && errno == EROFS ? 0 : errno;
}

bool hasActiveSwap(dev_t subvolume) {
  std::ifstream swaps("/proc/swaps");
  std::string line;
  while (std::getline(swaps, line)) {
    struct stat stat;
    if (::stat(line.substr(0, line.find(' ')).c_str(), &stat) == 0 && stat.st_dev == subvolume) return true;
  }
  return false;
}

bool isProtected(int at, const char* name, uint64_t attributes) {
  struct statx now = {};
  return statx(at, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &now) == 0 && (now.stx_attributes & attributes) != 0;
}

// Everything is asked again at its deletion.
void requireDeletable(const HandlePtr& handle, const Member& member) {
  requireUnmounted(handle, member.place, {});
  uint64_t standard = 0;
  const bool administrator = isAdministrator(handle->fd(), standard);
  if (standard == member.id) throw refusal(EPERM, {}, "it is the volume's default subvolume; set another one first");
  const bool byId = member.path.empty();
  const size_t slash = member.path.rfind('/');
  ScopedFd holder = byId ? openByNumber(handle->fd(), member.parentId, member.directory, 0)
                         : openOnVolume(handle, member.path.substr(0, std::max<size_t>(slash, 1)), O_DIRECTORY,
                                        "open the directory that holds it");
  ScopedFd itself = byId ? openByNumber(handle->fd(), member.id, BTRFS_FIRST_FREE_OBJECTID, 0) : ScopedFd();
  if (holder.get() < 0 || (byId && itself.get() < 0)) throw Failure{ENOENT, "open_by_handle_at", "open it by its id"};
  const int at = byId ? itself.get() : holder.get();
  const std::string name = byId ? "." : member.path.substr(slash + 1);
  struct stat stat, above;
  checkedCall(fstatat(at, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW), "fstatat", "look at it");
  checkedCall(fstat(holder.get(), &above), "fstat", "look at the directory that holds it");
  if (!S_ISDIR(stat.st_mode) || stat.st_ino != BTRFS_FIRST_FREE_OBJECTID)
    throw refusal(EINVAL, {}, "it is not a subvolume");
  if (isProtected(at, name.c_str(), STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND))
    throw refusal(EPERM, {}, "it is immutable or append-only (chattr +i, +a)");
  if (isProtected(holder.get(), ".", STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND))
    throw refusal(EPERM, {}, "the directory that holds it is immutable or append-only (chattr +i, +a)");
  if (hasActiveSwap(stat.st_dev)) throw refusal(EPERM, {}, "an active swap file is in it");
  int error = denied(holder.get(), ".", W_OK | X_OK, member.parentOpened);
  if (error == EROFS) throw refusal(EROFS, {}, "the subvolume that holds it, or the mount, is read-only");
  if (error != 0) throw refusal(error, {}, "needs write permission on the directory that holds it");
  if (administrator) return;
  error = denied(at, name.c_str(), W_OK | X_OK, member.opened);
  if (error != 0) throw refusal(error, {}, "without CAP_SYS_ADMIN write permission on it is needed");
  const bool owned = stat.st_uid == geteuid() || above.st_uid == geteuid();
  if ((above.st_mode & S_ISVTX) != 0 && !owned)
    throw refusal(EPERM, {}, "the directory that holds it is sticky, and both are somebody else's");
}

// deletable(ticket, handle, path, place, id, parentId, directory, opened, parentOpened); rejects with why it is not
Napi::Value deletable(const Args& args) {
  HandlePtr handle = args.handle(1);
  Member member{args.path(2), args.path(3), args.u64(4), args.u64(5), args.u64(6), args.boolean(7), args.boolean(8)};
  return quick(
      args, handle,
      [handle, member](const Cancelled&) {
        requireDeletable(handle, member);
        return Nothing{};
      },
      toUndefined);
}

}  // namespace

void defineDeletable(Napi::Env env, Napi::Object exports) { define<deletable>(env, exports, "deletable"); }

}  // namespace btrmind
