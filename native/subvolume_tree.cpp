#include "subvolume_tree.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <map>
#include <mutex>
#include <unordered_map>

#include "directories.h"
#include "tree_search.h"

namespace btrmind {

namespace {

constexpr uint64_t kFirst = BTRFS_FIRST_FREE_OBJECTID;
constexpr uint64_t kLast = static_cast<uint64_t>(BTRFS_LAST_FREE_OBJECTID);
constexpr uint64_t kMax = UINT64_MAX;
constexpr uint64_t kRange = 256;            // ids: some 128 KiB of the tree
constexpr size_t kMaxPathBytes = 16 << 20;  // more would be a circle, in a tree that is damaged
constexpr int kTries = 10;
constexpr useconds_t kPauseUs = 100;
constexpr unsigned kThreads = 8;  // a disk has its full rate from there on

// What a ROOT_ITEM and the ROOT_BACKREF behind it say; `name` empty: it has no place.
struct Found {
  SubvolumeInfo info;
  std::string name;
  bool deleted = false;
};

void readTimes(const Item& item, size_t offset, timespec& time) {
  time.tv_sec = static_cast<time_t>(item.at<int64_t>(offset));
  time.tv_nsec = item.at<uint32_t>(offset + sizeof(int64_t));
}

SubvolumeInfo parseRoot(const Item& item) {
  SubvolumeInfo info = {};
  info.id = item.key.objectid;
  info.flags = item.at<uint64_t>(offsetof(btrfs_root_item, flags));
  info.generation = item.at<uint64_t>(offsetof(btrfs_root_item, generation));
  // A kernel before 3.6 wrote none of what follows, and left what stood there.
  if (item.at<uint64_t>(offsetof(btrfs_root_item, generation_v2)) != info.generation) return info;
  auto uuid = [&](size_t offset, uint8_t* out) {
    if (offset + 16 <= item.length) memcpy(out, item.data + offset, 16);
  };
  uuid(offsetof(btrfs_root_item, uuid), info.uuid);
  uuid(offsetof(btrfs_root_item, parent_uuid), info.parent_uuid);
  uuid(offsetof(btrfs_root_item, received_uuid), info.received_uuid);
  info.ctransid = item.at<uint64_t>(offsetof(btrfs_root_item, ctransid));
  info.otransid = item.at<uint64_t>(offsetof(btrfs_root_item, otransid));
  info.stransid = item.at<uint64_t>(offsetof(btrfs_root_item, stransid));
  info.rtransid = item.at<uint64_t>(offsetof(btrfs_root_item, rtransid));
  readTimes(item, offsetof(btrfs_root_item, ctime), info.ctime);
  readTimes(item, offsetof(btrfs_root_item, otime), info.otime);
  readTimes(item, offsetof(btrfs_root_item, stime), info.stime);
  readTimes(item, offsetof(btrfs_root_item, rtime), info.rtime);
  return info;
}

std::vector<Found> readRootsOnce(int fd, uint64_t first, uint64_t last, const Cancelled& cancelled) {
  std::vector<Found> found;
  found.reserve(kRange);
  int returned = searchTree(fd, BTRFS_ROOT_TREE_OBJECTID, {first, 0, 0}, {last, 255, kMax}, [&](const Item& item) {
    if (item.key.type == BTRFS_ROOT_ITEM_KEY) {
      found.push_back({parseRoot(item), {}, item.at<uint32_t>(offsetof(btrfs_root_item, refs)) == 0});
    } else if (item.key.type == BTRFS_ROOT_BACKREF_KEY && !found.empty() && found.back().info.id == item.key.objectid) {
      size_t length = item.at<uint16_t>(offsetof(btrfs_root_ref, name_len));
      if (sizeof(btrfs_root_ref) + length > item.length) return !cancelled;
      found.back().info.parent_id = item.key.offset;
      found.back().info.dir_id = item.at<uint64_t>(offsetof(btrfs_root_ref, dirid));
      found.back().name.assign(reinterpret_cast<const char*>(item.data + sizeof(btrfs_root_ref)), length);
    }
    return !cancelled;
  });
  if (cancelled) throw Failure{ECANCELED, nullptr, "list all subvolumes"};
  if (returned < 0) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "read the root tree"};
  return found;
}

// Until the commit after its deletion a ROOT_ITEM does not say so.
bool isOrphan(int fd, uint64_t id) {
  bool is = false;
  const Key key{static_cast<uint64_t>(BTRFS_ORPHAN_OBJECTID), BTRFS_ORPHAN_ITEM_KEY, id};
  searchTree(fd, BTRFS_ROOT_TREE_OBJECTID, key, key, [&](const Item&) { return !(is = true); }, {1, 1});
  return is;
}

// Those with ids from `first` to `last`, by id. A rename takes a subvolume's ROOT_BACKREF away before it makes the new
// one: what has none and is not deleted is looked at again.
std::vector<Found> readRoots(int fd, uint64_t first, uint64_t last, const Cancelled& cancelled) {
  std::vector<Found> found = readRootsOnce(fd, first, last, cancelled);
  int tries = 0;  // of all together: some may never have one
  for (Found& one : found) {
    for (; one.name.empty() && !one.deleted && !isOrphan(fd, one.info.id) && tries < kTries; tries++) {
      usleep(kPauseUs << tries);
      std::vector<Found> again = readRootsOnce(fd, one.info.id, one.info.id, cancelled);
      if (again.empty()) break;
      one = std::move(again[0]);
    }
  }
  return found;
}

// The least id from `from` on that the root tree has anything of; kMax: there is none.
uint64_t nextRoot(int fd, uint64_t from) {
  uint64_t id;
  int returned = nextObject(fd, BTRFS_ROOT_TREE_OBJECTID, from, kLast, id);
  if (returned < 0) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "read the root tree"};
  return id;
}

