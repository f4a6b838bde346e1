// How large a block would be after btrfs compressed it with LZO, without compressing it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace btrmind {

constexpr size_t kCompressionBlock = 128 << 10;  // the kernel compresses at most so much into one extent

// `length` ≤ kCompressionBlock. Bytes on disk, a multiple of `sector`; the rounded-up length where it would not pay.
size_t lzoDiskBytes(const uint8_t* data, size_t length, size_t sector);

}  // namespace btrmind
