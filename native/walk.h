// Every regular file below a root, depth first, a batch at a time. Memory and descriptors stay flat: a directory is
// read as it is walked, only the deepest ones stay open, and those above are found again on the way back.
// No JavaScript in here; one thread at a time.
#pragma once
#include <string>
#include <vector>

#include "beneath.h"
#include "task.h"

namespace btrmind {

struct Skip {
  std::string reason;
  double count;
  std::string example;
};

struct WalkBatch {
  // Rows of inode, size, disk bytes, atime, mtime, ctime (ms), mode, links.
  static constexpr size_t kColumns = 8;
  std::vector<double> values;
  std::string paths;  // one after the other
  std::vector<uint32_t> ends;
  std::vector<Skip> skipped;
  bool done = false;
};

class Walk {
 public:
  explicit Walk(Root root);
  // At most `rows`; fewer when paths are long or files are rare, so that one call stays short.
  WalkBatch next(size_t rows, const Cancelled& cancelled);

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
  bool read(Frame& frame, Entry& entry, WalkBatch& batch);
  void enter(const char* name, WalkBatch& batch);
  void leave(WalkBatch& batch);
  void look(const char* name, WalkBatch& batch);
  void push(ScopedFd fd, uint64_t inode);
  void skip(WalkBatch& batch, const char* reason, const char* name);

  Root root_;
  std::vector<Frame> frames_;
  size_t firstOpen_ = 0;  // frames from here on have a descriptor
  std::string path_;      // of the directory being read: "" or "a/b/"
  std::vector<std::vector<char>> spareBuffers_;
};

}  // namespace btrmind
