/*
 * Every way to make a child, from threads that malloc knows and from such as
 * have never called it, with and without handlers that allocate, while others
 * allocate in all size ranges.  The child allocates at once, or starts threads that
 * do so first, or has children itself; objects of parent and child keep what
 * was written to them.
 *
 * A child that hangs ends in SIGALRM, and this program in Check's time limit.
 */
#include "e2e_check.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>

enum {
	NOISE = 3,		/* threads that allocate all the time */
	ROUNDS = 3,		/* children of each kind */
	BLOCKS = 48,
	CHILD_LIMIT = 30,	/* seconds that a child may take */
};

/* glibc 2.34 and later: fork without handlers. */
extern pid_t _Fork(void) __attribute__((weak));

/* --- allocating ---------------------------------------------------------- */

struct block {
	unsigned char *at;
	size_t size;
};

/* Classes of all size ranges, runs of pages, and now and then a mapping. */
static size_t
draw_size(struct e2e_rng *r)
{
	size_t dice = e2e_below(r, 100);

	if (dice < 50)
		return 1 + e2e_below(r, 2048);
	if (dice < 75)
		return e2e_log_size(r, 11, 16);
	if (dice < 90)
		return e2e_log_size(r, 16, 18);
	return dice < 99 ? e2e_log_size(r, 18, 21) : 33 * (size_t)E2E_MIB;
}

/* Both ends are written: large ones would take too long. */
static size_t
marked_bytes(const struct block *b)
{
	return b->size < 64 ? b->size : 64;
}

static void
make(struct block *b, struct e2e_rng *r)
{
	size_t n;

	b->size = draw_size(r);
	b->at = e2e_malloc(b->size);
	e2e_need(b->at != NULL, "no memory for %zu bytes", b->size);
	n = marked_bytes(b);
	e2e_fill(b->at, n, (uintptr_t)b);
	e2e_fill(b->at + b->size - n, n, (uintptr_t)b);
}

static void
drop(struct block *b)
{
	size_t n = marked_bytes(b);

	if (b->at == NULL)
		return;
	/* The ends of a short one overlap: what came last is whole. */
	e2e_need(e2e_differs(b->at + b->size - n, n, (uintptr_t)b) ==
	    E2E_SAME, "the end of %zu bytes at %p", b->size, (void *)b->at);
	e2e_need(b->size < 128 || e2e_differs(b->at, n, (uintptr_t)b) ==
	    E2E_SAME, "the start of %zu bytes at %p", b->size, (void *)b->at);
	e2e_free(b->at);
	b->at = NULL;
}

/* Fill a place and clear another; in the end all are empty. */
static void
use_memory(uint64_t stream, unsigned times)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), stream);
	struct block own[BLOCKS];

	memset(own, 0, sizeof(own));
	for (unsigned i = 0; i < times; i++) {
		struct block *b = &own[e2e_below(&r, BLOCKS)];

		drop(b);
		make(b, &r);
		if (i % 64 == 63)
			sched_yield();
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		drop(&own[i]);
}

static atomic_bool stop;
static pthread_t noise[NOISE];
static atomic_uint turns;	/* of all noise */

static volatile sig_atomic_t is_child;	/* one that a handler has made */

/* Whole pages over and over: the lock of these is hardly ever free. */
static void
use_pages(unsigned times)
{
	void *p[8];

	while (times-- > 0) {
		for (unsigned i = 0; i < 8; i++)
			p[i] = e2e_malloc(300000 + 70000 * i);
		for (unsigned i = 0; i < 8; i++)
			e2e_free(p[i]);
	}
}

static void *
make_noise(void *arg)
{
	uint64_t stream = 1000 * ((uintptr_t)arg + 1);

	while (!atomic_load(&stop)) {
		if ((uintptr_t)arg > 0)
			use_pages(50);
		use_memory(stream++, (uintptr_t)arg > 0 ? 20 : 200);
		atomic_fetch_add(&turns, 1);
		if (is_child) {
			use_memory(stream, 200);
			_exit(0);
		}
	}
	return NULL;
}

static void
start_noise(void)
{
	atomic_store(&stop, false);
	for (uintptr_t i = 0; i < NOISE; i++)
		e2e_need(pthread_create(&noise[i], NULL, make_noise,
		    (void *)i) == 0, "no thread");
	while (atomic_load(&turns) < NOISE)
		e2e_sleep(1);
}

static void
end_noise(void)
{
	atomic_store(&stop, true);
	for (unsigned i = 0; i < NOISE; i++)
		pthread_join(noise[i], NULL);
}

