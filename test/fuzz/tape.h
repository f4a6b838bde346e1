// A kernel that answers with the bytes of a tape: a fuzzer's input, or what a real kernel once said (the corpus).
//
// A tape is what the code under test asks for, in that order. A parameter: 8 bytes, little-endian. The answer to an
// ioctl: a byte, 0 or errno; on 0 two bytes of length and so many of what the kernel filled in. To a tree search: 0,
// two bytes of count, and for each item its type (1), objectid (8), offset (8), length (2) and data; or kRawAnswer, two
// bytes of count, two of length, and the answer as it lies in memory. After the end of the tape searches find
// nothing and the rest is ENOENT.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace fuzz {

constexpr uint8_t kRawAnswer = 255;

void replay(const uint8_t* data, size_t size);
// The parameters are those given here, the answers the real kernel's; both are written down.
void record(const uint64_t* parameters, size_t count);
// Ends either.
std::string stop();

uint64_t parameter();
bool parameterFlag();
// All that is left of a tape.
std::string rest();
// A descriptor that answers from the tape; when recording, of the path that was given. The caller closes it.
int descriptor();
void recordAt(const std::string& path);

}  // namespace fuzz
