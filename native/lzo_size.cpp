#include "lzo_size.h"

#include <algorithm>
#include <cstring>

namespace btrmind {

namespace {

// The dictionary of LZO1X-1, and how it steps faster through data that does not match.
constexpr unsigned kHashBits = 13;
constexpr size_t kSkipShift = 5;
constexpr size_t kTail = 20;  // bytes at the end that are never matched

uint32_t load32(const uint8_t* at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

size_t runBytes(size_t length, size_t shortest) { return length <= shortest ? 0 : (length - shortest + 254) / 255; }

// Up to three literals hide in the instruction before them.
size_t literalBytes(size_t length, bool first) {
  if (length == 0) return 0;
  if (first && length <= 238) return 1 + length;
  return length + (length <= 3 ? 0 : 1 + runBytes(length, 18));
}

size_t matchBytes(size_t length, size_t distance) {
  return length <= 8 && distance <= 0x800 ? 2 : 3 + runBytes(length, 33);
}

// The size of one LZO1X-1 stream: a greedy parse that writes nothing.
size_t streamBytes(const uint8_t* data, size_t length) {
  constexpr size_t kEndMarker = 3;
  uint16_t seen[1 << kHashBits] = {};
  size_t size = kEndMarker;
  size_t literal = 0;  // where the literals that wait begin
  size_t at = 4;
  while (at + kTail < length) {
    uint32_t word = load32(data + at);
    uint32_t slot = (word * 0x9e3779b1u) >> (32 - kHashBits);
    size_t match = seen[slot];
    seen[slot] = static_cast<uint16_t>(at);
    if (match >= at || load32(data + match) != word) {
      at += 1 + ((at - literal) >> kSkipShift);
      continue;
    }
    size_t end = at + 4;
    while (end + kTail < length && data[end] == data[match + (end - at)]) end++;
    size += literalBytes(at - literal, literal == 0) + matchBytes(end - at, at - match);
    literal = at = end;
  }
  return size + literalBytes(length - literal, literal == 0);
}

}  // namespace

size_t lzoDiskBytes(const uint8_t* data, size_t length, size_t sector) {
  constexpr size_t kHeader = 4;
  const size_t whole = (length + sector - 1) / sector * sector;
  size_t size = kHeader;
  // btrfs compresses each sector by itself, and gives a block up that is no smaller after three of them.
  for (size_t at = 0; at < length; at += sector) {
    size += kHeader + streamBytes(data + at, std::min(sector, length - at));
    if (at >= 2 * sector && size > at + sector) return whole;
  }
  size = (size + sector - 1) / sector * sector;
  return size + sector > whole ? whole : size;
}

}  // namespace btrmind
