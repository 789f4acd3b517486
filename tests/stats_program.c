/*
 * stats_program.c - what the tests of the statistics file and of hz4-stat
 * look at: a program that allocates in a known way and ends as told.
 *
 *     stats_program MODE [ARGUMENT [DIRECTORY]]
 *
 * goes to DIRECTORY first, and then does what MODE says:
 *
 *     exit      return from main
 *     _exit     work for ARGUMENT ms, then leave by _exit
 *     kill      the same, then SIGKILL itself
 *     fork      a child works for ARGUMENT ms and leaves by _exit; the
 *               parent writes the child's number to stdout and returns
 *     hold      say "ready", work until stdin ends, return
 *     idle      say "ready" and wait until stdin ends
 *     closed    close stdin, stdout, stderr and all else, then return
 *
 * Links no allocator: the library under test is preloaded.
 */
#include "e2e_common.h"

#include <poll.h>

/* A hundred objects of every box. */
static void
work(void)
{
	static const size_t sizes[] = { 24, 700, 5000, 40000, 100000, 400000 };
	void *p[100];
	size_t i, k;

	for (k = 0; k < sizeof sizes / sizeof *sizes; k++) {
		for (i = 0; i < 100; i++)
			p[i] = e2e_malloc(sizes[k]);
		for (i = 0; i < 100; i++)
			e2e_free(p[i]);
	}
}

static void
work_for(unsigned ms)
{
	uint64_t end = e2e_now() + ms;

	do
		work();
	while (e2e_now() < end);
}

static bool
input_ended(void)
{
	struct pollfd in = { .fd = 0, .events = POLLIN };
	char c;

	return poll(&in, 1, 0) > 0 && read(0, &c, 1) <= 0;
}

static void
fork_and_work(unsigned ms)
{
	char line[32];
	pid_t child;
	int n;

	work();
	child = fork();
	e2e_need(child != -1, "fork");
	if (child == 0) {
		work_for(ms);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	n = snprintf(line, sizeof line, "%d\n", (int)child);
	e2e_need(write(1, line, (size_t)n) == n, "write");
}

static void
hold(bool idle)
{
	char c;

	work();
	e2e_need(write(1, "ready\n", 6) == 6, "write");
	if (idle)
		while (read(0, &c, 1) > 0)
			;
	while (!idle && !input_ended()) {
		work();
		e2e_sleep(1);
	}
}

int
main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "exit";
	unsigned ms = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
	int fd;

	if (argc > 3)
		e2e_need(chdir(argv[3]) == 0, "chdir to %s", argv[3]);
	if (strcmp(mode, "fork") == 0) {
		fork_and_work(ms);
	} else if (strcmp(mode, "hold") == 0 || strcmp(mode, "idle") == 0) {
		hold(mode[0] == 'i');
	} else {
		work_for(ms);
	}
	if (strcmp(mode, "_exit") == 0)
		_exit(0);
	if (strcmp(mode, "kill") == 0)
		kill(getpid(), SIGKILL);
	if (strcmp(mode, "closed") == 0)
		for (fd = 0; fd < 256; fd++)
			close(fd);
	return 0;
}
