/*
 * guard.h: guarded objects are like others, and what is told of those who
 * step beside them.
 */
#include "unit_marked.h"

#include "guard.h"
#include "info.h"
#include "profile.h"
#include "walker.h"

#include <math.h>
#include <setjmp.h>

/* Those that the pool has, and one page of each. */
enum { SLOTS = 64 };
static size_t page;

static void
start(const char *guards)
{
	hz4_thread_start();
	unit_option("profile_seed=1");
	unit_option(guards);
	hz4_profile_begin();
	page = hz4_os_page;
}

static char *
guarded(size_t size)
{
	char *p = hz4_heap_malloc(size);

	unit_need(hz4_guard_owns(p), "%zu bytes are not guarded", size);
	memset(p, 7, size);
	return p;
}

START_TEST(objects_are_like_others)
{
	struct hz4_info before, after;
	size_t size, align;
	char *p, *q;

	start("guards=1");
	for (size = 1; size <= page; size += size / 5 + 1) {
		hz4_info_get(&before);
		p = guarded(size);
		hz4_info_get(&after);
		ck_assert_uint_eq(after.live - before.live, size);
		ck_assert_uint_eq(after.live_objects - before.live_objects, 1);
		ck_assert_uint_eq((uintptr_t)p % HZ4_ALIGN, 0);
		ck_assert_uint_eq(hz4_heap_usable(p), size);
		q = hz4_heap_realloc(p, size * 2);
		ck_assert(unit_all(q, size, 7));
		hz4_heap_free(hz4_heap_realloc(q, size / 3 + 1));
		q = hz4_heap_calloc(1, size);
		ck_assert(hz4_guard_owns(q));
		ck_assert(unit_all(q, size, 0));
		hz4_heap_free(q);
	}
	for (align = 32; align <= page; align *= 2) {
		p = hz4_heap_aligned(align, 24);
		ck_assert(hz4_guard_owns(p));
		ck_assert_uint_eq((uintptr_t)p % align, 0);
		hz4_heap_free(p);
	}
	p = hz4_heap_malloc(page + 1);
	ck_assert(!hz4_guard_owns(p));
	hz4_heap_free(p);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

START_TEST(a_freed_slot_stays_closed_for_long)
{
	char *first, *p;
	unsigned i;

	start("guards=1");
	first = guarded(100);
	hz4_heap_free(first);
	for (i = 1; i < SLOTS; i++) {
		p = guarded(100);
		ck_assert((uintptr_t)p / page != (uintptr_t)first / page);
		hz4_heap_free(p);
	}
	p = guarded(100);
	ck_assert_uint_eq((uintptr_t)p / page, (uintptr_t)first / page);
}
END_TEST

START_TEST(a_full_pool_guards_no_more)
{
	void *p[SLOTS];
	unsigned i;

	start("guards=1");
	for (i = 0; i < SLOTS; i++)
		p[i] = guarded(i + 1);
	ck_assert(!hz4_guard_owns(hz4_heap_malloc(10)));
	hz4_heap_free(p[5]);
	ck_assert(hz4_guard_owns(hz4_heap_malloc(10)));
	ck_assert(!hz4_guard_owns(hz4_heap_malloc(10)));
}
END_TEST

START_TEST(one_in_so_many)
{
	enum { N = 200000, MEAN = 100 };
	double n = 0;
	unsigned i;
	void *p;

	start("guards=100");
	for (i = 0; i < N; i++) {
		p = hz4_heap_malloc(i % 1000 + 1);
		n += hz4_guard_owns(p);
		hz4_heap_free(p);
	}
	/* Of numbers as often as each other the deviation is mean / sqrt 3. */
	ck_assert_msg(fabs(n - N / MEAN) <= 3 * sqrt(N / MEAN / 3.0),
		      "%.0f guarded", n);
}
END_TEST

/* They come to more bytes than are counted to the next sample. */
START_TEST(sizes_that_are_refused)
{
	unsigned i;

	start("guards=1000");
	for (i = 0; i < 100; i++) {
		ck_assert_ptr_null(hz4_heap_malloc(PTRDIFF_MAX));
		ck_assert_ptr_null(hz4_heap_malloc(SIZE_MAX));
		hz4_heap_free(hz4_heap_malloc(100));
	}
}
END_TEST

/* --- what is told ---------------------------------------------------- */

static void
write_after(void *p)
{
	((volatile char *)p)[page] = 1;
}

static void
write_before(void *p)
{
	((volatile char *)p)[-1] = 1;
}

static void
read_freed(void *p)
{
	char c;

	hz4_heap_free(p);
	c = ((volatile char *)p)[10];
	(void)c;
}

static void
usable_of_freed(void *p)
{
	hz4_heap_free(p);
	hz4_heap_usable(p);
}

/* Whether the lines of a child begin so, whatever is between. */
static void
tells(void (*go)(void *p), int signal, const char *kind, const char *where,
      bool freed)
{
	struct unit_access a = { go, guarded(page) };
	struct unit_end end;
	char line[100];

	unit_child(&end, unit_access_plainly, &a);
	ck_assert_msg(WIFSIGNALED(end.status) &&
			      WTERMSIG(end.status) == signal,
		      "wait status %x", (unsigned)end.status);
	snprintf(line, sizeof line, "hz4: guard: %s: ptr 0x", kind);
	ck_assert_msg(strncmp(end.text, line, strlen(line)) == 0, "%s",
		      end.text);
	snprintf(line, sizeof line, ", %s an object of %zu bytes at %#zx\n",
		 where, page, (size_t)a.p);
	ck_assert_msg(strstr(end.text, line) != NULL, "%s", end.text);
	ck_assert_ptr_nonnull(strstr(end.text, "hz4:   used by thread "));
	ck_assert_ptr_nonnull(strstr(end.text,
				     "hz4:   allocated by thread "));
	ck_assert_int_eq(strstr(end.text, "hz4:   freed by thread ") != NULL,
			 freed);
	ck_assert_msg(strstr(end.text, "test_guard+0x") != NULL &&
			      strstr(end.text, "be walked") == NULL,
		      "%s", end.text);
	hz4_heap_free(a.p);
}

/* unit_access_plainly has put SIG_DFL in place: the handler is set again. */
static void
with_handler(void (*go)(void *p), void *p)
{
	hz4_guard_start();
	go(p);
}

#define WITH_HANDLER(f) \
	static void f##_told(void *p) \
	{ \
		with_handler(f, p); \
	}
WITH_HANDLER(write_after)
WITH_HANDLER(write_before)
WITH_HANDLER(read_freed)

START_TEST(faults_are_told_with_three_stacks)
{
	start("guards=1");
	tells(write_after_told, SIGSEGV, "overflow", "1 bytes after", false);
	tells(write_before_told, SIGSEGV, "underflow", "1 bytes before",
	      false);
	tells(read_freed_told, SIGSEGV, "use after free", "10 bytes inside",
	      true);
}
END_TEST

START_TEST(frees_are_told_too)
{
	start("guards=1");
	tells(unit_free_twice, SIGABRT, "double free", "0 bytes inside",
	      true);
	tells(unit_free_inside, SIGABRT, "invalid free", "16 bytes inside",
	      false);
	tells(usable_of_freed, SIGABRT, "use after free", "0 bytes inside",
	      true);
}
END_TEST

/* --- the program's own handler --------------------------------------- */

static sigjmp_buf back;
static volatile int faults;

static void
jump_back(int signal, siginfo_t *info, void *context)
{
	(void)context;
	if (signal == SIGSEGV && info->si_addr == (void *)16)
		siglongjmp(back, 1);
	/* That of the pool comes here as well, when it has been told. */
	_exit(hz4_guard_owns(info->si_addr) ? 42 : 43);
}

static void
fault_at_16(void)
{
	volatile char *volatile nowhere = (volatile char *)16;

	if (sigsetjmp(back, 1) == 0)
		*nowhere = 1;
	else
		faults++;
}

static void
handles_its_own(void *arg)
{
	struct sigaction own, now;
	char *p;

	(void)arg;
	memset(&own, 0, sizeof own);
	own.sa_sigaction = jump_back;
	own.sa_flags = SA_SIGINFO;
	sigaction(SIGSEGV, &own, NULL);
	/* With the next object the guards are in front of it. */
	p = guarded(page);
	sigaction(SIGSEGV, NULL, &now);
	unit_child_need(now.sa_sigaction != jump_back);
	fault_at_16();
	fault_at_16();
	unit_child_need(faults == 2);
	write_after(p);
}

START_TEST(the_programs_handler_is_called)
{
	struct unit_end end;

	start("guards=1");
	unit_child(&end, handles_its_own, NULL);
	ck_assert_msg(WIFEXITED(end.status) && WEXITSTATUS(end.status) == 42,
		      "wait status %x: %s", (unsigned)end.status, end.text);
	/* Its own faults, which it survives, are not told. */
	ck_assert(strncmp(end.text, "hz4: guard: overflow: ", 22) == 0);
}
END_TEST

static void
is_sent(void *ignored)
{
	signal(SIGSEGV, ignored != NULL ? SIG_IGN : SIG_DFL);
	guarded(10);
	raise(SIGSEGV);
}

static void
steps_elsewhere(void *ignored)
{
	volatile char *volatile nowhere = (volatile char *)16;

	signal(SIGSEGV, ignored != NULL ? SIG_IGN : SIG_DFL);
	guarded(10);
	*nowhere = 1;
}

START_TEST(other_actions_are_as_they_were)
{
	struct unit_end end;

	start("guards=1");
	unit_survives(is_sent, &page);
	unit_child(&end, is_sent, NULL);
	ck_assert(WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGSEGV);
	ck_assert_str_eq(end.text, "");
}
END_TEST

START_TEST(a_fault_elsewhere_is_told_to_be_one)
{
	static const char line[] =
		"hz4: guard: fault at 0x10, nowhere near a guarded object\n";
	struct unit_end end;
	int i;

	start("guards=1");
	/* What is ignored is no fault of one's own. */
	for (i = 0; i < 2; i++) {
		unit_child(&end, steps_elsewhere, i == 0 ? NULL : &page);
		ck_assert(WIFSIGNALED(end.status) &&
			  WTERMSIG(end.status) == SIGSEGV);
		ck_assert_str_eq(end.text, line);
	}
}
END_TEST

/* --- children, threads, the share that is caught --------------------- */

static void
use_guards(uint64_t *seed)
{
	unit_use(seed, 8, 3000);
}

static void
child_goes_on(void *arg)
{
	uint64_t seed = 9;
	unsigned i;

	(void)arg;
	for (i = 0; i < 20; i++)
		use_guards(&seed);
}

START_TEST(children_of_a_fork)
{
	start("guards=1");
	unit_fork_under(use_guards, 50, child_goes_on, NULL);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

enum { RUNS = 1000, ALLOCATIONS = 10000 };

/* One of them is read after it was freed. */
static void
uses_one_after_free(void *arg)
{
	unsigned which = *(unsigned *)arg, i;
	volatile char *p;

	for (i = 0; i < ALLOCATIONS; i++) {
		p = hz4_heap_malloc(64);
		hz4_heap_free((void *)(uintptr_t)p);
		if (i == which)
			(void)p[0];
	}
}

/* In as many as are to be expected it is caught, and nothing else is. */
START_TEST(the_share_that_is_caught)
{
	unsigned run, which, caught = 0, text = 0;
	struct unit_end end;

	start("guards=100");
	signal(SIGSEGV, SIG_DFL);
	for (run = 0; run < RUNS; run++) {
		which = run * 37 % ALLOCATIONS;
		unit_child(&end, uses_one_after_free, &which);
		caught += end.status != 0;
		text += strncmp(end.text, "hz4: guard: use after free", 26) ==
			0;
		ck_assert(end.status == 0 || WTERMSIG(end.status) == SIGSEGV);
		ck_assert(end.status != 0 || end.length == 0);
	}
	ck_assert_uint_eq(text, caught);
	/* 10, and three standard deviations. */
	ck_assert_uint_ge(caught, 1);
	ck_assert_uint_le(caught, 19);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, objects_are_like_others);
	tcase_add_test(t, a_freed_slot_stays_closed_for_long);
	tcase_add_test(t, a_full_pool_guards_no_more);
	tcase_add_test(t, one_in_so_many);
	tcase_add_test(t, sizes_that_are_refused);
	tcase_add_test(t, faults_are_told_with_three_stacks);
	tcase_add_test(t, frees_are_told_too);
	tcase_add_test(t, the_programs_handler_is_called);
	tcase_add_test(t, other_actions_are_as_they_were);
	tcase_add_test(t, a_fault_elsewhere_is_told_to_be_one);
	tcase_add_test(t, children_of_a_fork);
	tcase_add_test(t, the_share_that_is_caught);
}

int
main(void)
{
	return unit_main("guard", add);
}
