// The quota tree: what each quota group counts, its limits, who belongs to whom. Needs CAP_SYS_ADMIN. No JavaScript
// here.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "task.h"

namespace btrmind {

// A group is its level and its id: together they pass 2^53.
struct Quota {
  uint64_t flags = 0;
  std::vector<double> infos;      // level, id, referenced, compressed, exclusive, compressed; not a number: lost count
  std::vector<double> limits;     // level, id, referenced or -1, exclusive or -1
  std::vector<double> relations;  // level and id of the member, level and id of the group
};

// None when quota is off. Throws Failure.
std::optional<Quota> readQuota(int fd, const Cancelled& cancelled);

}  // namespace btrmind
