// SPDX-License-Identifier: GPL-2.0-or-later
/* The kinds of locks, each as its users would use it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/sem.h>

#include "bench.h"

#if __has_include(<linux/ntsync.h>)
#include <linux/ntsync.h>
#define HAVE_NTSYNC
#endif

#define MAX_LOCKS	2048
#define FILES		"/dev/shm/klock-bench"

/* What pairs() does, of functions that the compiler sees: no call by a pointer is in the way. */
#define PAIRS(prefix)							\
static void prefix##_pairs(int n)					\
{									\
	while (n--) {							\
		prefix##_lock(0);					\
		prefix##_unlock(0);					\
	}								\
}

static int count;			/* locks of the table that there is */

static bool can_always(int locks)
{
	count = locks;
	return true;
}

static void nothing(void)
{
}

/* ---- klock ---- */

static unsigned int klock_flags;		/* to open a space with */
static struct klock_space *space;
static struct klock *handle[MAX_LOCKS];

struct klock_space *open_space(const char *name, unsigned int flags, uint32_t capacity)
{
	struct klock_space_attr attr = { .capacity = capacity };
	struct klock_space *opened;

	check(klock_space_open(name, flags | KLOCK_CREATE, &attr, &opened), "klock_space_open");
	return opened;
}

void remove_space(const char *name)
{
	int ret = klock_space_remove(name, KLOCK_FORCE);

	if (ret != -ENOENT)
		check(ret, "klock_space_remove");
}

static bool klock_create(int locks)
{
	klock_flags = 0;
	return can_always(locks);
}

static bool klock_ioctl_create(int locks)
{
	klock_flags = KLOCK_NO_FASTPATH;
	return can_always(locks);
}

unsigned int klock_kind_flags(void)
{
	return klock_flags;
}

static void klock_destroy(void)
{
	remove_space(SPACE);
}

static void klock_enter(void)
{
	int i;

	space = open_space(SPACE, klock_flags, 0);
	for (i = 0; i < count; i++)
		check(klock_retrieve(space, i, 0, &handle[i]), "klock_retrieve");
}

bool klock_is_mapped(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	bool found = false;

	if (!f)
		err(2, "/proc/self/maps");
	while (fgets(line, sizeof(line), f))
		found |= strstr(line, "anon_inode:") && strstr(line, "klock");
	fclose(f);
	return found;
}

static void klock_leave(void)
{
	int i;

	for (i = 0; i < count; i++)
		klock_put(handle[i]);
	klock_space_close(space);
}

static void klock_do_lock(int i)
{
	int ret = klock_lock(handle[i]);

	if (ret && ret != KLOCK_OWNER_DIED)
		check(ret, "klock_lock");
}

static void klock_do_unlock(int i)
{
	int ret = klock_unlock(handle[i]);

	if (ret)
		check(ret, "klock_unlock");
}

PAIRS(klock_do)

/* ---- POSIX mutexes, in a file that processes map ---- */

static pthread_mutex_t *mutex;

static void map_mutexes(int flags)
{
	int fd = open(FILES, O_RDWR | O_CLOEXEC | flags, 0600);

	if (fd < 0 || (flags && ftruncate(fd, count * sizeof(*mutex))))
		err(2, FILES);
	mutex = mmap(NULL, count * sizeof(*mutex), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mutex == MAP_FAILED)
		err(2, "mmap");
	close(fd);
}

static void mutex_enter(void)
{
	map_mutexes(0);
}

static void mutex_leave(void)
{
	munmap(mutex, count * sizeof(*mutex));
}

static bool make_mutexes(int locks, int robust)
{
	pthread_mutexattr_t attr;
	int i;

	count = locks;
	map_mutexes(O_CREAT | O_TRUNC);
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, robust);
	for (i = 0; i < locks; i++)
		pthread_mutex_init(&mutex[i], &attr);
	pthread_mutexattr_destroy(&attr);
	mutex_leave();
	return true;
}

static bool robust_create(int locks)
{
	return make_mutexes(locks, PTHREAD_MUTEX_ROBUST);
}

static bool plain_create(int locks)
{
	return make_mutexes(locks, PTHREAD_MUTEX_STALLED);
}

static void file_destroy(void)
{
	unlink(FILES);
}

static void mutex_lock(int i)
{
	int ret = pthread_mutex_lock(&mutex[i]);

	if (ret == EOWNERDEAD)
		ret = pthread_mutex_consistent(&mutex[i]);
	if (ret)
		errx(2, "pthread_mutex_lock: %s", strerror(ret));
}

static void mutex_unlock(int i)
{
	int ret = pthread_mutex_unlock(&mutex[i]);

	if (ret)
		errx(2, "pthread_mutex_unlock: %s", strerror(ret));
}

