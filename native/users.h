// Who uses what: the files at a logical address, the names of an inode. Needs CAP_SYS_ADMIN. No JavaScript here.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "directories.h"
#include "task.h"

namespace btrmind {

// Every name of an inode, from its subvolume's top. Empty: it is not there, or has none any more. Throws Failure.
std::vector<std::string> namesOf(int fd, uint64_t tree, uint64_t inode, Directories& directories);

struct User {
  uint64_t inode, offset, subvolume;
  std::vector<std::string> paths;
};

// Of the block at `logical`, or of the whole extent that it is in. Throws Failure.
std::vector<User> usersOf(int fd, uint64_t logical, bool wholeExtent, const Cancelled& cancelled);

}  // namespace btrmind
