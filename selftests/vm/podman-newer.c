// SPDX-License-Identifier: GPL-2.0-or-later

/* What newer Podmans ask of the drop-in beside what Debian's does. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <klock.h>

#include "shm_lock.h"

#define LOCK_PATH "/klock_newer"

#define CHECK(what) check(what, #what, __LINE__)

static void check(int holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: not so: %s\n", line, what);
	exit(1);
}

/* Another process takes lock 0, and says so; it dies with it when it is killed. */
static pid_t holder(void)
{
	int error, said[2];
	shm_struct_t *shm;
	pid_t pid;
	char byte;

	CHECK(!pipe(said));
	pid = fork();
	if (!pid) {
		shm = open_lock_shm(LOCK_PATH, 64, &error);
		CHECK(shm && !lock_semaphore(shm, 0) && write(said[1], "", 1) == 1);
		pause();
	}
	close(said[1]);
	CHECK(read(said[0], &byte, 1) == 1);
	close(said[0]);
	return pid;
}

static uint32_t flags_of(struct klock *lock)
{
	struct klock_status status;

	CHECK(!klock_status(lock, &status));
	return status.flags & (KLOCK_HELD | KLOCK_DIED);
}

int main(void)
{
	struct klock_space *space;
	struct klock *lock;
	shm_struct_t *shm;
	pid_t pid;
	int error;

	shm = setup_lock_shm(LOCK_PATH, 64, &error);
	CHECK(shm && available_locks(shm) == 64);
	CHECK(allocate_semaphore(shm) == 0 && available_locks(shm) == 63);
	CHECK(!klock_space_open(LOCK_PATH + 1, 0, NULL, &space));
	CHECK(!klock_retrieve(space, 0, 0, &lock));

	CHECK(try_lock(shm, 0) == 1 && flags_of(lock) == 0);
	CHECK(try_lock(shm, 63) == 1 && try_lock(shm, 64) == -EINVAL);
	CHECK(!lock_semaphore(shm, 0) && try_lock(shm, 0) == 0 && !unlock_semaphore(shm, 0));

	pid = holder();
	CHECK(try_lock(shm, 0) == 0 && flags_of(lock) == KLOCK_HELD);
	CHECK(!kill(pid, SIGKILL) && waitpid(pid, NULL, 0) == pid);
	CHECK(try_lock(shm, 0) == 1 && flags_of(lock) == KLOCK_DIED);
	CHECK(!lock_semaphore(shm, 0) && !unlock_semaphore(shm, 0));

	klock_put(lock);
	klock_space_close(space);
	close_lock_shm(shm);
	CHECK(!klock_space_remove(LOCK_PATH + 1, 0) && !shm_unlink(LOCK_PATH));
	return 0;
}
