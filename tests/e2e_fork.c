/*
 * fork in every position that has hung an allocator: from threads while
 * others allocate, in and around atfork handlers that allocate, from a
 * signal handler that interrupted malloc, in the cycle of locks that stdio
 * closes, from child to child to child.  Every child allocates, and frees
 * what other threads of its parent had allocated.
 *
 * A hang ends in SIGALRM in the child or in Check's time limit here.
 *
 * How many forks there are is what make check has time for; make stress
 * (HZ4_TEST_SCALE) makes more of them.
 */
#include "e2e_check.h"

#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/time.h>

enum {
	TABLE = 512,		/* objects that anyone may take and free */
	NOISE = 3,		/* threads that allocate all the time */
	CHILD_LIMIT = 30,	/* seconds that a child may take */
};

extern char **environ;

static _Atomic(void *) table[TABLE];
static atomic_bool stop;
static pthread_t noise[NOISE];

/* --- allocation in the background --------------------------------------- */

static size_t
draw_size(struct e2e_rng *r)
{
	size_t dice = e2e_below(r, 100);

	return dice < 70 ? 1 + e2e_below(r, 2048) :
	    dice < 97 ? e2e_log_size(r, 11, 16) : e2e_log_size(r, 16, 20);
}

/* A block whose first word says how long it is and the last byte too. */
static void *
make(struct e2e_rng *r)
{
	size_t n = draw_size(r) + sizeof(n);
	unsigned char *p = e2e_malloc(n);

	e2e_need(p != NULL, "no memory for %zu bytes", n);
	memcpy(p, &n, sizeof(n));
	p[n - 1] = n == sizeof(n) ? p[n - 1] : (unsigned char)(n * 7);
	return p;
}

static void
drop(void *block)
{
	unsigned char *p = block;
	size_t n;

	if (p == NULL)
		return;
	memcpy(&n, p, sizeof(n));
	e2e_need(n >= sizeof(n) && n < 4 * E2E_MIB &&
	    (n == sizeof(n) || p[n - 1] == (unsigned char)(n * 7)),
	    "block %p is broken", block);
	memset(p, 0, sizeof(n));
	e2e_free(p);
}

/* Exchange blocks with the table, so that most frees are of others' blocks. */
static void
shuffle(struct e2e_rng *r, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		size_t at = e2e_below(r, TABLE);

		drop(atomic_exchange(&table[at], make(r)));
		if (i % 100 == 50) {
			void *p = e2e_realloc(make(r), 5000);

			e2e_free(p);
		}
	}
}

static void *
make_noise(void *arg)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), (uintptr_t)arg);

	while (!atomic_load(&stop))
		shuffle(&r, 64);
	return NULL;
}

static void
start_noise(unsigned count)
{
	atomic_store(&stop, false);
	for (uintptr_t i = 0; i < count; i++)
		e2e_need(pthread_create(&noise[i], NULL, make_noise,
		    (void *)i) == 0, "no thread");
}

static void
end_noise(unsigned count)
{
	atomic_store(&stop, true);
	for (unsigned i = 0; i < count; i++)
		pthread_join(noise[i], NULL);
}

static void
clear_table(void)
{
	for (unsigned i = 0; i < TABLE; i++)
		drop(atomic_exchange(&table[i], NULL));
}

/* --- what a child does -------------------------------------------------- */

static void
use_memory(uint64_t stream)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), stream);
	void *p;

	shuffle(&r, 600);
	clear_table();
	shuffle(&r, 100);
	clear_table();
	p = e2e_calloc(3, E2E_MIB);
	e2e_need(p != NULL && e2e_nonzero(p, 3 * E2E_MIB) == E2E_SAME,
	    "calloc in the child");
	e2e_free(p);
	(void)mallinfo2();
	e2e_trim(0);
}

static void *
use_memory_in_a_thread(void *arg)
{
	use_memory((uintptr_t)arg);
	return NULL;
}

/* Wait for a child that must end with status 0. */
static void
child_is_well(pid_t pid)
{
	int status;

	e2e_need(pid > 0, "fork: %s", strerror(errno));
	status = e2e_reap(pid, (CHILD_LIMIT + 10) * 1000);
	e2e_need(status == 0, "a child's wait status is %d", status);
}