PAIRS(mutex)

/* ---- ntsync: its objects are descriptors, which children inherit ---- */

#ifdef HAVE_NTSYNC
static int ntsync = -1, ntsync_mutex[MAX_LOCKS];
static uint32_t ntsync_me;

static void ntsync_enter(void)
{
	ntsync_me = getpid();
}

static bool ntsync_create(int locks)
{
	struct ntsync_mutex_args args = { 0 };
	int i;

	ntsync = open("/dev/ntsync", O_RDWR | O_CLOEXEC);
	if (ntsync < 0)
		return false;
	for (i = 0; i < locks; i++) {
		ntsync_mutex[i] = ioctl(ntsync, NTSYNC_IOC_CREATE_MUTEX, &args);
		if (ntsync_mutex[i] < 0)
			err(2, "NTSYNC_IOC_CREATE_MUTEX");
	}
	return can_always(locks);
}

static void ntsync_destroy(void)
{
	int i;

	for (i = 0; i < count; i++)
		close(ntsync_mutex[i]);
	close(ntsync);
}

static void ntsync_lock(int i)
{
	struct ntsync_wait_args args = {
		.timeout = UINT64_MAX,
		.objs = (uintptr_t)&ntsync_mutex[i],
		.count = 1,
		.owner = ntsync_me,
	};

	if (ioctl(ntsync, NTSYNC_IOC_WAIT_ANY, &args))
		err(2, "NTSYNC_IOC_WAIT_ANY");
}

static void ntsync_unlock(int i)
{
	struct ntsync_mutex_args args = { .owner = ntsync_me };

	if (ioctl(ntsync_mutex[i], NTSYNC_IOC_MUTEX_UNLOCK, &args))
		err(2, "NTSYNC_IOC_MUTEX_UNLOCK");
}

PAIRS(ntsync)
#endif

/* ---- locks on files: a byte each, or a file each ---- */

static int file[MAX_LOCKS];

static void file_name(char *name, int i)
{
	snprintf(name, sizeof(FILES) + 12, FILES "%d", i);
}

static int open_file(int i, int flags)
{
	char name[sizeof(FILES) + 12];
	int fd;

	file_name(name, i);
	fd = open(name, O_RDWR | O_CLOEXEC | flags, 0600);
	if (fd < 0)
		err(2, "%s", name);
	return fd;
}

static bool flock_create(int locks)
{
	int i;

	for (i = 0; i < locks; i++)
		close(open_file(i, O_CREAT));
	return can_always(locks);
}

static void flock_destroy(void)
{
	char name[sizeof(FILES) + 12];
	int i;

	for (i = 0; i < count; i++) {
		file_name(name, i);
		unlink(name);
	}
}

static void flock_enter(void)
{
	int i;

	for (i = 0; i < count; i++)
		file[i] = open_file(i, 0);
}

static void flock_leave(void)
{
	int i;

	for (i = 0; i < count; i++)
		close(file[i]);
}

static void flock_lock(int i)
{
	if (flock(file[i], LOCK_EX))
		err(2, "flock");
}

static void flock_unlock(int i)
{
	if (flock(file[i], LOCK_UN))
		err(2, "flock");
}

PAIRS(flock)

static bool ofd_create(int locks)
{
	close(open_file(0, O_CREAT));
	return can_always(locks);
}

static void ofd_destroy(void)
{
	count = 1;
	flock_destroy();
}

static void ofd_enter(void)
{
	file[0] = open_file(0, 0);
}

static void ofd_leave(void)
{
	close(file[0]);
}

static void ofd(int i, short type)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = i, .l_len = 1 };

	if (fcntl(file[0], F_OFD_SETLKW, &lock))
		err(2, "fcntl");
}

static void ofd_lock(int i)
{
	ofd(i, F_WRLCK);
}

static void ofd_unlock(int i)
{
	ofd(i, F_UNLCK);
}

PAIRS(ofd)

/* ---- SysV semaphores ---- */

#define SEM_KEY		0x6b6c6f63

static int semaphores;

static bool sem_create(int locks)
{
	int id = semget(SEM_KEY, locks, IPC_CREAT | 0600), i;

	if (id < 0)
		err(2, "semget");
	for (i = 0; i < locks; i++)
		if (semctl(id, i, SETVAL, 1))
			err(2, "semctl");
	return can_always(locks);
}

static void sem_destroy(void)
{
	semctl(semget(SEM_KEY, 0, 0), 0, IPC_RMID);
}

static void sem_enter(void)
{
	semaphores = semget(SEM_KEY, 0, 0);
	if (semaphores < 0)
		err(2, "semget");
}

