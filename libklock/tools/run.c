// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * run: a command with a lock held, as flock(1) does it.
 *
 * This process has the lock, and lives as long as the command: signals that somebody sends
 * to it are passed on, and those of the terminal reach the command by themselves.  If this
 * process is killed, the command is sent SIGTERM; but one that changes its user, or what it
 * has started, is not.  So they inherit the descriptor, as of flock(1), and the lock is
 * released, as that of a holder that died, when the last of them has ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "klockctl.h"

/* What was said already, as an exit status. */
static int exit_status(int err)
{
	switch (err) {
	case -ENODEV:
		return EX_UNAVAILABLE;
	case -ENOENT:
	case -EINVAL:
	case -ESTALE:
		return EX_NOINPUT;
	case -EACCES:
		return EX_NOPERM;
	}
	return EX_OSERR;
}

/* What the lock call returned. */
static int take(struct klock *lock)
{
	struct timespec deadline;
	uint64_t end;

	if (opt.nonblock)
		return klock_trylock(lock);
	if (!opt.has_timeout)
		return klock_lock(lock);
	end = now_ns() + opt.timeout;
	deadline.tv_sec = end / NSEC_PER_SEC;
	deadline.tv_nsec = end % NSEC_PER_SEC;
	return klock_lock_until(lock, CLOCK_MONOTONIC, &deadline);
}

static void command(char **argv, int fd, const sigset_t *mask, pid_t parent)
{
	fcntl(fd, F_SETFD, opt.close ? FD_CLOEXEC : 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	sigprocmask(SIG_SETMASK, mask, NULL);
	if (getppid() != parent)
		_exit(EX_OSERR);
	execvp(argv[0], argv);
	complain("%s: %s", argv[0], strerror(errno));
	_exit(errno == ENOMEM ? EX_OSERR : EX_UNAVAILABLE);
}

/* Until the command ends; its exit status, or 128 and the signal that ended it. */
static int attend(pid_t pid, const sigset_t *signals)
{
	siginfo_t info;
	int status, sig;

	for (;;) {
		sig = sigwaitinfo(signals, &info);
		if (sig > 0 && sig != SIGCHLD && info.si_code <= 0)	/* by a process */
			kill(pid, sig);
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	}
}

/* A descriptor of the client that has the lock; a child closes the library's own. */
static int descriptor(const struct klock_space *space)
{
	int fd = fcntl(klock_space_fd(space), F_DUPFD_CLOEXEC, 3);

	if (fd < 0)
		failed("dup", -errno);
	return fd;
}

static int run(char **argv, int fd)
{
	/* They stop this process as they stop the command, or say that it has an error. */
	static const int own[] = {
		SIGTSTP, SIGTTIN, SIGTTOU, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS,
	};
	sigset_t signals, mask;
	pid_t parent = getpid(), pid;
	size_t i;

	signal(SIGCHLD, SIG_DFL);
	sigfillset(&signals);
	for (i = 0; i < sizeof(own) / sizeof(*own); i++)
		sigdelset(&signals, own[i]);
	sigprocmask(SIG_BLOCK, &signals, &mask);
	pid = fork();
	if (pid < 0) {
		complain("fork: %s", strerror(errno));
		return EX_OSERR;
	}
	if (!pid)
		command(argv, fd, &mask, parent);
	return attend(pid, &signals);
}

static int run_locked(struct klock_space *space, struct klock *lock, char **argv)
{
	int fd = descriptor(space);
	int status = fd < 0 ? EX_OSERR : run(argv, fd);
	int ret = klock_unlock(lock);

	if (ret == -EPERM)
		complain("lock %" PRIu32 " was broken while the command ran", klock_id(lock));
	else if (ret)
		failed("cannot unlock", ret);
	return status;
}

/* If the owner died and that is to fail, the lock is left as it was found: the next is told. */
static int take_and_run(struct klock_space *space, struct klock *lock, char **argv)
{
	int ret = take(lock);

	if (ret == -EBUSY || ret == -ETIMEDOUT)
		return opt.conflict_status;
	if (ret < 0) {
		failed("cannot lock", ret);
		return exit_status(ret);
	}
	if (ret == KLOCK_OWNER_DIED) {
		complain("the last holder of lock %" PRIu32 " died: look at what it left behind%s",
			 klock_id(lock), opt.fail_if_died ? "; nothing is run" : "");
		if (opt.fail_if_died)
			return EX_DATAERR;
	}
	return run_locked(space, lock, argv);
}

/* @argv: the lock, then the command. */
int cmd_run(int argc, char **argv)
{
	struct klock_space *space;
	struct klock *lock;
	uint32_t id;
	int ret;

	(void)argc;
	if (!parse_id(argv[0], &id))
		return EX_USAGE;
	ret = open_space(opt.space ? 0 : KLOCK_CREATE, &space);
	if (!ret)
		ret = get_lock(space, id, &lock);
	return ret ? exit_status(ret) : take_and_run(space, lock, argv + 1);
}
