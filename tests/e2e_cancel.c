/*
 * No call of the malloc family is a point of cancellation: a thread that was
 * told to end goes through all of them, slow paths and the files of the
 * statistics included, and ends at its own point behind them.
 *
 * Starts itself anew with the options that make files, which builds without
 * statistics pass over.
 */
#include "e2e_common.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
	SIZES = 6,
	TICKS_MS = 400,		/* longer than a child waits for its files */
	CANCELLED = 3,
};

static char directory[] = "/tmp/hz4-cancel.XXXXXX";
static FILE *stream;
static atomic_int went_through;

static void
call_all(size_t n)
{
	void *p[8];
	void *aligned = NULL;

	p[0] = e2e_malloc(n);
	p[1] = e2e_calloc(n, 3);
	p[2] = e2e_realloc(e2e_malloc(n), 2 * n);
	p[3] = e2e_reallocarray(NULL, n, 2);
	p[4] = e2e_aligned_alloc(64, n);
	p[5] = e2e_memalign(4096, n);
	p[6] = e2e_valloc(n);
	p[7] = e2e_pvalloc(n);
	e2e_need(e2e_posix_memalign(&aligned, 128, n) == 0, "posix_memalign");
	for (unsigned i = 0; i < 8; i++) {
		e2e_need(p[i] != NULL && e2e_usable(p[i]) >= n, "call %u", i);
		e2e_free(p[i]);
	}
	e2e_free(aligned);
	e2e_free(NULL);
	e2e_need(e2e_realloc(NULL, SIZE_MAX / 2 + 1) == NULL, "too much");
}

/* Some ticks, and many objects at once for the slow paths. */
static void
call_for_a_while(void)
{
	static const size_t sizes[SIZES] = { 1, 100, 3000, 40000, 300000,
		33 * (size_t)E2E_MIB };
	uint64_t end = e2e_now() + TICKS_MS;
	void *p[200];

	do {
		for (unsigned i = 0; i < SIZES; i++)
			call_all(sizes[i]);
		for (unsigned i = 0; i < 200; i++)
			p[i] = e2e_malloc(100 + 64 * (size_t)i);
		for (unsigned i = 0; i < 200; i++)
			e2e_free(p[i]);
	} while (e2e_now() < end);
}

static void
call_the_rest(void)
{
	(void)mallinfo2();
	(void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
	e2e_trim(0);
	malloc_stats();
	e2e_need(malloc_info(0, stream) == 0, "malloc_info");
}

static void *
be_cancelled(void *arg)
{
	pthread_cancel(pthread_self());
	call_for_a_while();
	call_the_rest();
	atomic_store(&went_through, 1);
	pthread_testcancel();
	return arg;
}

static void
in_a_thread(const char *where)
{
	void *result = NULL;
	pthread_t t;

	atomic_store(&went_through, 0);
	e2e_need(pthread_create(&t, NULL, be_cancelled, NULL) == 0, "thread");
	pthread_join(t, &result);
	e2e_need(atomic_load(&went_through), "%s: ended inside a call", where);
	e2e_need(result == PTHREAD_CANCELED, "%s: not told to end", where);
}

/* Its first ticks make the child's own files. */
static void
in_a_child(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		in_a_thread("child");
		/* Not _exit, which would leave its page behind. */
		exit(CANCELLED);
	}
	status = e2e_reap(pid, 60000);
	e2e_need(WIFEXITED(status) && WEXITSTATUS(status) == CANCELLED,
	    "child: wait status %d", status);
}

static void
start_anew(char **argv)
{
	char options[200];

	if (mkdtemp(directory) == NULL)
		exit(E2E_SKIP);
	snprintf(options, sizeof(options),
	    "stats_live=1,stats_file=%s/stats.%%p", directory);
	setenv("HZ4_OPTIONS", options, 1);
	setenv("HZ4_CANCEL_DIRECTORY", directory, 1);
	execv("/proc/self/exe", argv);
	exit(E2E_SKIP);
}

static void
remove_all(const char *name)
{
	char command[300];

	snprintf(command, sizeof(command), "rm -rf '%s'", name);
	e2e_need(system(command) == 0, "rm");
}

int
main(int argc, char **argv)
{
	const char *name = getenv("HZ4_CANCEL_DIRECTORY");

	(void)argc;
	if (name == NULL)
		start_anew(argv);
	/* Unbuffered, so that each line is a write. */
	stream = fopen("/dev/null", "w");
	e2e_need(stream != NULL, "/dev/null");
	setvbuf(stream, NULL, _IONBF, 0);
	in_a_thread("parent");
	in_a_child();
	remove_all(name);
	return 0;
}
