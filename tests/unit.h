/*
 * unit.h - what the Check programs of the modules share: the runner, a
 * check that is cheap in long loops, random numbers, deaths that are
 * expected, threads and children.
 *
 * Each test runs in a process of its own and finds every module as it is
 * at the start of a program.  Check itself runs on libc's malloc.
 */
#ifndef HZ4_UNIT_H
#define HZ4_UNIT_H

#include "lock.h"
#include "only.h"
#include "os.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UNIT_UNUSED __attribute__((unused))

enum { UNIT_LIMIT = 120, UNIT_THREADS_MAX = 16 };

/*
 * ck_assert writes a record each time it holds: too slow for a loop, and it
 * takes a lock that the child of a thread's fork could find held.
 */
#define unit_need(cond, ...) \
	do { \
		char unit_why[256]; \
\
		if (hz4_unlikely(!(cond))) { \
			snprintf(unit_why, sizeof unit_why, __VA_ARGS__); \
			ck_abort_msg("%s: %s", #cond, unit_why); \
		} \
	} while (0)

/* The kernel's clocks, for a test that stands in place of libc's call. */
#if defined(SYS_clock_gettime64) && defined(_TIME_BITS) && _TIME_BITS == 64
#define UNIT_CLOCK_GETTIME SYS_clock_gettime64
#else
#define UNIT_CLOCK_GETTIME SYS_clock_gettime
#endif

/*
 * ThreadSanitizer loses track of the threads in the child of a process that
 * had some, and stops it ("dup thread with used id") when it starts one.
 * A test that needs that ends here in a build with it.
 */
#if defined(__SANITIZE_THREAD__) || HZ4_HAS_FEATURE(thread_sanitizer)
#define UNIT_THREAD_SANITIZER 1
#else
#define UNIT_THREAD_SANITIZER 0
#endif

#define unit_skip_threads_in_child() \
	do { \
		if (UNIT_THREAD_SANITIZER) { \
			printf("%s: skipped: ThreadSanitizer cannot follow " \
			       "threads of a forked child\n", __func__); \
			return; \
		} \
	} while (0)

/*
 * The OS page of this run: what HZ4_TEST_OS_PAGE pretends that it is, else
 * the kernel's.
 */
UNIT_UNUSED static size_t
unit_os_page(void)
{
	const char *page = getenv("HZ4_TEST_OS_PAGE");

	return page != NULL ? (size_t)strtoul(page, NULL, 10) :
			      (size_t)sysconf(_SC_PAGESIZE);
}

/* For tests of what lies below the start of the process. */
UNIT_UNUSED static void
unit_os_init(void)
{
	hz4_os_init();
	hz4_os_pretend_page(unit_os_page());
}

/* The main of every test: `add` enters the tests into the only case. */
UNIT_UNUSED static int
unit_main(const char *name, void (*add)(TCase *t))
{
	Suite *s = suite_create(name);
	TCase *t = tcase_create(name);
	SRunner *r = srunner_create(s);
	char option[32];
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, UNIT_LIMIT);
	add(t);
	/* Without fork the second test would find the first one's state. */
	srunner_set_fork_status(r, CK_FORK);
	snprintf(option, sizeof option, "os_page=%zu", unit_os_page());
	if (getenv("HZ4_TEST_OS_PAGE") != NULL)
		setenv("HZ4_OPTIONS", option, 1);
	else
		unsetenv("HZ4_OPTIONS");
	/* Threads yield where they may disturb one another (lock.h). */
	if (getenv("HZ4_TEST_CHAOS") != NULL)
		hz4_poke(&hz4_chaos_one_in,
			 (unsigned)atoi(getenv("HZ4_TEST_CHAOS")));
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/*
 * Set where an emulator of other processors runs the program: what that
 * cannot do is left out, with the reason beside it.
 */
UNIT_UNUSED static bool
unit_emulated(void)
{
	return getenv("HZ4_TEST_EMULATED") != NULL;
}

/* The next number of a stream; any seed but 0 (xorshift64*). */
UNIT_UNUSED static uint64_t
unit_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

UNIT_UNUSED static size_t
unit_below(uint64_t *state, size_t n)
{
	return (size_t)(unit_random(state) % n);
}

/* Exchange every element with another at random. */
UNIT_UNUSED static void
unit_shuffle(uint64_t *state, void **list, size_t n)
{
	size_t i, k;

	for (i = n; i > 1; i--) {
		void *held = list[i - 1];

		k = unit_below(state, i);
		list[i - 1] = list[k];
		list[k] = held;
	}
}

UNIT_UNUSED static bool
unit_all(const void *p, size_t n, unsigned char byte)
{
	const unsigned char *b = p;

	return n == 0 || (b[0] == byte && memcmp(b, b + 1, n - 1) == 0);
}

UNIT_UNUSED static void
unit_sleep(unsigned ms)
{
	struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

	while (nanosleep(&t, &t) == -1 && errno == EINTR)
		;
}

/*
 * In a process of 32 bits there may be room for sizes just below PTRDIFF_MAX,
 * where one of 64 bits can have none: leave it 256 MiB of address space.
 */
UNIT_UNUSED static void
unit_narrow(void)
{
	struct rlimit r;
	size_t pages = 0;
	FILE *f;

	if (SIZE_MAX > UINT32_MAX)
		return;
	f = fopen("/proc/self/statm", "r");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fscanf(f, "%zu", &pages), 1);
	fclose(f);
	r.rlim_cur = r.rlim_max = pages * (size_t)sysconf(_SC_PAGESIZE) +
				  ((size_t)256 << 20);
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &r), 0);
}

