// Files as an argument of native functions.
#pragma once
#include <vector>

#include "../beneath.h"
#include "../js.h"

namespace btrmind {

// Two arguments from `first` on: its path, and undefined or what was seen there (Float64Array: inode, subvolume id).
RootRef readRoot(const Args& args, size_t first);

// Three arguments from `first` on: paths (bytes, one after the other), ends (Uint32Array), identity (Float64Array:
// inode, size, mtimeMs, ctimeMs of each).
std::vector<FileRef> readRefs(const Args& args, size_t first);

}  // namespace btrmind
