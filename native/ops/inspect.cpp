// What lies where: block groups and their stripes, files at a logical address, names of an inode.
#include <cerrno>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "../directories.h"
#include "../task.h"
#include "../tree_search.h"
#include "ops.h"

namespace btrmind {

namespace {

constexpr uint64_t kMax = UINT64_MAX;

struct BlockGroups {
  std::vector<double> groups;   // logical start, length, used or -1, number of stripes
  std::vector<uint64_t> flags;  // of each group
  std::vector<double> stripes;  // device, offset there; of one group after the other
};

// Of one block group; -1 where it is not there (any more). It is in the extent tree, or in a tree of its own.
double usedBytes(int fd, uint64_t logical, uint64_t length, uint64_t& tree) {
  constexpr uint64_t kExtentTree = BTRFS_EXTENT_TREE_OBJECTID, kBlockGroupTree = 11;
  for (uint64_t candidate : {tree, tree == kBlockGroupTree ? kExtentTree : kBlockGroupTree}) {
    std::optional<uint64_t> used;
    Key key{logical, BTRFS_BLOCK_GROUP_ITEM_KEY, length};
    int returned = searchTree(fd, candidate, key, key,
                              [&](const Item& item) {
                                used = item.at<uint64_t>(offsetof(btrfs_block_group_item, used));
                                return false;
                              },
                              {1, 1, 4096});
    if (returned < 0 && returned != -ENOENT) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "read a block group"};
    if (!used) continue;
    tree = candidate;
    return exact(*used, "used bytes");
  }
  return -1;
}

// blockGroups(ticket, handle) → { groups, flags, stripes }, by logical address
Napi::Value blockGroups(const Args& args) {
  HandlePtr handle = args.handle(1);
  return quick(
      args, handle,
      [handle](const Cancelled& cancelled) {
        BlockGroups out;
        std::vector<std::pair<uint64_t, uint64_t>> ranges;
        Key first{BTRFS_FIRST_CHUNK_TREE_OBJECTID, BTRFS_CHUNK_ITEM_KEY, 0};
        Key last{BTRFS_FIRST_CHUNK_TREE_OBJECTID, BTRFS_CHUNK_ITEM_KEY, kMax};
        int returned = searchTree(handle->fd(), BTRFS_CHUNK_TREE_OBJECTID, first, last, [&](const Item& item) {
          auto chunk = item.at<btrfs_chunk>(0);
          ranges.emplace_back(item.key.offset, uint64_t{chunk.length});
          out.flags.push_back(chunk.type);
          out.groups.insert(out.groups.end(), {exact(item.key.offset, "logical address"), exact(chunk.length, "length"),
                                               -1, static_cast<double>(chunk.num_stripes)});
          for (uint16_t i = 0; i < chunk.num_stripes; i++) {
            auto stripe = item.at<btrfs_stripe>(offsetof(btrfs_chunk, stripe) + i * sizeof(btrfs_stripe));
            out.stripes.push_back(exact(stripe.devid, "device id"));
            out.stripes.push_back(exact(stripe.offset, "device offset"));
          }
          return !cancelled;
        });
        if (returned < 0) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "read the chunk tree"};
        uint64_t tree = BTRFS_EXTENT_TREE_OBJECTID;
        for (size_t i = 0; i < ranges.size() && !cancelled; i++)
          out.groups[i * 4 + 2] = usedBytes(handle->fd(), ranges[i].first, ranges[i].second, tree);
        return out;
      },
      [](Napi::Env env, BlockGroups& groups) -> Napi::Value {
        Napi::Object out = Napi::Object::New(env);
        out.Set("groups", copied<Napi::Float64Array>(env, groups.groups.data(), groups.groups.size()));
        out.Set("flags", copied<Napi::BigUint64Array>(env, groups.flags.data(), groups.flags.size()));
        out.Set("stripes", copied<Napi::Float64Array>(env, groups.stripes.data(), groups.stripes.size()));
        return out;
      });
}

// Every name of an inode, from its subvolume's top. Empty: it is not there, or has none any more.
std::vector<std::string> namesOf(int fd, uint64_t tree, uint64_t inode, Directories& directories) {
  struct Name {
    uint64_t parent;
    std::string text;
  };
  std::vector<Name> names;
  int returned = searchTree(
      fd, tree, {inode, BTRFS_INODE_REF_KEY, 0}, {inode, BTRFS_INODE_EXTREF_KEY, kMax}, [&](const Item& item) {
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

Napi::Value toArray(Napi::Env env, const std::vector<std::string>& texts) {
  Napi::Array out = Napi::Array::New(env, texts.size());
  for (uint32_t i = 0; i < texts.size(); i++)
    out.Set(i, copied<Napi::Uint8Array>(env, reinterpret_cast<const uint8_t*>(texts[i].data()), texts[i].size()));
  return out;
}

// inodePaths(ticket, handle, subvolume, inode) → paths as bytes, from the subvolume's top
Napi::Value inodePaths(const Args& args) {
  HandlePtr handle = args.handle(1);
  uint64_t tree = args.u64(2), inode = args.u64(3);
  return quick(
      args, handle,
      [handle, tree, inode](const Cancelled&) {
        Directories directories(handle->fd());
        return namesOf(handle->fd(), tree, inode, directories);
      },
      [](Napi::Env env, std::vector<std::string>& paths) { return toArray(env, paths); });
}

struct User {
  uint64_t inode, offset, subvolume;
  std::vector<std::string> paths;
};

// logicalFiles(ticket, handle, logical, wholeExtent) → [{ inode, offset, subvolume, paths }]
Napi::Value logicalFiles(const Args& args) {
  HandlePtr handle = args.handle(1);
  uint64_t logical = args.u64(2);
  bool wholeExtent = args.boolean(3);
  return quick(
      args, handle,
      [handle, logical, wholeExtent](const Cancelled& cancelled) {
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
          int returned = tryIoctl(handle->fd(), BTRMIND_REQUEST(BTRFS_IOC_LOGICAL_INO_V2), &request);
          if (returned == -ENOENT) return users;
          if (returned < 0) throw Failure{-returned, "BTRFS_IOC_LOGICAL_INO_V2", "find who uses the address"};
          if (container->elem_missed > 0 && bytes < (16U << 20)) continue;
          for (uint32_t i = 0; i + 2 < container->elem_cnt; i += 3)
            users.push_back({container->val[i], container->val[i + 1], container->val[i + 2], {}});
          break;
        }
        Directories directories(handle->fd());
        for (User& user : users) {
          if (cancelled) throw Failure{ECANCELED, nullptr, "find who uses the address"};
          user.paths = namesOf(handle->fd(), user.subvolume, user.inode, directories);
        }
        return users;
      },
      [](Napi::Env env, std::vector<User>& users) -> Napi::Value {
        Napi::Array out = Napi::Array::New(env, users.size());
        for (uint32_t i = 0; i < users.size(); i++) {
          Napi::Object row = Napi::Object::New(env);
          row.Set("inode", number(env, users[i].inode, "inode"));
          row.Set("offset", number(env, users[i].offset, "offset"));
          row.Set("subvolume", number(env, users[i].subvolume, "subvolume id"));
          row.Set("paths", toArray(env, users[i].paths));
          out.Set(i, row);
        }
        return out;
      });
}

}  // namespace

void defineInspect(Napi::Env env, Napi::Object exports) {
  define<blockGroups>(env, exports, "blockGroups");
  define<inodePaths>(env, exports, "inodePaths");
  define<logicalFiles>(env, exports, "logicalFiles");
}

}  // namespace btrmind
