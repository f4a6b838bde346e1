// Every inode of a subvolume, straight from its tree, in the order of inodes. One row a name, so that the names of a
// hard link follow one another. Several may share a subvolume, range by range. Needs CAP_SYS_ADMIN. No JavaScript in
// here; one thread at a time.
#pragma once
#include <deque>

#include "batch.h"
#include "directories.h"
#include "handle.h"
#include "tally.h"
#include "task.h"
#include "tree_search.h"

namespace btrmind {

struct ScanOptions {
  uint64_t since = 0;            // only inodes changed in this transaction or later
  bool extents = false;          // count them
  bool sharing = false;          // and ask FIEMAP which are shared
  std::shared_ptr<Tally> tally;  // no rows, but sums; not with `since`
  std::string prefix;            // of the paths that the tally keeps
};

class Scan final : public Files {
 public:
  // Columns of a walk's row, then the generation; with extents their number, compressed bytes, shared bytes.
  static constexpr size_t kColumns = 9, kExtentColumns = 12;

  // All below `directory`, itself included.
  Scan(ScopedFd directory, ScanOptions options);
  // Only inodes from `first` to `last`: a batch that is done says where the next range may begin. After the
  // constructor, or a batch that was done.
  void range(uint64_t first, uint64_t last);
  Batch next(size_t rows, const Cancelled& cancelled) override;

 private:
  struct Name {
    uint64_t parent;
    size_t offset, length;  // in text_
  };
  struct Inode {
    uint64_t number, generation, links;
    double row[kExtentColumns];
    size_t firstName, firstPiece;
    // Where an extent would have to begin to be the last one's continuation; where its data ends.
    uint64_t nextLogical, nextPhysical, diskEnd, diskStart;
    uint64_t references, breaks;
    int kind;
  };
  // A row that a batch had no room for: a file may have thousands of names in a directory that is deep.
  struct Row {
    double values[kExtentColumns];
    uint64_t parent;
    std::string name;
  };
  bool visit(const Item& item);
  void begin(const Item& item);
  void addNames(const Item& item);
  void addExtent(Inode& inode, const Item& item);
  void tally(const Inode& inode, size_t lastName, size_t lastPiece, bool done, const Cancelled& cancelled);
  void measure(const Inode& inode, size_t lastName, const Cancelled& cancelled);
  std::pair<std::string, std::string> firstPath(size_t firstName, size_t lastName);
  bool isBelow(size_t firstName, size_t lastName);
  uint64_t following();
  size_t settle(const Inode& inode, size_t firstName, size_t lastName);
  void finish(Inode& inode, size_t lastName, Batch& batch, const Cancelled& cancelled);
  void add(const double* row, uint64_t parent, std::string_view name, Batch& batch);
  void seek(Inode& inode, uint32_t firstType, uint32_t lastType);

  ScopedFd fd_;
  ScanOptions options_;
  uint64_t top_, subvolume_ = 0, blockBytes_;
  Directories directories_;
  Key next_;
  uint64_t last_;
  bool ended_ = false;         // the range was read to its end
  std::vector<Inode> inodes_;  // of the page, and the one that it ends in
  std::vector<Name> names_;
  std::string text_;
  std::vector<Piece> pieces_;
  std::deque<Row> rest_;
};

}  // namespace btrmind
