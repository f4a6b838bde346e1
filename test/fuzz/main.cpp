// One program, a target by name in FUZZ_TARGET. With FUZZ_RECORD=<file>, FUZZ_PATH=<directory> and FUZZ_PARAMETERS="1
// 2" it writes down what the real kernel answers to that target there, and fuzzes nothing.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "error.h"
#include "tape.h"
#include "targets.h"

namespace {

void (*target)() = nullptr;

// What the parsers refuse they refuse so.
void runTarget() {
  try {
    target();
  } catch (const btrmind::Failure&) {
  } catch (const std::bad_alloc&) {
  }
}

const char* environment(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

void recordTo(const char* file) {
  std::vector<uint64_t> parameters;
  std::istringstream words(environment("FUZZ_PARAMETERS"));
  for (uint64_t value = 0; words >> value;) parameters.push_back(value);
  fuzz::recordAt(environment("FUZZ_PATH"));
  fuzz::record(parameters.data(), parameters.size());
  target();
  std::ofstream(file, std::ios::binary) << fuzz::stop();
  exit(0);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  for (const fuzz::Target& one : fuzz::kTargets)
    if (strcmp(one.name, environment("FUZZ_TARGET")) == 0) target = one.run;
  if (target == nullptr) {
    for (const fuzz::Target& one : fuzz::kTargets) printf("%s\n", one.name);
    exit(2);
  }
  if (const char* file = getenv("FUZZ_RECORD")) recordTo(file);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::replay(data, size);
  runTarget();
  fuzz::stop();
  return 0;
}
