// libbtrfsutil, or where it is to be had: npm shows this to whoever builds from source without it.
#pragma once
#if !__has_include(<btrfsutil.h>)
#error \
    "libbtrfsutil is missing: install libbtrfsutil-dev (Debian, Ubuntu), btrfs-progs-devel (Fedora), btrfs-progs (Arch)"
#endif
#include <btrfsutil.h>
