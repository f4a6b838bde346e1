// What FIEMAP and the inode say of a file's data. No JavaScript in here.
#pragma once
#include <linux/fiemap.h>
#include <linux/fs.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>

#include "error.h"
#include "outcome.h"
#include "task.h"

namespace btrmind {

constexpr uint32_t kExtentsACall = 256;

// visit(const fiemap_extent&) for each extent that has a part in [start, end), until it gives false. `sync`: the file's
// dirty data is flushed first. `most`: so many a call, for each costs the kernel a look at who shares it. 0 or errno
// (ECANCELED).
template <class Visit>
int forEachExtent(int fd, uint64_t start, uint64_t end, bool sync, const Cancelled& cancelled, Visit visit,
                  uint32_t most = kExtentsACall) {
  alignas(fiemap) char buffer[sizeof(fiemap) + kExtentsACall * sizeof(fiemap_extent)];
  auto* map = reinterpret_cast<fiemap*>(buffer);
  const uint32_t asked = std::min(most, kExtentsACall);  // what the answer says of it is not believed
  while (start < end) {
    if (cancelled) return ECANCELED;
    memset(map, 0, sizeof *map);
    map->fm_start = start;
    map->fm_length = end - start;
    map->fm_flags = sync ? FIEMAP_FLAG_SYNC : 0;
    map->fm_extent_count = asked;
    int returned = tryIoctl(fd, BTRMIND_REQUEST(FS_IOC_FIEMAP), map);
    if (returned < 0) return -returned;
    uint32_t got = std::min(map->fm_mapped_extents, asked);
    for (uint32_t i = 0; i < got; i++)
      if (!visit(static_cast<const fiemap_extent&>(map->fm_extents[i]))) return 0;
    if (got == 0 || map->fm_extents[got - 1].fe_flags & FIEMAP_EXTENT_LAST) return 0;
    uint64_t next = map->fm_extents[got - 1].fe_logical + map->fm_extents[got - 1].fe_length;
    if (next <= start) return EPROTO;  // it would be asked for ever
    start = next;
  }
  return 0;
}

struct Extents {
  uint64_t count = 0;
  uint64_t bytes = 0;
  uint64_t sharedBytes = 0;
  uint64_t compressedBytes = 0;
  uint64_t inlineBytes = 0;  // beside the inode, in metadata
};

// Where the first extent in [start, end) begins, or `end`: a hole may be larger than all disks. 0 or errno (ECANCELED).
int nextExtent(int fd, uint64_t start, uint64_t end, const Cancelled& cancelled, uint64_t& next);

// Writes the file out, and waits: only then the tree has its extents. 0 or errno.
int flush(int fd);

// [start, start + length) of an open file; its dirty data is flushed first. 0 or errno (ECANCELED).
int readExtents(int fd, uint64_t start, uint64_t length, const Cancelled& cancelled, Extents& extents);

// What the file takes on disk, after compression; an extent that it refers to twice counts once. Live, where st_blocks
// would give the size before compression. Absent without CAP_SYS_ADMIN.
std::optional<uint64_t> diskBytes(int fd, uint64_t inode);

// Whether the inode's flags let it be compressed; the outcome if not.
int compressible(int fd, uint64_t inode);

}  // namespace btrmind
