#include "extents.h"

#include <algorithm>
#include <cstddef>
#include <unordered_set>

#include "tree_search.h"

namespace btrmind {

namespace {

// The flag that chattr does not show. Needs CAP_SYS_ADMIN; without it, or while the inode is younger than the last
// commit, the file counts as checksummed.
bool lacksChecksums(int fd, uint64_t inode) {
  Key key{inode, BTRFS_INODE_ITEM_KEY, 0};
  uint64_t flags = 0;
  searchTree(fd, 0, key, key, [&](const Item& item) {
    flags = item.at<uint64_t>(offsetof(btrfs_inode_item, flags));
    return false;
  });
  return (flags & BTRFS_INODE_NODATASUM) != 0;
}

}  // namespace

int readExtents(int fd, uint64_t start, uint64_t length, const Cancelled& cancelled, Extents& extents) {
  uint64_t end = length > UINT64_MAX - start ? UINT64_MAX : start + length;
  return forEachExtent(fd, start, end, true, cancelled, [&](const fiemap_extent& extent) {
    // The kernel gives whole extents; only what lies in the range counts.
    uint64_t from = std::max<uint64_t>(extent.fe_logical, start);
    uint64_t to = std::min<uint64_t>(extent.fe_logical + extent.fe_length, end);
    if (to <= from) return true;
    extents.count++;
    extents.bytes += to - from;
    if (extent.fe_flags & FIEMAP_EXTENT_SHARED) extents.sharedBytes += to - from;
    if (extent.fe_flags & FIEMAP_EXTENT_DATA_INLINE) extents.inlineBytes += to - from;
    if (extent.fe_flags & FIEMAP_EXTENT_ENCODED) extents.compressedBytes += to - from;
    return true;
  });
}

int nextExtent(int fd, uint64_t start, uint64_t end, const Cancelled& cancelled, uint64_t& next) {
  next = end;
  auto first = [&](const fiemap_extent& extent) {
    next = std::clamp<uint64_t>(extent.fe_logical, start, end);
    return false;
  };
  return forEachExtent(fd, start, end, false, cancelled, first, 1);
}

int flush(int fd) {
  const Cancelled never{false};
  return forEachExtent(fd, 0, 1, true, never, [](const fiemap_extent&) { return false; });
}

std::optional<uint64_t> diskBytes(int fd, uint64_t inode) {
  uint64_t bytes = 0;
  std::unordered_set<uint64_t> seen;
  int returned = searchTree(fd, 0, {inode, BTRFS_EXTENT_DATA_KEY, 0}, {inode, BTRFS_EXTENT_DATA_KEY, UINT64_MAX},
                            [&](const Item& item) {
                              using Extent = btrfs_file_extent_item;
                              if (item.at<uint8_t>(offsetof(Extent, type)) == BTRFS_FILE_EXTENT_INLINE) {
                                bytes += item.length - std::min<size_t>(item.length, offsetof(Extent, disk_bytenr));
                                return true;
                              }
                              uint64_t start = item.at<uint64_t>(offsetof(Extent, disk_bytenr));
                              if (start != 0 && seen.insert(start).second)
                                bytes += item.at<uint64_t>(offsetof(Extent, disk_num_bytes));
                              return true;
                            });
  if (returned < 0) return std::nullopt;
  return bytes;
}

int compressible(int fd, uint64_t inode) {
  int flags = 0;
  int returned = tryIoctl(fd, BTRMIND_REQUEST(FS_IOC_GETFLAGS), &flags);
  if (returned < 0) return -returned;
  if (flags & FS_NOCOW_FL) return kNoCow;
  if (flags & FS_NOCOMP_FL) return kNoCompress;
  return lacksChecksums(fd, inode) ? kNoCow : 0;
}

}  // namespace btrmind
