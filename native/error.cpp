#include "error.h"

#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

#include "btrfs_compat.h"

namespace btrmind {

namespace {

struct Named {
  int value;
  const char* name;
};
#define NAME(code) {code, #code}
// Node cannot name all of them (EUCLEAN, EDQUOT, ESTALE).
constexpr Named kErrnos[] = {
    NAME(EPERM),       NAME(ENOENT),      NAME(ESRCH),        NAME(EINTR),        NAME(EIO),       NAME(ENXIO),
    NAME(E2BIG),       NAME(EBADF),       NAME(EAGAIN),       NAME(ENOMEM),       NAME(EACCES),    NAME(EFAULT),
    NAME(ENOTBLK),     NAME(EBUSY),       NAME(EEXIST),       NAME(EXDEV),        NAME(ENODEV),    NAME(ENOTDIR),
    NAME(EISDIR),      NAME(EINVAL),      NAME(ENFILE),       NAME(EMFILE),       NAME(ENOTTY),    NAME(ETXTBSY),
    NAME(EFBIG),       NAME(ENOSPC),      NAME(ESPIPE),       NAME(EROFS),        NAME(EMLINK),    NAME(EPIPE),
    NAME(EDOM),        NAME(ERANGE),      NAME(EDEADLK),      NAME(ENAMETOOLONG), NAME(ENOSYS),    NAME(ENOTEMPTY),
    NAME(ELOOP),       NAME(ENODATA),     NAME(ETIME),        NAME(EPROTO),       NAME(EOVERFLOW), NAME(EILSEQ),
    NAME(EUSERS),      NAME(EOPNOTSUPP),  NAME(ENOBUFS),      NAME(EISCONN),      NAME(ENOTCONN),  NAME(ETIMEDOUT),
    NAME(EALREADY),    NAME(EINPROGRESS), NAME(ESTALE),       NAME(EUCLEAN),      NAME(EDQUOT),    NAME(ENOMEDIUM),
    NAME(EMEDIUMTYPE), NAME(ECANCELED),   NAME(EKEYREJECTED), NAME(EOWNERDEAD)};
constexpr Named kBtrfsErrors[] = {NAME(BTRFS_ERROR_DEV_RAID1_MIN_NOT_MET),   NAME(BTRFS_ERROR_DEV_RAID10_MIN_NOT_MET),
                                  NAME(BTRFS_ERROR_DEV_RAID5_MIN_NOT_MET),   NAME(BTRFS_ERROR_DEV_RAID6_MIN_NOT_MET),
                                  NAME(BTRFS_ERROR_DEV_TGT_REPLACE),         NAME(BTRFS_ERROR_DEV_MISSING_NOT_FOUND),
                                  NAME(BTRFS_ERROR_DEV_ONLY_WRITABLE),       NAME(BTRFS_ERROR_DEV_EXCL_RUN_IN_PROGRESS),
                                  NAME(BTRFS_ERROR_DEV_RAID1C3_MIN_NOT_MET), NAME(BTRFS_ERROR_DEV_RAID1C4_MIN_NOT_MET)};
#undef NAME

template <size_t N>
const char* nameIn(const Named (&table)[N], int value) {
  for (const Named& row : table)
    if (row.value == value) return row.name;
  return "";
}

}  // namespace

const char* errnoName(int error) { return nameIn(kErrnos, error); }

const char* btrfsErrorName(int returned) { return nameIn(kBtrfsErrors, returned); }

Napi::Value toJs(Napi::Env env, const Failure& failure) {
  Napi::Object out = Napi::Object::New(env);
  std::string code = failure.positive ? btrfsErrorName(failure.error) : errnoName(failure.error);
  if (code.empty()) code = "UNKNOWN_" + std::to_string(failure.error);
  out.Set("failure", true);
  out.Set("code", code);
  out.Set("errno", failure.positive ? failure.error : -failure.error);
  out.Set("text", failure.positive ? std::string("the kernel refused") : std::string(strerror(failure.error)));
  if (failure.ioctl != nullptr) out.Set("ioctl", failure.ioctl);
  if (!failure.step.empty()) out.Set("step", failure.step);
  if (!failure.path.empty()) out.Set("path", failure.path);
  if (!failure.dest.empty()) out.Set("dest", failure.dest);
  if (failure.output) out.Set("progress", failure.output(env));
  if (!failure.hint.empty()) out.Set("hint", failure.hint);
  return out;
}

int tryIoctl(int fd, Request request, void* argument) {
  int returned = ioctl(fd, request.number, argument);
  return returned < 0 ? -errno : returned;
}

void checkedIoctl(int fd, Request request, void* argument, const char* step, const std::string& path) {
  int returned = tryIoctl(fd, request, argument);
  if (returned == 0) return;
  Failure failure{returned < 0 ? -returned : returned, request.name, step, path};
  failure.positive = returned > 0;
  throw failure;
}

int checkedCall(int returned, const char* call, const char* step, const std::string& path) {
  if (returned < 0) throw Failure{errno, call, step, path};
  return returned;
}

}  // namespace btrmind
