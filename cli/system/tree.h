/* SPDX-License-Identifier: GPL-2.0-only */
/* Opens files of a recorded tree, and none outside of it. */
#ifndef NVGRACE_GPU_SYSTEM_TREE_H
#define NVGRACE_GPU_SYSTEM_TREE_H

/*
 * open(2) of an absolute path. A link of the tree leads to what is below its root,
 * as it did on the host. dir: an O_PATH descriptor of the root.
 */
int tree_open(const char *root, int dir, const char *path, int flags);

#endif
