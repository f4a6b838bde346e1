// Quota groups: switched by ioctls, read from the quota tree.
#include <optional>
#include <vector>

#include "../btrfs_compat.h"
#include "../quota_tree.h"
#include "../task.h"
#include "ops.h"

namespace btrmind {

namespace {

constexpr uint64_t kIdMask = (1ULL << 48) - 1;

uint64_t groupId(const Args& args, size_t first) { return args.u64(first) << 48 | (args.u64(first + 1) & kIdMask); }

// quotaControl(ticket, handle, command): 1 on, 2 off, 4 on in simple mode
Napi::Value quotaControl(const Args& args) {
  HandlePtr handle = args.handle(1);
  uint64_t command = args.u64(2);
  return quick(
      args, handle,
      [handle, command](const Cancelled&) {
        btrfs_ioctl_quota_ctl_args control = {};
        control.cmd = command;
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_QUOTA_CTL), &control, "switch quota");
        return Nothing{};
      },
      toUndefined);
}

// quotaRescan(ticket, handle): begins it
Napi::Value quotaRescan(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle](const Cancelled&) {
        btrfs_ioctl_quota_rescan_args rescan = {};
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_QUOTA_RESCAN), &rescan, "begin to count anew");
        return Nothing{};
      },
      toUndefined);
}

// quotaRescanning(ticket, handle) → whether it goes on
Napi::Value quotaRescanning(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle](const Cancelled&) {
        btrfs_ioctl_quota_rescan_args rescan = {};
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_QUOTA_RESCAN_STATUS), &rescan, "look at the rescan");
        return rescan.flags != 0;
      },
      [](Napi::Env env, bool& going) -> Napi::Value { return Napi::Boolean::New(env, going); });
}

// qgroupCreate(ticket, handle, level, id, create)
Napi::Value qgroupCreate(const Args& args) {
  HandlePtr handle = args.handle(1);
  btrfs_ioctl_qgroup_create_args asked = {};
  asked.qgroupid = groupId(args, 2);
  asked.create = args.boolean(4);
  return quick(
      args, handle,
      [handle, asked](const Cancelled&) {
        btrfs_ioctl_qgroup_create_args request = asked;
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_QGROUP_CREATE), &request,
                     asked.create ? "make it" : "remove it");
        return Nothing{};
      },
      toUndefined);
}

// qgroupAssign(ticket, handle, level, id, parentLevel, parentId, assign) → whether the counters are wrong now
Napi::Value qgroupAssign(const Args& args) {
  HandlePtr handle = args.handle(1);
  btrfs_ioctl_qgroup_assign_args asked = {};
  asked.src = groupId(args, 2);
  asked.dst = groupId(args, 4);
  asked.assign = args.boolean(6);
  return quick(
      args, handle,
      [handle, asked](const Cancelled&) {
        btrfs_ioctl_qgroup_assign_args request = asked;
        int returned = tryIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_QGROUP_ASSIGN), &request);
        if (returned < 0) throw Failure{-returned, "BTRFS_IOC_QGROUP_ASSIGN", {}};
        return returned > 0;  // done, and a rescan is needed
      },
      [](Napi::Env env, bool& stale) -> Napi::Value { return Napi::Boolean::New(env, stale); });
}

// qgroupLimit(ticket, handle, level, id, referenced, exclusive): bytes; -1 takes a limit away; undefined leaves it
Napi::Value qgroupLimit(const Args& args) {
  HandlePtr handle = args.handle(1);
  btrfs_ioctl_qgroup_limit_args asked = {};
  asked.qgroupid = groupId(args, 2);
  auto take = [&](size_t index, uint64_t flag, __u64& into) {
    if (args.absent(index)) return;
    asked.lim.flags |= flag;
    double value = args.real(index);
    into = value < 0 ? UINT64_MAX : args.u64(index);
  };
  take(4, 1, asked.lim.max_rfer);  // BTRFS_QGROUP_LIMIT_MAX_RFER
  take(5, 2, asked.lim.max_excl);  // BTRFS_QGROUP_LIMIT_MAX_EXCL
  return quick(
      args, handle,
      [handle, asked](const Cancelled&) {
        btrfs_ioctl_qgroup_limit_args request = asked;
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_QGROUP_LIMIT), &request, "set the limit");
        return Nothing{};
      },
      toUndefined);
}

// quota(ticket, handle) → { flags, infos, limits, relations }, or undefined when quota is off
Napi::Value quota(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle, [handle](const Cancelled& cancelled) { return readQuota(handle->fd(), cancelled); },
      [](Napi::Env env, std::optional<Quota>& quota) -> Napi::Value {
        if (!quota) return env.Undefined();
        Napi::Object out = Napi::Object::New(env);
        auto set = [&](const char* name, const std::vector<double>& values) {
          out.Set(name, copied<Napi::Float64Array>(env, values.data(), values.size()));
        };
        out.Set("flags", static_cast<double>(quota->flags & 0xffff));
        set("infos", quota->infos);
        set("limits", quota->limits);
        set("relations", quota->relations);
        return out;
      });
}

}  // namespace

void defineQuota(Napi::Env env, Napi::Object exports) {
  define<quotaControl>(env, exports, "quotaControl");
  define<quotaRescan>(env, exports, "quotaRescan");
  define<quotaRescanning>(env, exports, "quotaRescanning");
  define<qgroupCreate>(env, exports, "qgroupCreate");
  define<qgroupAssign>(env, exports, "qgroupAssign");
  define<qgroupLimit>(env, exports, "qgroupLimit");
  define<quota>(env, exports, "quota");
}

}  // namespace btrmind
