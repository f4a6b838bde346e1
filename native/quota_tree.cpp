#include "quota_tree.h"

#include <cerrno>
#include <cmath>
#include <cstddef>

#include "js.h"
#include "tree_search.h"

namespace btrmind {

namespace {

void split(std::vector<double>& into, uint64_t id) {
  constexpr uint64_t kIdMask = (1ULL << 48) - 1;
  into.push_back(static_cast<double>(id >> 48));
  into.push_back(static_cast<double>(id & kIdMask));
}

}  // namespace

std::optional<Quota> readQuota(int fd, const Cancelled& cancelled) {
  Quota quota;
  bool on = false;
  int returned =
      searchTree(fd, BTRFS_QUOTA_TREE_OBJECTID, {0, 0, 0}, {UINT64_MAX, 255, UINT64_MAX}, [&](const Item& item) {
        auto number = [&](std::vector<double>& into, size_t offset) {
          // Inconsistent ones may have passed below zero.
          uint64_t value = item.at<uint64_t>(offset);
          into.push_back(value < 1ULL << 53 ? static_cast<double>(value) : std::nan(""));
        };
        // No limit is a flag that is not set, or all ones.
        auto limit = [&](uint64_t flag, size_t offset) {
          bool set = item.at<uint64_t>(offsetof(btrfs_qgroup_limit_item, flags)) & flag;
          uint64_t bytes = item.at<uint64_t>(offset);
          quota.limits.push_back(set && bytes != UINT64_MAX ? exact(bytes, "limit") : -1);
        };
        switch (item.key.type) {
          case BTRFS_QGROUP_STATUS_KEY:
            on = true;
            quota.flags = item.at<uint64_t>(offsetof(btrfs_qgroup_status_item, flags));
            break;
          case BTRFS_QGROUP_INFO_KEY:
            split(quota.infos, item.key.offset);
            number(quota.infos, offsetof(btrfs_qgroup_info_item, rfer));
            number(quota.infos, offsetof(btrfs_qgroup_info_item, rfer_cmpr));
            number(quota.infos, offsetof(btrfs_qgroup_info_item, excl));
            number(quota.infos, offsetof(btrfs_qgroup_info_item, excl_cmpr));
            break;
          case BTRFS_QGROUP_LIMIT_KEY:
            split(quota.limits, item.key.offset);
            limit(1, offsetof(btrfs_qgroup_limit_item, max_rfer));
            limit(2, offsetof(btrfs_qgroup_limit_item, max_excl));
            break;
          case BTRFS_QGROUP_RELATION_KEY:
            // Each stands there in both directions.
            if (item.key.objectid >> 48 >= item.key.offset >> 48) break;
            split(quota.relations, item.key.objectid);
            split(quota.relations, item.key.offset);
            break;
          default:
            break;
        }
        return !cancelled;
      });
  if (returned == -ENOENT || (returned == 0 && !on)) return std::nullopt;
  if (returned < 0) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "read the quota tree"};
  return quota;
}

}  // namespace btrmind
