// What is fed any bytes. A parser of what the kernel gives that is new gets a target here.
#pragma once

namespace fuzz {

struct Target {
  const char* name;
  void (*run)();
};

void answer();
void scan();
void tally();
void subvolumes();
void users();
void chunks();
void blockGroups();
void quota();
void extents();
void defragment();
void fragmentation();
void space();
void text();
void lzoSize();

constexpr Target kTargets[] = {
    {"answer", answer},
    {"scan", scan},
    {"tally", tally},
    {"subvolumes", subvolumes},
    {"users", users},
    {"chunks", chunks},
    {"block-groups", blockGroups},
    {"quota", quota},
    {"defragment", defragment},
    {"extents", extents},
    {"fragmentation", fragmentation},
    {"space", space},
    {"text", text},
    {"lzo-size", lzoSize},
};

}  // namespace fuzz
