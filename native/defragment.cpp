#include "defragment.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "extents.h"

namespace btrmind {

namespace {

// Of [start, end), what may be rewritten. Looked up anew for each slice: a snapshot may have been made since the last.
int eligible(int fd, Range slice, const DefragmentRequest& request, const Cancelled& cancelled,
             std::vector<Range>& ranges, Defragmented& out) {
  uint64_t from = slice.start;  // of the range that is being put together
  bool any = false;
  auto close = [&](uint64_t end) {
    if (any && end > from) ranges.push_back({from, end});
    any = false;
  };
  int code = forEachExtent(fd, slice.start, slice.end, true, cancelled, [&](const fiemap_extent& extent) {
    uint64_t start = std::max<uint64_t>(extent.fe_logical, slice.start);
    uint64_t end = std::min<uint64_t>(extent.fe_logical + extent.fe_length, slice.end);
    if (end <= start) return true;
    bool shared = request.skipShared && extent.fe_flags & FIEMAP_EXTENT_SHARED;
    bool compressed = request.skipCompressed && extent.fe_flags & FIEMAP_EXTENT_ENCODED;
    if (shared) {
      out.shared += end - start;
    } else if (compressed) {
      out.compressed += end - start;
    }
    if (shared || compressed) {
      close(start);
      from = std::max(from, end);
    } else if (!(extent.fe_flags & FIEMAP_EXTENT_DATA_INLINE)) {
      // What lies inline, in metadata, would gain nothing.
      any = true;
    }
    return true;
  });
  close(slice.end);
  return code;
}

}  // namespace

Range rangeOf(const DefragmentRequest& request, uint64_t size) {
  uint64_t start = std::min(request.start, size);
  return {start, start + std::min(request.length, size - start)};
}

int defragmentRange(int fd, const DefragmentRequest& request, uint64_t start, uint64_t length) {
  btrfs_ioctl_defrag_range_args range = {};
  range.start = start;
  range.len = length;
  range.flags = request.flags;
  range.extent_thresh = request.threshold;
  range.compress_type = request.type;
  if (request.flags & BTRFS_DEFRAG_RANGE_COMPRESS_LEVEL) {
    // Newer headers have a union here: { u8 type; s8 level; }.
    const uint8_t bytes[4] = {static_cast<uint8_t>(request.type), static_cast<uint8_t>(request.level), 0, 0};
    memcpy(&range.compress_type, bytes, sizeof bytes);
  }
  int returned = tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_DEFRAG_RANGE), &range);
  return returned < 0 ? -returned : 0;
}

void defragment(int fd, Range range, const DefragmentRequest& request, const Cancelled& cancelled,
                std::atomic<uint64_t>& done, Defragmented& out) {
  std::vector<Range> ranges;
  for (Range slice{range.start, range.start}; slice.end < range.end;) {
    slice = {slice.end, slice.end + std::min(request.slice, range.end - slice.end)};
    ranges.clear();
    out.code = eligible(fd, slice, request, cancelled, ranges, out);
    for (size_t i = 0; i < ranges.size() && out.code == 0; i++) {
      if (cancelled) {
        out.code = ECANCELED;
        break;
      }
      uint64_t length = ranges[i].end - ranges[i].start;
      out.code = defragmentRange(fd, request, ranges[i].start, length);
      if (out.code == 0) out.given += length;
    }
    if (out.code != 0) return;
    done += slice.end - slice.start;
  }
}

}  // namespace btrmind
