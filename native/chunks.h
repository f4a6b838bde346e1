// Where the chunks of a volume lie: raw bytes of each kind on each device.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace btrmind {

// Chunks of one kind and width on one device.
struct Chunks {
  uint64_t flags, devid;
  uint16_t stripes;
  uint64_t bytes;
};

// The chunk tree, read again only when it changed: each of its items costs the kernel about half a microsecond, and a
// large volume has thousands. Any thread.
class ChunkMap {
 public:
  // `generation` as FS_INFO gave it just before. Needs CAP_SYS_ADMIN. 0, or -errno.
  int read(int fd, uint64_t generation, std::vector<Chunks>& out);

 private:
  struct Reading {
    uint64_t generation;
    std::vector<Chunks> chunks;
  };
  std::mutex mutex_;  // never held while the kernel is asked: it may not answer
  std::shared_ptr<const Reading> latest_;
};

}  // namespace btrmind
