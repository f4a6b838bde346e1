#include "defragment.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "extents.h"

namespace btrmind {

namespace {

// Given to the kernel in one call. It may have holes, of which `bytes` has nothing.
struct Piece {
  uint64_t start, end, bytes;
};

// Of the slice, what may be rewritten. Looked up anew for each slice: a snapshot may have been made since the last.
int eligible(int fd, Range slice, const DefragmentRequest& request, const Cancelled& cancelled,
             std::vector<Piece>& pieces, Defragmented& out, bool& hole) {
  bool open = false;          // the last piece may go on
  uint64_t at = slice.start;  // extents that overlapped would count twice
  hole = true;
  return forEachExtent(fd, slice.start, slice.end, true, cancelled, [&](const fiemap_extent& extent) {
    uint64_t start = std::max<uint64_t>(extent.fe_logical, at);
    uint64_t end = std::min<uint64_t>(extent.fe_logical + extent.fe_length, slice.end);
    if (end <= start) return true;
    at = end;
    hole = false;
    bool shared = request.skipShared && extent.fe_flags & FIEMAP_EXTENT_SHARED;
    bool compressed = request.skipCompressed && extent.fe_flags & FIEMAP_EXTENT_ENCODED;
    if (shared) {
      out.shared += end - start;
    } else if (compressed) {
      out.compressed += end - start;
    }
    // What lies inline, in metadata, would gain nothing, and what is preallocated has nothing to rewrite.
    if (shared || compressed) {
      open = false;
    } else if (!(extent.fe_flags & (FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_UNWRITTEN))) {
      if (!open) pieces.push_back({start, start, 0});
      open = true;
      pieces.back().end = end;
      pieces.back().bytes += end - start;
    }
    return true;
  });
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
  std::vector<Piece> pieces;
  for (Range slice{range.start, range.start}; slice.end < range.end;) {
    slice = {slice.end, slice.end + std::min(request.slice, range.end - slice.end)};
    pieces.clear();
    bool hole = false;
    out.code = eligible(fd, slice, request, cancelled, pieces, out, hole);
    for (size_t i = 0; i < pieces.size() && out.code == 0; i++) {
      if (cancelled) {
        out.code = ECANCELED;
        break;
      }
      out.code = defragmentRange(fd, request, pieces[i].start, pieces[i].end - pieces[i].start);
      if (out.code == 0) out.given += pieces[i].bytes;
    }
    if (out.code == 0 && hole) {
      uint64_t next = 0;
      out.code = nextExtent(fd, slice.end, range.end, cancelled, next);
      // Whole slices further on.
      if (out.code == 0)
        slice.end = next == range.end ? next : slice.end + (next - slice.end) / request.slice * request.slice;
    }
    if (out.code != 0) return;
    done += slice.end - slice.start;
  }
}

}  // namespace btrmind
