// What scans add up, as JavaScript holds it.
#pragma once
#include <memory>

#include "../js.h"
#include "../tally.h"

namespace btrmind {

std::shared_ptr<Tally> readTally(const Args& args, size_t index);

}  // namespace btrmind
