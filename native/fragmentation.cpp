#include "fragmentation.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <vector>

#include "place.h"
#include "tree_search.h"

namespace btrmind {

namespace {

constexpr unsigned kProbes = 8;
constexpr unsigned kOtherSubvolumes = 2;
constexpr size_t kPageBytes = 16 * 1024;  // each item costs the kernel about 0.5 µs
constexpr uint64_t kFirst = BTRFS_FIRST_FREE_OBJECTID;
constexpr uint64_t kLast = BTRFS_LAST_FREE_OBJECTID;
constexpr uint64_t kMax = ~0ULL;

// splitmix64
class Random {
 public:
  uint64_t below(uint64_t bound) {
    uint64_t z = state_ += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return (z ^ (z >> 31)) % bound;
  }

 private:
  uint64_t state_ = 0;
};

// A search cannot go backwards, so the highest objectid of a tree is bracketed: first its power of two, then to within
// that / `precision`. `above` is past it. 0, or -errno; `above` is kFirst when the tree has none.
int bracketHighest(int fd, uint64_t tree, uint64_t precision, uint64_t& above) {
  int failed = 0;
  auto anyFrom = [&](uint64_t objectid) {
    uint64_t found;
    int returned = nextObject(fd, tree, objectid, kLast, found);
    if (returned < 0) failed = returned;
    return found != kMax;
  };
  above = kFirst;
  if (!anyFrom(kFirst)) return failed;
  unsigned low = 8, high = 63;  // 2^low is known to be reached, 2^high not
  while (high - low > 1 && failed == 0) {
    unsigned middle = (low + high) / 2;
    (anyFrom(1ULL << middle) ? low : high) = middle;
  }
  uint64_t reached = 1ULL << low;
  above = 1ULL << high;
  while (above - reached > std::max<uint64_t>(reached / precision, 1) && failed == 0) {
    uint64_t middle = reached + (above - reached) / 2;
    (anyFrom(middle) ? reached : above) = middle;
  }
  return failed;
}

struct Tree {
  uint64_t id;
  uint64_t above;
};

// The subvolume that was opened, the top of the volume, and up to two others.
int chooseTrees(int fd, Random& random, std::vector<Tree>& trees) {
  std::vector<uint64_t> ids;
  auto choose = [&](uint64_t id) {
    for (uint64_t chosen : ids)
      if (chosen == id) return;
    ids.push_back(id);
  };
  uint64_t own;
  int returned = trySubvolumeOf(fd, own);
  if (returned < 0) return returned;
  choose(own);
  choose(BTRFS_FS_TREE_OBJECTID);
  uint64_t above = 0;
  returned = bracketHighest(fd, BTRFS_ROOT_TREE_OBJECTID, kMax, above);
  if (returned < 0) return returned;
  for (unsigned i = 0; i < kOtherSubvolumes && above > kFirst; i++) {
    uint64_t from = kFirst + random.below(above - kFirst);
    searchTree(fd, BTRFS_ROOT_TREE_OBJECTID, {from, BTRFS_ROOT_ITEM_KEY, 0}, {kLast, BTRFS_ROOT_ITEM_KEY, kMax},
               [&](const Item& item) {
                 if (item.key.type != BTRFS_ROOT_ITEM_KEY) return true;
                 choose(item.key.objectid);
                 return false;
               },
               {~0U, 1});
  }
  for (uint64_t id : ids) {
    // A subvolume that is being deleted answers ENOENT: none of its files count any more.
    returned = bracketHighest(fd, id, 16, above);
    if (returned < 0 && returned != -ENOENT) return returned;
    if (returned == 0 && above > kFirst) trees.push_back({id, above});
  }
  return 0;
}

// Where an extent's data lies. A compressed extent is read whole, whichever part of it the file still uses.
struct Placed {
  uint64_t inode, fileEnd, disk, diskEnd;
};

// The items of one page, from the first file extent at or after inode `from`: past its entries, if it is a directory.
int countBreaks(int fd, uint64_t tree, uint64_t from, Fragmentation& out, bool& any) {
  Placed before = {};
  return searchTree(fd, tree, {from, BTRFS_EXTENT_DATA_KEY, 0}, {kLast, 255, kMax},
                    [&](const Item& item) {
                      any = true;
                      if (item.key.type != BTRFS_EXTENT_DATA_KEY) return true;
                      using Extent = btrfs_file_extent_item;
                      auto type = item.at<uint8_t>(offsetof(Extent, type));
                      auto disk = item.at<uint64_t>(offsetof(Extent, disk_bytenr));
                      if (type == BTRFS_FILE_EXTENT_INLINE || disk == 0) return true;  // inline data, or a hole
                      auto diskBytes = item.at<uint64_t>(offsetof(Extent, disk_num_bytes));
                      auto offset = item.at<uint64_t>(offsetof(Extent, offset));
                      auto bytes = item.at<uint64_t>(offsetof(Extent, num_bytes));
                      bool whole = item.at<uint8_t>(offsetof(Extent, compression)) != 0;
                      Placed now{item.key.objectid, item.key.offset + bytes, whole ? disk : disk + offset,
                                 whole ? disk + diskBytes : disk + offset + bytes};
                      out.extents++;
                      bool follows = before.inode == now.inode && before.fileEnd == item.key.offset;  // in the file
                      bool same = whole && before.disk == now.disk;  // two parts of one extent
                      if (follows && !same && before.diskEnd != now.disk) out.breaks++;
                      before = now;
                      return true;
                    },
                    {~0U, 1, kPageBytes});
}

}  // namespace

int sampleFragmentation(int fd, Fragmentation& out) {
  Random random;
  std::vector<Tree> trees;
  int returned = chooseTrees(fd, random, trees);
  if (returned < 0 || trees.empty()) return returned;
  for (unsigned i = 0; i < kProbes; i++) {
    const Tree& tree = trees[i % trees.size()];
    // The bracket ends a little past the highest inode; from there, half-way back until there is something.
    uint64_t beyond = random.below(tree.above - kFirst);
    for (bool any = false; !any; beyond /= 2) {
      returned = countBreaks(fd, tree.id, kFirst + beyond, out, any);
      if (returned < 0 && returned != -ENOENT && returned != -EOVERFLOW) return returned;
      if (returned < 0 || beyond == 0) break;  // deleted meanwhile; one item larger than a page; nothing there
    }
  }
  return 0;
}

}  // namespace btrmind