// By the first id of each range. A volume with many directories at its top has as many ROOT_REFs there, below kFirst:
// they are not read. Several threads go from range to range: a cold disk gives several leaves in the time of one.
using Ranges = std::map<uint64_t, std::vector<Found>>;
Ranges readRootTree(int fd, const Cancelled& cancelled) {
  Ranges ranges;
  std::mutex mutex;
  uint64_t next = kFirst;
  auto endOf = [](uint64_t first) { return kLast - first < kRange ? kLast : first + kRange - 1; };
  auto take = [&](unsigned) {
    for (;;) {
      uint64_t first;
      {
        std::lock_guard<std::mutex> lock(mutex);
        if (next > kLast) return;
        first = next;
        next = endOf(first) + 1;
      }
      std::vector<Found> some = readRoots(fd, first, endOf(first), cancelled);
      // Past a gap in the ids at once; or past the end.
      uint64_t after = some.empty() ? nextRoot(fd, endOf(first) + 1) : 0;
      std::lock_guard<std::mutex> lock(mutex);
      if (!some.empty()) ranges.emplace(first, std::move(some));
      next = std::max(next, after);
    }
  };
  uint64_t second = nextRoot(fd, kFirst + kRange);
  inParallel(second > kLast ? 1 : kThreads, take);
  return ranges;
}

}  // namespace

std::string subvolumePath(int fd, uint64_t id) {
  const Failure gone{ENOENT, "BTRFS_IOC_TREE_SEARCH_V2", "find subvolume " + std::to_string(id)};
  Directories directories(fd);
  std::string path;
  for (uint64_t at = id; at != BTRFS_FS_TREE_OBJECTID;) {
    std::vector<Found> found = readRoots(fd, at, at, Cancelled{false});
    if (found.empty() || found[0].name.empty() || path.size() > kMaxPathBytes) throw gone;
    const SubvolumeInfo& info = found[0].info;
    const Directories::Place& directory = directories.find(info.parent_id, info.dir_id);
    if (directory.is == Directories::Is::gone) throw gone;
    path.insert(0, directory.path + found[0].name + (path.empty() ? "" : "/"));
    at = info.parent_id;
  }
  return path;
}

void forEachSubvolume(int fd, const Cancelled& cancelled, const SubvolumeVisit& visit) {
  const Ranges ranges = readRootTree(fd, cancelled);
  std::vector<const Found*> found;
  for (const auto& [start, some] : ranges)
    for (const Found& one : some) found.push_back(&one);
  // Children of each as a list through `next`, by id; the last place is the top's.
  const uint32_t none = UINT32_MAX;
  std::unordered_map<uint64_t, uint32_t> places;
  places.reserve(found.size() + 1);
  for (uint32_t i = 0; i < found.size(); i++) places.emplace(found[i]->info.id, i);
  places.emplace(BTRFS_FS_TREE_OBJECTID, found.size());
  std::vector<uint32_t> first(found.size() + 1, none), next(found.size(), none);
  for (uint32_t i = static_cast<uint32_t>(found.size()); i-- > 0;) {
    auto parent = places.find(found[i]->info.parent_id);
    if (found[i]->name.empty() || parent == places.end()) continue;
    next[i] = first[parent->second];
    first[parent->second] = i;
  }

  Directories directories(fd);
  struct Level {
    uint32_t child;
    size_t prefix;  // bytes of `path` that belong to the level's subvolume
  };
  std::string path;
  std::vector<Level> levels{{first[found.size()], 0}};
  while (!levels.empty()) {
    Level& level = levels.back();
    if (level.child == none) {
      levels.pop_back();
      continue;
    }
    uint32_t at = level.child;
    level.child = next[at];
    const Found& child = *found[at];
    const Directories::Place& directory = directories.find(child.info.parent_id, child.info.dir_id);
    if (cancelled) throw Failure{ECANCELED, nullptr, "list all subvolumes"};
    // Deleted or moved since the root tree was read.
    if (directory.is == Directories::Is::gone) continue;
    path.resize(level.prefix);
    path += directory.path;
    path += child.name;
    visit(child.info, path, found.size());
    path += '/';
    levels.push_back({first[at], path.size()});
  }
}

}  // namespace btrmind
