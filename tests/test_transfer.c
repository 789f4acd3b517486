/*
 * transfer.h: nothing is handed out twice, nothing is lost, misuse ends in
 * one line.
 *
 *     objects out <= figures.objects == spans * slots
 *
 * The first word of an object is its owner's mark: whoever takes it finds
 * 0 there, and puts 0 back before giving.  Memory starts as 0 and the
 * tests write nothing else, so this holds over released spans too.
 */
#include "unit.h"

#include "meta.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"
#include "shard.h"
#include "share.h"
#include "spanlists.h"
#include "transfer.h"
#include "walker.h"

#include <sys/time.h>

enum {
	MOST = 16384, /* objects of a test at once */
	THREADS = 4,
	ROUNDS = 4000,
	BOX = 256, /* where threads leave objects for others */
	FORKS = 10,
};

/* Small and mid, one word of bits and many, few slots and large. */
static const unsigned some[] = { 1, 2, 7, 16, 23, 40, 41, 50, 60, 61, 68 };
enum { SOME = sizeof some / sizeof *some };

static void *held[MOST];

static void
start(void)
{
	unit_os_init();
	hz4_sizeclass_init();
}

/* The threads take shards in turn, of which the first one has the second. */
static void
start_spread(void)
{
	start();
	ck_assert(hz4_option_assign("shards=8", 8));
}

static struct hz4_spans_figures
figures(unsigned cls)
{
	struct hz4_spans_figures f;

	hz4_spans_figures(cls, &f);
	return f;
}

static void
compare(unsigned cls, size_t out)
{
	struct hz4_spans_figures f = figures(cls);

	unit_need(f.objects == f.spans * hz4_classes[cls].slots &&
			  out <= f.objects,
		  "class %u: %zu spans, %zu objects, %zu out", cls, f.spans,
		  f.objects, out);
}

static _Atomic uintptr_t *
mark_of(void *object)
{
	return object;
}

/* Take up to `want` objects, mark them and check what can be seen. */
static unsigned
take(unsigned cls, void **objects, unsigned want)
{
	const struct hz4_class *k = &hz4_classes[cls];
	unsigned n, i, path = ~0u;

	n = hz4_transfer_take(cls, objects, want, &path);
	unit_need(n >= 1 && n <= want, "%u of %u", n, want);
	unit_need(path & HZ4_TRANSFER_LOCKED, "%x", path);
	unit_turn(objects, n);
	for (i = 0; i < n; i++) {
		uintptr_t p = (uintptr_t)objects[i];

		unit_need(p % HZ4_ALIGN == 0, "%p", objects[i]);
		unit_need(hz4_pagemap_class(objects[i]) == cls &&
				  hz4_pagemap_class((char *)objects[i] +
						    k->size - 1 -
						    (k->size - 1) % 16) ==
					  cls,
			  "%p of class %u", objects[i], cls);
		unit_need(hz4_transfer_is_out(objects[i], cls), "%p", objects[i]);
		unit_need(atomic_exchange(mark_of(objects[i]), p) == 0,
			  "%p handed out twice", objects[i]);
	}
	return n;
}

static void
give(unsigned cls, void **objects, unsigned n)
{
	unsigned i, path = ~0u;

	for (i = 0; i < n; i++)
		unit_need(atomic_exchange(mark_of(objects[i]), 0) ==
				  (uintptr_t)objects[i],
			  "%p was not ours", objects[i]);
	hz4_transfer_give(cls, objects, n, hz4_os_now(), &path);
	unit_need(!(path & HZ4_TRANSFER_CREATED), "%x", path);
}

/* Exactly n objects. */
static void
take_all(unsigned cls, void **objects, size_t n)
{
	size_t got = 0;

	while (got < n)
		got += take(cls, objects + got,
			    (unsigned)hz4_min(n - got, HZ4_BATCH_MAX));
}

static void
give_all(unsigned cls, void **objects, size_t n, unsigned batch)
{
	size_t i;

	for (i = 0; i < n; i += batch)
		give(cls, objects + i, (unsigned)hz4_min(n - i, batch));
}

static void
nothing_left(void)
{
	struct hz4_pageheap_figures pages;
	unsigned cls;

	hz4_spans_trim();
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		compare(cls, 0);
		unit_need(figures(cls).spans == 0, "class %u", cls);
	}
	hz4_pageheap_figures(&pages);
	ck_assert_uint_eq(pages.free, pages.mapped);
	ck_assert_uint_eq(hz4_check(), 0);
}

