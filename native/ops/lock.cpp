// One exclusive lock on a file: flock(2), which the kernel takes away with its holder, so that none is ever stale.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <string>

#include "../task.h"
#include "ops.h"

namespace btrmind {

namespace {

// lockFile(ticket, path) → handle that holds the lock until close(). EAGAIN: somebody else holds it.
Napi::Value lockFile(const Args& args) {
  std::string path = args.path(1);
  return quickAt(
      args, path,
      [path](const Cancelled&) {
        ScopedFd fd(checkedCall(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600),
                                "open", "open the lock file", path));
        checkedCall(flock(fd.get(), LOCK_EX | LOCK_NB), "flock", "lock", path);
        // For whoever asks who holds it; on a full volume the lock is as good without.
        std::string pid = std::to_string(getpid()) + "\n";
        if (ftruncate(fd.get(), 0) == 0 && pwrite(fd.get(), pid.data(), pid.size(), 0) < 0) ftruncate(fd.get(), 0);
        return std::make_shared<Handle>(fd.release());
      },
      [](Napi::Env env, HandlePtr& handle) { return wrapHandle(env, handle); });
}

}  // namespace

void defineLock(Napi::Env env, Napi::Object exports) { define<lockFile>(env, exports, "lockFile"); }

}  // namespace btrmind
