#include "directories.h"

#include <cerrno>
#include <cstddef>
#include <vector>

namespace btrmind {

namespace {

// What is remembered is forgotten at this size, so that memory stays flat on any tree.
constexpr size_t kMaxBytes = 2 << 20, kEntryBytes = 96;
constexpr size_t kItemBytes = 4096;
constexpr size_t kMaxDepth = 65536;  // more would be a circle, in a tree that is damaged

}  // namespace

bool hasEntry(int fd, uint64_t directory, std::string_view name, uint64_t inode) {
  uint32_t hash = ~1U;  // crc32c, as the kernel begins it
  for (unsigned char byte : name) {
    hash ^= byte;
    for (int bit = 0; bit < 8; bit++) hash = (hash >> 1) ^ ((hash & 1) != 0 ? 0x82f63b78 : 0);
  }
  bool found = false;
  const Key key{directory, BTRFS_DIR_ITEM_KEY, hash};
  int returned = searchTree(fd, 0, key, key, [&](const Item& item) {
    constexpr size_t kHeader = sizeof(btrfs_dir_item);
    for (size_t at = 0; at + kHeader <= item.length;) {
      const size_t length = item.at<uint16_t>(at + offsetof(btrfs_dir_item, name_len));
      const size_t data = item.at<uint16_t>(at + offsetof(btrfs_dir_item, data_len));
      if (at + kHeader + length > item.length) break;
      const std::string_view text(reinterpret_cast<const char*>(item.data + at + kHeader), length);
      found |= text == name && item.at<uint64_t>(at + offsetof(btrfs_dir_item, location)) == inode;
      at += kHeader + length + data;
    }
    return false;
  });
  if (returned < 0) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "look up a name"};
  return found;
}

const Directories::Place& Directories::find(uint64_t tree, uint64_t inode) {
  auto at = known_.find({tree, inode});
  if (at != known_.end()) return at->second;
  return keep({tree, inode}, look(tree, inode));
}

void Directories::learn(uint64_t tree, uint64_t inode, uint64_t parent, std::string_view name) {
  if (inode == top_) return;
  auto above = known_.find({tree, parent});
  if (above == known_.end()) return;
  Place place = above->second;
  place.path.append(name).push_back('/');
  keep({tree, inode}, std::move(place));
}

const Directories::Place& Directories::keep(Where where, Place place) {
  if (bytes_ > kMaxBytes) {
    known_.clear();
    bytes_ = 0;
  }
  // Elsewhere: where exactly does not matter.
  if (place.is != Is::below) place.path = {};
  bytes_ += kEntryBytes + place.path.capacity();
  return known_.insert_or_assign(where, std::move(place)).first->second;
}

// A directory has one name, in one INODE_REF; up from there until the top, or one that is known.
Directories::Place Directories::look(uint64_t tree, uint64_t inode) {
  std::vector<std::string> names;
  Place place{Is::below, {}};
  for (uint64_t at = inode; at != top_;) {
    auto known = known_.find({tree, at});
    if (known != known_.end()) {
      place = known->second;
      break;
    }
    if (at == BTRFS_FIRST_FREE_OBJECTID) return {Is::elsewhere, {}};
    std::string name;
    Key first{at, BTRFS_INODE_REF_KEY, 0}, last{at, BTRFS_INODE_REF_KEY, UINT64_MAX};
    int returned = searchTree(fd_, tree, first, last,
                              [&](const Item& item) {
                                forEachName(item, [&](uint64_t parent, std::string_view text) {
                                  at = parent;
                                  name = text;
                                });
                                return false;
                              },
                              {1, 1, kItemBytes});
    // ENOENT: the tree itself was deleted.
    if (returned < 0 && returned != -ENOENT)
      throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "look up a directory"};
    if (name.empty() || names.size() > kMaxDepth) return {};
    names.push_back(std::move(name));
  }
  for (auto name = names.rbegin(); name != names.rend(); ++name) place.path += *name + "/";
  return place;
}

}  // namespace btrmind