/* Two whole spans of every class and a few objects of a third one. */
START_TEST(whole_spans_of_every_class)
{
	unsigned cls;
	uint64_t seed = 1;
	size_t n, i;

	start();
	for (cls = 1; cls < HZ4_CLS_ZERO; cls++) {
		n = hz4_min(2 * (size_t)hz4_classes[cls].slots + 3, MOST);
		compare(cls, 0);
		take_all(cls, held, n);
		compare(cls, n);
		unit_shuffle(&seed, held, n);
		give_all(cls, held, n / 2, 1 + (unsigned)cls % 64);
		compare(cls, n - n / 2);
		for (i = n / 2; i < n; i++)
			unit_need(hz4_transfer_is_out(held[i], cls), "%p",
				  held[i]);
		/* What came back is there to be taken again. */
		take_all(cls, held, n / 2);
		compare(cls, n);
		unit_shuffle(&seed, held, n);
		give_all(cls, held, n, HZ4_BATCH_MAX);
		compare(cls, 0);
	}
	nothing_left();
}
END_TEST

START_TEST(a_span_from_the_lowest_address_on)
{
	const struct hz4_class *k;
	unsigned i, c;
	size_t n;

	start();
	for (c = 0; c < SOME; c++) {
		k = &hz4_classes[some[c]];
		n = hz4_min(k->slots, MOST);
		take_all(some[c], held, n);
		for (i = 1; i < n; i++)
			unit_need((char *)held[i] ==
					  (char *)held[i - 1] + k->size,
				  "%u of class %u", i, some[c]);
		give_all(some[c], held, n, HZ4_BATCH_MAX);
	}
}
END_TEST

/*
 * Where there are other threads, they may have the rest of a group of four
 * that has a free object: such come last.
 */
START_TEST(whole_groups_before_parts_of_them)
{
	void *again[64];
	unsigned i;

	start();
	take_all(1, held, 64);
	give(1, held, 3);	  /* of the first group */
	give(1, held + 4, 4);	  /* the second one */
	give(1, held + 9, 1);	  /* of the third */
	hz4_share_add_user(2);
	take_all(1, again, 4);
	for (i = 0; i < 4; i++)
		ck_assert_ptr_eq(again[i], held[4 + i]);
	/* Nor are they lost: the span is used up before there is another. */
	take_all(1, held + 64, hz4_classes[1].slots - 60);
	ck_assert_uint_eq(figures(1).spans, 1);
	hz4_share_add_user(-2);
	/* Alone, a thread takes what is lowest. */
	give(1, held, 3);
	give(1, held + 4, 4);
	take_all(1, again, 4);
	for (i = 0; i < 4; i++)
		ck_assert_ptr_eq(again[i], held[i < 3 ? i : 4]);
}
END_TEST

/* A free object of a span that has others out lies in it, told by is_out. */
START_TEST(out_or_not)
{
	unsigned c;

	start();
	for (c = 0; c < SOME; c++) {
		size_t size = hz4_classes[some[c]].size;

		take_all(some[c], held, 2);
		give(some[c], &held[1], 1);
		ck_assert(hz4_transfer_is_out(held[0], some[c]));
		ck_assert(!hz4_transfer_is_out(held[1], some[c]));
		if (size > 16) {
			ck_assert(!hz4_transfer_is_out((char *)held[0] + 16,
						       some[c]));
			ck_assert(!hz4_transfer_is_out((char *)held[0] + size -
							       16,
						       some[c]));
		}
		give(some[c], &held[0], 1);
	}
}
END_TEST

/* More at once than a batch, from more spans than a batch has places. */
START_TEST(give_any_number)
{
	uint64_t seed = 1;
	unsigned c;
	size_t n;

	start();
	for (c = 0; c < SOME; c++) {
		n = hz4_min(100 * (size_t)hz4_classes[some[c]].slots, 3000);
		take_all(some[c], held, n);
		unit_shuffle(&seed, held, n);
		give(some[c], held, (unsigned)n);
		compare(some[c], 0);
	}
	give(1, held, 0);
	nothing_left();
}
END_TEST

/* Freed spans serve other classes, again and again. */
START_TEST(pages_go_from_class_to_class)
{
	struct hz4_pageheap_figures f;
	size_t first = 0;
	unsigned round, c;

	start();
	for (round = 0; round < 3; round++) {
		for (c = 0; c < SOME; c++) {
			size_t n = hz4_min(MOST,
				((size_t)2 << 20) / hz4_classes[some[c]].size);

			take_all(some[c], held, n);
			give_all(some[c], held, n, HZ4_BATCH_MAX);
			hz4_spans_trim();
		}
		hz4_pageheap_figures(&f);
		if (round == 0)
			first = f.mapped;
		ck_assert_uint_eq(f.mapped, first);
	}
	nothing_left();
}
END_TEST

