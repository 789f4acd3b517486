/*
 * stats_program.c - what the tests of the statistics file and of hz4-stat
 * look at: a program that allocates in a known way and ends as told.
 *
 *     stats_program MODE [DIRECTORY]
 *
 * goes to DIRECTORY first, and then does what MODE says:
 *
 *     exit      work, return from main
 *     hold      say "ready", work until stdin ends, return
 *     _exit     the same, and leave by _exit
 *     kill      the same, and SIGKILL itself
 *     fork      a child says its number, works until stdin ends and leaves by
 *               _exit; the parent waits for it and returns
 *     idle      say "ready" and wait until stdin ends
 *     tell      the same, in one of several threads that have allocated, and
 *               with what hz4_stats_text has, before "ready"
 *     classes   the same as exit, but stats_classes changes after the work
 *     closed    work, close stdin, stdout, stderr and all else, return
 *
 * Links no allocator: the library under test is preloaded.
 */
#include "e2e_common.h"

#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>

/* A hundred objects of every size range. */
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

static bool
input_ended(void)
{
	struct pollfd in = { .fd = 0, .events = POLLIN };
	char c;

	return poll(&in, 1, 0) > 0 && read(0, &c, 1) <= 0;
}

static void
work_until_input_ends(void)
{
	do {
		work();
		e2e_sleep(1);
	} while (!input_ended());
}

static void
say(const char *line)
{
	size_t n = strlen(line);

	e2e_need(write(1, line, n) == (ssize_t)n, "write");
}

static void
fork_and_work(void)
{
	char line[32];
	pid_t child;

	work();
	child = fork();
	e2e_need(child != -1, "fork");
	if (child == 0) {
		(void)snprintf(line, sizeof line, "%d\n", (int)getpid());
		say(line);
		work_until_input_ends();
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

static void *
work_and_wait(void *arg)
{
	void *volatile kept = e2e_malloc(12345);

	work();
	pthread_barrier_wait(arg);
	for (;;)
		pause();
	return kept;
}

/* A function of the library, which is preloaded. */
static void
find(const char *name, void *function)
{
	void *address = dlsym(RTLD_DEFAULT, name);

	e2e_need(address != NULL, "%s", name);
	memcpy(function, &address, sizeof address);
}

static void
change_classes(void)
{
	int (*get)(const char *, char *, size_t);
	int (*set)(const char *, const char *);
	char value[8];

	find("hz4_option_get", &get);
	find("hz4_option_set", &set);
	e2e_need(get("stats_classes", value, sizeof value) == 0 &&
			 set("stats_classes", *value == '0' ? "1" : "0") == 0,
		 "stats_classes");
}

/* Nothing is allocated after it was told. */
static void
tell(void)
{
	static char text[1 << 16];
	static pthread_barrier_t barrier;
	size_t (*stats_text)(char *, size_t);
	pthread_t thread;
	int i;

	find("hz4_stats_text", &stats_text);
	pthread_barrier_init(&barrier, NULL, 4);
	for (i = 0; i < 3; i++)
		e2e_need(pthread_create(&thread, NULL, work_and_wait,
					&barrier) == 0, "thread");
	pthread_barrier_wait(&barrier);
	stats_text(text, sizeof text);
	say(text);
}

static void
hold(bool idle, bool tells)
{
	char c;

	work();
	if (tells)
		tell();
	say("ready\n");
	if (!idle)
		work_until_input_ends();
	while (idle && read(0, &c, 1) > 0)
		;
}

int
main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "exit";
	int fd;

	if (argc > 2)
		e2e_need(chdir(argv[2]) == 0, "chdir to %s", argv[2]);
	if (strcmp(mode, "fork") == 0)
		fork_and_work();
	else if (strcmp(mode, "exit") == 0 || strcmp(mode, "closed") == 0 ||
		 strcmp(mode, "classes") == 0)
		work();
	else
		hold(strcmp(mode, "idle") == 0 || strcmp(mode, "tell") == 0,
		     strcmp(mode, "tell") == 0);
	if (strcmp(mode, "classes") == 0)
		change_classes();
	if (strcmp(mode, "_exit") == 0)
		_exit(0);
	if (strcmp(mode, "kill") == 0)
		kill(getpid(), SIGKILL);
	if (strcmp(mode, "closed") == 0)
		for (fd = 0; fd < 256; fd++)
			close(fd);
	return 0;
}
