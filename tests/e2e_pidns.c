/*
 * A child in a PID namespace of its own is process 1 there, as its parent is
 * in the one before it: nothing may take the two for one process.  The child
 * allocates, lets time pass and ends; the parent's live page stays, and its
 * statistics go on.
 *
 * Starts itself anew with the options that make these, which builds without
 * statistics pass over; those still show that the child runs.
 */
#include "e2e_common.h"

#include <sched.h>
#include <sys/stat.h>

enum { TICKS_MS = 400 };

static void
work(void)
{
	uint64_t end = e2e_now() + TICKS_MS;
	void *p[300];
	size_t i;

	do {
		for (i = 0; i < 300; i++)
			p[i] = e2e_malloc(i * 40 + 1);
		for (i = 0; i < 300; i++)
			e2e_free(p[i]);
	} while (e2e_now() < end);
}

/* The next child is process 1 of a namespace of its own. */
static pid_t
fork_as_first(void)
{
	if (unshare(CLONE_NEWPID) != 0)
		_exit(E2E_SKIP);
	return fork();
}

static void
first(void)
{
	const char *boxes = getenv("hz4_boxes");
	bool has_page, has_stats = boxes != NULL && strstr(boxes, "stats=yes");
	struct stat before, after;
	char page[64];
	pid_t pid;

	e2e_need(getpid() == 1, "process %d", (int)getpid());
	work();
	snprintf(page, sizeof(page), "/dev/shm/hz4-stat.%u.1",
	    (unsigned)geteuid());
	has_page = stat(page, &before) == 0;
	pid = fork_as_first();
	if (pid == 0) {
		e2e_need(getpid() == 1, "process %d", (int)getpid());
		work();
		exit(0);
	}
	e2e_need(e2e_reap(pid, 30000) == 0, "the child");
	work();
	if (has_page)
		e2e_need(stat(page, &after) == 0 &&
		    after.st_ino == before.st_ino, "the page is gone");
	if (e2e_is_hz4())
		e2e_need(has_page == has_stats, "a page");
}

int
main(int argc, char **argv)
{
	int status;
	pid_t pid;

	if (argc > 1) {
		first();
		return 0;
	}
	if (geteuid() != 0) {
		puts("needs root for a PID namespace");
		return E2E_SKIP;
	}
	setenv("HZ4_OPTIONS", "stats_live=1", 1);
	pid = fork_as_first();
	if (pid == 0) {
		execl("/proc/self/exe", argv[0], "first", (char *)NULL);
		_exit(99);
	}
	status = e2e_reap(pid, 60000);
	if (WIFEXITED(status) && WEXITSTATUS(status) == E2E_SKIP) {
		puts("no PID namespace to be had");
		return E2E_SKIP;
	}
	e2e_need(status == 0, "wait status %#x", (unsigned)status);
	return 0;
}
