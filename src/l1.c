/*
 * l1.c - the CPUs' objects: locking, moving, bounding, giving back.
 */
#include "l1.h"

#include "cpu.h"
#include "meta.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "transfer.h"
#include "view.h"

#include <string.h>

/* [atomic] release: what it points to comes before; set once each */
static struct hz4_l1 *_Atomic all[HZ4_L1_MOST];

/* Numbers above the last that has one.  [atomic] release; only grows */
static _Atomic unsigned end_of_all;

/*
 * This thread has one locked, or empties them: calls of its own that come
 * meanwhile, from a wrapper around one of libc's, do without.
 */
static HZ4_TLS bool inside;

static struct hz4_l1 *
at(unsigned i)
{
	return atomic_load_explicit(&all[i], memory_order_acquire);
}

static HZ4_SLOW struct hz4_l1 *
make(unsigned i)
{
	struct hz4_l1 *l = hz4_meta_alloc(sizeof *l), *other = NULL;
	unsigned end = hz4_peek(&end_of_all);

	if (l == NULL)
		return NULL;
	memset(l, 0, sizeof *l);
	l->lock.rank = HZ4_RANK_CPU;
	l->hand = 1;
	/* First: the child of a fork sees no L1 beyond the end. */
	while (end < i + 1 &&
	       !atomic_compare_exchange_weak(&end_of_all, &end, i + 1))
		;
	if (!atomic_compare_exchange_strong(&all[i], &other, l)) {
		hz4_meta_free(l, sizeof *l);
		return other;
	}
	return l;
}

static struct hz4_l1 *
lock_one(void)
{
	unsigned i = hz4_cpu_number() % HZ4_L1_MOST, tries, end;
	struct hz4_l1 *l = at(i);

	if (hz4_unlikely(l == NULL))
		l = make(i);
	if (l != NULL && hz4_likely(hz4_lock_try(&l->lock)))
		return l;
	end = atomic_load_explicit(&end_of_all, memory_order_acquire);
	for (tries = 1; tries < HZ4_L1_TRIES && tries < end; tries++) {
		i = i + 1 < end ? i + 1 : 0;
		l = at(i);
		if (l != NULL && hz4_lock_try(&l->lock))
			return l;
	}
	return NULL;
}

struct hz4_l1 *
hz4_l1_lock(void)
{
	struct hz4_l1 *l;

	if (inside)
		return NULL;
	inside = true;
	l = lock_one();
	inside = l != NULL;
	return l;
}

void
hz4_l1_unlock(struct hz4_l1 *l)
{
	hz4_lock_release(&l->lock);
	inside = false;
}

static void
set_busy(struct hz4_l1 *l, unsigned cls)
{
	HZ4_CHAOS();
	atomic_store_explicit(&l->busy, cls, memory_order_release);
	atomic_thread_fence(memory_order_release);
	HZ4_CHAOS();
}

static void
set_count(struct hz4_l1 *l, unsigned cls, uint32_t count)
{
	struct hz4_shelf *s = &l->shelf[cls];
	size_t size = hz4_classes[cls].size;

	hz4_poke(&l->bytes, hz4_peek(&l->bytes) + count * size -
				    hz4_peek(&s->count) * size);
	HZ4_CHAOS();
	/* Release: a fork's child must not see it without the objects. */
	atomic_store_explicit(&s->count, count, memory_order_release);
	HZ4_CHAOS();
}

static void
add_net(struct hz4_shelf *s, int64_t n)
{
	hz4_poke(&s->net, hz4_peek(&s->net) + n);
}

/* Let the array have room for so many. */
static bool
have_room(struct hz4_l1 *l, unsigned cls, uint32_t need)
{
	struct hz4_shelf *s = &l->shelf[cls];
	uint32_t room = hz4_max(s->room, 8u), had = s->room;
	void **array, **old = s->array;

	if (need <= had)
		return true;
	while (room < need)
		room *= 2;
	array = hz4_meta_alloc(room * sizeof *array);
	if (array == NULL)
		return false;
	set_busy(l, cls);
	if (old != NULL)
		memcpy(array, old, hz4_peek(&s->count) * sizeof *array);
	s->array = array;
	s->room = room;
	set_busy(l, HZ4_CLS_NONE);
	if (old != NULL)
		hz4_meta_free(old, had * sizeof *old);
	return true;
}

