// Scrub of one device: an ioctl that may take hours, one that looks at it, and one that stops it.
#include <cerrno>
#include <optional>
#include <vector>

#include "../block_groups.h"
#include "../btrfs_compat.h"
#include "../task.h"
#include "ops.h"

namespace btrmind {

namespace {

// In the kernel's order; src/btrfs/scrub.ts names them.
Napi::Value counters(Napi::Env env, const btrfs_scrub_progress& progress) {
  const uint64_t values[] = {
      progress.data_extents_scrubbed, progress.tree_extents_scrubbed,
      progress.data_bytes_scrubbed,   progress.tree_bytes_scrubbed,
      progress.read_errors,           progress.csum_errors,
      progress.verify_errors,         progress.no_csum,
      progress.csum_discards,         progress.super_errors,
      progress.malloc_errors,         progress.uncorrectable_errors,
      progress.corrected_errors,      progress.last_physical,
      progress.unverified_errors,
  };
  auto out = Napi::Float64Array::New(env, std::size(values));
  for (size_t i = 0; i < std::size(values); i++) out[i] = exact(values[i], "scrub counter");
  return out;
}

// scrub(ticket, handle, devid, start, end, readonly) → counters; rejects with ECANCELED and them as `progress`
Napi::Value scrub(const Args& args) {
  HandlePtr handle = args.handle(1);
  btrfs_ioctl_scrub_args asked = {};
  asked.devid = args.u64(2);
  asked.start = args.u64(3);
  asked.end = args.absent(4) ? UINT64_MAX : args.u64(4);
  asked.flags = args.boolean(5) ? BTRFS_SCRUB_READONLY : 0;
  auto call = std::make_shared<KernelCall>();
  return longRunning(
      args, handle,
      [handle, asked, call](const Cancelled& cancelled) {
        KernelCall::Work work{*call};
        btrfs_ioctl_scrub_args run = asked;
        int returned = -ECANCELED;
        if (!cancelled) {
          KernelCall::Inside inside(*call);
          returned = tryIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_SCRUB), &run);
        }
        if (returned == 0) return run.progress;
        Failure failure{returned < 0 ? -returned : returned, "BTRFS_IOC_SCRUB", "scrub"};
        failure.positive = returned > 0;
        if (returned == -ENODEV) failure.step = "scrub: there is no device " + std::to_string(asked.devid);
        // An error ends it with what it came to, as a cancellation does.
        failure.output = [progress = run.progress](Napi::Env env) { return counters(env, progress); };
        throw failure;
      },
      [](Napi::Env env, btrfs_scrub_progress& progress) { return counters(env, progress); },
      [handle, call, devid = asked.devid] {
        call->stop([&] {
          btrfs_ioctl_scrub_args now = {};
          now.devid = devid;
          return tryIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_SCRUB_PROGRESS), &now) == 0 &&
                 tryIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_SCRUB_CANCEL), nullptr) == 0;
        });
      });
}

// scrubProgress(ticket, handle, devid) → counters, or undefined
Napi::Value scrubProgress(const Args& args) {
  HandlePtr handle = args.handle(1);
  uint64_t devid = args.u64(2);
  return quick(
      args, handle,
      [handle, devid](const Cancelled&) -> std::optional<btrfs_scrub_progress> {
        btrfs_ioctl_scrub_args now = {};
        now.devid = devid;
        int returned = tryIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_SCRUB_PROGRESS), &now);
        if (returned == -ENOTCONN) return std::nullopt;
        if (returned < 0) throw Failure{-returned, "BTRFS_IOC_SCRUB_PROGRESS", "look at the scrub"};
        return now.progress;
      },
      [](Napi::Env env, std::optional<btrfs_scrub_progress>& now) -> Napi::Value {
        return now ? counters(env, *now) : env.Undefined();
      });
}

// scrubCancel(ticket, handle): whichever run, and a replacement of a device. Resolves when they have stopped.
Napi::Value scrubCancel(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle](const Cancelled&) {
        int returned = tryIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_SCRUB_CANCEL), nullptr);
        if (returned < 0) throw Failure{-returned, "BTRFS_IOC_SCRUB_CANCEL", "cancel the scrub"};
        return Nothing{};
      },
      toUndefined);
}

// deviceExtents(ticket, handle, devid) → Float64Array of [start, length] pairs, ascending: what of it is allocated
Napi::Value deviceExtents(const Args& args) {
  HandlePtr handle = args.handle(1);
  uint64_t devid = args.u64(2);
  return quick(
      args, handle, [handle, devid](const Cancelled&) { return readDeviceExtents(handle->fd(), devid); },
      [](Napi::Env env, std::vector<double>& pairs) -> Napi::Value {
        return copied<Napi::Float64Array>(env, pairs.data(), pairs.size());
      });
}

}  // namespace

void defineScrub(Napi::Env env, Napi::Object exports) {
  define<scrub>(env, exports, "scrub");
  define<scrubProgress>(env, exports, "scrubProgress");
  define<scrubCancel>(env, exports, "scrubCancel");
  define<deviceExtents>(env, exports, "deviceExtents");
}

}  // namespace btrmind
