// Balance: one ioctl that may take hours, and three small ones that look at it and stop it.
#include <cerrno>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>

#include "../btrfs_compat.h"
#include "../task.h"
#include "ops.h"

namespace btrmind {

namespace {

constexpr napi_type_tag kBalanceTag{0x6274726d696e642dULL, 0x62616c616e63652dULL};

// A balance that this process starts. The kernel's controls mean whichever runs on the volume, so they are used only
// while that is this one: it is inside the kernel, and what runs has its filters.
struct Balance {
  btrfs_ioctl_balance_args asked = {};
  KernelCall call;

  bool isWhatRuns(int fd) const {
    btrfs_ioctl_balance_args now = {};
    if (tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_BALANCE_PROGRESS), &now) != 0) return false;
    if ((now.state & BTRFS_BALANCE_STATE_RUNNING) == 0) return false;
    if (asked.flags & BTRFS_BALANCE_RESUME) return true;
    auto same = [](btrfs_balance_args a, btrfs_balance_args b) {
      a.limit = b.limit = 0;  // the kernel counts it down
      return memcmp(&a, &b, sizeof a) == 0;
    };
    return (now.flags & BTRFS_BALANCE_TYPE_MASK) == (asked.flags & BTRFS_BALANCE_TYPE_MASK) &&
           same(now.data, asked.data) && same(now.meta, asked.meta) && same(now.sys, asked.sys);
  }

  // Blocks until it has stopped; it may not have begun yet.
  void stop(int fd, int how, const Cancelled& giveUp) const {
    call.stop([&] { return isWhatRuns(fd) && control(fd, how) == 0; }, giveUp);
  }

  static int control(int fd, int how) {
    auto* argument = reinterpret_cast<void*>(static_cast<intptr_t>(how));
    return tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_BALANCE_CTL), argument);
  }
};
using BalancePtr = std::shared_ptr<Balance>;

Napi::Object progress(Napi::Env env, const btrfs_balance_progress& counters) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("expected", number(env, counters.expected, "expected"));
  out.Set("considered", number(env, counters.considered, "considered"));
  out.Set("completed", number(env, counters.completed, "completed"));
  return out;
}

// Filters of one type as numbers; src/btrfs/balance-filters.ts has the same order. Infinity is the largest u64.
enum Field {
  kFlags,
  kProfiles,
  kUsageMin,
  kUsageMax,
  kDevid,
  kPhysicalStart,
  kPhysicalEnd,
  kLogicalStart,
  kLogicalEnd,
  kTarget,
  kLimitMin,
  kLimitMax,
  kStripesMin,
  kStripesMax,
  kFields
};

std::optional<btrfs_balance_args> readFilters(const Args& args, size_t index) {
  if (args.absent(index)) return std::nullopt;
  bool fields = args[index].IsTypedArray() &&
                args[index].As<Napi::TypedArray>().TypedArrayType() == napi_float64_array &&
                args[index].As<Napi::TypedArray>().ElementLength() == kFields;
  if (!fields) throw Napi::TypeError::New(args.env(), "filters: expected a Float64Array of 14");
  const double* values = args[index].As<Napi::Float64Array>().Data();
  auto u64 = [&](Field field) {
    double value = values[field];
    if (!(value >= 0) || (std::isfinite(value) && value > 0x1p53))
      throw Napi::TypeError::New(args.env(), "filters: expected numbers from 0 to 2^53, or Infinity");
    return std::isfinite(value) ? static_cast<uint64_t>(value) : UINT64_MAX;
  };
  auto u32 = [&](Field field) {
    uint64_t value = u64(field);
    return static_cast<uint32_t>(value < UINT32_MAX ? value : UINT32_MAX);
  };
  btrfs_balance_args filters = {};
  filters.flags = u64(kFlags);
  filters.profiles = u64(kProfiles);
  filters.usage_min = u32(kUsageMin);  // together `usage`, as limit_min and limit_max are `limit`
  filters.usage_max = u32(kUsageMax);
  filters.devid = u64(kDevid);
  filters.pstart = u64(kPhysicalStart);
  filters.pend = u64(kPhysicalEnd);
  filters.vstart = u64(kLogicalStart);
  filters.vend = u64(kLogicalEnd);
  filters.target = u64(kTarget);
  filters.limit_min = u32(kLimitMin);
  filters.limit_max = u32(kLimitMax);
  filters.stripes_min = u32(kStripesMin);
  filters.stripes_max = u32(kStripesMax);
  return filters;
}

Napi::Value filterFields(Napi::Env env, const btrfs_balance_args& filters) {
  const uint64_t values[] = {
      filters.flags,     filters.profiles,  filters.usage_min,   filters.usage_max,   filters.devid,
      filters.pstart,    filters.pend,      filters.vstart,      filters.vend,        filters.target,
      filters.limit_min, filters.limit_max, filters.stripes_min, filters.stripes_max,
  };
  static_assert(std::size(values) == kFields);
  auto out = Napi::Float64Array::New(env, kFields);
  for (size_t i = 0; i < kFields; i++) out[i] = values[i] == UINT64_MAX ? INFINITY : exact(values[i], "balance filter");
  return out;
}

