// Rows of files on their way to JavaScript: numbers by column, and paths.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "task.h"

namespace btrmind {

struct Skip {
  std::string reason;
  double count;
  std::string example;
};

struct Batch {
  // Inode, size, disk bytes, atime, mtime, ctime (ms), mode, links; a scan adds to them.
  explicit Batch(size_t columns = 8) : columns(columns) {}
  size_t columns;
  std::vector<double> values;  // row by row
  std::string paths;           // one after the other
  std::vector<uint32_t> ends;
  std::vector<Skip> skipped;
  bool done = false;
  double waits = 0;  // times that a scan had to wait for the disk, or a lock
  double next = 0;   // of a scan that is done: the first inode after its range; infinite: there is none

  size_t rows() const { return ends.size(); }
  void add(const double* row, std::string_view directory, std::string_view name) {
    values.insert(values.end(), row, row + columns);
    paths.append(directory).append(name);
    ends.push_back(static_cast<uint32_t>(paths.size()));
  }
};

// Where batches come from. One thread at a time.
class Files {
 public:
  virtual ~Files() = default;
  // About `rows`; fewer, also none, when paths are long or files are rare, so that one call stays short.
  virtual Batch next(size_t rows, const Cancelled& cancelled) = 0;
};

}  // namespace btrmind