/* The latest, as many as may; they are used again from the last one on. */
START_TEST(empty_spans_stay_idle)
{
	enum { CLS = HZ4_CLS_ZERO - 1, N = 100 };
	size_t pages, kept;
	unsigned i;

	start();
	pages = hz4_classes[CLS].pages;
	kept = HZ4_SPAN_IDLE / HZ4_PAGE / pages;
	ck_assert_uint_eq(hz4_classes[CLS].slots, 1);
	ck_assert_uint_lt(kept, N);
	take_all(CLS, held, N);
	ck_assert_uint_eq(hz4_spans_idle(), 0);
	give_all(CLS, held, N, 7);
	ck_assert_uint_eq(hz4_spans_idle(), kept * pages * HZ4_PAGE);
	ck_assert_uint_eq(figures(CLS).spans, kept);
	for (i = 0; i < 3; i++) {
		void *p;

		take(CLS, &p, 1);
		ck_assert_ptr_eq(p, held[N - 1 - i]);
		ck_assert_uint_eq(hz4_spans_idle(),
				  (kept - 1 - i) * pages * HZ4_PAGE);
	}
	hz4_spans_trim();
	ck_assert_uint_eq(hz4_spans_idle(), 0);
	ck_assert_uint_eq(figures(CLS).spans, 3);
}
END_TEST

START_TEST(spans_in_use_come_before_idle_ones)
{
	enum { CLS = 52 };
	unsigned slots;
	void *p;

	start();
	slots = hz4_classes[CLS].slots;
	take_all(CLS, held, 3 * (size_t)slots);
	give(CLS, held, 1);
	give(CLS, held + 2 * slots, slots);
	give(CLS, held + slots, slots - 1);
	ck_assert_uint_gt(hz4_spans_idle(), 0);
	while (take(CLS, &p, 1), p != held[0])
		ck_assert((uintptr_t)p - (uintptr_t)held[slots] <
			  (size_t)hz4_classes[CLS].pages * HZ4_PAGE);
	ck_assert_uint_gt(hz4_spans_idle(), 0);
}
END_TEST

/* Of those in use nearly empty ones come last, so that they empty out. */
START_TEST(sparse_spans_come_last)
{
	enum { CLS = 16, N = HZ4_SPAN_LOOKS };
	size_t slots, i;
	void *p;

	start();
	slots = hz4_classes[CLS].slots;
	ck_assert_uint_le((N + 2) * slots, MOST);
	take_all(CLS, held, (N + 2) * slots);
	/* All but the first ones of spans go, then half of another one. */
	for (i = 0; i < N; i++)
		give_all(CLS, held + i * slots + 1, slots - 1, HZ4_BATCH_MAX);
	give_all(CLS, held + N * slots, slots / 2, HZ4_BATCH_MAX);
	for (i = 0; i < slots / 2; i++) {
		take(CLS, &p, 1);
		ck_assert_ptr_eq(p, held[N * slots + i]);
	}
	/* There are no others left: one after the other is filled. */
	take(CLS, &p, 1);
	ck_assert_ptr_eq(p, held[1]);
	ck_assert_uint_eq(hz4_spans_idle(), 0);
	for (i = 1; i < N; i++)
		give(CLS, held + i * slots, 1);
	hz4_spans_settle();
	ck_assert_uint_eq(hz4_spans_idle(), (N - 1) * HZ4_PAGE *
					    (size_t)hz4_classes[CLS].pages);
}
END_TEST

START_TEST(idle_spans_come_before_fresh_memory)
{
	enum { CLS = HZ4_CLS_ZERO - 1 };
	size_t n, dirty;

	start();
	n = HZ4_SPAN_IDLE_WORTH / hz4_classes[CLS].size;
	take_all(CLS, held, n);
	give_all(CLS, held, n - 1, 1);
	/* Too few. */
	hz4_spans_make_room(SIZE_MAX / HZ4_PAGE);
	ck_assert_uint_eq(figures(CLS).spans, n);
	give(CLS, held + n - 1, 1);
	ck_assert_uint_eq(hz4_spans_idle(), HZ4_SPAN_IDLE_WORTH);
	/* None are needed. */
	dirty = hz4_pageheap_dirty() / HZ4_PAGE;
	hz4_spans_make_room(dirty);
	ck_assert_uint_eq(figures(CLS).spans, n);
	hz4_spans_make_room(dirty + 1);
	ck_assert_uint_eq(figures(CLS).spans, 0);
	nothing_left();
}
END_TEST

struct misuse {
	unsigned cls;
	void *object[4];
	unsigned n;
};

static void
give_wrong(void *arg)
{
	struct misuse *m = arg;
	unsigned i, path;

	for (i = 0; i < m->n; i++)
		hz4_transfer_give(m->cls, &m->object[i], 1, hz4_os_now(), &path);
}

static void
give_wrong_at_once(void *arg)
{
	struct misuse *m = arg;
	unsigned path;

	hz4_transfer_give(m->cls, m->object, m->n, hz4_os_now(), &path);
}

static void
expect_line(struct misuse *m, const char *what, void *p)
{
	char line[200];

	snprintf(line, sizeof line, "hz4: free(): %s: ptr %p, size %u\n",
		 what, p, (unsigned)hz4_classes[m->cls].size);
	unit_fatal(give_wrong, m, line);
	unit_fatal(give_wrong_at_once, m, line);
}

