// What older kernel headers lack. Each definition repeats the kernel's ABI, guarded so that newer headers win.
#pragma once
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <linux/magic.h>

#ifndef BTRFS_DEFRAG_RANGE_COMPRESS_LEVEL
#define BTRFS_DEFRAG_RANGE_COMPRESS_LEVEL 4
#endif
#ifndef BTRFS_INODE_NODATASUM
#define BTRFS_INODE_NODATASUM (1U << 0)
#endif