/* The whole life of a child; `n` chooses how it goes on and how it ends. */
static void
be_a_child(uint64_t n)
{
	alarm(CHILD_LIMIT);
	use_memory(n);
	if (n % 3 == 0) {
		pid_t pid = fork();

		if (pid == 0) {
			alarm(CHILD_LIMIT);
			use_memory(n + 1);
			_exit(0);
		}
		child_is_well(pid);
	}
	if (n % 4 == 1) {
		pthread_t t;

		e2e_need(pthread_create(&t, NULL, use_memory_in_a_thread,
		    (void *)(uintptr_t)n) == 0, "no thread in the child");
		use_memory(n + 2);
		pthread_join(t, NULL);
	}
	if (n % 2 == 0)
		_exit(0);
	exit(0);
}

static void
fork_times(unsigned count)
{
	fflush(NULL);
	for (unsigned i = 0; i < count; i++) {
		struct e2e_rng r = e2e_rng_start(e2e_seed(), 1000 + i);
		pid_t pid;

		shuffle(&r, 20);
		pid = fork();
		if (pid == 0)
			be_a_child(i);
		child_is_well(pid);
	}
}

/* --- from threads ------------------------------------------------------- */

START_TEST(fork_while_threads_allocate)
{
	start_noise(NOISE);
	fork_times(12 * e2e_scale());
	end_noise(NOISE);
	clear_table();
}
END_TEST

static void *
fork_in_a_thread(void *arg)
{
	(void)arg;
	fork_times(4 * e2e_scale());
	return NULL;
}

START_TEST(fork_from_several_threads)
{
	pthread_t t[3];

	start_noise(2);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL,
		    fork_in_a_thread, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	end_noise(2);
	clear_table();
}
END_TEST

/* The parent's own state is untouched by what its children did. */
START_TEST(parent_goes_on_after_forks)
{
	enum { BLOCKS = 800 };
	static unsigned char *p[BLOCKS];
	static size_t n[BLOCKS];
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 7);

	for (unsigned i = 0; i < BLOCKS; i++) {
		n[i] = draw_size(&r);
		p[i] = e2e_malloc(n[i]);
		ck_assert_ptr_nonnull(p[i]);
		e2e_fill(p[i], n[i], i);
	}
	start_noise(2);
	for (unsigned round = 0; round < 6 * e2e_scale(); round++) {
		pid_t pid = fork();

		if (pid == 0) {
			alarm(CHILD_LIMIT);
			for (unsigned i = 0; i < BLOCKS; i++) {
				e2e_need(e2e_differs(p[i], n[i], i) ==
				    E2E_SAME, "block %u in the child", i);
				e2e_free(p[i]);
			}
			use_memory(round);
			_exit(0);
		}
		child_is_well(pid);
	}
	end_noise(2);
	for (unsigned i = 0; i < BLOCKS; i++) {
		ck_assert_uint_eq(e2e_differs(p[i], n[i], i), E2E_SAME);
		e2e_free(p[i]);
	}
	clear_table();
}
END_TEST

/* --- atfork handlers ---------------------------------------------------- */

static atomic_bool early_on;
static atomic_bool late_on;
static atomic_uint handler_runs;
static void *carried;		/* allocated by prepare, freed by the others */

static void
allocate_in_a_handler(void)
{
	void *p[40];

	atomic_fetch_add(&handler_runs, 1);
	for (unsigned i = 0; i < 40; i++)
		p[i] = e2e_malloc(1 + i * i * 97);
	for (unsigned i = 0; i < 40; i++) {
		e2e_need(p[i] != NULL, "no memory in a handler");
		e2e_free(i % 4 == 0 ? e2e_realloc(p[i], 100 + i) : p[i]);
	}
}

static void
early(void)
{
	if (atomic_load(&early_on))
		allocate_in_a_handler();
}

static void
late_prepare(void)
{
	if (!atomic_load(&late_on))
		return;
	allocate_in_a_handler();
	carried = e2e_malloc(3000);
	e2e_need(carried != NULL, "no memory in prepare");
}

