// Open, close, sync, and what FS_INFO knows.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "../btrfs_compat.h"
#include "../place.h"
#include "../task.h"
#include "ops.h"

namespace btrmind {

namespace {

struct Opened {
  HandlePtr handle;
  std::string uuid;
};

struct Identity {
  btrfs_ioctl_fs_info_args info;
  char label[BTRFS_LABEL_SIZE];
};

btrfs_ioctl_fs_info_args readInfo(int fd) {
  btrfs_ioctl_fs_info_args info = {};
  info.flags = BTRFS_FS_INFO_FLAG_CSUM_INFO | BTRFS_FS_INFO_FLAG_GENERATION | BTRFS_FS_INFO_FLAG_METADATA_UUID;
  checkedIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_FS_INFO), &info, "read the filesystem's identity");
  return info;
}

Opened openVolume(const std::string& path) {
  HandlePtr handle = Handle::open(path, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
  struct statfs stat;
  checkedCall(fstatfs(handle->fd(), &stat), "fstatfs", "read the filesystem's type", path);
  if (static_cast<unsigned long>(stat.f_type) != BTRFS_SUPER_MAGIC)
    throw Failure{ENOTTY, nullptr, "open a btrfs filesystem", path};
  handle->volume = uuidText(readInfo(handle->fd()).fsid);
  return Opened{handle, handle->volume};
}

// open(ticket, path) → { handle, uuid }
Napi::Value open(const Args& args) {
  std::string path = args.path(1);
  return quickAt(
      args, path, [path](const Cancelled&) { return openVolume(path); },
      [](Napi::Env env, Opened& opened) -> Napi::Value {
        Napi::Object out = Napi::Object::New(env);
        out.Set("handle", wrapHandle(env, opened.handle));
        out.Set("uuid", opened.uuid);
        return out;
      });
}

struct Found {
  std::string uuid;
  std::string path;
  uint64_t inode;
  uint64_t subvolumeId;
};

// directory(ticket, handle, path) → { uuid, path, inode, subvolumeId }: of `path` with its symlinks resolved. The
// handle only says whose lane it is: the caller compares the uuid.
Napi::Value directory(const Args& args) {
  return quick(
      args, args.handle(1),
      [path = args.path(2)](const Cancelled&) {
        std::unique_ptr<char, decltype(&::free)> real(::realpath(path.c_str(), nullptr), &::free);
        if (!real) throw Failure{errno, "realpath", "resolve the directory", path};
        Opened opened = openVolume(real.get());
        struct stat stat;
        checkedCall(fstat(opened.handle->fd(), &stat), "fstat", "read the directory", path);
        return Found{opened.uuid, real.get(), stat.st_ino, subvolumeOf(opened.handle->fd(), path)};
      },
      [](Napi::Env env, Found& found) -> Napi::Value {
        Napi::Object out = Napi::Object::New(env);
        out.Set("uuid", found.uuid);
        out.Set("path", found.path);
        out.Set("inode", number(env, found.inode, "st_ino"));
        out.Set("subvolumeId", number(env, found.subvolumeId, "treeid"));
        return out;
      });
}

// close(handle) → () => boolean: synchronous; tasks in flight keep the descriptor open until they end, which that asks.
Napi::Value close(const Args& args) {
  return Napi::Function::New(args.env(), [held = closeHandle(args.env(), args[0])](const Napi::CallbackInfo& info) {
    return Napi::Boolean::New(info.Env(), !held.expired());
  });
}

// share(handle) → handle of the same descriptor: one that close() of the other leaves open. Synchronous.
Napi::Value share(const Args& args) { return wrapHandle(args.env(), args.handle(0)); }

// info(ticket, handle)
Napi::Value info(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle](const Cancelled&) {
        Identity identity{readInfo(handle->fd()), {}};
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_GET_FSLABEL), identity.label, "read the label");
        return identity;
      },
      [](Napi::Env env, Identity& identity) -> Napi::Value {
        const btrfs_ioctl_fs_info_args& info = identity.info;
        Napi::Object out = Napi::Object::New(env);
        out.Set("label", std::string(identity.label));
        out.Set("uuid", uuidText(info.fsid));
        out.Set("metadataUuid",
                uuidText(info.flags & BTRFS_FS_INFO_FLAG_METADATA_UUID ? info.metadata_uuid : info.fsid));
        out.Set("devices", number(env, info.num_devices, "num_devices"));
        out.Set("maxDeviceId", number(env, info.max_id, "max_id"));
        out.Set("nodeSizeBytes", info.nodesize);
        out.Set("sectorSizeBytes", info.sectorsize);
        out.Set("cloneAlignmentBytes", info.clone_alignment);
        if (info.flags & BTRFS_FS_INFO_FLAG_GENERATION)
          out.Set("generation", number(env, info.generation, "generation"));
        if (info.flags & BTRFS_FS_INFO_FLAG_CSUM_INFO) out.Set("checksumType", info.csum_type);
        return out;
      });
}

// sync(ticket, handle): flushes delalloc and commits; START_SYNC alone would not flush.
Napi::Value sync(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle](const Cancelled&) {
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_SYNC), nullptr, "sync");
        return Nothing{};
      },
      toUndefined);
}

}  // namespace

void defineFilesystem(Napi::Env env, Napi::Object exports) {
  define<open>(env, exports, "open");
  define<directory>(env, exports, "directory");
  define<close>(env, exports, "close");
  define<share>(env, exports, "share");
  define<info>(env, exports, "info");
  define<sync>(env, exports, "sync");
}

}  // namespace btrmind
