// Which blocks of the volume's address space were seen: two bytes each where they are few, a bit each where they are
// many, so that memory grows with the data on disk at worst as 32 bytes a MiB.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace btrmind {

class BlockSet {
 public:
  static constexpr uint64_t kBlockBytes = 4096;  // the smallest that btrfs knows

  // The block that holds the byte at `address`; true: it was not there.
  bool add(uint64_t address);
  // Bytes of [address, address + length), whole blocks, that were not there.
  uint64_t add(uint64_t address, uint64_t length);

 private:
  struct Page {
    std::vector<uint16_t> few;  // ascending
    std::unique_ptr<uint64_t[]> bits;
  };
  static bool addTo(Page& page, uint32_t at);
  std::unordered_map<uint64_t, Page> pages_;
};

}  // namespace btrmind
