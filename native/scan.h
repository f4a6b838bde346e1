// Every inode of a subvolume, straight from its tree, in the order of inodes. One row a name, so that the names of a
// hard link follow one another. Needs CAP_SYS_ADMIN. No JavaScript in here; one thread at a time.
#pragma once
#include <deque>

#include "batch.h"
#include "directories.h"
#include "handle.h"
#include "task.h"
#include "tree_search.h"

namespace btrmind {

struct ScanOptions {
  uint64_t since = 0;    // only inodes changed in this transaction or later
  bool extents = false;  // count them
  bool sharing = false;  // and ask FIEMAP which are shared
};

class Scan final : public Files {
 public:
  // Columns of a walk's row, then the generation; with extents their number, compressed bytes, shared bytes.
  static constexpr size_t kColumns = 9, kExtentColumns = 12;

  // All below `directory`, itself included.
  Scan(ScopedFd directory, ScanOptions options);
  Batch next(size_t rows, const Cancelled& cancelled) override;

 private:
  struct Name {
    uint64_t parent;
    size_t offset, length;  // in text_
  };
  struct Inode {
    uint64_t number, generation, links;
    double row[kExtentColumns];
    size_t firstName;
    // Where an extent would have to begin to be the last one's continuation.
    uint64_t nextLogical, nextPhysical;
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
  void finish(Inode& inode, size_t lastName, Batch& batch, const Cancelled& cancelled);
  void add(const double* row, uint64_t parent, std::string_view name, Batch& batch);
  void seek(const Inode& inode, uint32_t firstType, uint32_t lastType);

  ScopedFd fd_;
  ScanOptions options_;
  uint64_t top_, subvolume_ = 0, blockBytes_;
  Directories directories_;
  Key next_;
  bool ended_ = false;
  std::vector<Inode> inodes_;  // of the page, and the one that it ends in
  std::vector<Name> names_;
  std::string text_;
  std::deque<Row> rest_;
};

}  // namespace btrmind