START_TEST(double_free)
{
	struct misuse m;
	unsigned c;

	start();
	for (c = 0; c < SOME; c++) {
		void *o[4];

		take_all(some[c], o, 4);
		m = (struct misuse){ some[c], { o[0], o[0] }, 2 };
		expect_line(&m, "double free", o[0]);
		m = (struct misuse){ some[c], { o[2], o[0], o[2] }, 3 };
		expect_line(&m, "double free", o[2]);
		m = (struct misuse){ some[c], { o[3], o[1], o[2], o[3] }, 4 };
		expect_line(&m, "double free", o[3]);
		/* Nothing of it happened here. */
		give(some[c], o, 4);
	}
}
END_TEST

START_TEST(interior_pointer)
{
	struct misuse m;
	unsigned c;

	start();
	for (c = 1; c < SOME; c++) {
		size_t size = hz4_classes[some[c]].size;
		char *o[3];

		take_all(some[c], (void **)o, 3);
		m = (struct misuse){ some[c], { o[1] + 16 }, 1 };
		expect_line(&m, "pointer into an object", o[1] + 16);
		m = (struct misuse){ some[c], { o[0], o[2] + size - 16 }, 2 };
		expect_line(&m, "pointer into an object",
			    o[2] + size - 16);
	}
}
END_TEST

/* The rest of a span, behind its last object. */
START_TEST(pointer_behind_the_last_object)
{
	struct misuse m;
	unsigned cls;
	size_t bytes;

	start();
	for (cls = 1; cls < HZ4_CLS_ZERO; cls++) {
		const struct hz4_class *k = &hz4_classes[cls];

		bytes = (size_t)k->slots * k->size;
		if (bytes == (size_t)k->pages * HZ4_PAGE)
			continue;
		take_all(cls, held, k->slots);
		m = (struct misuse){ cls, { (char *)held[0] + bytes }, 1 };
		expect_line(&m, "pointer into an object", m.object[0]);
		m.object[1] = m.object[0];
		m.object[0] = held[k->slots - 1];
		m.n = 2;
		expect_line(&m, "pointer into an object", m.object[1]);
		give_all(cls, held, k->slots, HZ4_BATCH_MAX);
	}
}
END_TEST

/*
 * A cache may find out late that it holds an object twice: when the span
 * has gone back with the first of them.  Its pages are then free, first,
 * last or in the midst of a run, or belong to another class or object.
 */
struct late {
	unsigned cls;
	unsigned next; /* class that gets the pages, or HZ4_CLS_NONE */
	size_t n;      /* objects held, of three spans */
};

static void
give_after_release(void *arg)
{
	const struct late *l = arg;
	unsigned path, got, i;

	give_all(l->cls, held, l->n, HZ4_BATCH_MAX);
	hz4_spans_trim();
	if (l->next != HZ4_CLS_NONE)
		for (i = 0; i < 40; i++) {
			void *others[HZ4_BATCH_MAX];

			got = hz4_transfer_take(l->next, others,
						HZ4_BATCH_MAX, &path);
			unit_child_need(got > 0);
		}
	hz4_transfer_give(l->cls, &held[l->n / 2], 1, hz4_os_now(), &path);
}

static void
double_free_after(unsigned cls, unsigned next)
{
	struct late late = { cls, next, 0 };

	late.n = hz4_min(3 * (size_t)hz4_classes[cls].slots, MOST);
	take_all(cls, held, late.n);
	unit_fatal_start(give_after_release, &late, "hz4: free(): ");
	give_all(cls, held, late.n, HZ4_BATCH_MAX);
	hz4_spans_trim();
}

START_TEST(double_free_of_a_released_span)
{
	unsigned c;

	start();
	for (c = 0; c < SOME; c++)
		double_free_after(some[c], HZ4_CLS_NONE);
}
END_TEST

START_TEST(double_free_of_a_span_of_another_class)
{
	unsigned c;

	start();
	for (c = 0; c < SOME; c++)
		double_free_after(some[c], some[(c + 5) % SOME]);
}
END_TEST

static unsigned shared_cls;
static _Atomic(void *) box[BOX];

/* Take, leave in the box, give what others left there. */
static void
exchange(uint64_t *seed, unsigned rounds)
{
	void *mine[HZ4_BATCH_MAX], *other[HZ4_BATCH_MAX];
	unsigned i, k, n, others;

	for (i = 0; i < rounds; i++) {
		n = take(shared_cls, mine,
			 1 + (unsigned)unit_below(seed, HZ4_BATCH_MAX));
		others = 0;
		for (k = 0; k < n; k++) {
			other[others] = atomic_exchange(
				&box[unit_below(seed, BOX)], mine[k]);
			others += other[others] != NULL;
		}
		if (others > 0)
			give(shared_cls, other, others);
		if (i % 256 == 0)
			hz4_spans_trim();
	}
}

