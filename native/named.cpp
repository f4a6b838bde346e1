#include "named.h"

#include <fcntl.h>

#include "error.h"
#include "place.h"

namespace btrmind {

namespace {

void requireKind(mode_t mode, Kinds kinds, const std::string& path) {
  if (S_ISREG(mode) || (S_ISDIR(mode) && kinds == Kinds::fileOrDirectory)) return;
  Failure failure{EINVAL, "open", "open the file", path};
  failure.hint = "neither a regular file nor a directory";
  if (S_ISLNK(mode)) {
    failure.error = ELOOP;
    failure.hint = "a symlink is not followed: name what it leads to";
  } else if (S_ISDIR(mode)) {
    failure.error = EISDIR;
    failure.hint = {};
  }
  throw failure;
}

}  // namespace

NamedFile openNamed(const HandlePtr& volume, const std::string& path, Kinds kinds, int flags) {
  NamedFile file;
  file.fd = ScopedFd(checkedCall(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC), "open", "open the file", path));
  checkedCall(fstat(file.fd.get(), &file.stat), "fstat", "see what it is", path);
  requireKind(file.stat.st_mode, kinds, path);
  // The same file, whatever has its name now.
  std::string same = "/proc/self/fd/" + std::to_string(file.fd.get());
  file.fd = ScopedFd(
      checkedCall(::open(same.c_str(), flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), "open", "open the file", path));
  requireOnVolume(volume, file.fd.get(), path);
  return file;
}

}  // namespace btrmind
