// Rewriting what a file has on disk: BTRFS_IOC_DEFRAG_RANGE, a slice at a time. No JavaScript in here.
#pragma once
#include <atomic>
#include <cstdint>

#include "btrfs_compat.h"
#include "error.h"
#include "task.h"

namespace btrmind {

// Small enough to be stopped soon; a signal must not interrupt the call, which would then report success.
constexpr uint64_t kSliceBytes = 32 << 20;

struct DefragmentRequest {
  uint64_t flags = BTRFS_DEFRAG_RANGE_START_IO;
  uint32_t threshold = 0;  // 0: the kernel's own
  uint32_t type = 0;
  int level = 0;  // with BTRFS_DEFRAG_RANGE_COMPRESS_LEVEL
  uint64_t start = 0;
  uint64_t length = UINT64_MAX;
  uint64_t slice = kSliceBytes;
  bool skipShared = true;
  bool skipCompressed = true;
};

// What became of one file. Bytes are logical.
struct Defragmented {
  int code = 0;                         // as in outcome.h
  uint64_t given = 0;                   // to the kernel, which rewrites of it what is worth it
  uint64_t shared = 0, compressed = 0;  // left alone
};

struct Range {
  uint64_t start, end;
};
// What of a file of so many bytes the request is about.
Range rangeOf(const DefragmentRequest& request, uint64_t size);

// One call. 0 or errno.
int defragmentRange(int fd, const DefragmentRequest& request, uint64_t start, uint64_t length);

// The parts of [range) that the request lets be touched; `done` follows it. A failure leaves what was done.
void defragment(int fd, Range range, const DefragmentRequest& request, const Cancelled& cancelled,
                std::atomic<uint64_t>& done, Defragmented& out);

}  // namespace btrmind