static void
late_after(void)
{
	if (!atomic_load(&late_on))
		return;
	e2e_free(carried);
	allocate_in_a_handler();
}

/*
 * Registered before the first malloc of the process, so before whatever the
 * allocator registers: its child handler runs before the allocator's, its
 * prepare handler after it.
 */
static void
register_early(int argc, char **argv, char **env)
{
	(void)argc;
	(void)argv;
	(void)env;
	pthread_atfork(early, early, early);
}

__attribute__((section(".preinit_array"), used))
static void (*const preinit)(int, char **, char **) = register_early;

static void
fork_with_handlers(void)
{
	const unsigned forks = 7 * e2e_scale();

	start_noise(3);
	fork_times(forks);
	end_noise(3);
	/* Before and after each, in the parent. */
	ck_assert_uint_ge(atomic_load(&handler_runs), 2 * forks);
	clear_table();
}

/* Registered late, as a library does that is loaded by the program. */
START_TEST(handlers_may_allocate)
{
	pthread_atfork(late_prepare, late_after, late_after);
	atomic_store(&late_on, true);
	fork_with_handlers();
}
END_TEST

START_TEST(earliest_handlers_may_allocate)
{
	atomic_store(&early_on, true);
	fork_with_handlers();
}
END_TEST

/* So many handlers that libc's list of them has to grow. */
START_TEST(many_handlers)
{
	atomic_store(&late_on, false);
	for (unsigned i = 0; i < 200; i++)
		ck_assert_int_eq(pthread_atfork(late_prepare, late_after,
		    late_after), 0);
	start_noise(2);
	fork_times(8 * e2e_scale());
	end_noise(2);
	clear_table();
}
END_TEST

/* --- signal handlers ---------------------------------------------------- */

static volatile sig_atomic_t handler_forks;
static volatile sig_atomic_t handler_fails;
static volatile sig_atomic_t child_goes_on;
static volatile sig_atomic_t is_child;

/*
 * One shot: the handler winds the timer up again when it is done.  An
 * interval that is shorter than the handler would leave the program no time
 * to get on.
 */
static void
timer(unsigned us)
{
	struct itimerval t = { { 0, 0 }, { 0, (suseconds_t)us } };

	setitimer(ITIMER_REAL, &t, NULL);
}

/*
 * A program of one thread forks wherever the timer found it, often inside
 * malloc.  The child ends at once, or returns into what was interrupted.
 */
static void
fork_in_the_handler(int number)
{
	int saved = errno;
	pid_t pid = fork();
	int status = 0;

	(void)number;
	if (pid == 0 && child_goes_on) {
		is_child = 1;
		errno = saved;
		return;
	}
	if (pid == 0)
		_exit(0);
	if (pid == -1 || (!child_goes_on &&
	    (waitpid(pid, &status, 0) != pid || status != 0)))
		handler_fails = handler_fails + 1;
	if (child_goes_on)
		handler_fails = handler_fails + (e2e_reap(pid, 20000) != 0);
	handler_forks = handler_forks + 1;
	timer(1500);
	errno = saved;
}

static void
interrupted_by_forks(unsigned forks)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 11);
	struct sigaction action = { .sa_handler = fork_in_the_handler,
		.sa_flags = SA_RESTART };
	uint64_t end = e2e_now() + 15000 * e2e_scale();

	sigaction(SIGALRM, &action, NULL);
	timer(1500);
	while ((unsigned)handler_forks < forks && e2e_now() < end) {
		shuffle(&r, 200);
		if (e2e_below(&r, 50) == 0)
			clear_table();
		if (is_child) {
			timer(0);
			shuffle(&r, 500);
			clear_table();
			_exit(0);
		}
	}
	timer(0);
	/* Forked in the very last moment? */
	if (is_child)
		_exit(0);
	ck_assert_int_eq(handler_fails, 0);
	ck_assert_int_gt(handler_forks, 10);
	shuffle(&r, 2000);
	clear_table();
}

START_TEST(fork_from_a_signal_handler)
{
	interrupted_by_forks(200 * e2e_scale());
}
END_TEST

START_TEST(fork_from_a_signal_handler_that_returns)
{
	child_goes_on = 1;
	interrupted_by_forks(60 * e2e_scale());
}
END_TEST

