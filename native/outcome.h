// What became of one file: 0, an errno, or one of these. src/btrfs/types.ts explains them (FileFailure).
#pragma once
#include "error.h"

namespace btrmind {

constexpr int kChanged = -1;
constexpr int kShared = -2;
constexpr int kNoCow = -3;
constexpr int kNoCompress = -4;
constexpr int kCompressed = -5;

inline const char* outcomeName(int outcome) {
  switch (outcome) {
    case 0:
      return "";
    case kChanged:
      return "CHANGED";
    case kShared:
      return "SHARED";
    case kNoCow:
      return "NOCOW";
    case kNoCompress:
      return "NOCOMPRESS";
    case kCompressed:
      return "COMPRESSED";
    default:
      return errnoName(outcome);
  }
}

}  // namespace btrmind
