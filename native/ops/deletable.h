// Why a subvolume cannot be deleted, as far as that can be known before.
#pragma once
#include <string>

#include "../handle.h"
#include "../task.h"

namespace btrmind {

Failure refusal(int error, const std::string& path, std::string hint);

// The kernel would delete a mounted subvolume and silently detach what is mounted on it or below it: refuse. `place`
// is the subvolume's path from the top of the volume: through any mount, or none, that shows it; `path` is for the
// error.
void requireUnmounted(const HandlePtr& handle, const std::string& place, const std::string& path);

}  // namespace btrmind