static void *
exchange_in_thread(void *number)
{
	uint64_t seed = 1 + (uintptr_t)number;

	exchange(&seed, ROUNDS);
	return NULL;
}

static size_t
empty_box(void)
{
	size_t i, n = 0;
	void *p;

	for (i = 0; i < BOX; i++) {
		p = atomic_exchange(&box[i], NULL);
		if (p != NULL) {
			give(shared_cls, &p, 1);
			n++;
		}
	}
	return n;
}

START_TEST(from_many_threads)
{
	static const unsigned classes[] = { 1, 16, 50, 68 };
	size_t out, i;

	if (_i < 4)
		start();
	else
		start_spread();
	shared_cls = classes[_i % 4];
	unit_threads(THREADS, exchange_in_thread);
	for (out = 0, i = 0; i < BOX; i++)
		out += box[i] != NULL;
	compare(shared_cls, out);
	empty_box();
	compare(shared_cls, 0);
	nothing_left();
}
END_TEST

static void
exchange_some(uint64_t *seed)
{
	exchange(seed, 16);
}

static void
use_in_child(void *arg)
{
	size_t n = *(size_t *)arg, i;
	void *p[8];
	unsigned path, got;
	uintptr_t key = (uintptr_t)held;

	/* Marks of threads that are gone mean nothing: no take() here. */
	hz4_spans_fork_child();
	hz4_pageheap_fork_child();
	hz4_meta_fork_child();
	for (i = 0; i < 2000; i++) {
		got = hz4_transfer_take(shared_cls, p, 8, &path);
		unit_child_need(got >= 1);
		while (got > 0)
			*(uintptr_t *)p[--got] = key + i;
	}
	for (i = 0; i < n; i++)
		unit_child_need(*(uintptr_t *)held[i] == (uintptr_t)held[i]);
	give_all(shared_cls, held, n, HZ4_BATCH_MAX);
	take_all(shared_cls, held, n);
	give_all(shared_cls, held, n, 7);
	hz4_spans_trim();
	unit_child_need(hz4_spans_idle() == 0);
}

START_TEST(fork_while_threads_work)
{
	size_t n;

	if (_i == 0)
		start();
	else
		start_spread();
	shared_cls = 16;
	n = 2 * (size_t)hz4_classes[shared_cls].slots;
	take_all(shared_cls, held, n);
	unit_fork_under(exchange_some, FORKS, use_in_child, &n);
	give_all(shared_cls, held, n, HZ4_BATCH_MAX);
	empty_box();
	nothing_left();
}
END_TEST

enum { BIG = HZ4_CLS_ZERO - 1, SPARE = 40, AT_ONCE = 4 };

static void
use_idle_ones(uint64_t *seed)
{
	void *p[AT_ONCE];
	unsigned path, n;

	n = hz4_transfer_take(BIG, p, 1 + (unsigned)unit_below(seed, AT_ONCE),
			      &path);
	hz4_transfer_give(BIG, p, n, 0, &path);
}

/* What the gone threads had is lost, and what they were just changing. */
static void
trim_in_child(void *arg)
{
	(void)arg;
	hz4_spans_fork_child();
	hz4_pageheap_fork_child();
	hz4_meta_fork_child();
	hz4_spans_trim();
	unit_child_need(figures(BIG).spans <= THREADS * (AT_ONCE + 1));
	unit_child_need(hz4_spans_idle() == 0);
}

START_TEST(idle_spans_outlive_a_fork)
{
	if (_i == 0)
		start();
	else
		start_spread();
	take_all(BIG, held, SPARE);
	give_all(BIG, held, SPARE, 8);
	unit_fork_under(use_idle_ones, 4 * FORKS, trim_in_child, NULL);
	nothing_left();
}
END_TEST

static void *
take_and_give_some(void *number)
{
	void *p[AT_ONCE];

	take_all(shared_cls, p, AT_ONCE);
	unit_need(figures(shared_cls).spans == 1, "a span was made");
	give_all(shared_cls, p, AT_ONCE, AT_ONCE);
	return number;
}

/* What lies in one shard comes before new spans in another. */
START_TEST(shards_share_what_is_free)
{
	start_spread();
	shared_cls = 16;
	take_all(shared_cls, held, 2);
	give_all(shared_cls, held, 1, 1);
	unit_threads(1, take_and_give_some);
	unit_threads(1, take_and_give_some);
	ck_assert_uint_gt(hz4_shards(), 1);
	give_all(shared_cls, held + 1, 1, 1);
	nothing_left();
}
END_TEST

/* The idle spans of all shards together stay below the bound. */
START_TEST(shards_share_the_idle_bound)
{
	enum { N = 2 * HZ4_SPAN_IDLE / HZ4_CLASS_MAX };

	start_spread();
	take_all(BIG, held, N);
	give_all(BIG, held, N, 8);
	hz4_spans_settle();
	ck_assert_uint_gt(hz4_spans_idle(), 0);
	ck_assert_uint_le(hz4_spans_idle(), HZ4_SPAN_IDLE / 2);
	nothing_left();
}
END_TEST

