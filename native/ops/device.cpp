// Devices of a volume: add, remove, replace; and what the kernel knows of devices that are not mounted.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "../btrfs_compat.h"
#include "../task.h"
#include "ops.h"

namespace btrmind {

namespace {

constexpr const char* kControl = "/dev/btrfs-control";

template <class VolumeArgs>
void setName(VolumeArgs& args, const std::string& name) {
  if (name.size() >= sizeof args.name) throw Failure{ENAMETOOLONG, nullptr, "pass the device's path on", name};
  memcpy(args.name, name.c_str(), name.size() + 1);
}

// Whatever is there would be lost. Taken as empty: nothing but zeros in the first MiB, where nearly everything has its
// signature, and no backup partition table or raid superblock at the end. A superblock without its magic number is what
// is left of a device that was taken out of a volume.
void requireEmpty(int fd, const std::string& path) {
  constexpr size_t kSuper = 64 << 10, kSuperBytes = 4096, kMagic = kSuper + 64, kEnd = 128 << 10;
  off_t size = lseek(fd, 0, SEEK_END);
  auto refuse = [&](off_t at) {
    Failure failure{EEXIST, nullptr, {}, path};
    failure.hint = "the device holds something (at byte " + std::to_string(at) +
                   "); make sure that nobody needs it, then use `force`";
    throw failure;
  };
  std::vector<char> bytes(1 << 20);
  auto read = [&](off_t at, size_t length) {
    ssize_t got = pread(fd, bytes.data(), length, at);
    if (got < 0) throw Failure{errno, "pread", "look whether the device is empty", path};
    return static_cast<size_t>(got);
  };
  size_t got = read(0, bytes.size());
  const char none[8] = {};
  bool dead = got >= kSuper + kSuperBytes && memcmp(bytes.data() + kMagic, none, sizeof none) == 0;
  for (size_t i = 0; i < got; i++) {
    if (bytes[i] != 0 && !(dead && i >= kSuper && i < kSuper + kSuperBytes)) refuse(static_cast<off_t>(i));
  }
  if (size < static_cast<off_t>(2 * kEnd)) return;
  off_t from = size - static_cast<off_t>(kEnd);
  got = read(from, kEnd);
  const char raid[] = {'\xfc', '\x4e', '\x2b', '\xa9'};
  for (size_t i = 0; i + 8 <= got; i += 512) {
    if (memcmp(&bytes[i], "EFI PART", 8) == 0 || memcmp(&bytes[i], raid, sizeof raid) == 0)
      refuse(from + static_cast<off_t>(i));
  }
}

// Whole and, at this moment, not in use.
ScopedFd openDevice(const std::string& path, bool force) {
  ScopedFd fd(
      checkedCall(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_EXCL | O_NONBLOCK), "open", "open the device", path));
  struct stat stat;
  checkedCall(fstat(fd.get(), &stat), "fstat", "look at the device", path);
  if (!S_ISBLK(stat.st_mode)) throw Failure{ENOTBLK, nullptr, "use it: not a block device", path};
  if (!force) requireEmpty(fd.get(), path);
  return fd;
}

// deviceAdd(ticket, handle, path, force)
Napi::Value deviceAdd(const Args& args) {
  HandlePtr handle = args.handle(1);
  std::string path = args.path(2);
  bool force = args.boolean(3);
  return longRunning(
      args, handle,
      [=](const Cancelled& cancelled) {
        openDevice(path, force);
        if (cancelled) throw Failure{ECANCELED, nullptr, "begin"};
        btrfs_ioctl_vol_args name = {};
        setName(name, path);
        // Positive where another exclusive operation runs.
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_ADD_DEV), &name, "add the device", path);
        return Nothing{};
      },
      toUndefined, nullptr);
}

// deviceRemove(ticket, handle, devid): 0 is a missing one
Napi::Value deviceRemove(const Args& args) {
  HandlePtr handle = args.handle(1);
  btrfs_ioctl_vol_args_v2 asked = {};
  asked.devid = args.u64(2);
  if (asked.devid == 0) {
    setName(asked, "missing");
  } else {
    asked.flags = BTRFS_DEVICE_SPEC_BY_ID;
  }
  auto call = std::make_shared<KernelCall>();
  return longRunning(
      args, handle,
      [handle, asked, call](const Cancelled& cancelled) {
        KernelCall::Work work{*call};
        if (cancelled) throw Failure{ECANCELED, nullptr, "begin"};
        btrfs_ioctl_vol_args_v2 request = asked;
        KernelCall::Inside inside(*call);
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_RM_DEV_V2), &request, "remove the device");
        return Nothing{};
      },
      toUndefined,
      [handle, call] {
        call->stop([&] {
          btrfs_ioctl_vol_args_v2 stop = {};
          setName(stop, "cancel");  // Linux 5.14
          return tryIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_RM_DEV_V2), &stop) != -ENOTCONN;
        });
      });
}