// balancePrepare(force, data, metadata, system) → balance; none of them: resume. Synchronous.
Napi::Value balancePrepare(const Args& args) {
  auto balance = std::make_shared<Balance>();
  btrfs_ioctl_balance_args& asked = balance->asked;
  auto take = [&](size_t index, uint64_t flag, btrfs_balance_args& into) {
    if (auto filters = readFilters(args, index)) {
      asked.flags |= flag;
      into = *filters;
    }
  };
  take(1, BTRFS_BALANCE_DATA, asked.data);
  take(2, BTRFS_BALANCE_METADATA, asked.meta);
  take(3, BTRFS_BALANCE_SYSTEM, asked.sys);
  if (asked.flags == 0) asked.flags = BTRFS_BALANCE_RESUME;
  if (args.boolean(0)) asked.flags |= BTRFS_BALANCE_FORCE;
  return wrapShared(args.env(), balance, kBalanceTag);
}

// balance(ticket, handle, balance) → { expected, considered, completed }
Napi::Value balance(const Args& args) {
  HandlePtr handle = args.handle(1);
  BalancePtr balance = unwrapShared<Balance>(args.env(), args[2], kBalanceTag);
  return longRunning(
      args, handle,
      [handle, balance](const Cancelled& cancelled) {
        KernelCall::Work work{balance->call};
        btrfs_ioctl_balance_args run = balance->asked;
        int returned = -ECANCELED;
        if (!cancelled) {
          KernelCall::Inside inside(balance->call);
          returned = tryIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_BALANCE_V2), &run);
        }
        if (returned == 0) return run.stat;
        Failure failure{returned < 0 ? -returned : returned, "BTRFS_IOC_BALANCE_V2", "balance"};
        failure.positive = returned > 0;
        if (returned == -ECANCELED)
          failure.output = [counters = run.stat](Napi::Env env) { return progress(env, counters); };
        throw failure;
      },
      [](Napi::Env env, btrfs_balance_progress& counters) -> Napi::Value { return progress(env, counters); },
      [handle, balance] { balance->stop(handle->fd(), BTRFS_BALANCE_CTL_CANCEL, Cancelled{false}); });
}

// balancePause(ticket, handle, balance): resolves when it is paused, or has ended.
Napi::Value balancePause(const Args& args) {
  HandlePtr handle = args.handle(1);
  BalancePtr balance = unwrapShared<Balance>(args.env(), args[2], kBalanceTag);
  return quick(
      args, handle,
      [handle, balance](const Cancelled& cancelled) {
        balance->stop(handle->fd(), BTRFS_BALANCE_CTL_PAUSE, cancelled);
        return Nothing{};
      },
      toUndefined);
}

// balanceControl(ticket, handle, pause): whichever runs; cancels also one that is paused. Resolves when it has stopped.
Napi::Value balanceControl(const Args& args) {
  HandlePtr handle = args.handle(1);
  bool pause = args.boolean(2);
  return quick(
      args, handle,
      [handle, pause](const Cancelled&) {
        int returned = Balance::control(handle->fd(), pause ? BTRFS_BALANCE_CTL_PAUSE : BTRFS_BALANCE_CTL_CANCEL);
        if (returned < 0)
          throw Failure{-returned, "BTRFS_IOC_BALANCE_CTL", pause ? "pause the balance" : "cancel the balance"};
        return Nothing{};
      },
      toUndefined);
}

// balanceStatus(ticket, handle) → undefined, or { state, force, counters, data?, metadata?, system? }
Napi::Value balanceStatus(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle](const Cancelled&) -> std::optional<btrfs_ioctl_balance_args> {
        btrfs_ioctl_balance_args now = {};
        int returned = tryIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_BALANCE_PROGRESS), &now);
        if (returned == -ENOTCONN) return std::nullopt;
        if (returned < 0) throw Failure{-returned, "BTRFS_IOC_BALANCE_PROGRESS", "look at the balance"};
        return now;
      },
      [](Napi::Env env, std::optional<btrfs_ioctl_balance_args>& now) -> Napi::Value {
        if (!now) return env.Undefined();
        Napi::Object out = Napi::Object::New(env);
        out.Set("state", now->state & BTRFS_BALANCE_STATE_RUNNING ? "running" : "paused");
        out.Set("force", (now->flags & BTRFS_BALANCE_FORCE) != 0);
        out.Set("counters", progress(env, now->stat));
        if (now->flags & BTRFS_BALANCE_DATA) out.Set("data", filterFields(env, now->data));
        if (now->flags & BTRFS_BALANCE_METADATA) out.Set("metadata", filterFields(env, now->meta));
        if (now->flags & BTRFS_BALANCE_SYSTEM) out.Set("system", filterFields(env, now->sys));
        return out;
      });
}

}  // namespace

void defineBalance(Napi::Env env, Napi::Object exports) {
  define<balancePrepare>(env, exports, "balancePrepare");
  define<balance>(env, exports, "balance");
  define<balancePause>(env, exports, "balancePause");
  define<balanceControl>(env, exports, "balanceControl");
  define<balanceStatus>(env, exports, "balanceStatus");
}

}  // namespace btrmind