/* --- stdio -------------------------------------------------------------- */

static void *
read_lines(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		FILE *f = fopen("/proc/self/status", "r");
		char *line = NULL;
		size_t size = 0;

		if (f == NULL)
			continue;
		while (getline(&line, &size, f) > 0)
			if (size > 100) {
				/* Make the next one allocate again. */
				e2e_free(line);
				line = NULL;
				size = 0;
			}
		e2e_free(line);
		fclose(f);
	}
	return NULL;
}

static void *
flush_all(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop))
		fflush(NULL);
	return NULL;
}

/*
 * fork waits for the list of files, fflush(NULL) has that and waits for one
 * file, getline has the file and calls malloc: were fork to hold malloc's
 * locks, none would ever get on.
 */
START_TEST(stdio_closes_no_cycle)
{
	pthread_t t[4];

	pthread_atfork(late_prepare, late_after, late_after);
	atomic_store(&late_on, true);
	atomic_store(&stop, false);
	ck_assert_int_eq(pthread_create(&t[0], NULL, read_lines, NULL), 0);
	ck_assert_int_eq(pthread_create(&t[1], NULL, read_lines, NULL), 0);
	ck_assert_int_eq(pthread_create(&t[2], NULL, flush_all, NULL), 0);
	ck_assert_int_eq(pthread_create(&t[3], NULL, make_noise,
	    (void *)9), 0);
	fork_times(12 * e2e_scale());
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	clear_table();
}
END_TEST

/* --- generations -------------------------------------------------------- */

/*
 * Every generation starts threads and forks while they allocate.  The child
 * has what lies in their caches; what was on its way may be lost.
 */
static void
generations(unsigned count)
{
	size_t start = e2e_rss();
	size_t grown;

	for (unsigned i = 0; i < count; i++) {
		pid_t pid;

		start_noise(3);
		e2e_sleep(2);
		pid = fork();
		if (pid != 0) {
			end_noise(3);
			child_is_well(pid);
			_exit(0);
		}
		alarm(CHILD_LIMIT);
		clear_table();
	}
	/* What is free and has not been purged yet is not lost. */
	e2e_trim(0);
	grown = e2e_minus(e2e_rss(), start);
	e2e_need(grown < 32 * (size_t)E2E_MIB, "%u generations grew by %zu KiB",
	    count, grown / E2E_KIB);
	_exit(0);
}

START_TEST(a_line_of_generations)
{
	pid_t pid = fork();

	if (pid == 0)
		generations(30 * e2e_scale());
	child_is_well(pid);
}
END_TEST

/* The other ways to start a program, while threads allocate. */
START_TEST(spawn_and_system)
{
	char name[] = "true";
	char *argv[] = { name, NULL };

	start_noise(NOISE);
	for (unsigned i = 0; i < 15 * e2e_scale(); i++) {
		pid_t pid;

		ck_assert_int_eq(posix_spawnp(&pid, name, NULL, NULL, argv,
		    environ), 0);
		child_is_well(pid);
		ck_assert_int_eq(system("true"), 0);
	}
	end_noise(NOISE);
	clear_table();
}
END_TEST

/* ------------------------------------------------------------------------ */

static void
add(TCase *t)
{
	/*
	 * Forks of a process with threads: qemu-user 7.2 fails assertions
	 * of its own in the child.
	 */
	if (!e2e_emulated()) {
		tcase_add_test(t, fork_while_threads_allocate);
		tcase_add_test(t, fork_from_several_threads);
		tcase_add_test(t, handlers_may_allocate);
		tcase_add_test(t, earliest_handlers_may_allocate);
		tcase_add_test(t, many_handlers);
		tcase_add_test(t, stdio_closes_no_cycle);
		tcase_add_test(t, a_line_of_generations);
	}
	tcase_add_test(t, parent_goes_on_after_forks);
	tcase_add_test(t, fork_from_a_signal_handler);
	tcase_add_test(t, fork_from_a_signal_handler_that_returns);
	tcase_add_test(t, spawn_and_system);
}

int
main(void)
{
	return e2e_main("fork", 120 * e2e_scale(), add);
}
