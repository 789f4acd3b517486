/*
 * Memory that is locked (mlockall, mlock): what is free goes back all the
 * same, little more is locked than is live, and a small RLIMIT_MEMLOCK is
 * used to its end.
 */
#include "e2e_check.h"

#include <linux/capability.h>
#include <sys/syscall.h>

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif

enum {
	KEPT = 8 * E2E_MIB,		/* of 64, in caches and structures */
	BLOCKS = 1 << 15,
	MEMLOCK = 8 * E2E_MIB,
};

static const int flags[] = { MCL_FUTURE, MCL_CURRENT | MCL_FUTURE,
	MCL_FUTURE | MCL_ONFAULT };

static const size_t sizes[] = { 100, 1000, 5000, 40000, 200000 };

static unsigned char *block[BLOCKS];
static size_t size_of[BLOCKS];

static size_t
locked(void)
{
	return e2e_proc_kib("/proc/self/status", "\nVmLck:");
}

/* May this process lock what the tests want?  Else the child ends. */
static void
need_to_lock(void)
{
	const size_t n = 256 * (size_t)E2E_MIB;
	struct rlimit r;
	void *p = mmap(NULL, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
	    MAP_NORESERVE, -1, 0);

	if (getrlimit(RLIMIT_MEMLOCK, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_MEMLOCK, &r);
	}
	/* Nothing can be made resident there, but it counts. */
	if (p == MAP_FAILED || (mlock(p, n) != 0 && errno != ENOMEM) ||
	    locked() < n) {
		e2e_say("skipped: may not lock %zu MiB\n", n >> 20);
		_exit(0);
	}
	munmap(p, n);
}

static void
lock_all(int which)
{
	need_to_lock();
	if (mlockall(which) == 0)
		return;
	e2e_say("skipped: no mlockall(%d): errno %d\n", which, errno);
	_exit(0);
}

/* Blocks of all sizes, so many bytes; how many blocks. */
static unsigned
take(size_t bytes, size_t *live)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 1);
	unsigned i;

	for (i = 0; *live < bytes; i++) {
		e2e_need(i < BLOCKS, "too many blocks");
		size_of[i] = e2e_log_size(&r, 4, 20);
		block[i] = e2e_malloc(size_of[i]);
		e2e_need(block[i] != NULL, "no memory");
		e2e_fill(block[i], size_of[i], i);
		*live += e2e_usable(block[i]);
	}
	return i;
}

static void
give(unsigned from, unsigned to, size_t *live)
{
	for (unsigned i = from; i < to; i++) {
		e2e_need(e2e_differs(block[i], size_of[i], i) == E2E_SAME,
		    "block of %zu is broken", size_of[i]);
		*live -= e2e_usable(block[i]);
		e2e_free(block[i]);
	}
}

static void
need_little_more(size_t before, size_t live, const char *when)
{
	size_t most = before + live + live / 10 + 4 * (size_t)E2E_MIB;

	if (e2e_is_hz4())
		e2e_need(locked() <= most, "%s: %zu KiB locked of %zu", when,
		    locked() >> 10, most >> 10);
}

static void
locked_is_live(size_t which)
{
	size_t live = 0;
	size_t before;
	unsigned n;

	lock_all(flags[which]);
	before = locked();
	n = take(64 * (size_t)E2E_MIB, &live);
	need_little_more(before, live, "filled");
	give(n / 8, n, &live);
	e2e_trim(0);
	need_little_more(before, live, "most of it freed");
	give(0, n / 8, &live);
	e2e_trim(0);
	need_little_more(before, live, "all of it freed");
}

START_TEST(what_is_locked_is_live)
{
	e2e_in_a_child(locked_is_live, (size_t)_i);
}
END_TEST

/* The same without a call for it: on the time of those that come later. */
static void
goes_back(size_t which)
{
	size_t live = 0;
	size_t before;
	unsigned n;

	lock_all(flags[which]);
	before = locked();
	n = take(64 * (size_t)E2E_MIB, &live);
	give(0, n, &live);
	if (!e2e_is_hz4())
		return;
	/* The alarm ends it where less goes back. */
	while (locked() > before + KEPT) {
		e2e_sleep(20);
		e2e_ordinary_calls(100);
	}
}

START_TEST(what_is_freed_goes_back)
{
	e2e_in_a_child(goes_back, (size_t)_i);
}
END_TEST

/* Heaps that have grown, and had much freed, before everything is locked. */
static void
locked_later(size_t unused)
{
	size_t live = 0;
	size_t before = e2e_vsize();
	unsigned n;

	(void)unused;
	need_to_lock();
	n = take(64 * (size_t)E2E_MIB, &live);
	give(n / 8, n, &live);
	e2e_trim(0);
	lock_all(MCL_CURRENT | MCL_FUTURE);
	e2e_trim(0);
	need_little_more(before, live, "locked later");
	give(0, n / 8, &live);
}

START_TEST(a_used_heap_is_locked)
{
	e2e_in_a_child(locked_later, 0);
}
END_TEST

