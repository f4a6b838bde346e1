// Balance: one ioctl that may take hours, and three small ones that look at it and stop it.
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <optional>

#include "../btrfs_compat.h"
#include "../task.h"
#include "ops.h"

namespace btrmind {

namespace {

constexpr napi_type_tag kBalanceTag{0x6274726d696e642dULL, 0x62616c616e63652dULL};

// A balance that this process starts. The kernel's controls mean whichever runs on the volume, so they are used only
// while that is this one: it has not ended, and what runs has its filters.
struct Balance {
  btrfs_ioctl_balance_args asked = {};
  std::atomic<bool> ended{false};

  bool isWhatRuns(int fd) const {
    btrfs_ioctl_balance_args now = {};
    if (tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_BALANCE_PROGRESS), &now) != 0) return false;
    if ((now.state & BTRFS_BALANCE_STATE_RUNNING) == 0) return false;
    if (asked.flags & BTRFS_BALANCE_RESUME) return true;
    // The kernel counts `limit` down.
    auto same = [](const btrfs_balance_args& a, const btrfs_balance_args& b) {
      return a.flags == b.flags && a.usage == b.usage;
    };
    return (now.flags & BTRFS_BALANCE_TYPE_MASK) == (asked.flags & BTRFS_BALANCE_TYPE_MASK) &&
           same(now.data, asked.data) && same(now.meta, asked.meta) && same(now.sys, asked.sys);
  }

  // Blocks until it has stopped; it may not have begun yet.
  void stop(int fd, int how, const Cancelled& giveUp) const {
    while (!ended && !giveUp) {
      if (isWhatRuns(fd) && !ended &&
          tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_BALANCE_CTL), reinterpret_cast<void*>(static_cast<intptr_t>(how))) ==
              0)
        return;
      usleep(1000);
    }
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

// undefined, or [usage percent or -1, limit or -1].
std::optional<btrfs_balance_args> readFilters(const Args& args, size_t index) {
  if (args.absent(index)) return std::nullopt;
  bool pair = args[index].IsTypedArray() && args[index].As<Napi::TypedArray>().TypedArrayType() == napi_float64_array &&
              args[index].As<Napi::TypedArray>().ElementLength() == 2;
  if (!pair) throw Napi::TypeError::New(args.env(), "filters: expected a Float64Array of two");
  const double* values = args[index].As<Napi::Float64Array>().Data();
  btrfs_balance_args filters = {};
  if (values[0] >= 0) {
    filters.flags |= BTRFS_BALANCE_ARGS_USAGE;
    filters.usage = static_cast<uint64_t>(values[0] <= 100 ? values[0] : 100);
  }
  if (values[1] >= 0) {
    filters.flags |= BTRFS_BALANCE_ARGS_LIMIT;
    filters.limit = static_cast<uint64_t>(values[1] < 0x1p53 ? values[1] : 0x1p53);
  }
  return filters;
}

// balancePrepare(data, metadata, system) → balance; none of them: resume. Synchronous.
Napi::Value balancePrepare(const Args& args) {
  auto balance = std::make_shared<Balance>();
  btrfs_ioctl_balance_args& asked = balance->asked;
  auto take = [&](size_t index, uint64_t flag, btrfs_balance_args& into) {
    if (auto filters = readFilters(args, index)) {
      asked.flags |= flag;
      into = *filters;
    }
  };
  take(0, BTRFS_BALANCE_DATA, asked.data);
  take(1, BTRFS_BALANCE_METADATA, asked.meta);
  take(2, BTRFS_BALANCE_SYSTEM, asked.sys);
  if (asked.flags == 0) asked.flags = BTRFS_BALANCE_RESUME;
  return wrapShared(args.env(), balance, kBalanceTag);
}

// balance(ticket, handle, balance) → { expected, considered, completed }
Napi::Value balance(const Args& args) {
  HandlePtr handle = args.handle(1);
  BalancePtr balance = unwrapShared<Balance>(args.env(), args[2], kBalanceTag);
  return longRunning(
      args, handle,
      [handle, balance](const Cancelled& cancelled) {
        btrfs_ioctl_balance_args run = balance->asked;
        int returned = cancelled ? -ECANCELED : tryIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_BALANCE_V2), &run);
        balance->ended = true;
        if (returned == 0) return run.stat;
        Failure failure{returned < 0 ? -returned : returned, "BTRFS_IOC_BALANCE_V2", "balance"};
        failure.positive = returned > 0;
        if (returned == -EINVAL)
          failure.step = "balance: where data and metadata share block groups, they need the same filters";
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

// balanceCancel(ticket, handle): whichever runs or is paused; resolves when it is gone.
Napi::Value balanceCancel(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle](const Cancelled&) {
        auto* how = reinterpret_cast<void*>(static_cast<intptr_t>(BTRFS_BALANCE_CTL_CANCEL));
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_BALANCE_CTL), how, "cancel the balance");
        return Nothing{};
      },
      toUndefined);
}

// balanceStatus(ticket, handle) → undefined, or { state, expected, considered, completed }
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
        Napi::Object out = progress(env, now->stat);
        out.Set("state", now->state & BTRFS_BALANCE_STATE_RUNNING ? "running" : "paused");
        return out;
      });
}

}  // namespace

void defineBalance(Napi::Env env, Napi::Object exports) {
  define<balancePrepare>(env, exports, "balancePrepare");
  define<balance>(env, exports, "balance");
  define<balancePause>(env, exports, "balancePause");
  define<balanceCancel>(env, exports, "balanceCancel");
  define<balanceStatus>(env, exports, "balanceStatus");
}

}  // namespace btrmind
