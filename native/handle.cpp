#include "handle.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "error.h"
#include "js.h"

namespace btrmind {

namespace {
constexpr napi_type_tag kHandleTag{0x6274726d696e642dULL, 0x68616e646c652d31ULL};
}

Handle::~Handle() {
  if (fd_ >= 0) ::close(fd_);
}

HandlePtr Handle::open(const std::string& path, int flags) {
  return std::make_shared<Handle>(checkedCall(::open(path.c_str(), flags | O_CLOEXEC), "open", "open", path));
}

Napi::Value wrapHandle(Napi::Env env, HandlePtr handle) { return wrapShared(env, std::move(handle), kHandleTag); }

HandlePtr unwrapHandle(Napi::Env env, Napi::Value value) {
  HandlePtr handle = unwrapShared<Handle>(env, value, kHandleTag);
  if (handle == nullptr) throw Failure{EBADF, nullptr, "use a closed filesystem"};
  return handle;
}

std::weak_ptr<Handle> closeHandle(Napi::Env env, Napi::Value value) {
  HandlePtr& handle = unwrapShared<Handle>(env, value, kHandleTag);
  std::weak_ptr<Handle> held = handle;
  handle.reset();
  return held;
}

ScopedFd& ScopedFd::operator=(ScopedFd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

ScopedFd::~ScopedFd() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace btrmind
