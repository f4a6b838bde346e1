#include "scan.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

#include "beneath.h"
#include "extents.h"
#include "js.h"
#include "place.h"

namespace btrmind {

namespace {

// Small pages, measured: what a page holds of a directory's own entries, which are of no use here, is wasted; behind
// them it goes on with the next inode.
constexpr int kTries = 10;
constexpr size_t kPageBytes = 8 << 10;
constexpr unsigned kMaxPages = 256;
constexpr size_t kMaxPathBytes = 1 << 20;
constexpr uint64_t kLastInode = static_cast<uint64_t>(BTRFS_LAST_FREE_OBJECTID);
constexpr uint64_t kMax = UINT64_MAX;

enum Column {
  kInode,
  kSize,
  kDiskBytes,
  kAtime,
  kMtime,
  kCtime,
  kMode,
  kLinks,
  kGeneration,
  kExtents,
  kCompressedBytes,
  kSharedBytes
};

double timeAt(const Item& item, size_t offset) {
  return milliseconds(item.at<int64_t>(offset), item.at<uint32_t>(offset + sizeof(int64_t)));
}

// NaN where a double cannot hold it: a size is whatever truncate(2) was asked for, and must not end the scan.
double bytesOrNan(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  return value < 0x1p64 && static_cast<uint64_t>(value) == bytes ? value : std::nan("");
}

// Of this thread; being preempted is none.
double waitsSoFar() {
  rusage usage = {};
  getrusage(RUSAGE_THREAD, &usage);
  return static_cast<double>(usage.ru_nvcsw);
}

uint64_t inodeOf(int fd) {
  struct stat stat;
  checkedCall(fstat(fd, &stat), "fstat", "read the directory");
  return stat.st_ino;
}

uint64_t blockBytesOf(int fd) {
  struct statfs stat;
  checkedCall(fstatfs(fd, &stat), "fstatfs", "read the block size");
  return static_cast<uint64_t>(stat.f_bsize);
}

}  // namespace

Scan::Scan(ScopedFd directory, ScanOptions options)
    : fd_(std::move(directory)),
      options_(options),
      top_(inodeOf(fd_.get())),
      blockBytes_(blockBytesOf(fd_.get())),
      directories_(fd_.get(), top_),
      next_{BTRFS_FIRST_FREE_OBJECTID, 0, 0},
      last_(kLastInode) {
  options_.extents |= options_.sharing;
  subvolume_ = subvolumeOf(fd_.get(), {});
  // Without the privilege this says so, not the first batch.
  Key first{BTRFS_FIRST_FREE_OBJECTID, 0, 0};
  int returned = searchTree(fd_.get(), 0, first, first, [](const Item&) { return false; }, {1, 1, kPageBytes});
  if (returned < 0) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "read the subvolume's tree"};
}

void Scan::range(uint64_t first, uint64_t last) {
  next_ = {first, 0, 0};
  last_ = std::min(last, kLastInode);
  ended_ = false;
}

// The first inode after the range; kMax: there is none.
uint64_t Scan::following() {
  uint64_t found;
  int returned = nextObject(fd_.get(), 0, last_ + 1, kLastInode, found, {1, 1, kPageBytes, options_.since});
  if (returned < 0) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "read the subvolume's tree"};
  return found;
}