const char* replaceState(uint64_t state) {
  switch (state) {
    case BTRFS_IOCTL_DEV_REPLACE_STATE_STARTED:
      return "running";
    case BTRFS_IOCTL_DEV_REPLACE_STATE_FINISHED:
      return "finished";
    case BTRFS_IOCTL_DEV_REPLACE_STATE_CANCELED:
      return "cancelled";
    case BTRFS_IOCTL_DEV_REPLACE_STATE_SUSPENDED:
      return "suspended";
    default:
      return "never";
  }
}

btrfs_ioctl_dev_replace_status_params replaceStatus(int fd) {
  btrfs_ioctl_dev_replace_args args = {};
  args.cmd = BTRFS_IOCTL_DEV_REPLACE_CMD_STATUS;
  checkedIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_DEV_REPLACE), &args, "look at the replacement");
  return args.status;
}

Napi::Value toJs(Napi::Env env, btrfs_ioctl_dev_replace_status_params& status) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("state", replaceState(status.replace_state));
  out.Set("ratio", static_cast<double>(status.progress_1000) / 1000);
  out.Set("startedSeconds", number(env, status.time_started, "time"));
  out.Set("stoppedSeconds", number(env, status.time_stopped, "time"));
  out.Set("writeErrors", number(env, status.num_write_errors, "write errors"));
  out.Set("readErrors", number(env, status.num_uncorrectable_read_errors, "read errors"));
  return out;
}

// The kernel notes a cancellation in memory only; the next transaction would write it. Where none came before the
// volume is unmounted, it could not be mounted again: on disk the replacement would run still, its target gone. A
// balance that no block group passes is the one thing that makes a transaction, commits it, and changes nothing. Where
// another holds the volume, its own beginning has done the same.
void writeCancellation(int fd) {
  btrfs_ioctl_balance_args none = {};
  none.flags = BTRFS_BALANCE_DATA;
  none.data.flags = BTRFS_BALANCE_ARGS_VRANGE;
  none.data.vend = 1;
  tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_BALANCE_V2), &none);
}

// deviceReplace(ticket, handle, devid, target, force, avoidSource) → status when it is done
Napi::Value deviceReplace(const Args& args) {
  HandlePtr handle = args.handle(1);
  btrfs_ioctl_dev_replace_args asked = {};
  asked.cmd = BTRFS_IOCTL_DEV_REPLACE_CMD_START;
  asked.start.srcdevid = args.u64(2);
  std::string target = args.path(3);
  bool force = args.boolean(4);
  asked.start.cont_reading_from_srcdev_mode = args.boolean(5)
                                                  ? BTRFS_IOCTL_DEV_REPLACE_CONT_READING_FROM_SRCDEV_MODE_AVOID
                                                  : BTRFS_IOCTL_DEV_REPLACE_CONT_READING_FROM_SRCDEV_MODE_ALWAYS;
  if (target.size() >= sizeof asked.start.tgtdev_name)
    throw Failure{ENAMETOOLONG, nullptr, "pass the device's path on", target};
  memcpy(asked.start.tgtdev_name, target.c_str(), target.size() + 1);
  auto call = std::make_shared<KernelCall>();
  return longRunning(
      args, handle,
      [=](const Cancelled& cancelled) {
        KernelCall::Work work{*call};
        openDevice(target, force);
        auto stopped = [](btrfs_ioctl_dev_replace_status_params status) {
          Failure failure{ECANCELED, "BTRFS_IOC_DEV_REPLACE", "replace the device"};
          failure.output = [status](Napi::Env env) {
            auto copy = status;
            return toJs(env, copy);
          };
          return failure;
        };
        if (cancelled) throw stopped({});
        btrfs_ioctl_dev_replace_args request = asked;
        int returned = [&] {
          KernelCall::Inside inside(*call);
          return tryIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_DEV_REPLACE), &request);
        }();
        if (returned == -ECANCELED) {
          writeCancellation(handle->fd());
          throw stopped(replaceStatus(handle->fd()));
        }
        if (returned != 0) {
          Failure failure{returned < 0 ? -returned : returned, "BTRFS_IOC_DEV_REPLACE", "replace the device", target};
          failure.positive = returned > 0;
          throw failure;
        }
        // A refusal of its own, beside what the call returns.
        const char* why = request.result == BTRFS_IOCTL_DEV_REPLACE_RESULT_ALREADY_STARTED
                              ? "a replacement is under way already"
                          : request.result == BTRFS_IOCTL_DEV_REPLACE_RESULT_SCRUB_INPROGRESS ? "a scrub runs"
                                                                                              : nullptr;
        if (why != nullptr) {
          Failure failure{EINPROGRESS, "BTRFS_IOC_DEV_REPLACE", "replace the device", target};
          failure.hint = why;
          throw failure;
        }
        btrfs_ioctl_dev_replace_status_params status = replaceStatus(handle->fd());
        if (status.replace_state != BTRFS_IOCTL_DEV_REPLACE_STATE_CANCELED) return status;
        writeCancellation(handle->fd());
        throw stopped(status);
      },
      toJs,
      [handle, call] {
        call->stop([&] {
          btrfs_ioctl_dev_replace_args stop = {};
          stop.cmd = BTRFS_IOCTL_DEV_REPLACE_CMD_CANCEL;
          return tryIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_DEV_REPLACE), &stop) == 0 &&
                 stop.result == BTRFS_IOCTL_DEV_REPLACE_RESULT_NO_ERROR;
        });
      });
}

