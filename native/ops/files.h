// Files and directories as arguments of native functions.
#pragma once
#include <optional>
#include <vector>

#include "../beneath.h"
#include "../js.h"

namespace btrmind {

// Undefined, or what a directory was when it was looked up (Float64Array: inode, subvolume id).
std::optional<RootRef::Seen> readSeen(const Args& args, size_t index);

// Two arguments from `first` on: its path, and what was seen there.
RootRef readRoot(const Args& args, size_t first);

// Three arguments from `first` on: paths (bytes, one after the other), ends (Uint32Array), identity (Float64Array:
// inode, size, mtimeMs, ctimeMs, atimeMs of each).
std::vector<FileRef> readRefs(const Args& args, size_t first);

}  // namespace btrmind