Batch Scan::next(size_t rows, const Cancelled& cancelled) {
  Batch batch(options_.extents ? kExtentColumns : kColumns);
  const double before = waitsSoFar();
  SearchLimits limits;
  limits.calls = 1;
  limits.bytes = kPageBytes;
  limits.generation = options_.since;
  for (size_t left = rest_.size(); left > 0 && batch.paths.size() < kMaxPathBytes; left--) {
    Row row = std::move(rest_.front());
    rest_.pop_front();
    add(row.values, row.parent, row.name, batch);
  }
  for (unsigned page = 0; page < kMaxPages && !ended_; page++) {
    if (cancelled || batch.rows() >= rows || batch.paths.size() >= kMaxPathBytes) break;
    bool any = false;
    Key last{};
    int returned = searchTree(
        fd_.get(), 0, next_, {last_, 255, kMax},
        [&](const Item& item) {
          any = true;
          last = item.key;
          return visit(item);
        },
        limits);
    if (returned == -EOVERFLOW && limits.bytes < kSearchBytes) {
      limits.bytes = kSearchBytes;
      continue;
    }
    if (returned < 0) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "read the subvolume's tree"};
    limits.bytes = kPageBytes;
    ended_ = !any;
    // The last one may go on in the next page.
    size_t whole = ended_ || inodes_.empty() ? inodes_.size() : inodes_.size() - 1;
    for (size_t i = 0; i < inodes_.size(); i++) {
      const bool isLast = i + 1 == inodes_.size();
      size_t lastName = isLast ? names_.size() : inodes_[i + 1].firstName;
      // Of the one that goes on only what it has so far is added up, all of which stands behind its names.
      if (options_.tally)
        tally(inodes_[i], lastName, isLast ? pieces_.size() : inodes_[i + 1].firstPiece, i < whole, cancelled);
      if (i < whole && !options_.tally) finish(inodes_[i], lastName, batch, cancelled);
    }
    pieces_.clear();
    if (ended_) break;
    if (whole > 0) {
      size_t names = inodes_[whole].firstName, text = names < names_.size() ? names_[names].offset : text_.size();
      inodes_.erase(inodes_.begin(), inodes_.begin() + static_cast<std::ptrdiff_t>(whole));
      names_.erase(names_.begin(), names_.begin() + static_cast<std::ptrdiff_t>(names));
      text_.erase(0, text);
      inodes_[0].firstName = inodes_[0].firstPiece = 0;
      for (Name& name : names_) name.offset -= text;
    }
    next_ = last;
    // A directory's entries, and extents that nobody asked for, are passed over.
    if (last.type >= BTRFS_DIR_ITEM_KEY && last.type <= BTRFS_DIR_INDEX_KEY) {
      next_.type = BTRFS_DIR_INDEX_KEY + 1;
      next_.offset = 0;
    } else if (last.type > BTRFS_DIR_INDEX_KEY && !options_.extents) {
      next_ = {last.objectid + 1, 0, 0};
    } else if (++next_.offset == 0) {
      next_.type++;
    }
  }
  batch.waits = waitsSoFar() - before;
  batch.done = ended_ && rest_.empty();
  if (batch.done) {
    inodes_.clear();
    names_.clear();
    text_.clear();
    uint64_t next = following();
    batch.next = next == kMax ? std::numeric_limits<double>::infinity() : static_cast<double>(next);
  }
  return batch;
}

void Scan::add(const double* row, uint64_t parent, std::string_view name, Batch& batch) {
  if (batch.paths.size() >= kMaxPathBytes) {
    Row& rest = rest_.emplace_back();
    std::copy_n(row, batch.columns, rest.values);
    rest.parent = parent;
    rest.name = name;
    return;
  }
  const Directories::Place& place = directories_.find(0, parent);
  if (place.is == Directories::Is::below) batch.add(row, place.path, name);
}

bool Scan::visit(const Item& item) {
  if (item.key.type == BTRFS_INODE_ITEM_KEY) {
    begin(item);
  } else if (!inodes_.empty() && inodes_.back().number == item.key.objectid) {
    addNames(item);
    if (item.key.type == BTRFS_EXTENT_DATA_KEY && options_.extents) addExtent(inodes_.back(), item);
  }
  return true;
}

void Scan::begin(const Item& item) {
  using Raw = btrfs_inode_item;
  uint64_t transaction = item.at<uint64_t>(offsetof(Raw, transid));
  // A search by generation gives whole blocks of the tree.
  if (transaction < options_.since) return;
  Inode inode = {};
  inode.number = item.key.objectid;
  inode.generation = item.at<uint64_t>(offsetof(Raw, generation));
  inode.links = item.at<uint32_t>(offsetof(Raw, nlink));
  inode.firstName = names_.size();
  inode.firstPiece = pieces_.size();
  uint64_t bytes = item.at<uint64_t>(offsetof(Raw, nbytes));
  double* row = inode.row;
  row[kInode] = exact(inode.number, "inode");
  row[kSize] = bytesOrNan(item.at<uint64_t>(offsetof(Raw, size)));
  row[kDiskBytes] = bytesOrNan((bytes + blockBytes_ - 1) / blockBytes_ * blockBytes_);
  row[kAtime] = timeAt(item, offsetof(Raw, atime));
  row[kMtime] = timeAt(item, offsetof(Raw, mtime));
  row[kCtime] = timeAt(item, offsetof(Raw, ctime));
  row[kMode] = item.at<uint32_t>(offsetof(Raw, mode));
  row[kLinks] = static_cast<double>(inode.links);
  row[kGeneration] = exact(transaction, "generation");
  inodes_.push_back(inode);
}

void Scan::addNames(const Item& item) {
  forEachName(item, [&](uint64_t parent, std::string_view name) {
    names_.push_back({parent, text_.size(), name.size()});
    text_.append(name);
  });
}