enum { LEFT = HZ4_SPAN_WAITING / HZ4_CLASS_MAX };

static size_t
waiting(void)
{
	struct hz4_spans *c = hz4_lists_at(hz4_shard_own(), BIG);

	return hz4_peek(&c->waiting) * HZ4_PAGE;
}

static void *
give_in_thread(void *number)
{
	give_all(BIG, held, LEFT, 4);
	return number;
}

/* Of what was used calloc takes nothing: an empty span stays one. */
START_TEST(what_is_used_stays_idle)
{
	unsigned path;

	start();
	take_all(BIG, held, 2);
	give_all(BIG, held, 2, 2);
	ck_assert_ptr_eq(hz4_transfer_take_zeroed(BIG, 1, &path), NULL);
	ck_assert_uint_eq(hz4_spans_idle(),
			  2 * hz4_classes[BIG].pages * HZ4_PAGE);
	ck_assert_uint_eq(hz4_check(), 0);
	nothing_left();
}
END_TEST

/* Nobody who gives waits for the lock: its holder sees to what he left. */
START_TEST(who_gives_does_not_wait)
{
	struct hz4_spans *c;

	start();
	take_all(BIG, held, LEFT);
	c = hz4_spans_lock(BIG);
	unit_threads(1, give_in_thread);
	ck_assert_uint_eq(waiting(), HZ4_SPAN_WAITING);
	hz4_spans_unlock(c);
	ck_assert_uint_eq(waiting(), 0);
	ck_assert_uint_eq(hz4_spans_idle(), HZ4_SPAN_WAITING);
	nothing_left();
}
END_TEST

/* With shards, so much of a class is left to who takes from it next. */
START_TEST(spans_wait_for_a_taker)
{
	void *p;

	start_spread();
	ck_assert_uint_eq(hz4_classes[BIG].slots, 1);
	take_all(BIG, held, LEFT + 1);
	give_all(BIG, held, LEFT, 1);
	ck_assert_uint_eq(waiting(), HZ4_SPAN_WAITING);
	/* They are known, nearly. */
	ck_assert_uint_gt(hz4_spans_idle(), HZ4_SPAN_WAITING - HZ4_SPAN_TELL);
	/* A taker sees to them, and makes no other span. */
	take(BIG, &p, 1);
	ck_assert_ptr_eq(p, held[LEFT - 1]);
	ck_assert_uint_eq(waiting(), 0);
	give(BIG, &p, 1);
	hz4_spans_trim();
	ck_assert_uint_eq(figures(BIG).spans, 1);
	/* One more than may be left. */
	take_all(BIG, held, LEFT);
	give_all(BIG, held, LEFT, 1);
	ck_assert_uint_eq(waiting(), HZ4_SPAN_WAITING);
	give(BIG, held + LEFT, 1);
	ck_assert_uint_eq(waiting(), 0);
	nothing_left();
}
END_TEST

/* Those of all classes together are bounded too. */
START_TEST(what_waits_is_bounded)
{
	enum { FIRST = HZ4_CLS_FIRST_LARGE, N = 64 };
	size_t most, all;
	unsigned cls, n;

	start_spread();
	for (cls = FIRST; cls < HZ4_CLS_ZERO; cls++) {
		n = (unsigned)(HZ4_SPAN_WAITING / HZ4_PAGE /
			       hz4_classes[cls].pages * hz4_classes[cls].slots);
		ck_assert_uint_le(n, N);
		take_all(cls, held + (cls - FIRST) * N, n);
	}
	most = hz4_max(HZ4_SPAN_IDLE,
		       hz4_pageheap_used() / HZ4_SPAN_IDLE_SHARE);
	ck_assert_uint_gt((HZ4_CLS_ZERO - FIRST) * HZ4_SPAN_WAITING, most);
	for (cls = FIRST; cls < HZ4_CLS_ZERO; cls++) {
		n = (unsigned)(HZ4_SPAN_WAITING / HZ4_PAGE /
			       hz4_classes[cls].pages * hz4_classes[cls].slots);
		give_all(cls, held + (cls - FIRST) * N, n, 1);
	}
	for (all = 0, cls = 1; cls < HZ4_CLS_END; cls++)
		all += hz4_peek(&hz4_lists_at(hz4_shard_own(), cls)->waiting);
	ck_assert_uint_gt(all, 0);
	ck_assert_uint_le(all * HZ4_PAGE,
			  most + (HZ4_CLS_ZERO - FIRST) * HZ4_SPAN_TELL);
	nothing_left();
}
END_TEST

