// Where every block group lies, and what is used of it. Needs CAP_SYS_ADMIN. No JavaScript here.
#pragma once
#include <cstdint>
#include <vector>

#include "task.h"

namespace btrmind {

struct BlockGroups {
  std::vector<double> groups;   // logical start, length, used or -1, number of stripes
  std::vector<uint64_t> flags;  // of each group
  std::vector<double> stripes;  // device, offset there; of one group after the other
};

// By logical address. Throws Failure.
BlockGroups readBlockGroups(int fd, const Cancelled& cancelled);

// What of a device is allocated: start and length of each, ascending. Throws Failure.
std::vector<double> readDeviceExtents(int fd, uint64_t devid);

}  // namespace btrmind
