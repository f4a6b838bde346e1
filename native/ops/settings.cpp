// What a volume is called and can do; its default subvolume; transactions; trimming.
#include <btrfsutil.h>
#include <linux/fs.h>

#include <cerrno>

#include "../btrfs_compat.h"
#include "../task.h"
#include "btrfsutil_error.h"
#include "ops.h"

namespace btrmind {

namespace {

// setLabel(ticket, handle, label)
Napi::Value setLabel(const Args& args) {
  HandlePtr handle = args.handle(1);
  std::string label = args.path(2);
  return quick(
      args, handle,
      [handle, label](const Cancelled&) {
        char raw[BTRFS_LABEL_SIZE] = {};
        if (label.size() >= sizeof raw) throw Failure{EINVAL, nullptr, "set a label of more than 255 bytes"};
        label.copy(raw, label.size());
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_SET_FSLABEL), raw, "set the label");
        return Nothing{};
      },
      toUndefined);
}

struct Features {
  btrfs_ioctl_feature_flags now, supported, settable, clearable;
};

// features(ticket, handle) → [compat-ro, incompat] of each: in use, supported, settable, clearable; as bigints
Napi::Value features(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle](const Cancelled&) {
        Features out = {};
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_GET_FEATURES), &out.now, "read the features");
        btrfs_ioctl_feature_flags supported[3] = {};
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_GET_SUPPORTED_FEATURES), supported,
                     "read what the kernel supports");
        out.supported = supported[0];
        out.settable = supported[1];
        out.clearable = supported[2];
        return out;
      },
      [](Napi::Env env, Features& features) -> Napi::Value {
        Napi::Array out = Napi::Array::New(env);
        uint32_t at = 0;
        for (const auto& flags : {features.now, features.supported, features.settable, features.clearable}) {
          out.Set(at++, Napi::BigInt::New(env, static_cast<uint64_t>(flags.compat_ro_flags)));
          out.Set(at++, Napi::BigInt::New(env, static_cast<uint64_t>(flags.incompat_flags)));
        }
        return out;
      });
}

// setFeatures(ticket, handle, compatRoMask, compatRo, incompatMask, incompat)
Napi::Value setFeatures(const Args& args) {
  HandlePtr handle = args.handle(1);
  btrfs_ioctl_feature_flags mask = {}, values = {};
  mask.compat_ro_flags = args.u64(2);
  values.compat_ro_flags = args.u64(3);
  mask.incompat_flags = args.u64(4);
  values.incompat_flags = args.u64(5);
  return quick(
      args, handle,
      [=](const Cancelled&) {
        btrfs_ioctl_feature_flags both[2] = {mask, values};
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_SET_FEATURES), both, "set the features");
        return Nothing{};
      },
      toUndefined);
}

// startSync(ticket, handle) → the transaction that is being committed
Napi::Value startSync(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle](const Cancelled&) {
        uint64_t transaction = 0;
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_START_SYNC), &transaction, "begin the commit");
        return transaction;
      },
      [](Napi::Env env, uint64_t& transaction) -> Napi::Value { return number(env, transaction, "transaction"); });
}

// waitSync(ticket, handle, transaction): 0 is the one under way
Napi::Value waitSync(const Args& args) {
  HandlePtr handle = args.handle(1);
  uint64_t transaction = args.u64(2);
  return quick(
      args, handle,
      [handle, transaction](const Cancelled&) {
        uint64_t which = transaction;
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_WAIT_SYNC), &which, "wait for the commit");
        return Nothing{};
      },
      toUndefined);
}

// trim(ticket, handle, start, length or undefined, minimum) → bytes. The kernel cannot be stopped in it.
Napi::Value trim(const Args& args) {
  HandlePtr handle = args.handle(1);
  fstrim_range asked = {args.u64(2), args.absent(3) ? UINT64_MAX : args.u64(3), args.u64(4)};
  return longRunning(
      args, handle,
      [handle, asked](const Cancelled& cancelled) {
        if (cancelled) throw Failure{ECANCELED, nullptr, "begin"};
        fstrim_range range = asked;
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(FITRIM), &range, "trim");
        return static_cast<uint64_t>(range.len);
      },
      [](Napi::Env env, uint64_t& bytes) -> Napi::Value { return number(env, bytes, "trimmed bytes"); }, nullptr);
}

// defaultSubvolume(ticket, handle) → id
Napi::Value defaultSubvolume(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle](const Cancelled&) {
        uint64_t id = 0;
        checkedUtil(btrfs_util_get_default_subvolume_fd(handle->fd(), &id), nullptr);
        return id;
      },
      [](Napi::Env env, uint64_t& id) -> Napi::Value { return number(env, id, "subvolume id"); });
}

// setDefaultSubvolume(ticket, handle, id)
Napi::Value setDefaultSubvolume(const Args& args) {
  HandlePtr handle = args.handle(1);
  uint64_t id = args.u64(2);
  return quick(
      args, handle,
      [handle, id](const Cancelled&) {
        uint64_t copy = id;
        checkedIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_DEFAULT_SUBVOL), &copy, "set the default subvolume");
        return Nothing{};
      },
      toUndefined);
}

}  // namespace

void defineSettings(Napi::Env env, Napi::Object exports) {
  define<setLabel>(env, exports, "setLabel");
  define<features>(env, exports, "features");
  define<setFeatures>(env, exports, "setFeatures");
  define<startSync>(env, exports, "startSync");
  define<waitSync>(env, exports, "waitSync");
  define<trim>(env, exports, "trim");
  define<defaultSubvolume>(env, exports, "defaultSubvolume");
  define<setDefaultSubvolume>(env, exports, "setDefaultSubvolume");
}

}  // namespace btrmind