/* How a child ended, and what it said on stderr. */
struct unit_end {
	int status;
	unsigned writes; /* write calls, none longer than a page */
	size_t length;
	char text[4096];
};

/*
 * Run `go` in a child.  The pipe keeps the borders of writes, so that they
 * can be counted.
 */
UNIT_UNUSED static void
unit_child(struct unit_end *end, void (*go)(void *arg), void *arg)
{
	/* Less than any core; at 0 qemu-user adds a line of its own. */
	struct rlimit no_core = { 2, 2 };
	int ends[2];
	ssize_t n;
	pid_t pid;

	ck_assert_int_eq(pipe2(ends, O_DIRECT), 0);
	pid = fork();
	/* Not Check's: another thread may have its lock at a thread's fork. */
	unit_need(pid >= 0, "errno %d", errno);
	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &no_core);
		dup2(ends[1], STDERR_FILENO);
		close(ends[0]);
		close(ends[1]);
		alarm(UNIT_LIMIT / 2);
		go(arg);
		_exit(0);
	}
	close(ends[1]);
	memset(end, 0, sizeof *end);
	while ((n = read(ends[0], end->text + end->length,
			 sizeof end->text - 1 - end->length)) > 0) {
		end->length += (size_t)n;
		end->writes++;
	}
	close(ends[0]);
	ck_assert_int_eq(waitpid(pid, &end->status, 0), pid);
}

/* `go` must end in SIGABRT with exactly this line on stderr. */
UNIT_UNUSED static void
unit_fatal(void (*go)(void *arg), void *arg, const char *line)
{
	struct unit_end end;

	unit_child(&end, go, arg);
	ck_assert_str_eq(end.text, line);
	ck_assert(WIFSIGNALED(end.status));
	ck_assert_int_eq(WTERMSIG(end.status), SIGABRT);
	ck_assert_uint_eq(end.writes, 1);
}

/* The same where only the start of the line is promised. */
UNIT_UNUSED static void
unit_fatal_start(void (*go)(void *arg), void *arg, const char *start)
{
	struct unit_end end;
	const char *newline;

	unit_child(&end, go, arg);
	ck_assert_msg(WIFSIGNALED(end.status) &&
			      WTERMSIG(end.status) == SIGABRT,
		      "wait status %x, stderr \"%s\"", (unsigned)end.status,
		      end.text);
	newline = strchr(end.text, '\n');
	ck_assert_msg(strncmp(end.text, start, strlen(start)) == 0 &&
			      newline == end.text + end.length - 1,
		      "stderr is \"%s\", not \"%s...\"", end.text, start);
}

/* A child in which `go` must run to its end, with nothing on stderr. */
UNIT_UNUSED static void
unit_survives(void (*go)(void *arg), void *arg)
{
	struct unit_end end;

	unit_child(&end, go, arg);
	ck_assert_msg(end.status == 0, "wait status %x, stderr \"%s\"",
		      (unsigned)end.status, end.text);
	ck_assert_str_eq(end.text, "");
}