/* --- children ------------------------------------------------------------ */

enum way { FORK, FORK_NO_HANDLERS, CLONE, WAYS };

static pid_t
make_child(enum way way)
{
	if (way == FORK)
		return fork();
	if (way == FORK_NO_HANDLERS && _Fork != NULL)
		return _Fork();
	return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

enum mode { AT_ONCE, THREADS_FIRST, CHILDREN_FIRST, MODES };

static struct block before[BLOCKS];	/* the parent's, freed by children */
static bool early_thread_only;

static void
drop_blocks(void)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		drop(&before[i]);
}

static void
child_is_well(pid_t pid, const char *what, unsigned n)
{
	int status;

	e2e_need(pid > 0, "%s: %s", what, strerror(errno));
	status = e2e_reap(pid, (CHILD_LIMIT + 10) * 1000);
	e2e_need(status == 0, "%s %u: wait status %d", what, n, status);
}

static void *
use_in_a_thread(void *arg)
{
	use_memory((uintptr_t)arg, 150);
	return NULL;
}

/* New threads come by before the one that forked does, then with it. */
static void
use_with_threads(void)
{
	pthread_t t[2];

	for (uintptr_t i = 0; i < 2; i++)
		e2e_need(pthread_create(&t[i], NULL, use_in_a_thread,
		    (void *)(90 + i)) == 0, "no thread in the child");
	if (!early_thread_only)
		use_memory(80, 150);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

static void
have_a_child(enum way way)
{
	pid_t pid = make_child(way);

	if (pid == 0) {
		alarm(CHILD_LIMIT);
		use_with_threads();
		drop_blocks();
		_exit(0);
	}
	child_is_well(pid, "grandchild", way);
}

static void
be_a_child(enum way way, enum mode mode)
{
	alarm(CHILD_LIMIT);
	if (mode == THREADS_FIRST)
		use_with_threads();
	if (mode == CHILDREN_FIRST)
		have_a_child(way);
	use_memory(70 + mode, 150);
	drop_blocks();
	if (mode == AT_ONCE) {
		e2e_trim(0);
		(void)mallinfo2();
		use_with_threads();
	}
	use_memory(75, 150);
	_exit(0);
}

struct order {
	enum way way;
	enum mode mode;
	bool known;		/* the thread has called malloc before */
};

static void *
fork_once(void *arg)
{
	const struct order *o = arg;
	pid_t pid;

	if (o->known)
		use_memory(60, 60);
	pid = make_child(o->way);
	if (pid == 0)
		be_a_child(o->way, o->mode);
	child_is_well(pid, o->known ? "known" : "unknown",
	    o->way * 10 + o->mode);
	return NULL;
}

/* A thread of its own for each child, since one fork makes it known. */
static void
fork_in_a_thread(struct order o)
{
	pthread_t t;

	e2e_need(pthread_create(&t, NULL, fork_once, &o) == 0, "no thread");
	pthread_join(t, NULL);
}

static void
prepare_blocks(void)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 50);

	for (unsigned i = 0; i < BLOCKS; i++)
		make(&before[i], &r);
}

static void
fork_in_all_modes(enum way way)
{
	struct order o = { .way = way };

	prepare_blocks();
	start_noise();
	for (unsigned i = 0; i < ROUNDS * e2e_scale() * MODES; i++) {
		o.mode = (enum mode)(i % MODES);
		early_thread_only = i % 2;
		o.known = false;
		fork_in_a_thread(o);
		o.known = true;
		fork_in_a_thread(o);
	}
	end_noise();
	drop_blocks();
}

START_TEST(ways_and_modes)
{
	fork_in_all_modes((enum way)_i);
}
END_TEST

/* --- handlers ------------------------------------------------------------ */

enum { PREPARE = 1, PARENT = 2, CHILD = 4, CHILD_THREAD = 8, ALL = 7 };

static atomic_uint early, late;		/* which of them allocate */
static atomic_uint handler_runs;

static void
handle(unsigned which, unsigned one)
{
	if (!(which & one))
		return;
	atomic_fetch_add(&handler_runs, 1);
	if (one == CHILD)
		alarm(CHILD_LIMIT);
	if (which & CHILD_THREAD)
		use_with_threads();
	use_memory(40 + one, 60);
}

