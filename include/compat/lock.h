/* SPDX-License-Identifier: GPL-2.0-only */
/* What lockdep knows about locks. See compat.h. */
#ifndef NVGRACE_GPU_COMPAT_LOCK_H
#define NVGRACE_GPU_COMPAT_LOCK_H

#include <linux/lockdep.h>
#include <linux/mutex.h>

/*
 * Tells lockdep that this task holds @lock, if another task does so for it and
 * waits. Returns whether that was needed: the caller then calls
 * compat_give_back().
 */
static inline bool compat_borrow(struct mutex *lock)
{
	/* Without lockdep, there is no such function. */
	if (!IS_ENABLED(CONFIG_LOCKDEP) || lockdep_is_held(lock))
		return false;
	mutex_acquire(&lock->dep_map, 0, 1, _THIS_IP_);
	return true;
}

static inline void compat_give_back(struct mutex *lock)
{
	mutex_release(&lock->dep_map, _THIS_IP_);
}

#endif /* NVGRACE_GPU_COMPAT_LOCK_H */
