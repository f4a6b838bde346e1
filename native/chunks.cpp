#include "chunks.h"

#include <algorithm>
#include <cstddef>

#include "tree_search.h"

namespace btrmind {

namespace {

constexpr uint64_t kMax = ~0ULL;

// What a chunk takes of a device for each stripe: its length over the stripes that hold different data.
uint64_t stripeBytes(const btrfs_chunk& chunk) {
  int stripes = 1;
  if (chunk.type & BTRFS_BLOCK_GROUP_RAID0) stripes = chunk.num_stripes;
  if (chunk.type & BTRFS_BLOCK_GROUP_RAID10) stripes = chunk.num_stripes / 2;
  if (chunk.type & BTRFS_BLOCK_GROUP_RAID5) stripes = chunk.num_stripes - 1;
  if (chunk.type & BTRFS_BLOCK_GROUP_RAID6) stripes = chunk.num_stripes - 2;
  return chunk.length / static_cast<uint64_t>(std::max(stripes, 1));
}

void add(std::vector<Chunks>& out, const Item& item) {
  auto chunk = item.at<btrfs_chunk>(0);
  for (uint16_t i = 0, stripes = stripesOf(item); i < stripes; i++) {
    auto stripe = item.at<btrfs_stripe>(offsetof(btrfs_chunk, stripe) + i * sizeof(btrfs_stripe));
    auto found = std::find_if(out.begin(), out.end(), [&](const Chunks& row) {
      return row.flags == chunk.type && row.devid == stripe.devid && row.stripes == chunk.num_stripes;
    });
    if (found == out.end()) found = out.insert(found, {chunk.type, stripe.devid, chunk.num_stripes, 0});
    found->bytes += stripeBytes(chunk);
  }
}

// Whoever makes or removes a chunk writes the items of its devices too, in the same transaction. They are few and lie
// together, so it is enough to ask whether any leaf of theirs was written in `generation` or later.
int changedSince(int fd, uint64_t generation, bool& changed) {
  changed = false;
  return searchTree(fd, BTRFS_CHUNK_TREE_OBJECTID, {BTRFS_DEV_ITEMS_OBJECTID, BTRFS_DEV_ITEM_KEY, 0},
                    {BTRFS_DEV_ITEMS_OBJECTID, BTRFS_DEV_ITEM_KEY, kMax},
                    [&](const Item&) { return !(changed = true); }, {1, 1, kSearchBytes, generation});
}

}  // namespace

int ChunkMap::read(int fd, uint64_t generation, std::vector<Chunks>& out) {
  std::shared_ptr<const Reading> known;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    known = latest_;
  }
  bool changed = true;
  if (known != nullptr) {
    int returned = changedSince(fd, known->generation, changed);
    if (returned < 0) return returned;
  }
  if (changed) {
    // The transaction that runs is this one or a later one, and so is whatever it writes after the search.
    Reading fresh{generation, {}};
    int returned = searchTree(fd, BTRFS_CHUNK_TREE_OBJECTID, {BTRFS_FIRST_CHUNK_TREE_OBJECTID, BTRFS_CHUNK_ITEM_KEY, 0},
                              {BTRFS_FIRST_CHUNK_TREE_OBJECTID, BTRFS_CHUNK_ITEM_KEY, kMax}, [&](const Item& item) {
                                add(fresh.chunks, item);
                                return true;
                              });
    if (returned < 0) return returned;
    known = std::make_shared<const Reading>(std::move(fresh));
    std::lock_guard<std::mutex> lock(mutex_);
    latest_ = known;
  }
  out = known->chunks;
  return 0;
}

}  // namespace btrmind