START_TEST(waiting_spans_are_settled)
{
	start_spread();
	take_all(BIG, held, LEFT);
	give_all(BIG, held, LEFT, 3);
	ck_assert_uint_eq(waiting(), HZ4_SPAN_WAITING);
	hz4_spans_settle();
	ck_assert_uint_eq(waiting(), 0);
	/* The rest was above the bound of idle ones. */
	ck_assert_uint_gt(hz4_spans_idle(), 0);
	ck_assert_uint_eq(figures(BIG).spans * hz4_classes[BIG].size,
			  hz4_spans_idle());
	nothing_left();
}
END_TEST

static void
take_in_child(void *arg)
{
	unsigned i;

	(void)arg;
	hz4_spans_fork_child();
	unit_child_need(waiting() == 0 && hz4_spans_idle() == HZ4_SPAN_WAITING);
	for (i = 0; i < 2; i++) {
		take_all(BIG, held, LEFT);
		unit_child_need(figures(BIG).spans == LEFT);
		give_all(BIG, held, LEFT, 2);
	}
}

START_TEST(waiting_spans_outlive_a_fork)
{
	start_spread();
	take_all(BIG, held, LEFT);
	give_all(BIG, held, LEFT, 1);
	unit_survives(take_in_child, NULL);
	nothing_left();
}
END_TEST

enum { HANDLER_FORKS = 40, ROUNDS_IN_CHILD = 20 };

static volatile sig_atomic_t handler_forks, in_child;

/* The child goes on where the signal has interrupted its parent. */
static void
fork_in_handler(int sig)
{
	int saved = errno, status = -1;
	pid_t pid;

	(void)sig;
	if (in_child)
		return;
	pid = fork();
	if (pid == 0) {
		in_child = 1;
		hz4_spans_fork_child();
		hz4_pageheap_fork_child();
		hz4_meta_fork_child();
		return;
	}
	waitpid(pid, &status, 0);
	unit_need(status == 0, "the child ended with status %x", status);
	handler_forks++;
	errno = saved;
}

/* Where the debug build yields, a signal often comes. */
START_TEST(a_handler_forks_while_spans_move)
{
	struct itimerval once = { { 0, 0 }, { 0, 0 } };
	unsigned left = ROUNDS_IN_CHILD, n;

	if (_i == 0)
		start();
	else
		start_spread();
	hz4_poke(&hz4_chaos_one_in, 1);
	ck_assert(signal(SIGALRM, fork_in_handler) != SIG_ERR);
	for (n = 0; handler_forks < HANDLER_FORKS && left > 0; n++) {
		if (in_child)
			left--;
		/* At another place each time. */
		once.it_value.tv_usec = in_child ? 0 : 1 + n % 97;
		ck_assert_int_eq(setitimer(ITIMER_REAL, &once, NULL), 0);
		take_all(BIG, held, 6);
		give_all(BIG, held, 6, 3);
	}
	once.it_value.tv_usec = 0;
	setitimer(ITIMER_REAL, &once, NULL);
	hz4_poke(&hz4_chaos_one_in, 0);
	if (in_child) {
		hz4_spans_trim();
		_exit(figures(BIG).spans == 0 ? 0 : 1);
	}
	nothing_left();
}
END_TEST

/* A thread that is gone was about to push a span into the inbox. */
START_TEST(marks_of_the_gone_mean_nothing)
{
	const unsigned cls = 16;
	struct hz4_spans *c;
	struct hz4_span *s;
	size_t n;

	start();
	n = hz4_classes[cls].slots;
	/* One more: only then is the first span looked at again. */
	take_all(cls, held, n + 1);
	ck_assert_uint_eq(figures(cls).spans, 2);
	s = hz4_pagemap_owner((uintptr_t)held[0]);
	c = hz4_lists_of(s->slab);
	ck_assert(!atomic_load(&s->linked));
	hz4_poke(&s->slab->queued, hz4_slab_bit(s->slab, s));
	hz4_poke(&c->waiting, hz4_classes[cls].pages);
	hz4_spans_fork_child();
	ck_assert_uint_eq(hz4_peek(&c->waiting), 0);
	/* The span gets an object back and is found again. */
	give(cls, held, 1);
	ck_assert(atomic_load(&s->linked));
	take_all(cls, held, 1);
	give_all(cls, held, n + 1, 8);
	nothing_left();
}
END_TEST

static unsigned places, fork_at; /* places that were come by; 0: nowhere */

static void
fork_here(void)
{
	if (++places == fork_at)
		hz4_spans_fork_child();
}

/*
 * As if a signal's handler forked at one place after the other where the
 * debug build yields, and this were the child that goes on from there.
 */
START_TEST(a_handler_forks_at_every_place)
{
	const unsigned rounds = 6;
	unsigned i;

	if (!HZ4_DEBUG_BOX)
		return;
	if (_i == 0)
		start();
	else
		start_spread();
	hz4_poke(&hz4_chaos_hook, fork_here);
	hz4_poke(&hz4_chaos_one_in, 1);
	do {
		fork_at++;
		places = 0;
		for (i = 0; i < rounds; i++) {
			take_all(BIG, held, LEFT);
			give_all(BIG, held, LEFT, 3);
		}
		hz4_spans_settle();
		ck_assert_uint_eq(waiting(), 0);
	} while (fork_at <= places);
	ck_assert_uint_gt(fork_at, 10);
	hz4_poke(&hz4_chaos_one_in, 0);
	nothing_left();
}
END_TEST

