#include "sysfs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <system_error>

#include "handle.h"

namespace btrmind {

namespace {
constexpr uint64_t kSectorBytes = 512;  // the unit of a block device's `size`, whatever its real sectors are
}

int parseNumber(const std::string& line, uint64_t& value) {
  const char* end = line.data() + line.size();
  auto [at, error] = std::from_chars(line.data(), end, value);
  return error == std::errc() && at == end ? 0 : -EPROTO;
}

int SysfsFiles::read(const std::string& path, std::string& line) {
  // A second try when the attribute went away and came back (a device removed and added again).
  for (int attempt = 0;; attempt++) {
    std::shared_ptr<ScopedFd> file;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      std::shared_ptr<ScopedFd>& kept = files_[path];
      if (kept == nullptr) {
        ScopedFd opened(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (opened.get() < 0) {
          int error = errno;
          files_.erase(path);
          return -error;
        }
        kept = std::make_shared<ScopedFd>(std::move(opened));
      }
      file = kept;
    }
    char text[128];
    ssize_t length = pread(file->get(), text, sizeof text, 0);
    if (length >= 0) {
      line.assign(text, static_cast<size_t>(length));
      line.erase(std::min(line.find('\n'), line.size()));
      return 0;
    }
    int error = errno;
    std::lock_guard<std::mutex> lock(mutex_);
    files_.erase(path);
    if (error != ENODEV || attempt > 0) return -error;
  }
}

int SysfsFiles::read(const std::string& path, uint64_t& value) {
  std::string line;
  int returned = read(path, line);
  if (returned < 0) return returned;
  return parseNumber(line, value);
}

int SysfsFiles::resolve(const std::string& node, std::string& path) {
  struct stat stat;
  if (::stat(node.c_str(), &stat) == 0 && S_ISBLK(stat.st_mode)) {
    path = "/sys/dev/block/" + std::to_string(major(stat.st_rdev)) + ":" + std::to_string(minor(stat.st_rdev));
  } else {
    // A container may have the mount but not the node. The kernel's own names are those right below /dev.
    if (node.rfind('/') != 4) return -ENOENT;
    path = "/sys/class/block" + node.substr(4);
  }
  path += "/size";
  return 0;
}

int SysfsFiles::blockDeviceBytes(const std::string& node, uint64_t& bytes) {
  std::string path;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    std::string& kept = blockDevices_[node];
    if (kept.empty()) {
      int returned = resolve(node, kept);
      if (returned < 0) {
        blockDevices_.erase(node);
        return returned;
      }
    }
    path = kept;
  }
  uint64_t sectors = 0;
  int returned = read(path, sectors);
  if (returned < 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    blockDevices_.erase(node);
    return returned;
  }
  bytes = sectors * kSectorBytes;
  return 0;
}

}  // namespace btrmind