struct unit_access {
	void (*go)(void *p);
	void *p;
};

/* Sanitizers would report a fault that a test wants. */
UNIT_UNUSED static void
unit_access_plainly(void *arg)
{
	struct unit_access *a = arg;

	signal(SIGSEGV, SIG_DFL);
	a->go(a->p);
}

/* Memory that `go` must not be able to touch. */
UNIT_UNUSED static void
unit_no_access(void (*go)(void *p), void *p)
{
	struct unit_access a = { go, p };
	struct unit_end end;

	unit_child(&end, unit_access_plainly, &a);
	ck_assert_msg(WIFSIGNALED(end.status) &&
			      WTERMSIG(end.status) == SIGSEGV,
		      "wait status %x", (unsigned)end.status);
}

/* In a debug build an assertion stops `go`; others do not look. */
UNIT_UNUSED static void
unit_trapped(void (*go)(void *arg), void *arg)
{
	struct unit_end end;

	if (!HZ4_DEBUG_BOX)
		return;
	unit_child(&end, go, arg);
	ck_assert(WIFSIGNALED(end.status));
}

/* For a child: Check's own failures belong to the test's process. */
#define unit_child_need(cond) \
	do { \
		if (!(cond)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, \
				#cond); \
			_exit(1); \
		} \
	} while (0)

/* Run `go` in `n` threads, each with its number, and wait for them. */
UNIT_UNUSED static void
unit_threads(unsigned n, void *(*go)(void *number))
{
	pthread_t id[UNIT_THREADS_MAX];
	uintptr_t i;

	for (i = 0; i < n; i++)
		ck_assert_int_eq(pthread_create(&id[i], NULL, go, (void *)i),
				 0);
	for (i = 0; i < n; i++)
		ck_assert_int_eq(pthread_join(id[i], NULL), 0);
}

/* The same in one thread with any argument. */
UNIT_UNUSED static void
unit_thread(void *(*go)(void *arg), void *arg)
{
	pthread_t id;

	ck_assert_int_eq(pthread_create(&id, NULL, go, arg), 0);
	ck_assert_int_eq(pthread_join(id, NULL), 0);
}

/* What threads do over and over until the test stops them. */
struct unit_noise {
	void (*work)(uint64_t *seed);
	uint64_t seed; /* each thread's own */
	_Atomic bool started;
	_Atomic bool *stop;
};

UNIT_UNUSED static void *
unit_make_noise(void *arg)
{
	struct unit_noise *n = arg;

	do {
		n->work(&n->seed);
		n->started = true;
	} while (!*n->stop);
	return NULL;
}

/*
 * While threads are at work, `forks` children must survive `child`.  No
 * thread is still being started: AddressSanitizer takes locks of its own
 * there, which a child would find held for ever.
 */
UNIT_UNUSED static void
unit_fork_under(void (*work)(uint64_t *seed), unsigned forks,
		void (*child)(void *arg), void *arg)
{
	enum { NOISY = 3 };
	struct unit_noise noise[NOISY];
	_Atomic bool stop = false;
	pthread_t id[NOISY];
	unsigned i;

	for (i = 0; i < NOISY; i++) {
		noise[i] = (struct unit_noise){ work, 1 + i, false, &stop };
		ck_assert_int_eq(pthread_create(&id[i], NULL, unit_make_noise,
						&noise[i]),
				 0);
	}
	for (i = 0; i < NOISY; i++)
		while (!noise[i].started)
			unit_sleep(1);
	for (i = 0; i < forks; i++)
		unit_survives(child, arg);
	stop = true;
	for (i = 0; i < NOISY; i++)
		ck_assert_int_eq(pthread_join(id[i], NULL), 0);
}

/* Objects as hz4_transfer_take lists them, and the lowest first. */
UNIT_UNUSED static void
unit_turn(void **objects, unsigned n)
{
	void *swap;
	unsigned i;

	for (i = 0; i < n / 2; i++) {
		swap = objects[i];
		objects[i] = objects[n - 1 - i];
		objects[n - 1 - i] = swap;
	}
}

#endif