// Counted as FIEMAP counts: what continues the extent before it, in the file and on disk, belongs to it.
void Scan::addExtent(Inode& inode, const Item& item) {
  using Raw = btrfs_file_extent_item;
  const int type = item.at<uint8_t>(offsetof(Raw, type));
  const auto compression = item.at<uint8_t>(offsetof(Raw, compression));
  const bool compressed = compression != 0;
  const auto uncompressedBytes = item.at<uint64_t>(offsetof(Raw, ram_bytes));
  Piece::Kind kind = compression < Piece::preallocated ? static_cast<Piece::Kind>(compression) : Piece::unknown;
  if (type == BTRFS_FILE_EXTENT_INLINE) {
    inode.row[kExtents]++;
    if (compressed) inode.row[kCompressedBytes] += static_cast<double>(uncompressedBytes);
    uint64_t diskBytes = item.length - std::min<uint64_t>(item.length, offsetof(Raw, disk_bytenr));
    if (options_.tally) pieces_.push_back({kind, true, false, 0, diskBytes, uncompressedBytes, uncompressedBytes});
    return;
  }
  const auto disk = item.at<uint64_t>(offsetof(Raw, disk_bytenr));
  if (disk == 0) return;  // a hole
  const auto length = item.at<uint64_t>(offsetof(Raw, num_bytes));
  const auto offset = item.at<uint64_t>(offsetof(Raw, offset));
  const auto diskBytes = item.at<uint64_t>(offsetof(Raw, disk_num_bytes));
  const uint64_t physical = disk + (compressed ? 0 : offset);
  const bool follows = inode.references > 0 && inode.nextLogical == item.key.offset;
  if (options_.tally) {
    // A compressed extent is read whole, whichever part of it the file still uses.
    const bool same = compressed && inode.diskStart == disk;
    const bool breaks = follows && !same && inode.diskEnd != physical;
    inode.breaks += breaks ? 1 : 0;
    if (type == BTRFS_FILE_EXTENT_PREALLOC) kind = Piece::preallocated;
    pieces_.push_back({kind, false, breaks, disk, diskBytes, uncompressedBytes, length});
  }
  const int state = type * 2 + compressed;
  if (!follows || inode.nextPhysical != physical || inode.kind != state) inode.row[kExtents]++;
  inode.references++;
  inode.nextLogical = item.key.offset + length;
  inode.nextPhysical = physical + length;
  inode.diskStart = disk;
  inode.diskEnd = compressed ? disk + diskBytes : physical + length;
  inode.kind = state;
  if (compressed) inode.row[kCompressedBytes] += static_cast<double>(length);
}

bool Scan::isBelow(size_t firstName, size_t lastName) {
  for (size_t i = firstName; i < lastName; i++)
    if (directories_.find(0, names_[i].parent).is == Directories::Is::below) return true;
  return false;
}

void Scan::tally(const Inode& inode, size_t lastName, size_t lastPiece, bool done, const Cancelled& cancelled) {
  if (inode.firstPiece == lastPiece && !done) return;
  // Of a whole subvolume only what has no name is not below: deleted, and open still.
  const bool whole = top_ == BTRFS_FIRST_FREE_OBJECTID && inode.links > 0;
  if (inode.number != top_ && !whole && !isBelow(inode.firstName, lastName)) return;
  const bool isFile = S_ISREG(static_cast<mode_t>(inode.row[kMode]));
  if (isFile) options_.tally->add(pieces_.data() + inode.firstPiece, lastPiece - inode.firstPiece);
  if (!done) return;
  options_.tally->addInode(isFile, inode.references, inode.breaks, inode.row[kInode], inode.row[kSize], [&] {
    auto [directory, name] = firstPath(inode.firstName, lastName);
    return directory + name;
  });
  if (isFile && options_.sharing) measure(inode, lastName, cancelled);
}

// Of the names that are below, the first.
std::pair<std::string, std::string> Scan::firstPath(size_t firstName, size_t lastName) {
  for (size_t i = firstName; i < lastName; i++) {
    const Directories::Place& place = directories_.find(0, names_[i].parent);
    if (place.is == Directories::Is::below)
      return {options_.prefix + place.path, text_.substr(names_[i].offset, names_[i].length)};
  }
  return {options_.prefix, {}};
}

void Scan::measure(const Inode& inode, size_t lastName, const Cancelled& cancelled) {
  Usage usage;
  if (inode.references > 0) {
    ScopedFd fd = openByNumber(fd_.get(), subvolume_, inode.number, inode.generation);
    if (fd.get() < 0) return;
    int failed = forEachExtent(fd.get(), 0, kMax, true, cancelled, [&](const fiemap_extent& extent) {
      if (extent.fe_flags & (FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN)) return true;
      usage.bytes += extent.fe_length;
      if ((extent.fe_flags & FIEMAP_EXTENT_SHARED) == 0) return true;
      usage.shared += extent.fe_length;
      usage.extents.push_back({extent.fe_physical, extent.fe_length, (extent.fe_flags & FIEMAP_EXTENT_ENCODED) != 0});
      return true;
    });
    if (failed == ECANCELED) return;
    if (failed != 0) throw Failure{failed, "FS_IOC_FIEMAP", "look what is shared"};
  }
  std::string directory = options_.tally->depth > 0 ? firstPath(inode.firstName, lastName).first : "";
  options_.tally->addUsage(usage, directory);
}