static void early_prepare(void) { handle(atomic_load(&early), PREPARE); }
static void early_parent(void) { handle(atomic_load(&early), PARENT); }
static void early_child(void) { handle(atomic_load(&early), CHILD); }
static void late_prepare(void) { handle(atomic_load(&late), PREPARE); }
static void late_parent(void) { handle(atomic_load(&late), PARENT); }
static void late_child(void) { handle(atomic_load(&late), CHILD); }

/*
 * Before the first malloc of the process, so before what the allocator
 * registers: its handler in the child runs before the allocator's.
 */
static void
register_early(int argc, char **argv, char **env)
{
	(void)argc;
	(void)argv;
	(void)env;
	pthread_atfork(early_prepare, early_parent, early_child);
}

__attribute__((section(".preinit_array"), used))
static void (*const preinit)(int, char **, char **) = register_early;

static void
fork_with_handlers(unsigned early_ones, unsigned late_ones)
{
	struct order o = { .way = FORK };

	atomic_store(&early, early_ones);
	atomic_store(&late, late_ones);
	for (unsigned i = 0; i < 2 * ROUNDS * e2e_scale(); i++) {
		o.mode = (enum mode)(i % MODES);
		o.known = i % 4 == 3;
		fork_in_a_thread(o);
	}
	atomic_store(&early, 0);
	atomic_store(&late, 0);
}

START_TEST(handlers_allocate)
{
	pthread_atfork(late_prepare, late_parent, late_child);
	prepare_blocks();
	start_noise();
	/* The thread stays unknown until its child allocates. */
	fork_with_handlers(CHILD, 0);
	fork_with_handlers(0, CHILD);
	fork_with_handlers(CHILD | CHILD_THREAD, 0);
	fork_with_handlers(ALL, 0);
	fork_with_handlers(0, ALL);
	fork_with_handlers(ALL, ALL);
	end_noise();
	/* Prepare and parent of the three that have these. */
	ck_assert_uint_ge(atomic_load(&handler_runs), 3 * 2 * 2 * ROUNDS);
	drop_blocks();
}
END_TEST

/* --- vfork and signals --------------------------------------------------- */

static void
vfork_once(void)
{
	pid_t pid = vfork();

	if (pid == 0)
		_exit(0);
	child_is_well(pid, "vfork", 0);
}

static void *
vfork_some(void *arg)
{
	for (unsigned i = 0; i < 4 * ROUNDS; i++)
		vfork_once();
	use_memory(30, 60);
	return arg;
}

/* Memory is shared: that is no child whose other threads are gone. */
START_TEST(vfork_changes_nothing)
{
	pthread_t t;

	start_noise();
	for (unsigned i = 0; i < ROUNDS; i++) {
		e2e_need(pthread_create(&t, NULL, vfork_some, NULL) == 0,
		    "no thread");
		pthread_join(t, NULL);
	}
	vfork_some(NULL);
	end_noise();
}
END_TEST

static atomic_int of_handler;	/* the child, 0 until it is there */

static void
fork_in_the_handler(int number)
{
	int saved = errno;
	pid_t pid = make_child(FORK_NO_HANDLERS);

	(void)number;
	if (pid == 0) {
		alarm(CHILD_LIMIT);
		is_child = 1;
	} else {
		atomic_store(&of_handler, pid);
	}
	errno = saved;
}

/* Wherever the thread is, asleep for a lock included, its child goes on. */
START_TEST(signals_fork_threads_that_allocate)
{
	struct sigaction action = { .sa_handler = fork_in_the_handler,
		.sa_flags = SA_RESTART };

	sigaction(SIGUSR1, &action, NULL);
	start_noise();
	for (unsigned i = 0; i < 8 * ROUNDS * e2e_scale(); i++) {
		atomic_store(&of_handler, 0);
		pthread_kill(noise[i % NOISE], SIGUSR1);
		while (atomic_load(&of_handler) == 0)
			e2e_sleep(1);
		child_is_well(atomic_load(&of_handler), "handler", i);
	}
	end_noise();
}
END_TEST

/* ------------------------------------------------------------------------- */

static void
add(TCase *t)
{
	/*
	 * Forks of a process with threads: qemu-user 7.2 fails assertions
	 * of its own in the child.
	 */
	if (!e2e_emulated()) {
		tcase_add_loop_test(t, ways_and_modes, 0, WAYS);
		tcase_add_test(t, handlers_allocate);
		tcase_add_test(t, signals_fork_threads_that_allocate);
	}
	tcase_add_test(t, vfork_changes_nothing);
}

int
main(void)
{
	return e2e_main("fork_chaos", 240 * e2e_scale(), add);
}
