// Every file below a root, depth first, a batch at a time. Memory and descriptors stay flat: a directory is
// read as it is walked, only the deepest ones stay open, and those above are found again on the way back.
// No JavaScript in here; one thread at a time.
#pragma once
#include <string>
#include <vector>

#include "batch.h"
#include "beneath.h"
#include "task.h"

namespace btrmind {

class Walk final : public Files {
 public:
  // Regular files; or `everything`: directories, the root as "", symlinks and special files too.
  Walk(Root root, bool everything);
  Batch next(size_t rows, const Cancelled& cancelled) override;

 private:
  struct Frame {
    ScopedFd fd;
    uint64_t inode;
    size_t pathLength;
    int64_t offset = 0;  // of the directory stream: go on after this entry
    std::vector<char> buffer;
    size_t at = 0, end = 0;
  };
  struct Entry {
    const char* name;
    unsigned char type;
  };
  bool read(Frame& frame, Entry& entry, Batch& batch);
  void enter(const char* name, Batch& batch);
  void leave(Batch& batch);
  void look(const char* name, Batch& batch);
  void add(const char* name, const struct statx& stat, Batch& batch);
  void push(ScopedFd fd, uint64_t inode);
  void skip(Batch& batch, const char* reason, const char* name);

  Root root_;
  const bool everything_;
  bool atRoot_ = true;
  std::vector<Frame> frames_;
  size_t firstOpen_ = 0;  // frames from here on have a descriptor
  std::string path_;      // of the directory being read: "" or "a/b/"
  std::vector<std::vector<char>> spareBuffers_;
};

}  // namespace btrmind