// deviceReplaceStatus(ticket, handle) → status
Napi::Value deviceReplaceStatus(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(args, handle, [handle](const Cancelled&) { return replaceStatus(handle->fd()); }, toJs);
}

// deviceErrorsReset(ticket, handle, devid) → write, read, flush, corruption, generation, as they were
Napi::Value deviceErrorsReset(const Args& args) {
  HandlePtr handle = args.handle(1);
  uint64_t devid = args.u64(2);
  return quick(
      args, handle,
      [handle, devid](const Cancelled&) {
        btrfs_ioctl_get_dev_stats stats = {};
        stats.devid = devid;
        stats.nr_items = BTRFS_DEV_STAT_VALUES_MAX;
        stats.flags = BTRFS_DEV_STATS_RESET;
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_GET_DEV_STATS), &stats, "reset the counters");
        return std::vector<double>(stats.values, stats.values + BTRFS_DEV_STAT_VALUES_MAX);
      },
      [](Napi::Env env, std::vector<double>& values) -> Napi::Value {
        return copied<Napi::Float64Array>(env, values.data(), values.size());
      });
}

// deviceControl(ticket, what, path) → whether; 0 scan, 1 forget ('' for all that are not mounted), 2 ready
Napi::Value deviceControl(const Args& args) {
  uint64_t what = args.u64(1);
  std::string path = args.path(2);
  return quickAt(
      args, kControl,
      [what, path](const Cancelled&) {
        ScopedFd fd(checkedCall(::open(kControl, O_RDWR | O_CLOEXEC), "open", "ask the kernel's btrfs", kControl));
        btrfs_ioctl_vol_args name = {};
        setName(name, path);
        if (what == 0) checkedIoctl(fd.get(), BTRMIND_REQUEST(BTRFS_IOC_SCAN_DEV), &name, "register it", path);
        if (what == 1) checkedIoctl(fd.get(), BTRMIND_REQUEST(BTRFS_IOC_FORGET_DEV), &name, "forget it", path);
        if (what != 2) return true;
        int returned = tryIoctl(fd.get(), BTRMIND_REQUEST(BTRFS_IOC_DEVICES_READY), &name);
        if (returned < 0) throw Failure{-returned, "BTRFS_IOC_DEVICES_READY", "ask whether all are there", path};
        return returned == 0;
      },
      [](Napi::Env env, bool& yes) -> Napi::Value { return Napi::Boolean::New(env, yes); });
}

}  // namespace

void defineDevice(Napi::Env env, Napi::Object exports) {
  define<deviceAdd>(env, exports, "deviceAdd");
  define<deviceRemove>(env, exports, "deviceRemove");
  define<deviceReplace>(env, exports, "deviceReplace");
  define<deviceReplaceStatus>(env, exports, "deviceReplaceStatus");
  define<deviceErrorsReset>(env, exports, "deviceErrorsReset");
  define<deviceControl>(env, exports, "deviceControl");
}

}  // namespace btrmind
