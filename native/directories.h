// Where a directory is, from its inode, by tree search: each is looked up once. Needs CAP_SYS_ADMIN. One thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "tree_search.h"

namespace btrmind {

// visit(parent inode, name) for each name in an INODE_REF, which holds all of one directory, or an INODE_EXTREF, where
// the others have no room, by hash.
template <class Visit>
void forEachName(const Item& item, Visit visit) {
  const bool extended = item.key.type == BTRFS_INODE_EXTREF_KEY;
  if (!extended && item.key.type != BTRFS_INODE_REF_KEY) return;
  const size_t header = extended ? offsetof(btrfs_inode_extref, name) : sizeof(btrfs_inode_ref);
  const size_t lengthAt = extended ? offsetof(btrfs_inode_extref, name_len) : offsetof(btrfs_inode_ref, name_len);
  for (size_t at = 0; at + header <= item.length;) {
    size_t length = item.at<uint16_t>(at + lengthAt);
    uint64_t parent =
        extended ? item.at<uint64_t>(at + offsetof(btrfs_inode_extref, parent_objectid)) : item.key.offset;
    at += header;
    if (at + length > item.length) return;
    visit(parent, std::string_view(reinterpret_cast<const char*>(item.data + at), length));
    at += length;
  }
}

// Whether a directory of the descriptor's own subvolume has an entry of that name for that inode. Throws Failure.
bool hasEntry(int fd, uint64_t directory, std::string_view name, uint64_t inode);

class Directories {
 public:
  // `top`: the inode that paths count from, in every tree; a subvolume's own directory by default.
  explicit Directories(int fd, uint64_t top = 256) : fd_(fd), top_(top) {}

  enum class Is { below, elsewhere, gone };
  struct Place {
    Is is = Is::gone;
    std::string path;  // "" for the top, else "a/b/"
  };
  // Good until the next call. Tree 0 is the descriptor's own subvolume. Throws Failure.
  const Place& find(uint64_t tree, uint64_t inode);
  // A directory that a search came by anyway.
  void learn(uint64_t tree, uint64_t inode, uint64_t parent, std::string_view name);

 private:
  struct Where {
    uint64_t tree, inode;
    bool operator==(const Where& other) const { return tree == other.tree && inode == other.inode; }
  };
  struct Hash {
    size_t operator()(const Where& where) const {
      return std::hash<uint64_t>()((where.tree * 0x9e3779b97f4a7c15) ^ where.inode);
    }
  };
  Place look(uint64_t tree, uint64_t inode);
  const Place& keep(Where where, Place place);

  int fd_;
  uint64_t top_;
  std::unordered_map<Where, Place, Hash> known_;
  size_t bytes_ = 0;
};

}  // namespace btrmind
