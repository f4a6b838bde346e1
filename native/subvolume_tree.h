// The root tree read in one pass: every subvolume and snapshot, with its path. Needs CAP_SYS_ADMIN. No JavaScript here.
#pragma once

#include <string>
#include <vector>

#include "btrfsutil_library.h"
#include "task.h"

namespace btrmind {

using SubvolumeInfo = struct btrfs_util_subvolume_info;

struct Subvolume {
  SubvolumeInfo info;
  std::string path;  // from the top of the volume, without a leading slash
};

// All below subvolume 5, which is not among them: parents first, brothers by id. Those that are being deleted have no
// place any more and are left out. Throws Failure EPERM, ECANCELED.
std::vector<Subvolume> readSubvolumes(int fd, const Cancelled& cancelled);

}  // namespace btrmind
