#include "handle.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "error.h"

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

Napi::Value wrapHandle(Napi::Env env, HandlePtr handle) {
  auto external = Napi::External<HandlePtr>::New(env, new HandlePtr(std::move(handle)),
                                                 [](Napi::BasicEnv, HandlePtr* owned) { delete owned; });
  external.TypeTag(&kHandleTag);
  return external;
}

static HandlePtr* owner(Napi::Env env, Napi::Value value) {
  if (!value.IsExternal() || !value.As<Napi::External<HandlePtr>>().CheckTypeTag(&kHandleTag))
    throw Napi::TypeError::New(env, "not a btrmind handle");
  return value.As<Napi::External<HandlePtr>>().Data();
}

HandlePtr unwrapHandle(Napi::Env env, Napi::Value value) {
  HandlePtr* owned = owner(env, value);
  if (*owned == nullptr) throw Failure{EBADF, nullptr, "use a closed filesystem"};
  return *owned;
}

void closeHandle(Napi::Env env, Napi::Value value) { owner(env, value)->reset(); }

ScopedFd& ScopedFd::operator=(ScopedFd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

ScopedFd::~ScopedFd() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace btrmind
