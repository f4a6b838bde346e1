#include "block_set.h"

#include <algorithm>

namespace btrmind {

namespace {

constexpr unsigned kPageShift = 16;
constexpr uint32_t kPageBlocks = 1U << kPageShift;
constexpr size_t kFew = kPageBlocks / 8 / sizeof(uint16_t);  // from here on bits are smaller

}  // namespace

bool BlockSet::addTo(Page& page, uint32_t at) {
  if (page.bits == nullptr) {
    auto place = std::lower_bound(page.few.begin(), page.few.end(), at);
    if (place != page.few.end() && *place == at) return false;
    if (page.few.size() < kFew) {
      page.few.insert(place, static_cast<uint16_t>(at));
      return true;
    }
    page.bits.reset(new uint64_t[kPageBlocks / 64]());
    for (uint16_t block : page.few) page.bits[block / 64] |= 1ULL << (block % 64);
    page.few = {};
  }
  uint64_t bit = 1ULL << (at % 64);
  bool fresh = (page.bits[at / 64] & bit) == 0;
  page.bits[at / 64] |= bit;
  return fresh;
}

bool BlockSet::add(uint64_t address) {
  uint64_t block = address / kBlockBytes;
  return addTo(pages_[block >> kPageShift], block & (kPageBlocks - 1));
}

uint64_t BlockSet::add(uint64_t address, uint64_t length) {
  uint64_t fresh = 0;
  uint64_t block = address / kBlockBytes, end = (address + length + kBlockBytes - 1) / kBlockBytes;
  while (block < end) {
    Page& page = pages_[block >> kPageShift];
    uint64_t pageEnd = std::min(end, ((block >> kPageShift) + 1) << kPageShift);
    for (; block < pageEnd; block++) fresh += addTo(page, block & (kPageBlocks - 1)) ? 1 : 0;
  }
  return fresh * kBlockBytes;
}

}  // namespace btrmind
