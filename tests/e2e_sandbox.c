/*
 * Programs that lock themselves in after their first malloc: hz4 needs the
 * calls for memory from then on, futex, and sched_yield where several threads
 * allocate.  A filter kills what makes any other call (SIGSYS), for heaps of
 * four sizes and with each option at its least and its most, where that is
 * not the default.
 *
 * usage: e2e_sandbox [HEAP-MIB MODE], the latter as its own child.
 */
#include "e2e_seccomp.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum { LIMIT = 60, THREADS = 3, SLOTS = 64 };

extern char **environ;

enum mode { ALONE, THREADED, LATER, MODES };
static const char *const mode_names[] = { "alone", "threaded", "later" };

static const unsigned heaps[] = { 0, 1, 10, 100 };

/* --- what the program does once it is locked in ------------------------- */

static void *volatile kept[200000];
static unsigned kept_count;

/* Small and mid objects until there are so many bytes of them. */
static void
fill(size_t bytes, unsigned seed)
{
	for (size_t sum = 0; sum < bytes; seed++) {
		size_t n = 16 + seed * 61 % (seed % 8 == 0 ? 30000 : 1500);
		char *p = e2e_malloc(n);

		e2e_need(p != NULL && kept_count < COUNT(kept), "no memory");
		/* Their first OS page and their last byte are enough. */
		memset(p, 0xa5, n < 4096 ? n : 4096);
		p[n - 1] = 0x5a;
		kept[kept_count++] = p;
		sum += n;
	}
}

static void
drop_all(void)
{
	while (kept_count > 0)
		e2e_free(kept[--kept_count]);
}

/* Every way into the allocator, once; by any thread. */
static void
kinds(void)
{
	static const size_t sizes[] = { 0, 1, 100, 3000, 40000, 100000, 300000,
		3 << 20, 40 << 20 };
	void *p;

	for (unsigned i = 0; i < COUNT(sizes); i++) {
		size_t less = sizes[i] - sizes[i] / (sizes[i] < E2E_MIB ? 2 : 8);

		e2e_free(e2e_malloc(sizes[i]));
		e2e_free(e2e_calloc(1, sizes[i]));
		e2e_free(e2e_realloc(e2e_malloc(sizes[i]), sizes[i] * 2 + 1));
		e2e_free(e2e_realloc(e2e_malloc(sizes[i]), less + 1));
	}
	for (size_t align = 32; align <= 8 << 20; align *= 16)
		if (e2e_posix_memalign(&p, align, 5000) == 0)
			e2e_free(p);
	e2e_need(e2e_malloc(PTRDIFF_MAX) == NULL, "too much is granted");
	e2e_trim(0);
}

/* Until the system has no more (RLIMIT_AS). */
static void
exhaust(void)
{
	static void *all[4000];
	unsigned n = 0;

	while (n < COUNT(all) - 1000 &&
	    (all[n] = e2e_malloc(n % 16 == 0 ? 40 << 20 : 500000)) != NULL)
		n++;
	while (n < COUNT(all) && (all[n] = e2e_malloc(20000)) != NULL)
		n++;
	while (n > 0)
		e2e_free(all[--n]);
}

/*
 * Ordinary calls while free memory waits for its purge.  Of the calls that
 * are allowed here futex alone can sleep: a millisecond in between.
 */
static void
wait_for_purge(unsigned ms)
{
	static const struct {
		long seconds, nanoseconds;
	} nap = { 0, 1000000 };
	static int word;
	uint64_t end = e2e_now() + ms;

	while (e2e_now() < end) {
		e2e_ordinary_calls(1);
		syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &nap, NULL, 0);
	}
}

static void
work(unsigned purge_ms)
{
	fill(5 << 20, 1);
	drop_all();
	kinds();
	wait_for_purge(purge_ms);
}

/* --- threads and children ------------------------------------------------ */

static _Atomic unsigned started, done;
static _Atomic bool go;
static void *_Atomic slots[SLOTS];

/* Objects change hands. */
static void *
thread(void *arg)
{
	started++;
	while (!go)
		syscall(SYS_sched_yield);
	for (unsigned i = 0; i < 5000; i++)
		e2e_free(atomic_exchange(&slots[i * 7 % SLOTS],
		    e2e_malloc(16 + i * 61 % (i % 8 == 0 ? 30000 : 1500))));
	kinds();
	done++;
	/* To end, or to be waited for, is libc's and not allowed. */
	while (arg != NULL)
		syscall(SYS_sched_yield);
	return NULL;
}

static void
child(void)
{
	pid_t pid = fork();
	int status;

	e2e_need(pid >= 0, "no fork");
	if (pid == 0) {
		work(0);
		_exit(0);
	}
	e2e_need(waitpid(pid, &status, 0) == pid && status == 0,
	    "the child's wait status is %d", status);
}

static void
threads_and_children(void)
{
	pthread_t id[THREADS];

	child();
	go = true;
	for (unsigned i = 0; i < THREADS; i++)
		e2e_need(pthread_create(&id[i], NULL, thread, NULL) == 0,
		    "no thread");
	child();
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(id[i], NULL);
}

/* --- one program --------------------------------------------------------- */

