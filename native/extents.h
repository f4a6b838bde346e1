// What FIEMAP and the inode say of a file's data. No JavaScript in here.
#pragma once
#include <cstdint>
#include <optional>

#include "outcome.h"
#include "task.h"

namespace btrmind {

struct Extents {
  uint64_t count = 0;
  uint64_t bytes = 0;
  uint64_t sharedBytes = 0;
  uint64_t compressedBytes = 0;
  uint64_t inlineBytes = 0;  // beside the inode, in metadata
};

// [start, start + length) of an open file; its dirty data is flushed first. 0 or errno (ECANCELED).
int readExtents(int fd, uint64_t start, uint64_t length, const Cancelled& cancelled, Extents& extents);

// What the file takes on disk, after compression; an extent that it refers to twice counts once. Live, where st_blocks
// would give the size before compression. Absent without CAP_SYS_ADMIN.
std::optional<uint64_t> diskBytes(int fd, uint64_t inode);

// Whether the inode's flags let it be compressed; the outcome if not.
int compressible(int fd, uint64_t inode);

}  // namespace btrmind
