#include "block_groups.h"

#include <cerrno>
#include <cstddef>
#include <optional>
#include <utility>

#include "js.h"
#include "tree_search.h"

namespace btrmind {

namespace {

constexpr uint64_t kMax = UINT64_MAX;

// Of one block group; -1 where it is not there (any more). It is in the extent tree, or in a tree of its own.
double usedBytes(int fd, uint64_t logical, uint64_t length, uint64_t& tree) {
  constexpr uint64_t kExtentTree = BTRFS_EXTENT_TREE_OBJECTID, kBlockGroupTree = 11;
  for (uint64_t candidate : {tree, tree == kBlockGroupTree ? kExtentTree : kBlockGroupTree}) {
    std::optional<uint64_t> used;
    Key key{logical, BTRFS_BLOCK_GROUP_ITEM_KEY, length};
    int returned = searchTree(fd, candidate, key, key,
                              [&](const Item& item) {
                                used = item.at<uint64_t>(offsetof(btrfs_block_group_item, used));
                                return false;
                              },
                              {1, 1, 4096});
    if (returned < 0 && returned != -ENOENT) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "read a block group"};
    if (!used) continue;
    tree = candidate;
    return exact(*used, "used bytes");
  }
  return -1;
}

}  // namespace

BlockGroups readBlockGroups(int fd, const Cancelled& cancelled) {
  BlockGroups out;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  Key first{BTRFS_FIRST_CHUNK_TREE_OBJECTID, BTRFS_CHUNK_ITEM_KEY, 0};
  Key last{BTRFS_FIRST_CHUNK_TREE_OBJECTID, BTRFS_CHUNK_ITEM_KEY, kMax};
  int returned = searchTree(fd, BTRFS_CHUNK_TREE_OBJECTID, first, last, [&](const Item& item) {
    auto chunk = item.at<btrfs_chunk>(0);
    const uint16_t stripes = stripesOf(item);
    ranges.emplace_back(item.key.offset, uint64_t{chunk.length});
    out.flags.push_back(chunk.type);
    out.groups.insert(out.groups.end(), {exact(item.key.offset, "logical address"), exact(chunk.length, "length"), -1,
                                         static_cast<double>(stripes)});
    for (uint16_t i = 0; i < stripes; i++) {
      auto stripe = item.at<btrfs_stripe>(offsetof(btrfs_chunk, stripe) + i * sizeof(btrfs_stripe));
      out.stripes.push_back(exact(stripe.devid, "device id"));
      out.stripes.push_back(exact(stripe.offset, "device offset"));
    }
    return !cancelled;
  });
  if (returned < 0) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "read the chunk tree"};
  uint64_t tree = BTRFS_EXTENT_TREE_OBJECTID;
  for (size_t i = 0; i < ranges.size() && !cancelled; i++)
    out.groups[i * 4 + 2] = usedBytes(fd, ranges[i].first, ranges[i].second, tree);
  return out;
}

std::vector<double> readDeviceExtents(int fd, uint64_t devid) {
  std::vector<double> pairs;
  Key first{devid, BTRFS_DEV_EXTENT_KEY, 0}, last{devid, BTRFS_DEV_EXTENT_KEY, UINT64_MAX};
  int returned = searchTree(fd, BTRFS_DEV_TREE_OBJECTID, first, last, [&](const Item& item) {
    pairs.push_back(exact(item.key.offset, "device offset"));
    pairs.push_back(exact(item.at<uint64_t>(offsetof(btrfs_dev_extent, length)), "length"));
    return true;
  });
  if (returned < 0) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "read the device tree"};
  return pairs;
}

}  // namespace btrmind