static bool
lock_in(enum mode mode, bool clock)
{
	static const uint32_t each[] = { E2E_MEMORY_CALLS, SYS_write,
		SYS_exit_group };
	static const uint32_t threads[] = { SYS_sched_yield };
	/* libc's own, to start and end threads and children. */
	static const uint32_t starts[] = { SYS_sched_yield, SYS_clone,
#ifdef SYS_clone3
		SYS_clone3,
#endif
#ifdef SYS_rseq
		SYS_rseq,
#endif
		SYS_set_robust_list, SYS_rt_sigaction, SYS_rt_sigprocmask,
		SYS_gettid, SYS_exit, SYS_wait4 };
	uint32_t calls[E2E_CALLS];
	size_t n = COUNT(each);

	memcpy(calls, each, sizeof(each));
	if (mode == THREADED) {
		memcpy(calls + n, threads, sizeof(threads));
		n += COUNT(threads);
	} else if (mode == LATER) {
		memcpy(calls + n, starts, sizeof(starts));
		n += COUNT(starts);
	}
	if (clock) {
		memcpy(calls + n, e2e_clock_calls, sizeof(e2e_clock_calls));
		n += COUNT(e2e_clock_calls);
	}
	return e2e_allow(calls, n);
}

static void
leave_room(void)
{
	struct rlimit r = { e2e_vsize() + 600 * (size_t)E2E_MIB,
		RLIM_INFINITY };

	e2e_need(setrlimit(RLIMIT_AS, &r) == 0, "setrlimit");
}

static int
be_locked_in(unsigned mib, enum mode mode)
{
	bool clock = getenv("E2E_CLOCK") != NULL;
	unsigned purge_ms = (unsigned)e2e_env("E2E_PURGE", 0);
	pthread_t id;

	e2e_free(e2e_malloc(100));
	fill(mib * (size_t)E2E_MIB, 0);
	if (mode == ALONE)
		leave_room();
	for (unsigned i = 0; i < THREADS && mode == THREADED; i++)
		e2e_need(pthread_create(&id, NULL, thread, slots) == 0,
		    "no thread");
	while (mode == THREADED && started < THREADS)
		syscall(SYS_sched_yield);
	if (!lock_in(mode, clock))
		return E2E_SKIP;
	go = true;
	work(purge_ms);
	if (mode == ALONE)
		exhaust();
	while (mode == THREADED && done < THREADS)
		syscall(SYS_sched_yield);
	if (mode == LATER)
		threads_and_children();
	_exit(0);
}

/* --- all of them ----------------------------------------------------------- */

static unsigned failures;

static void
run(const char *options, unsigned mib, enum mode mode)
{
	char heap[16];
	char *argv[] = { (char *)"e2e_sandbox", heap,
		(char *)mode_names[mode], NULL };
	pid_t pid;
	int status;

	snprintf(heap, sizeof(heap), "%u", mib);
	setenv("HZ4_OPTIONS", options, 1);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		alarm(LIMIT);
		execve("/proc/self/exe", argv, environ);
		_exit(126);
	}
	status = e2e_reap(pid, (LIMIT + 10) * 1000);
	if (WIFEXITED(status) && WEXITSTATUS(status) == E2E_SKIP) {
		puts("no seccomp filters here");
		exit(E2E_SKIP);
	}
	if (status == 0)
		return;
	failures++;
	printf("HZ4_OPTIONS=%s, %u MiB, %s: wait status %x%s\n", options, mib,
	    mode_names[mode], (unsigned)status, WIFSIGNALED(status) &&
	    WTERMSIG(status) == SIGSYS ? " (a call that is not allowed)" : "");
}

/* Two of the heaps, in one mode after the other. */
static void
run_heaps(const char *name, size_t value, unsigned first)
{
	static unsigned turn;
	char text[100];

	snprintf(text, sizeof(text), "%s=%zu", name, value);
	for (unsigned i = first; i < COUNT(heaps); i += 2)
		run(text, heaps[i], (enum mode)(turn++ % MODES));
}

/* But for what the statistics want. */
enum { NUMBER = 1, POWER, PATH };
static const struct {
	const char *name;
	int kind;
	size_t value, least, most;
} rows[] = {
#define HZ4_OPTION(name, kind, value, least, most, text) \
	{ #name, kind, value, least, most },
#include "../src/option.def"
#undef HZ4_OPTION
};

/* The runs without options have had what is the default. */
static void
run_options(void)
{
	for (unsigned i = 0; i < COUNT(rows); i++) {
		if (strncmp(rows[i].name, "stats_", 6) == 0)
			continue;
		if (rows[i].least != rows[i].value)
			run_heaps(rows[i].name, rows[i].least, i % 2);
		if (rows[i].most != rows[i].value)
			run_heaps(rows[i].name, rows[i].most, 1 - i % 2);
	}
}

int
main(int argc, char **argv)
{
	if (argc == 3)
		for (int mode = 0; mode < MODES; mode++)
			if (strcmp(argv[2], mode_names[mode]) == 0)
				return be_locked_in((unsigned)atoi(argv[1]),
				    (enum mode)mode);
	if (e2e_emulated() || !e2e_is_hz4()) {
		puts("needs hz4, and a kernel with seccomp filters");
		return E2E_SKIP;
	}
	if (e2e_clock_is_a_call()) {
		puts("reading the clock is a system call here");
		setenv("E2E_CLOCK", "1", 1);
	}
	for (unsigned i = 0; i < COUNT(heaps); i++)
		for (int mode = 0; mode < MODES; mode++)
			run("", heaps[i], (enum mode)mode);
	run_options();
	/* A purge when its time has come, and caches that lie idle. */
	setenv("E2E_PURGE", "1200", 1);
	run("purge_delay=20", 10, ALONE);
	run("purge_delay=20,purge_lazy=1", 10, LATER);
	return failures > 0;
}
