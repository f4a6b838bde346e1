// libbtrfsutil's errors: the step that failed, and errno.
#pragma once

#include <string>

#include "../btrfsutil_library.h"
#include "../error.h"

namespace btrmind {

// Throws Failure. `ioctl` names the call that the whole operation is about; other steps name themselves.
void checkedUtil(btrfs_util_error error, const char* ioctl, const std::string& path = {}, const std::string& dest = {});

}  // namespace btrmind
