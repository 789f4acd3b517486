/*
 * many.c - more threads and forks than an ordinary test has time for.
 *
 * usage: many threads N
 *        many forks N
 *
 * threads: N short threads, four at a time; each allocates, frees what an
 * earlier one has left and leaves an object behind.  RSS and address space
 * must be at the end what they were after the first tenth.
 *
 * forks: N forks from threads that allocate, while others do.  Each child
 * checks an object of before, allocates and frees; it must end in time.
 */
#include "e2e_common.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
	AT_ONCE = 4,
	LEFT = 512,		/* objects that are left behind */
	NOISE = 3,
	CHILD_LIMIT = 60,	/* seconds, on a machine that is busy */
	GROWTH = 4 * E2E_MIB,
};

struct left {
	size_t n;
};

/* Each begins with its size and holds its pattern behind that. */
static struct left *_Atomic left[LEFT];
static _Atomic bool over;
static _Atomic long forks_left;

static void
leave(struct e2e_rng *r)
{
	size_t n = 16 + e2e_log_size(r, 4, 14);
	struct left *o = e2e_malloc(n);

	e2e_need(o != NULL, "no memory for %zu bytes", n);
	o->n = n;
	e2e_fill(o + 1, n - sizeof(*o), n);
	o = atomic_exchange(&left[e2e_below(r, LEFT)], o);
	if (o == NULL)
		return;
	e2e_need(e2e_differs(o + 1, o->n - sizeof(*o), o->n) == E2E_SAME,
	    "%p of %zu bytes has changed", (void *)o, o->n);
	e2e_free(o);
}

static void
work(struct e2e_rng *r, unsigned rounds)
{
	void *hold[16];

	while (rounds-- > 0) {
		for (unsigned i = 0; i < 16; i++)
			hold[i] = e2e_malloc(e2e_log_size(r, 3, 13));
		leave(r);
		for (unsigned i = 0; i < 16; i++)
			e2e_free(hold[i]);
	}
}

static void *
short_life(void *arg)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), (uintptr_t)arg);

	work(&r, 3);
	return NULL;
}

static void
start(pthread_t *t, void *(*go)(void *), uintptr_t number)
{
	int e = pthread_create(t, NULL, go, (void *)number);

	e2e_need(e == 0, "thread: %s", strerror(e));
}

static void
threads(unsigned long count)
{
	size_t rss = 0, vsize = 0;
	pthread_t t[AT_ONCE];

	for (unsigned long i = 0; i < count; i += AT_ONCE) {
		for (unsigned k = 0; k < AT_ONCE; k++)
			start(&t[k], short_life, i + k);
		for (unsigned k = 0; k < AT_ONCE; k++)
			pthread_join(t[k], NULL);
		if (rss == 0 && i >= count / 10) {
			rss = e2e_rss();
			vsize = e2e_vsize();
		}
	}
	printf("%lu threads: RSS %zu KiB, after a tenth of them %zu KiB\n",
	    count, e2e_rss() / E2E_KIB, rss / E2E_KIB);
	e2e_need(e2e_rss() <= rss + GROWTH, "RSS has grown");
	e2e_need(e2e_vsize() <= vsize + 16 * GROWTH,
	    "address space has grown from %zu to %zu", vsize, e2e_vsize());
}

static void *
make_noise(void *arg)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 1000 + (uintptr_t)arg);

	while (!over)
		work(&r, 10);
	return NULL;
}

static void
in_the_child(struct e2e_rng *r)
{
	alarm(CHILD_LIMIT);
	work(r, 4);
	_exit(0);
}

static void *
fork_on_and_on(void *arg)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), (uintptr_t)arg);
	int status;
	pid_t pid;

	while (atomic_fetch_sub(&forks_left, 1) > 0) {
		work(&r, 1);
		pid = fork();
		e2e_need(pid >= 0, "fork: %s", strerror(errno));
		if (pid == 0)
			in_the_child(&r);
		status = e2e_reap(pid, (CHILD_LIMIT + 10) * 1000);
		e2e_need(status == 0, "a child's wait status is %d", status);
	}
	return NULL;
}

static void
forks(unsigned long count)
{
	pthread_t noise[NOISE], t[2];

	forks_left = (long)count;
	for (unsigned i = 0; i < NOISE; i++)
		start(&noise[i], make_noise, i);
	start(&t[0], fork_on_and_on, 0);
	start(&t[1], fork_on_and_on, 1);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	over = true;
	for (unsigned i = 0; i < NOISE; i++)
		pthread_join(noise[i], NULL);
	printf("%lu forks\n", count);
}

int
main(int argc, char **argv)
{
	unsigned long n = argc == 3 ? strtoul(argv[2], NULL, 0) : 0;

	if (n > 0 && strcmp(argv[1], "threads") == 0)
		threads(n);
	else if (n > 0 && strcmp(argv[1], "forks") == 0)
		forks(n);
	else
		return 2;
	return 0;
}
