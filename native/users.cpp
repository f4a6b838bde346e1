#include "users.h"

#include <algorithm>
#include <cerrno>
#include <memory>

#include "tree_search.h"

namespace btrmind {

std::vector<std::string> namesOf(int fd, uint64_t tree, uint64_t inode, Directories& directories) {
  struct Name {
    uint64_t parent;
    std::string text;
  };
  std::vector<Name> names;
  int returned = searchTree(
      fd, tree, {inode, BTRFS_INODE_REF_KEY, 0}, {inode, BTRFS_INODE_EXTREF_KEY, UINT64_MAX}, [&](const Item& item) {
        forEachName(item,
                    [&](uint64_t parent, std::string_view text) { names.push_back({parent, std::string(text)}); });
        return true;
      });
  if (returned < 0 && returned != -ENOENT) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "read the inode"};
  std::vector<std::string> paths;
  for (const Name& name : names) {
    if (inode == BTRFS_FIRST_FREE_OBJECTID) return {""};
    const Directories::Place& place = directories.find(tree, name.parent);
    if (place.is == Directories::Is::below) paths.push_back(place.path + name.text);
  }
  return paths;
}

std::vector<User> usersOf(int fd, uint64_t logical, bool wholeExtent, const Cancelled& cancelled) {
  // The kernel takes up to 16 MiB of answers; an extent of that many users is beyond any use.
  std::vector<User> users;
  for (size_t bytes = 64 << 10;; bytes *= 16) {
    auto room = std::make_unique<uint64_t[]>(bytes / sizeof(uint64_t));
    auto* container = reinterpret_cast<btrfs_data_container*>(room.get());
    btrfs_ioctl_logical_ino_args request = {};
    request.logical = logical;
    request.size = bytes;
    request.flags = wholeExtent ? BTRFS_LOGICAL_INO_ARGS_IGNORE_OFFSET : 0;
    request.inodes = reinterpret_cast<uintptr_t>(container);
    int returned = tryIoctl(fd, BTRMIND_REQUEST(BTRFS_IOC_LOGICAL_INO_V2), &request);
    if (returned == -ENOENT) return users;
    if (returned < 0) throw Failure{-returned, "BTRFS_IOC_LOGICAL_INO_V2", "find who uses the address"};
    if (container->elem_missed > 0 && bytes < (16U << 20)) continue;
    const size_t most = (bytes - sizeof *container) / sizeof container->val[0];
    const size_t values = std::min<size_t>(container->elem_cnt, most);
    for (size_t i = 0; i + 2 < values; i += 3)
      users.push_back({container->val[i], container->val[i + 1], container->val[i + 2], {}});
    break;
  }
  Directories directories(fd);
  for (User& user : users) {
    if (cancelled) throw Failure{ECANCELED, nullptr, "find who uses the address"};
    user.paths = namesOf(fd, user.subvolume, user.inode, directories);
  }
  return users;
}

}  // namespace btrmind