/* The oldest `n` of a class go to the spans. */
static void
give_oldest(struct hz4_l1 *l, unsigned cls, uint32_t n,
	    struct hz4_counts *counts)
{
	struct hz4_shelf *s = &l->shelf[cls];
	uint32_t left = hz4_peek(&s->count) - n;

	if (n == 0)
		return;
	set_busy(l, cls);
	hz4_transfer_give_run(cls, s->array, n, 0, counts);
	add_net(s, -(int64_t)n);
	memmove(s->array, s->array + n, left * sizeof *s->array);
	set_count(l, cls, left);
	s->least = hz4_min(s->least, left);
	set_busy(l, HZ4_CLS_NONE);
}

/* Objects from the spans; the lowest address is the next one to use. */
static HZ4_DEEP void
refill(struct hz4_l1 *l, unsigned cls, unsigned want,
       struct hz4_counts *counts)
{
	struct hz4_shelf *s = &l->shelf[cls];
	unsigned n;

	if (!have_room(l, cls, want))
		want = s->room;
	if (want == 0)
		return;
	n = hz4_transfer_take_run(cls, s->array, want, counts);
	add_net(s, n);
	set_count(l, cls, n);
}

/* Bytes that one L1 may hold: little where what is free stays in memory. */
static size_t
most_bytes(void)
{
	size_t most = (hz4_option(HZ4_OPT_cpu_cache) << 10) / HZ4_L1_SHARE;

	return hz4_pageheap_pinned() ? hz4_min(most, HZ4_L1_PINNED) : most;
}

/*
 * Objects that come from the spans at once when so many are asked for: more,
 * where there is room for the rest.
 */
static unsigned
run_of(const struct hz4_l1 *l, unsigned cls, unsigned n)
{
	size_t most = most_bytes(), has = hz4_peek(&l->bytes);
	unsigned run = hz4_sizeclass_is_mid(cls) ? HZ4_MID_ALLOC_RUN_LIMIT :
						   hz4_classes[cls].batch;

	run = hz4_min((size_t)HZ4_L1_RUN * n, run);
	if (has >= most || (most - has) / hz4_classes[cls].size < run)
		return n;
	return hz4_max(n, run);
}

unsigned
hz4_l1_take(struct hz4_l1 *l, unsigned cls, void **to, unsigned n,
	    struct hz4_counts *counts)
{
	struct hz4_shelf *s = &l->shelf[cls];
	uint32_t left;

	if (hz4_peek(&s->count) > 0)
		hz4_count(counts, cls, HZ4_COUNT_malloc_alloc_run_hit, 1);
	else
		refill(l, cls, run_of(l, cls, n), counts);
	n = hz4_min(n, hz4_peek(&s->count));
	/* No memory for one, nor yet an array. */
	if (n == 0)
		return 0;
	left = hz4_peek(&s->count) - n;
	memcpy(to, s->array + left, n * sizeof *to);
	s->least = hz4_min(s->least, left);
	set_count(l, cls, left);
	return n;
}

/*
 * Room for `n` more: a class that is full gives half of what it has, and
 * classes in turn until all have too little.  False: there is none.
 */
static HZ4_DEEP bool
make_way(struct hz4_l1 *l, unsigned cls, unsigned n, struct hz4_counts *counts)
{
	size_t bytes = n * (size_t)hz4_classes[cls].size, most = most_bytes();
	_Atomic uint32_t *count = &l->shelf[cls].count;
	unsigned hand;

	if (hz4_peek(count) + n > HZ4_L1_OBJECTS)
		give_oldest(l, cls, hz4_peek(count) / 2, counts);
	if (bytes > most)
		return false;
	while (hz4_peek(&l->bytes) + bytes > most) {
		hand = l->hand;
		l->hand = hand + 1 < HZ4_CLS_END ? hand + 1 : 1;
		give_oldest(l, hand, (hz4_peek(&l->shelf[hand].count) + 1) / 2,
			    counts);
	}
	return have_room(l, cls, hz4_peek(count) + n);
}

