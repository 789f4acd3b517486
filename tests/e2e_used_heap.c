/*
 * Double frees in a heap that has been used: every size class is a busy one
 * and its spans are full of holes, as in a program that has run for a while.
 * An object that is freed twice with up to BETWEEN_MOST others of its size
 * freed in between must end the process before anyone gets it twice.
 *
 * On another allocator the outcome is printed, and nothing is asked of it.
 */
#include "e2e_check.h"

enum {
	PAIRS = 3000,
	LIVE = 60,
	BETWEEN_MOST = 3,
	OBJECTS = 16,
	TWICE = 42,	/* exit status: an address was handed out twice */
};

/* Each size range, the ends of the classes, and what has one object to a span. */
static const size_t sizes[] = {
	1, 16, 17, 100, 256, 1024, 2048, 2049, 4096, 10000, 65536, 65537,
	131072, 262144,
};

static struct {
	size_t size;
	unsigned between;
} now;

/* Objects live at random, thousands of pairs in the size. */
static void
use(size_t n)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), n);
	void *p[LIVE];
	unsigned i;

	for (i = 0; i < LIVE; i++)
		p[i] = e2e_malloc(n);
	for (i = 0; i < LIVE; i++)
		if (e2e_below(&r, 2) == 0)
			e2e_free(p[i]);
	for (i = 0; i < PAIRS; i++)
		e2e_free(e2e_malloc(n));
}

static void
free_twice(void *arg)
{
	struct rlimit none = { 2, 2 };
	void *p[OBJECTS];
	unsigned i, j;

	(void)arg;
	setrlimit(RLIMIT_CORE, &none);
	signal(SIGABRT, SIG_DFL);
	use(now.size);
	for (i = 0; i <= now.between; i++)
		p[i] = e2e_malloc(now.size);
	for (i = 0; i <= now.between; i++)
		e2e_free(p[i]);
	e2e_free(p[0]);
	for (i = 0; i < OBJECTS; i++)
		p[i] = e2e_malloc(now.size);
	for (i = 0; i < OBJECTS; i++)
		for (j = 0; j < i; j++)
			if (p[i] == p[j])
				_exit(TWICE);
}

START_TEST(nothing_is_handed_out_twice)
{
	struct e2e_outcome o;
	bool aborted;

	now.size = sizes[(size_t)_i / (BETWEEN_MOST + 1)];
	now.between = (unsigned)_i % (BETWEEN_MOST + 1);
	o = e2e_capture(free_twice, NULL);
	aborted = WIFSIGNALED(o.status) && WTERMSIG(o.status) == SIGABRT;
	if (!e2e_is_hz4()) {
		printf("%zu bytes, %u between: wait status %d\n", now.size,
		    now.between, o.status);
		return;
	}
	ck_assert_msg(aborted, "%zu bytes, %u between: wait status %#x",
	    now.size, now.between, (unsigned)o.status);
	ck_assert_msg(strstr(o.err, "double free: ptr 0x") != NULL,
	    "says \"%s\"", o.err);
}
END_TEST

/*
 * The looks at what else lies in the stack must not stop a program that does
 * nothing wrong: addresses that were given back come again, in any order.
 */
START_TEST(objects_that_come_again_are_none)
{
	enum { MOST = 400 };
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 1);
	void *p[MOST] = { NULL };
	size_t i, n, k;

	for (k = 0; k < COUNT(sizes); k++) {
		for (n = 0; n < 20000; n++) {
			i = e2e_below(&r, sizes[k] > 4096 ? 20 : MOST);
			if (p[i] == NULL) {
				p[i] = e2e_malloc(sizes[k]);
			} else {
				e2e_free(p[i]);
				p[i] = NULL;
			}
		}
		for (i = 0; i < MOST; i++) {
			e2e_free(p[i]);
			p[i] = NULL;
		}
	}
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_loop_test(t, nothing_is_handed_out_twice, 0,
	    (int)COUNT(sizes) * (BETWEEN_MOST + 1));
	tcase_add_test(t, objects_that_come_again_are_none);
}

int
main(void)
{
	return e2e_main("used_heap", 60, add);
}
