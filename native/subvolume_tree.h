// The root tree read in one pass: every subvolume and snapshot, with its path. Needs CAP_SYS_ADMIN. No JavaScript here.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "btrfsutil_library.h"
#include "task.h"

namespace btrmind {

using SubvolumeInfo = struct btrfs_util_subvolume_info;

// `path` from the top of the volume, without a leading slash; `atMost` so many are there in all.
using SubvolumeVisit = std::function<void(const SubvolumeInfo&, const std::string& path, size_t atMost)>;

// All below subvolume 5, which is not among them: parents first, brothers by id. Those that are being deleted have no
// place any more and are left out. Throws Failure EPERM, ECANCELED.
void forEachSubvolume(int fd, const Cancelled& cancelled, const SubvolumeVisit& visit);

// From the top of the volume, of any length; "" for subvolume 5. Throws Failure ENOENT, EPERM.
std::string subvolumePath(int fd, uint64_t id);

}  // namespace btrmind
