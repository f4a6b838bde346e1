// An owned file descriptor, shared by every task in flight: close() in JavaScript drops one owner, the last one closes,
// so a task never sees a reused number.
#pragma once
#include <napi.h>

#include <memory>
#include <string>

#include "chunks.h"
#include "sysfs.h"

namespace btrmind {

class Handle {
 public:
  explicit Handle(int fd) : fd_(fd) {}
  ~Handle();
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  // Any thread. Throws Failure.
  static std::shared_ptr<Handle> open(const std::string& path, int flags);
  int fd() const { return fd_; }
  std::string volume;  // the filesystem's UUID, set once by open()
  SysfsFiles sysfs;
  ChunkMap chunks;

 private:
  int fd_;
};
using HandlePtr = std::shared_ptr<Handle>;

// JavaScript thread. The value is opaque and type-tagged: anything else in its place is a TypeError.
Napi::Value wrapHandle(Napi::Env env, HandlePtr handle);
HandlePtr unwrapHandle(Napi::Env env, Napi::Value value);  // throws Failure EBADF after close
// Idempotent. What tasks in flight still hold.
std::weak_ptr<Handle> closeHandle(Napi::Env env, Napi::Value value);

// A descriptor that lives for one scope.
class ScopedFd {
 public:
  explicit ScopedFd(int fd = -1) : fd_(fd) {}
  ScopedFd(ScopedFd&& other) noexcept : fd_(other.release()) {}
  ScopedFd& operator=(ScopedFd&& other) noexcept;
  ~ScopedFd();
  int get() const { return fd_; }
  int release() {
    int fd = fd_;
    fd_ = -1;
    return fd;
  }

 private:
  int fd_;
};

}  // namespace btrmind
