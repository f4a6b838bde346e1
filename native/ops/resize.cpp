// How much of a device the filesystem uses.
#include <linux/btrfs.h>

#include <cerrno>
#include <cstdio>
#include <memory>

#include "../task.h"
#include "ops.h"

namespace btrmind {

namespace {

btrfs_ioctl_vol_args request(const std::string& text) {
  btrfs_ioctl_vol_args args = {};
  snprintf(args.name, sizeof args.name, "%s", text.c_str());
  return args;
}

// resize(ticket, handle, devid, sizeBytes). Shrinking moves what lies beyond: hours, so it has a thread of its own.
Napi::Value resize(const Args& args) {
  HandlePtr handle = args.handle(1);
  std::string text = std::to_string(args.u64(2)) + ":" + std::to_string(args.u64(3));
  auto call = std::make_shared<KernelCall>();
  return longRunning(
      args, handle,
      [handle, text, call](const Cancelled& cancelled) {
        KernelCall::Work work{*call};
        if (cancelled) throw Failure{ECANCELED, nullptr, "begin"};
        btrfs_ioctl_vol_args size = request(text);
        KernelCall::Inside inside(*call);
        // Positive where another exclusive operation runs.
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_RESIZE), &size, "resizeDevice");
        return Nothing{};
      },
      toUndefined,
      [handle, call] {
        call->stop([&] {
          btrfs_ioctl_vol_args stop = request("cancel");  // Linux 5.14
          return tryIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_RESIZE), &stop) != -ENOTCONN;
        });
      });
}

}  // namespace

void defineResize(Napi::Env env, Napi::Object exports) { define<resize>(env, exports, "resize"); }

}  // namespace btrmind
