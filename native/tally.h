// What the extents of a tree come to, added up by several scans at once. No JavaScript in here.
#pragma once
#include <array>
#include <cstdint>
#include <map>
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

// What FIEMAP says of a file, logical bytes, without inline data.
struct Usage {
  uint64_t bytes = 0, shared = 0;
  struct Shared {
    uint64_t address, bytes;
    bool compressed;
  };
  std::vector<Shared> extents;  // those that are shared
};

class Tally {
 public:
  // `most`: of the most scattered files. `depth`: how far down directories have sums of their own.
  Tally(size_t most, size_t depth) : depth(depth), most_(most) {}
  const size_t depth;

  struct Sums {
    double inodes = 0, files = 0, extents = 0, references = 0, inlined = 0, breaks = 0, brokenFiles = 0;
    struct Bytes {
      double disk = 0, uncompressed = 0, referenced = 0;
    };
    std::array<Bytes, Piece::kKinds> kinds;
    std::array<double, 32> runs = {};            // files by the number of runs on disk: 1, 2, 3–4, 5–8 …
    double used = 0, exclusive = 0, shared = 0;  // what is shared counts once
  };
  struct Broken {
    double breaks, inode, sizeBytes;
    std::string path;
    bool operator<(const Broken& other) const { return breaks > other.breaks; }  // of a heap the least is on top
  };
  struct Directory {
    double files = 0, used = 0, exclusive = 0;
  };
  using Directories = std::map<std::string, Directory>;
  struct Figures {
    Sums sums;
    std::vector<Broken> worst;  // most breaks first
    Directories directories;
  };

  void add(const Piece* pieces, size_t count);
  // An inode that is done. `path` is called if it is one of the worst.
  template <class Path>
  void addInode(bool isFile, uint64_t references, uint64_t breaks, double inode, double sizeBytes, Path path) {
    if (count(isFile, references, breaks)) keep({static_cast<double>(breaks), inode, sizeBytes, path()});
  }
  // `directory`: "a/b/", where the file is.
  void addUsage(const Usage& usage, const std::string& directory);
  Sums sums();
  Figures read();

 private:
  bool count(bool isFile, uint64_t references, uint64_t breaks);
  void keep(Broken broken);

  std::mutex mutex_;
  const size_t most_;
  Sums sums_;
  BlockSet seen_, shared_, sharedCompressed_;
  std::vector<Broken> worst_;
  Directories directories_;
};

}  // namespace btrmind