static void sem(int i, short by)
{
	struct sembuf op = { .sem_num = i, .sem_op = by, .sem_flg = SEM_UNDO };

	while (semop(semaphores, &op, 1))
		if (errno != EINTR)
			err(2, "semop");
}

static void sem_lock(int i)
{
	sem(i, -1);
}

static void sem_unlock(int i)
{
	sem(i, 1);
}

PAIRS(sem)

/* ---- floors ---- */

static _Atomic uint64_t word;

static void swap(uint64_t from, uint64_t to)
{
	if (!atomic_compare_exchange_strong(&word, &from, to))
		errx(2, "the word is not what it was");
}

/* Functions, as those of a library are. */
static __attribute__((noinline)) void swap_lock(__attribute__((unused)) int i)
{
	swap(0, 1);
}

static __attribute__((noinline)) void swap_unlock(__attribute__((unused)) int i)
{
	swap(1, 0);
}

PAIRS(swap)

static void empty_enter(void)
{
	file[0] = open("/dev/klock", O_RDWR | O_CLOEXEC);
	if (file[0] < 0)
		err(2, "/dev/klock");
}

static void empty_lock(__attribute__((unused)) int i)
{
	if (ioctl(file[0], _IO(KLOCK_IOC_MAGIC, 0xff)) != -1 || errno != ENOTTY)
		err(2, "an unknown ioctl");
}

#define empty_unlock empty_lock

PAIRS(empty)

/* ---- all ---- */

const struct kind kinds[] = {
	{
		.name = "klock mapped", .is = IS_KLOCK | HAS_NAME | ROBUST,
		.create = klock_create, .destroy = klock_destroy,
		.enter = klock_enter, .leave = klock_leave,
		.lock = klock_do_lock, .unlock = klock_do_unlock, .pairs = klock_do_pairs,
	}, {
		.name = "klock ioctl", .is = IS_KLOCK | HAS_NAME | ROBUST,
		.create = klock_ioctl_create, .destroy = klock_destroy,
		.enter = klock_enter, .leave = klock_leave,
		.lock = klock_do_lock, .unlock = klock_do_unlock, .pairs = klock_do_pairs,
	}, {
		.name = "robust mutex", .is = HAS_NAME | ROBUST,
		.create = robust_create, .destroy = file_destroy,
		.enter = mutex_enter, .leave = mutex_leave,
		.lock = mutex_lock, .unlock = mutex_unlock, .pairs = mutex_pairs,
	}, {
		.name = "plain mutex", .is = HAS_NAME,
		.create = plain_create, .destroy = file_destroy,
		.enter = mutex_enter, .leave = mutex_leave,
		.lock = mutex_lock, .unlock = mutex_unlock, .pairs = mutex_pairs,
#ifdef HAVE_NTSYNC
	}, {
		.name = "ntsync",
		.create = ntsync_create, .destroy = ntsync_destroy,
		.enter = ntsync_enter, .leave = nothing,
		.lock = ntsync_lock, .unlock = ntsync_unlock, .pairs = ntsync_pairs,
#endif
	}, {
		.name = "OFD fcntl", .is = HAS_NAME | ROBUST,
		.create = ofd_create, .destroy = ofd_destroy,
		.enter = ofd_enter, .leave = ofd_leave,
		.lock = ofd_lock, .unlock = ofd_unlock, .pairs = ofd_pairs,
	}, {
		.name = "flock", .is = HAS_NAME | ROBUST,
		.create = flock_create, .destroy = flock_destroy,
		.enter = flock_enter, .leave = flock_leave,
		.lock = flock_lock, .unlock = flock_unlock, .pairs = flock_pairs,
	}, {
		.name = "SysV semaphore", .is = HAS_NAME | ROBUST,
		.create = sem_create, .destroy = sem_destroy,
		.enter = sem_enter, .leave = nothing,
		.lock = sem_lock, .unlock = sem_unlock, .pairs = sem_pairs,
	}, {
		.name = "2 empty ioctls", .is = A_FLOOR,
		.create = can_always, .destroy = nothing,
		.enter = empty_enter, .leave = ofd_leave,
		.lock = empty_lock, .unlock = empty_unlock, .pairs = empty_pairs,
	}, {
		.name = "2 compare-and-swaps", .is = A_FLOOR,
		.create = can_always, .destroy = nothing,
		.enter = nothing, .leave = nothing,
		.lock = swap_lock, .unlock = swap_unlock, .pairs = swap_pairs,
	},
};

const size_t nr_kinds = ARRAY_SIZE(kinds);

bool begin(const struct kind *kind, int locks)
{
	if (!kind->create(locks))
		return false;
	kind->enter();
	return true;
}

void end(const struct kind *kind)
{
	kind->leave();
	kind->destroy();
}