static struct hz4_spans *_Atomic wanted; /* lists that a thread will lock */
static _Atomic bool moved;

/* Lock the thread's own lists, mostly in vain, until they are others. */
static void
lock_until_moved(void)
{
	struct hz4_spans *first = hz4_spans_lock(shared_cls), *c;

	hz4_spans_unlock(first);
	atomic_store(&wanted, first);
	do {
		while (hz4_peek(&first->lock.word) == 0)
			;
		c = hz4_spans_lock(shared_cls);
		hz4_spans_unlock(c);
	} while (c == first);
	atomic_store(&moved, true);
}

/* Hold the lock that the other thread wants. */
static void
be_in_the_way(void)
{
	struct hz4_spans *c;

	while ((c = atomic_load(&wanted)) == NULL)
		;
	while (!atomic_load(&moved)) {
		hz4_lock_acquire(&c->lock);
		nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
		hz4_lock_release(&c->lock);
	}
}

static void *
move_or_be_in_the_way(void *number)
{
	if ((uintptr_t)number == 0)
		lock_until_moved();
	else
		be_in_the_way();
	return number;
}

START_TEST(who_waits_leaves_the_shard)
{
	start_spread();
	shared_cls = 16;
	unit_threads(2, move_or_be_in_the_way);
	ck_assert(atomic_load(&moved));
	nothing_left();
}
END_TEST

START_TEST(no_memory)
{
	unsigned long fail;
	unsigned c, path, n;
	size_t out;

	if (!HZ4_DEBUG_BOX)
		return;
	start();
	for (c = 0; c < SOME; c++)
		for (fail = 1; fail <= 4; fail++) {
			hz4_os_fail_from(fail);
			for (out = 0; out < MOST - HZ4_BATCH_MAX; out += n) {
				n = hz4_transfer_take(some[c], held + out,
						      HZ4_BATCH_MAX, &path);
				if (n == 0)
					break;
			}
			compare(some[c], out);
			/* Giving needs no memory. */
			hz4_transfer_give(some[c], held, (unsigned)out,
					  hz4_os_now(), &path);
			hz4_spans_trim();
			hz4_os_fail_from(0);
			ck_assert_uint_eq(figures(some[c]).spans, 0);
			take_all(some[c], held, 5);
			compare(some[c], 5);
			give_all(some[c], held, 5, 5);
		}
	hz4_spans_trim();
	for (c = 1; c < HZ4_CLS_END; c++)
		ck_assert_uint_eq(figures(c).spans, 0);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, whole_spans_of_every_class);
	tcase_add_test(t, a_span_from_the_lowest_address_on);
	tcase_add_test(t, whole_groups_before_parts_of_them);
	tcase_add_test(t, out_or_not);
	tcase_add_test(t, give_any_number);
	tcase_add_test(t, pages_go_from_class_to_class);
	tcase_add_test(t, empty_spans_stay_idle);
	tcase_add_test(t, spans_in_use_come_before_idle_ones);
	tcase_add_test(t, sparse_spans_come_last);
	tcase_add_test(t, idle_spans_come_before_fresh_memory);
	tcase_add_test(t, double_free);
	tcase_add_test(t, interior_pointer);
	tcase_add_test(t, pointer_behind_the_last_object);
	tcase_add_test(t, double_free_of_a_released_span);
	tcase_add_test(t, double_free_of_a_span_of_another_class);
	tcase_add_loop_test(t, from_many_threads, 0, 8);
	tcase_add_loop_test(t, fork_while_threads_work, 0, 2);
	tcase_add_loop_test(t, idle_spans_outlive_a_fork, 0, 2);
	tcase_add_test(t, shards_share_what_is_free);
	tcase_add_test(t, shards_share_the_idle_bound);
	tcase_add_test(t, what_is_used_stays_idle);
	tcase_add_test(t, who_gives_does_not_wait);
	tcase_add_test(t, spans_wait_for_a_taker);
	tcase_add_test(t, what_waits_is_bounded);
	tcase_add_test(t, waiting_spans_are_settled);
	tcase_add_test(t, waiting_spans_outlive_a_fork);
	tcase_add_loop_test(t, a_handler_forks_while_spans_move, 0, 2);
	tcase_add_test(t, marks_of_the_gone_mean_nothing);
	tcase_add_loop_test(t, a_handler_forks_at_every_place, 0, 2);
	tcase_add_test(t, who_waits_leaves_the_shard);
	tcase_add_test(t, no_memory);
}

int
main(void)
{
	return unit_main("transfer", add);
}
