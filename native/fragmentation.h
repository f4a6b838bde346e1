#pragma once
#include <cstdint>

namespace btrmind {

struct Fragmentation {
  uint64_t extents = 0;  // that were looked at
  uint64_t breaks = 0;   // of these: what precedes them in their file ends elsewhere on the disk
};

// A bounded sample of the file extents near pseudo-random inode numbers; docs/fragmentation.md says which. The same
// volume gives the same sample. Needs CAP_SYS_ADMIN. 0, or -errno.
int sampleFragmentation(int fd, Fragmentation& out);

}  // namespace btrmind
