// A file that the caller named by its path: on the volume, of a kind that the call takes, and no symlink.
#pragma once
#include <sys/stat.h>

#include <string>

#include "handle.h"

namespace btrmind {

enum class Kinds { file, fileOrDirectory };

struct NamedFile {
  ScopedFd fd;
  struct stat stat;
};

// Lane threads. Looked at before it is opened: opening a FIFO or a device would have effects.
// Throws Failure ELOOP (a symlink), EISDIR, EINVAL (neither file nor directory), EXDEV (another volume), as open(2).
NamedFile openNamed(const HandlePtr& volume, const std::string& path, Kinds kinds, int flags);

}  // namespace btrmind
