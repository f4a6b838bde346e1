// One way for a call to fail: errno, which ioctl, which step, which path. Nothing here knows of threads.
#pragma once
#include <napi.h>

#include <functional>
#include <string>

namespace btrmind {

struct Failure {
  int error;                    // errno; or, where `positive`, a BTRFS_ERROR_* that an ioctl returned as success
  const char* ioctl = nullptr;  // "BTRFS_IOC_SPACE_INFO", or the system call's name
  std::string step;             // what was being done, in a few words
  std::string path = {};
  std::string dest = {};
  bool positive = false;
  // What the kernel filled in although it failed (a cancelled balance's counters). Runs on the JavaScript thread.
  std::function<Napi::Value(Napi::Env)> output = {};
  std::string hint = {};  // what the code alone does not say; src/errors.ts has the common ones
};

// "ENOSPC" for 28; the table holds the names that Node lacks too (EUCLEAN, EDQUOT, ESTALE). Empty when unknown.
const char* errnoName(int error);
const char* btrfsErrorName(int returned);

// The plain object that src/errors.ts turns into a BtrfsError with the caller's stack.
Napi::Value toJs(Napi::Env env, const Failure& failure);

struct Request {
  unsigned long number;
  const char* name;
};
#define BTRMIND_REQUEST(name) \
  ::btrmind::Request { static_cast<unsigned long>(name), #name }

// The one place that calls ioctl(2). Negative: -errno. Positive: RESIZE, ADD_DEV and RM_DEV_V2 answer that way when
// another exclusive operation runs, so a caller that expects no count must treat it as a failure.
int tryIoctl(int fd, Request request, void* argument);

// As tryIoctl, but throws Failure on anything that is not 0.
void checkedIoctl(int fd, Request request, void* argument, const char* step, const std::string& path = {});

// Throws Failure with the current errno when `returned` is negative; gives it back otherwise.
int checkedCall(int returned, const char* call, const char* step, const std::string& path = {});

}  // namespace btrmind
