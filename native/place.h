// Where a path is: on the opened volume or not, under which mount, how it is called from the top of the volume.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "handle.h"

namespace btrmind {

// Lane threads. Throws Failure EXDEV (which TypeScript turns into BTRMIND_ERR_WRONG_VOLUME) when the descriptor is not
// on the handle's volume.
void requireOnVolume(const HandlePtr& handle, int fd, const std::string& path);
ScopedFd openOnVolume(const HandlePtr& handle, const std::string& path, int flags, const char* step);

// The subvolume that an open file or directory of a volume is in. Needs no privilege. The first: 0, or -errno.
int trySubvolumeOf(int fd, uint64_t& id);
uint64_t subvolumeOf(int fd, const std::string& path);

// An inode of any subvolume of the volume that `mount` is open on, also outside of what is mounted; the path may be of
// any length, and change meanwhile. Generation 0: whichever it has. -1 where it is gone. Needs CAP_DAC_READ_SEARCH.
ScopedFd openByNumber(int mount, uint64_t subvolume, uint64_t inode, uint64_t generation);

struct Mount {
  std::string id;
  std::string device;  // "0:45": the same for all mounts of one volume
  std::string root;    // what is mounted, from the top of its filesystem: "/", "/home"
  std::string point;
};
using MountsPtr = std::shared_ptr<const std::vector<Mount>>;
// The text of /proc/self/mountinfo.
std::vector<Mount> parseMounts(std::string_view text);
// All mounts that this process sees, of all filesystems.
MountsPtr readMounts();
const Mount& mountOf(const std::vector<Mount>& mounts, int fd);

// Of the mount that an absolute path lies on, by its text alone: no disk is asked, so a symlink is not seen through.
// `path` itself where the mounts cannot be read. Any thread.
std::string mountPointOf(const std::string& path);

// The path by which this process reaches an open descriptor.
std::string descriptorPath(int fd);
// The same from the top of the volume (subvolume 5), without a leading slash. Needs no privilege.
std::string volumePath(const Mount& mount, const std::string& absolute);

// "/a/b" is beneath "/a" and "/", not beneath "/a/b" or "/a/bc".
bool isBeneath(const std::string& path, const std::string& directory);

}  // namespace btrmind