// Items of one inode that a search by generation may have left out.
void Scan::seek(Inode& inode, uint32_t firstType, uint32_t lastType) {
  int returned =
      searchTree(fd_.get(), 0, {inode.number, firstType, 0}, {inode.number, lastType, kMax}, [&](const Item& item) {
        addNames(item);
        if (item.key.type == BTRFS_INODE_ITEM_KEY) inode.links = item.at<uint32_t>(offsetof(btrfs_inode_item, nlink));
        if (item.key.type == BTRFS_EXTENT_DATA_KEY) addExtent(inode, item);
        return true;
      });
  if (returned < 0) throw Failure{-returned, "BTRFS_IOC_TREE_SEARCH_V2", "read an inode"};
}

// Of more names than there are links those come first that their directories have. They may all be real: a link that
// was just made is not counted yet. The end of those that count; one that is being renamed may stand in no directory.
size_t Scan::settle(const Inode& inode, size_t firstName, size_t lastName) {
  std::vector<Name> real, others;
  for (size_t i = firstName; i < lastName; i++) {
    const Name& it = names_[i];
    const bool has = hasEntry(fd_.get(), it.parent, {text_.data() + it.offset, it.length}, inode.number);
    (has ? real : others).push_back(it);
  }
  const size_t counted = std::max<uint64_t>({1, inode.links, real.size()});
  // The last one of a directory is the latest.
  for (auto it = others.rbegin(); it != others.rend(); ++it) real.push_back(*it);
  std::copy(real.begin(), real.end(), names_.begin() + static_cast<std::ptrdiff_t>(firstName));
  return firstName + counted;
}

void Scan::finish(Inode& inode, size_t lastName, Batch& batch, const Cancelled& cancelled) {
  const bool isDirectory = S_ISDIR(static_cast<mode_t>(inode.row[kMode]));
  const bool isFile = S_ISREG(static_cast<mode_t>(inode.row[kMode]));
  size_t firstName = inode.firstName, sought = names_.size(), text = text_.size();
  // A search by generation may have left some out; a rename between two pages shows a name twice, or never: all of them
  // are asked for at once.
  // While the kernel renames, both names are there, and longer where it puts off taking the old one away: then once
  // more, and in the end what the directories have.
  for (int tries = 0; tries < kTries && lastName - firstName != std::max<uint64_t>(1, inode.links); tries++) {
    firstName = names_.size();
    seek(inode, BTRFS_INODE_ITEM_KEY, BTRFS_INODE_EXTREF_KEY);
    lastName = names_.size();
  }
  if (lastName - firstName > std::max<uint64_t>(1, inode.links)) lastName = settle(inode, firstName, lastName);
  if (options_.since > 0) {
    if (options_.extents && isFile) {
      std::fill(inode.row + kExtents, inode.row + kExtentColumns, 0);
      inode.nextLogical = inode.nextPhysical = inode.references = 0;
      seek(inode, BTRFS_EXTENT_DATA_KEY, BTRFS_EXTENT_DATA_KEY);
    }
  }
  auto share = [&] {
    if (!options_.sharing || !isFile || inode.row[kExtents] == 0) return;
    ScopedFd fd = openByNumber(fd_.get(), subvolume_, inode.number, inode.generation);
    Extents extents;
    int failed = fd.get() < 0 ? ENOENT : readExtents(fd.get(), 0, kMax, cancelled, extents);
    if (failed != 0 && failed != ENOENT && failed != ECANCELED)
      throw Failure{failed, "FS_IOC_FIEMAP", "look what is shared"};
    inode.row[kSharedBytes] = failed == 0 ? static_cast<double>(extents.sharedBytes) : std::nan("");
  };
  if (inode.number == top_) {
    share();
    batch.add(inode.row, "", "");
  } else {
    if (options_.sharing && isBelow(firstName, lastName)) share();
    for (size_t i = firstName; i < lastName; i++) {
      const Name& name = names_[i];
      std::string_view text(text_.data() + name.offset, name.length);
      add(inode.row, name.parent, text, batch);
      if (isDirectory) directories_.learn(0, inode.number, name.parent, text);
    }
  }
  if (names_.size() > sought) {
    text_.resize(text);
    names_.resize(sought);
  }
}

}  // namespace btrmind
