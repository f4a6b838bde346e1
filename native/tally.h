// What the extents of a tree come to, added up by several scans at once. No JavaScript in here.
#pragma once
#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "block_set.h"

namespace btrmind {

// One reference of a file to an extent, holes left out.
struct Piece {
  enum Kind : uint8_t { none, zlib, lzo, zstd, preallocated, unknown, kKinds };
  Kind kind;
  bool isInline;                                 // beside the inode, in metadata
  bool breaks;                                   // goes on in the file where the one before ends, but elsewhere on disk
  uint64_t address;                              // of the whole extent
  uint64_t diskBytes, uncompressedBytes, bytes;  // of the extent, of the extent, of this reference
};

class Tally {
 public:
  explicit Tally(size_t most) : most_(most) {}

  struct Sums {
    double inodes = 0, files = 0, extents = 0, references = 0, inlined = 0, breaks = 0, brokenFiles = 0;
    struct Bytes {
      double disk = 0, uncompressed = 0, referenced = 0;
    };
    std::array<Bytes, Piece::kKinds> kinds;
    std::array<double, 32> runs = {};  // files by the number of runs on disk: 1, 2, 3–4, 5–8 …
  };
  struct Broken {
    double breaks, inode, sizeBytes;
    std::string path;
    bool operator<(const Broken& other) const { return breaks > other.breaks; }  // of a heap the least is on top
  };
  struct Figures {
    Sums sums;
    std::vector<Broken> worst;  // most breaks first
  };

  void add(const Piece* pieces, size_t count);
  // An inode that is done. `path` is called if it is one of the worst.
  template <class Path>
  void addInode(bool isFile, uint64_t references, uint64_t breaks, double inode, double sizeBytes, Path path) {
    if (count(isFile, references, breaks)) keep({static_cast<double>(breaks), inode, sizeBytes, path()});
  }
  Figures read();

 private:
  bool count(bool isFile, uint64_t references, uint64_t breaks);
  void keep(Broken broken);

  std::mutex mutex_;
  const size_t most_;
  Sums sums_;
  BlockSet seen_;
  std::vector<Broken> worst_;
};

}  // namespace btrmind
