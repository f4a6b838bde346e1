// TREE_SEARCH_V2: items of a btree in key order, page by page. Needs CAP_SYS_ADMIN.
#pragma once
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>

#include "btrfs_compat.h"
#include "error.h"

namespace btrmind {

// Keys are ordered as one compound number: a range bounds all three parts together, and type is no filter in itself.
struct Key {
  uint64_t objectid;
  uint32_t type;
  uint64_t offset;
};

struct Item {
  Key key;
  const uint8_t* data;  // not aligned: read fields with at()
  uint32_t length;

  // The field at `offset`, copied; zero when the item is too short to hold it.
  template <class Field>
  Field at(size_t offset) const {
    Field field{};
    if (offset + sizeof field <= length) memcpy(&field, data + offset, sizeof field);
    return field;
  }
};

// How many stripes a chunk item holds: as many as it says, if it is that long.
inline uint16_t stripesOf(const Item& item) {
  constexpr size_t kFirst = offsetof(btrfs_chunk, stripe);
  if (item.length < kFirst) return 0;
  size_t held = (item.length - kFirst) / sizeof(btrfs_stripe);
  return static_cast<uint16_t>(std::min<size_t>(held, item.at<btrfs_chunk>(0).num_stripes));
}

// visit(const Item&) for each of the `count` items in a search's answer of `size` bytes, until it gives false: then
// `more` is false. 0, or -EPROTO where an item does not lie in the answer as a whole.
template <class Visit>
int walkItems(const uint8_t* answer, size_t size, uint32_t count, Visit visit, bool& more) {
  more = true;
  for (size_t at = 0; count > 0; count--) {
    btrfs_ioctl_search_header header;
    if (size - at < sizeof header) return -EPROTO;
    memcpy(&header, answer + at, sizeof header);
    at += sizeof header;
    if (size - at < header.len) return -EPROTO;
    Item item{{header.objectid, header.type, header.offset}, answer + at, header.len};
    at += header.len;
    more = visit(static_cast<const Item&>(item));
    if (!more) return 0;
  }
  return 0;
}

// The best size, measured: larger ones are slower, since the kernel faults the rest of the buffer in for every leaf.
constexpr size_t kSearchBytes = 64 * 1024;

struct SearchLimits {
  uint32_t items = std::numeric_limits<uint32_t>::max();  // in one call
  unsigned calls = std::numeric_limits<unsigned>::max();
  size_t bytes = kSearchBytes;  // of items in one call, at most kSearchBytes; an item takes 32 more than its data
  uint64_t generation = 0;      // only items of leaves that were written in this transaction or later
};

// The arguments and the room for items behind them; one a thread, since touching 64 KiB anew costs more than the
// search.
inline btrfs_ioctl_search_args_v2& searchArguments() {
  static thread_local std::unique_ptr<uint64_t[]> room(
      new uint64_t[(sizeof(btrfs_ioctl_search_args_v2) + kSearchBytes) / sizeof(uint64_t)]);
  return *reinterpret_cast<btrfs_ioctl_search_args_v2*>(room.get());
}

// Visits items from `first` to `last`, both included, until visit(const Item&) gives false or a limit is reached.
// `tree` 0 is the descriptor's own subvolume. 0, or -errno. Do not search from inside visit(): one buffer a thread.
template <class Visit>
int searchTree(int fd, uint64_t tree, Key first, Key last, Visit visit, SearchLimits limits = {}) {
  btrfs_ioctl_search_args_v2& args = searchArguments();
  for (unsigned calls = 0; calls < limits.calls; calls++) {
    memset(&args, 0, sizeof args);
    args.buf_size = limits.bytes;
    btrfs_ioctl_search_key& key = args.key;
    key.tree_id = tree;
    key.min_objectid = first.objectid;
    key.min_type = first.type;
    key.min_offset = first.offset;
    key.max_objectid = last.objectid;
    key.max_type = last.type;
    key.max_offset = last.offset;
    key.min_transid = limits.generation;
    key.max_transid = std::numeric_limits<uint64_t>::max();
    key.nr_items = limits.items;
    int returned = tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_TREE_SEARCH_V2), &args);
    if (returned < 0) return returned;
    if (key.nr_items == 0) return 0;
    bool more = true;
    returned = walkItems(
        reinterpret_cast<const uint8_t*>(args.buf), limits.bytes, key.nr_items,
        [&](const Item& item) {
          first = item.key;
          return visit(item);
        },
        more);
    if (returned < 0 || !more) return returned;
    // On from the key after the last one, with carry.
    if (++first.offset == 0 && ++first.type > 255) {
      first.type = 0;
      if (++first.objectid == 0) return 0;
    }
  }
  return 0;
}

// The first object from `first` to `last` that the tree has anything of; UINT64_MAX: there is none. 0, or -errno.
inline int nextObject(int fd, uint64_t tree, uint64_t first, uint64_t last, uint64_t& found,
                      SearchLimits limits = {1, 1}) {
  constexpr uint64_t kNone = std::numeric_limits<uint64_t>::max();
  found = kNone;
  if (first > last) return 0;
  int returned = searchTree(
      fd, tree, {first, 0, 0}, {last, 255, kNone},
      [&](const Item& item) {
        found = item.key.objectid;
        return false;
      },
      limits);
  if (returned != -EOVERFLOW) return returned;
  found = first;  // there is something, larger than the page
  return 0;
}

}  // namespace btrmind
