// SPDX-License-Identifier: GPL-2.0-or-later
/* Allocates a lock, takes it, releases it, frees it. */
#include <klock.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
	struct klock_space *space;
	struct klock *lock = NULL;
	int ret;

	ret = klock_space_open(NULL, 0, NULL, &space);	/* our own space, "default" */
	if (ret < 0) {
		fprintf(stderr, "no lock space: %s\n", strerror(-ret));
		return 1;
	}
	ret = klock_allocate(space, &lock);
	if (ret >= 0)
		ret = klock_lock(lock);
	if (ret == KLOCK_OWNER_DIED)
		printf("the last holder died: look at what it left behind\n");
	if (ret >= 0) {
		printf("lock %u is ours; others find it by this number\n", klock_id(lock));
		ret = klock_unlock(lock);
	}
	if (ret == 0)
		ret = klock_free(lock);
	if (ret < 0)
		fprintf(stderr, "it did not work: %s\n", strerror(-ret));
	klock_put(lock);
	klock_space_close(space);
	return ret < 0;
}
