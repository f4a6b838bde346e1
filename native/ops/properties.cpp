// What is set on a file or directory: the compression property, the attributes of chattr(1).
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/xattr.h>

#include <cerrno>
#include <optional>

#include "../named.h"
#include "../task.h"
#include "ops.h"

namespace btrmind {

namespace {

constexpr const char* kCompression = "btrfs.compression";
// What FS_IOC_SETFLAGS of btrfs takes.
constexpr uint32_t kSettable = FS_COMPR_FL | FS_SYNC_FL | FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL |
                               FS_NOATIME_FL | FS_NOCOMP_FL | FS_DIRSYNC_FL | FS_NOCOW_FL;

uint32_t readFlags(int fd, const std::string& path) {
  int flags = 0;
  checkedIoctl(fd, BTRMIND_REQUEST(FS_IOC_GETFLAGS), &flags, "read its attributes", path);
  return static_cast<uint32_t>(flags);
}

// compression(ticket, handle, path) → what is set, or undefined
Napi::Value compression(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle, path = args.path(2)](const Cancelled&) -> std::optional<std::string> {
        NamedFile file = openNamed(handle, path, Kinds::fileOrDirectory, O_RDONLY);
        char value[64];
        ssize_t length = fgetxattr(file.fd.get(), kCompression, value, sizeof value);
        if (length < 0 && errno == ENODATA) return std::nullopt;
        checkedCall(static_cast<int>(length), "fgetxattr", "read the property", path);
        return std::string(value, static_cast<size_t>(length));
      },
      [](Napi::Env env, std::optional<std::string>& value) -> Napi::Value {
        return value ? Napi::String::New(env, *value) : env.Undefined();
      });
}

// setCompression(ticket, handle, path, value or undefined)
Napi::Value setCompression(const Args& args) {
  HandlePtr handle = args.handle(1);
  std::optional<std::string> value;
  if (!args.absent(3)) value = args.path(3);
  return quick(
      args, handle,
      [handle, path = args.path(2), value](const Cancelled&) {
        NamedFile file = openNamed(handle, path, Kinds::fileOrDirectory, O_RDONLY);
        int fd = file.fd.get();
        int returned =
            value ? fsetxattr(fd, kCompression, value->data(), value->size(), 0) : fremovexattr(fd, kCompression);
        if (returned == 0 || (errno == ENODATA && !value)) return Nothing{};
        Failure failure{errno, value ? "fsetxattr" : "fremovexattr", "set the property", path};
        if (failure.error == EPERM) failure.hint = "needs write permission";
        if (failure.error == EINVAL)
          failure.hint = readFlags(fd, path) & FS_NOCOW_FL ? "without copy-on-write (NOCOW) nothing is compressed"
                                                           : "this kernel does not know the algorithm";
        throw failure;
      },
      toUndefined);
}

// attributes(ticket, handle, path) → FS_*_FL
Napi::Value attributes(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle, path = args.path(2)](const Cancelled&) {
        return readFlags(openNamed(handle, path, Kinds::fileOrDirectory, O_RDONLY).fd.get(), path);
      },
      [](Napi::Env env, uint32_t& flags) -> Napi::Value { return Napi::Number::New(env, flags); });
}

// setAttributes(ticket, handle, path, set, clear)
Napi::Value setAttributes(const Args& args) {
  HandlePtr handle = args.handle(1);
  auto set = static_cast<uint32_t>(args.u64(3));
  auto clear = static_cast<uint32_t>(args.u64(4));
  return quick(
      args, handle,
      [handle, path = args.path(2), set, clear](const Cancelled&) {
        NamedFile file = openNamed(handle, path, Kinds::fileOrDirectory, O_RDONLY);
        int fd = file.fd.get();
        uint32_t before = readFlags(fd, path);
        uint32_t wanted = ((before & ~clear) | set) & kSettable;
        constexpr const char* kStep = "set its attributes";
        Failure refused{EINVAL, "FS_IOC_SETFLAGS", kStep, path};
        struct stat now;
        checkedCall(fstat(fd, &now), "fstat", "see whether it is empty", path);
        // The kernel says that it did, and does not.
        if ((before ^ wanted) & FS_NOCOW_FL && S_ISREG(now.st_mode) && now.st_size > 0) {
          refused.hint =
              "copy-on-write can be turned off and on of an empty file only: make a new one (or set it on the "
              "directory, for new files in it) and copy the content into that";
          throw refused;
        }
        int flags = static_cast<int>(wanted);
        int returned = tryIoctl(fd, BTRMIND_REQUEST(FS_IOC_SETFLAGS), &flags);
        if (returned < 0) {
          refused.error = -returned;
          if (refused.error == EPERM || refused.error == EACCES)
            refused.hint = "needs to be the owner; `immutable` and `appendOnly`, root (CAP_LINUX_IMMUTABLE)";
          if (refused.error == EINVAL) refused.hint = "`compress` goes neither with `nocompress` nor with `nocow`";
          throw refused;
        }
        uint32_t missed = (readFlags(fd, path) ^ wanted) & (set | clear);
        if (missed == 0) return Nothing{};
        refused.hint = missed & FS_NOCOW_FL ? "it was written to meanwhile: copy-on-write is as it was"
                                            : "the kernel left one as it was";
        throw refused;
      },
      toUndefined);
}

}  // namespace

void defineProperties(Napi::Env env, Napi::Object exports) {
  define<compression>(env, exports, "compression");
  define<setCompression>(env, exports, "setCompression");
  define<attributes>(env, exports, "attributes");
  define<setAttributes>(env, exports, "setAttributes");
}

}  // namespace btrmind