/* calloc must not take for zeros what the system would not purge. */
static void
zeros(size_t which)
{
	lock_all(flags[which]);
	for (unsigned turn = 0; turn < 3; turn++) {
		for (unsigned i = 0; i < 64; i++) {
			size_t n = sizes[i % COUNT(sizes)] * (1 + i / 5);

			block[i] = e2e_calloc(1, n);
			e2e_need(block[i] != NULL, "no memory");
			e2e_need(e2e_nonzero(block[i], n) == E2E_SAME,
			    "%zu bytes are not zeros", n);
			memset(block[i], 0xa5, n);
		}
		for (unsigned i = 0; i < 64; i++)
			e2e_free(block[i]);
		e2e_trim(0);
	}
}

START_TEST(calloc_is_zero)
{
	e2e_in_a_child(zeros, (size_t)_i);
}
END_TEST

/* Once nothing is locked any more, nothing is. */
static void
unlocked(size_t unused)
{
	size_t live = 0;
	unsigned n;

	(void)unused;
	lock_all(MCL_FUTURE);
	n = take(16 * (size_t)E2E_MIB, &live);
	munlockall();
	give(0, n, &live);
	e2e_trim(0);
	n = take(64 * (size_t)E2E_MIB, &live);
	e2e_need(locked() == 0, "%zu KiB are locked", locked() >> 10);
	give(0, n, &live);
}

START_TEST(unlocked_again)
{
	e2e_in_a_child(unlocked, 0);
}
END_TEST

/* A program that locks its blocks and frees them without unlocking. */
static void
own_locks(size_t unused)
{
	enum { OWN = 256 };

	(void)unused;
	need_to_lock();
	for (unsigned turn = 0; turn < 3; turn++) {
		for (unsigned i = 0; i < OWN; i++) {
			block[i] = e2e_malloc(sizes[4]);
			e2e_need(block[i] != NULL &&
			    mlock(block[i], sizes[4]) == 0, "no memory");
			e2e_fill(block[i], sizes[4], i);
		}
		for (unsigned i = 0; i < OWN; i++)
			e2e_free(block[i]);
		e2e_trim(0);
		if (e2e_is_hz4())
			e2e_need(locked() <= 4 * (size_t)E2E_MIB,
			    "%zu KiB stay locked", locked() >> 10);
	}
}

START_TEST(blocks_that_stay_locked_go_back)
{
	e2e_in_a_child(own_locks, 0);
}
END_TEST

/* Without it RLIMIT_MEMLOCK counts for root as well. */
static bool
drop_capabilities(void)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct none[2] = { { 0, 0, 0 }, { 0, 0, 0 } };

	return syscall(SYS_capset, &head, none) == 0;
}

/* A list through the blocks themselves. */
struct link {
	struct link *next;
};

/* Take blocks until there are no more; how many bytes. */
static size_t
take_all(struct link **list, size_t size)
{
	size_t bytes = 0;
	struct link *l;

	*list = NULL;
	errno = 0;
	while ((l = e2e_malloc(size)) != NULL) {
		e2e_touch(l, size);
		l->next = *list;
		*list = l;
		bytes += e2e_usable(l);
		e2e_need(bytes < 2 * (size_t)MEMLOCK, "no limit?");
	}
	e2e_need(errno == ENOMEM, "errno is %d", errno);
	return bytes;
}

/*
 * What nobody gets are structures, the ends of spans and runs in which no
 * object of 200,000 bytes fits, and what went back between two turns: how much
 * that is depends on the time.
 */
#define NEARLY_ALL(size) (MEMLOCK / 16 * ((size) < 200000 ? 12 : 11))

static void
small_limit(size_t which)
{
	struct rlimit r = { MEMLOCK, MEMLOCK };
	struct link *list, *next;
	struct rlimit now;
	size_t got;

	if (getrlimit(RLIMIT_MEMLOCK, &now) != 0 || now.rlim_max < MEMLOCK ||
	    setrlimit(RLIMIT_MEMLOCK, &r) != 0 || !drop_capabilities() ||
	    mlockall(MCL_FUTURE) != 0) {
		e2e_say("skipped: no limit of %d bytes\n", MEMLOCK);
		return;
	}
	for (unsigned turn = 0; turn < 4; turn++) {
		got = take_all(&list, sizes[(which + turn) % COUNT(sizes)]);
		e2e_need(got >= NEARLY_ALL(sizes[(which + turn) % COUNT(sizes)]),
		    "turn %u: only %zu KiB", turn,
		    got >> 10);
		for (; list != NULL; list = next) {
			next = list->next;
			e2e_free(list);
		}
	}
}

START_TEST(a_small_limit_is_used_to_its_end)
{
	e2e_in_a_child(small_limit, (size_t)_i);
}
END_TEST

static void
add(TCase *t)
{
	/* qemu-user locks what it likes. */
	if (e2e_emulated())
		return;
	tcase_add_loop_test(t, what_is_locked_is_live, 0, COUNT(flags));
	tcase_add_loop_test(t, what_is_freed_goes_back, 0, COUNT(flags));
	tcase_add_test(t, a_used_heap_is_locked);
	tcase_add_loop_test(t, calloc_is_zero, 0, COUNT(flags));
	tcase_add_test(t, unlocked_again);
	tcase_add_test(t, blocks_that_stay_locked_go_back);
	tcase_add_loop_test(t, a_small_limit_is_used_to_its_end, 0,
	    COUNT(sizes));
}

int
main(void)
{
	return e2e_main("pinned", 90, add);
}