void
hz4_l1_give(struct hz4_l1 *l, unsigned cls, void *const *from, unsigned n,
	    struct hz4_counts *counts)
{
	struct hz4_shelf *s = &l->shelf[cls];
	uint32_t count;

	if (!make_way(l, cls, n, counts)) {
		add_net(s, -(int64_t)n);
		hz4_transfer_give_run(cls, from, n, 0, counts);
		return;
	}
	count = hz4_peek(&s->count);
	memcpy(s->array + count, from, n * sizeof *from);
	set_count(l, cls, count + n);
}

bool
hz4_l1_holds(const struct hz4_l1 *l, unsigned cls, const void *object)
{
	const struct hz4_shelf *s = &l->shelf[cls];
	uint32_t count = hz4_peek(&s->count), n;

	for (n = 1; n <= count && n <= HZ4_L1_LOOK; n++)
		if (s->array[count - n] == object)
			return true;
	return false;
}

/* Give back what no thread took since the last time, or all, of one. */
static void
empty_locked(struct hz4_l1 *l, bool everything, struct hz4_counts *counts)
{
	struct hz4_shelf *s;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		s = &l->shelf[cls];
		give_oldest(l, cls, everything ? hz4_peek(&s->count) : s->least,
			    counts);
		s->least = hz4_peek(&s->count);
	}
}

static void
empty_each(bool everything, struct hz4_counts *counts)
{
	unsigned i, end = hz4_peek(&end_of_all);
	struct hz4_l1 *l;

	if (inside)
		return;
	inside = true;
	for (i = 0; i < end; i++) {
		l = at(i);
		if (l == NULL || (!everything && !hz4_lock_try(&l->lock)))
			continue;
		if (everything)
			hz4_lock_acquire(&l->lock);
		empty_locked(l, everything, counts);
		hz4_lock_release(&l->lock);
	}
	inside = false;
}

void
hz4_l1_decay(struct hz4_counts *counts)
{
	empty_each(false, counts);
}

void
hz4_l1_flush(struct hz4_counts *counts)
{
	empty_each(true, counts);
}

void
hz4_l1_each(void (*visit)(const struct hz4_l1 *l, void *arg), void *arg)
{
	unsigned i, end = hz4_peek(&end_of_all);
	struct hz4_l1 *l;

	for (i = 0; i < end; i++)
		if ((l = at(i)) != NULL)
			visit(l, arg);
}

const struct hz4_view_l1 hz4_view_l1 = {
	.all = HZ4_VIEW_EACH(all[0], sizeof all[0]),
	.end = HZ4_VIEW_OF(end_of_all),
	.net = HZ4_VIEW_MEMBER_EACH(struct hz4_l1, shelf[0].net,
				    sizeof(struct hz4_shelf)),
	.count = HZ4_VIEW_MEMBER_EACH(struct hz4_l1, shelf[0].count,
				      sizeof(struct hz4_shelf)),
	.array = HZ4_VIEW_MEMBER_EACH(struct hz4_l1, shelf[0].array,
				      sizeof(struct hz4_shelf)),
	.bytes = sizeof(struct hz4_l1),
};

/* What a gone thread was changing is lost, the rest stays. */
static void
start_afresh(struct hz4_l1 *l)
{
	unsigned cls = hz4_peek(&l->busy);
	size_t bytes = 0;

	if (cls != HZ4_CLS_NONE) {
		hz4_poke(&l->shelf[cls].count, 0);
		l->shelf[cls].array = NULL;
		l->shelf[cls].room = 0;
		l->shelf[cls].least = 0;
		hz4_poke(&l->busy, HZ4_CLS_NONE);
	}
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		bytes += hz4_peek(&l->shelf[cls].count) *
			 (size_t)hz4_classes[cls].size;
	hz4_poke(&l->bytes, bytes);
}

void
hz4_l1_fork_child(void)
{
	unsigned i, end = hz4_peek(&end_of_all);
	struct hz4_l1 *l;

	for (i = 0; i < end; i++) {
		l = at(i);
		if (l == NULL || !hz4_fork_lost(&l->lock))
			continue;
		start_afresh(l);
		hz4_fork_drop(&l->lock);
	}
}
