/*
 * cache.c - refilling, overflowing, growing and shrinking of a thread's
 * stacks.  Where the fast paths stop is stacks.c's, how much
 * they may hold growth.c's.
 */
#include "cache.h"

#include "l1.h"
#include "growth.h"
#include "lock.h"
#include "os.h"
#include "probe.h"
#include "purge.h"
#include "transfer.h"

#include <string.h>

const struct hz4_cache hz4_empty_cache;

void
hz4_cache_init(struct hz4_cache *c, bool first)
{
	c->sampler.left = INT64_MAX;
	c->sampler.calls = UINT64_MAX;
	c->lock.rank = HZ4_RANK_CACHE;
	c->granted = c->left = hz4_share_start(first);
}

/* Half of the limit, so that what comes next finds room both ways. */
static unsigned
batch_of(const struct hz4_cache *c, unsigned cls)
{
	uint32_t n = (c->tier[cls].limit + 1u) / 2;

	if (HZ4_MID_DUAL_TIER_ALLOC_BOX && hz4_sizeclass_is_mid(cls))
		n = hz4_min(n, HZ4_MID_DUAL_TIER_L0_REFILL_BATCH);
	return (unsigned)hz4_max(1, hz4_min(n, hz4_classes[cls].batch));
}

static void
add_net(struct hz4_cache *c, unsigned cls, int64_t n)
{
	struct hz4_tier *t = &c->tier[cls];

	hz4_poke(&t->net, hz4_peek(&t->net) + n);
}

/*
 * The CPU's L1, locked.  NULL where there is none: large objects go straight
 * to their spans, one at a time, and are found there when freed again.
 */
static struct hz4_l1 *
lock_l1(unsigned cls)
{
	return HZ4_MID_DUAL_TIER_ALLOC_BOX && cls < HZ4_CLS_FIRST_LARGE ?
		       hz4_l1_lock() :
		       NULL;
}

/* A thread that has run ahead lets others run; before any stack is closed. */
static void
keep_pace(struct hz4_cache *c)
{
	if (hz4_pace_due(&c->pace))
		hz4_pace_rest(&c->pace);
}

static void
note_taken(struct hz4_cache *c, unsigned cls, unsigned n)
{
	size_t bytes = n * (size_t)hz4_classes[cls].size;

	c->returned -= (ptrdiff_t)bytes;
	hz4_pace_take(&c->pace, bytes);
}

/* From L1 where there is one; the object to use next comes last. */
static unsigned
take_below(struct hz4_cache *c, unsigned cls, void **to, unsigned n)
{
	struct hz4_l1 *l = lock_l1(cls);

	if (l == NULL) {
		n = hz4_transfer_take_run(cls, to, n, c->counts);
		note_taken(c, cls, n);
		add_net(c, cls, n);
		return n;
	}
	n = hz4_l1_take(l, cls, to, n, c->counts);
	hz4_l1_unlock(l);
	note_taken(c, cls, n);
	hz4_count(c->counts, cls, HZ4_COUNT_malloc_l0_refill_calls, n > 0);
	hz4_count(c->counts, cls, HZ4_COUNT_malloc_l0_refill_objs, n);
	return n;
}

static void
give_below(struct hz4_cache *c, unsigned cls, void *const *from, unsigned n)
{
	struct hz4_l1 *l = lock_l1(cls);
	size_t bytes = n * (size_t)hz4_classes[cls].size;

	HZ4_PROBE2(flush, hz4_sizeclass_usable(cls), n);
	c->returned += (ptrdiff_t)bytes;
	hz4_pace_give(&c->pace, bytes);
	if (HZ4_MID_DUAL_TIER_ALLOC_BOX) {
		hz4_count(c->counts, cls, HZ4_COUNT_free_l0_flush_calls, 1);
		hz4_count(c->counts, cls, HZ4_COUNT_free_l0_flush_objs, n);
	}
	if (l == NULL) {
		hz4_transfer_give_run(cls, from, n, 0, c->counts);
		add_net(c, cls, -(int64_t)n);
		return;
	}
	hz4_l1_give(l, cls, from, n, c->counts);
	hz4_l1_unlock(l);
}

static void
set_gone(struct hz4_cache *c, unsigned cls, size_t n)
{
	hz4_poke(&c->tier[cls].gone, (uint16_t)n);
}

/* Give the `n` oldest objects of a class back. */
static HZ4_DEEP void
give_oldest(struct hz4_cache *c, unsigned cls, unsigned n)
{
	hz4_stacks_close(c, cls);
	/* A signal's handler may have taken some of them. */
	n = (unsigned)hz4_min(n, hz4_cache_count(c, cls));
	give_below(c, cls, hz4_stacks_oldest(c, cls), n);
	set_gone(c, cls, hz4_peek(&c->tier[cls].gone) + n);
	hz4_stacks_settle(c, cls);
	hz4_stacks_open(c, cls);
}

/* Give the oldest objects of a class back until it has `limit` of them. */
static void
keep_at_most(struct hz4_cache *c, unsigned cls, size_t limit)
{
	size_t held;

	while ((held = hz4_cache_count(c, cls)) > limit) {
		held = hz4_min(held - limit, HZ4_BATCH_OBJECTS);
		give_oldest(c, cls, (unsigned)held);
	}
}

/* The class may hold less from now on. */
static void
cut(struct hz4_cache *c, unsigned cls, uint32_t limit)
{
	keep_at_most(c, cls, limit);
	hz4_growth_set(c, cls, limit);
	hz4_stacks_idle(c, cls);
}

void
hz4_cache_decay(struct hz4_cache *c)
{
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		if (!c->tier[cls].used && c->tier[cls].limit > 0)
			cut(c, cls, c->tier[cls].limit / 2u);
		c->tier[cls].used = false;
	}
	hz4_growth_give(c, c->left / 2);
}

void *
hz4_cache_refill(struct hz4_cache *c, unsigned cls)
{
	struct hz4_stack *s = &c->stack[cls];
	struct hz4_tier *t = &c->tier[cls];
	void *one, **to = &one, *first = NULL;
	uint32_t held, n;

	hz4_growth_note(c, cls, HZ4_TURN_MISS);
	keep_pace(c);
	hz4_stacks_close(c, cls);
	/*
	 * A wrapper around one of libc's calls, or a signal's handler, may
	 * have filled it since.
	 */
	held = (uint32_t)hz4_min(hz4_cache_count(c, cls), t->limit);
	n = hz4_min(batch_of(c, cls), t->limit - held);
	if (n > 0)
		to = hz4_peek(&s->top);
	n = take_below(c, cls, to, hz4_max(n, 1u));
	if (n > 0) {
		first = to[n - 1];
		if (n > 1)
			hz4_stacks_move_top(c, cls, to + n - 1);
	}
	hz4_stacks_open(c, cls);
	HZ4_PROBE2(refill, hz4_sizeclass_usable(cls), n);
	if (n == 0)
		return NULL;
	hz4_stacks_called(c, cls);
	return first;
}

/* One that stays in use: no event, since no cache would have had it. */
void *
hz4_cache_take_zeroed(struct hz4_cache *c, unsigned cls, size_t bytes)
{
	unsigned path;
	void *p;

	keep_pace(c);
	p = hz4_transfer_take_zeroed(cls, bytes, &path);
	if (p == NULL)
		return NULL;
	hz4_count(c->counts, cls, HZ4_COUNT_malloc_lock_path, 1);
	hz4_count(c->counts, cls, path & HZ4_TRANSFER_CREATED ?
					  HZ4_COUNT_malloc_span_create :
					  HZ4_COUNT_malloc_transfer_hit, 1);
	add_net(c, cls, 1);
	note_taken(c, cls, 1);
	hz4_stacks_called(c, cls);
	return p;
}

/* Push whatever the ends say; there is room. */
static void
put(struct hz4_cache *c, unsigned cls, void *object)
{
	struct hz4_stack *s = &c->stack[cls];
	void **top = hz4_peek(&s->top);

	*top = object;
	/* Release: as in hz4_cache_push. */
	atomic_store_explicit(&s->top, top + 1, memory_order_release);
	hz4_count_hit(hz4_hits(s, HZ4_HIT_FREE));
	hz4_stacks_called(c, cls);
}

static bool
l1_holds(unsigned cls, const void *object)
{
	struct hz4_l1 *l = lock_l1(cls);
	bool holds;

	if (l == NULL)
		return false;
	holds = hz4_l1_holds(l, cls, object);
	hz4_l1_unlock(l);
	return holds;
}

bool
hz4_cache_holds(struct hz4_cache *c, unsigned cls, const void *object)
{
	void **p, **top = hz4_peek(&c->stack[cls].top);

	for (p = hz4_stacks_oldest(c, cls); p != NULL && p < top; p++)
		if (*p == object)
			return true;
	return !hz4_transfer_is_out(object, cls) || l1_holds(cls, object);
}

/* Whether one of the objects from the HZ4_STACK_BELOW last ones before `p`. */
static bool
lies_below(struct hz4_cache *c, unsigned cls, void **p, const void *object)
{
	void **oldest = hz4_stacks_oldest(c, cls);
	unsigned n = HZ4_STACK_BELOW;

	for (; n > 0 && p > oldest; n--)
		if (*--p == object)
			return true;
	return false;
}

/*
 * The stack is full: give the oldest back.  Of the latest, which may be freed
 * again, some stay where malloc and free find them; of a small stack too few,
 * and they are looked for.
 */
static void
run_over(struct hz4_cache *c, unsigned cls)
{
	if (c->tier[cls].limit < HZ4_STACK_PLENTY)
		hz4_stacks_idle(c, cls);
	give_oldest(c, cls, batch_of(c, cls));
}

void
hz4_cache_overflow(struct hz4_cache *c, unsigned cls, void *object)
{
	struct hz4_stack *s = &c->stack[cls];

	if (hz4_unlikely(lies_below(c, cls, hz4_peek(&s->top), object)))
		hz4_transfer_twice("free()", &hz4_classes[cls], object);
	if ((hz4_unlikely(hz4_stacks_careful(c, cls)) &&
	     hz4_cache_holds(c, cls, object)) ||
	    hz4_unlikely(!hz4_transfer_is_out(object, cls)))
		hz4_transfer_reject(cls, object);
	if (hz4_peek(&s->top) < hz4_stacks_limit(c, cls)) {
		put(c, cls, object);
		return;
	}
	hz4_growth_note(c, cls, HZ4_TURN_OVERFLOW);
	if (c->tier[cls].limit == 0) {
		hz4_count(c->counts, cls, HZ4_COUNT_free_uncached, 1);
		give_below(c, cls, &object, 1);
		return;
	}
	/* A signal's handler may fill it again before it is open. */
	while (hz4_peek(&s->top) >= hz4_stacks_limit(c, cls))
		run_over(c, cls);
	put(c, cls, object);
}

void
hz4_cache_flush(struct hz4_cache *c)
{
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		keep_at_most(c, cls, 0);
		hz4_stacks_idle(c, cls);
	}
}

HZ4_SLOW void
hz4_cache_wake(struct hz4_cache *c)
{
	unsigned cls;
	bool stopped;

	/* A call within a call: the outer one does it, or has come by. */
	if (c->waking || (hz4_peek(&c->inside) > 1 &&
			  hz4_peek(&c->idle) < HZ4_IDLE_STOPPED))
		return;
	c->waking = true;
	atomic_signal_fence(memory_order_seq_cst);
	hz4_lock_acquire(&c->lock);
	stopped = hz4_peek(&c->idle) >= HZ4_IDLE_STOPPED;
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		/*
		 * What others took was freed here, and the fast paths would
		 * not find it: careful calls again.
		 */
		if (stopped && hz4_peek(&c->tier[cls].gone) > 0)
			c->tier[cls].calls = 0;
		/* A free was under way when it was stopped. */
		keep_at_most(c, cls, c->tier[cls].limit);
		hz4_stacks_set_ends(c, cls);
	}
	hz4_poke(&c->idle, HZ4_IDLE_NO);
	hz4_lock_release(&c->lock);
	atomic_signal_fence(memory_order_seq_cst);
	c->waking = false;
}

/* Its oldest objects go, the others stay where they are. */
static void
take_oldest(struct hz4_cache *c, unsigned cls, unsigned n, uint64_t now)
{
	void **oldest = hz4_stacks_oldest(c, cls);
	struct hz4_tier *t = &c->tier[cls];
	unsigned gone = hz4_peek(&t->gone) + n;

	/* Its array has room for no more, and a fork's child may go on. */
	hz4_growth_set(c, cls, hz4_min(t->limit, t->room - gone));
	/* First: a fork's child must not find them here and in their spans. */
	set_gone(c, cls, gone);
	HZ4_CHAOS();
	hz4_transfer_give_run(cls, oldest, n, now, c->counts);
	add_net(c, cls, -(int64_t)n);
}

bool
hz4_cache_empty(struct hz4_cache *c, size_t *most, uint64_t now)
{
	unsigned cls, n;
	size_t left;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		/* The latest may just be taken: malloc is under way. */
		while ((left = hz4_cache_count(c, cls)) > 1) {
			if (*most == 0)
				return false;
			n = (unsigned)hz4_min(left - 1, HZ4_BATCH_OBJECTS);
			n = (unsigned)hz4_min(n, *most);
			take_oldest(c, cls, n, now);
			*most -= n;
		}
		hz4_growth_set(c, cls, hz4_min(c->tier[cls].limit, 1u));
	}
	hz4_growth_give(c, c->left);
	return true;
}

/* Its thread is no more, or about to end: another one may watch. */
static void
leave_watch(struct hz4_cache *c)
{
	if (!c->watching)
		return;
	hz4_stacks_watch(c, false);
	hz4_purge_watch_end();
}

void
hz4_cache_end(struct hz4_cache *c)
{
	size_t most = HZ4_END_MOST;
	unsigned cls;

	/* It ends in the middle of a change: all stays as it is. */
	if (hz4_cache_enter(c) == NULL)
		return;
	c->sampler.bounds[0] = c->sampler.bounds[1] = 0;
	leave_watch(c);
	if (c->granted > most) {
		for (cls = 1; cls < HZ4_CLS_END; cls++)
			cut(c, cls, (uint32_t)(c->tier[cls].limit *
					       (uint64_t)most / c->granted));
		hz4_growth_give(c, c->granted - most);
	}
	hz4_cache_leave(c);
}

/* What was granted is what the limits come to, and what is left. */
static void
recount(struct hz4_cache *c)
{
	size_t given = 0;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++)
		given += hz4_growth_bytes(c, cls);
	/* What it was just taking may not have been granted yet. */
	c->granted = hz4_max(hz4_max(c->granted, given), c->taken);
	c->left = c->granted - given;
}

void
hz4_cache_cut_off(struct hz4_cache *c)
{
	/* Else its thread has come by, and may be changing it. */
	if (hz4_peek(&c->idle) < HZ4_IDLE_STOPPED)
		return;
	recount(c);
	/* Not all stacks need be stopped. */
	hz4_poke(&c->idle, HZ4_IDLE_ASKED);
}

void
hz4_cache_adopt(struct hz4_cache *c)
{
	unsigned cls = hz4_peek(&c->busy);
	uint16_t held;

	if (cls != HZ4_CLS_NONE) {
		hz4_poke(&c->stack[cls].base, NULL);
		hz4_poke(&c->stack[cls].top, NULL);
		c->tier[cls].limit = 0;
		c->tier[cls].room = 0;
		set_gone(c, cls, 0);
		hz4_poke(&c->busy, HZ4_CLS_NONE);
	}
	hz4_poke(&c->idle, HZ4_IDLE_NO);
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		if (hz4_peek(&c->tier[cls].gone) > 0)
			c->tier[cls].calls = 0;
		held = (uint16_t)hz4_cache_count(c, cls);
		if (held > c->tier[cls].limit)
			c->tier[cls].limit = held;
	}
	recount(c);
	hz4_poke(&c->inside, 0);
	c->waking = false;
	c->sampler.inside = false;
	leave_watch(c);
	hz4_stacks_watch(c, false);
}

bool
hz4_cache_pop_slow(struct hz4_cache *c, unsigned cls, void **object)
{
	struct hz4_stack *s = &c->stack[cls];
	void **oldest, **top;

	/* Until no signal's handler has let the oldest rise in between. */
	do {
		oldest = hz4_stacks_oldest(c, cls);
		atomic_signal_fence(memory_order_seq_cst);
		top = hz4_peek(&s->top);
		atomic_signal_fence(memory_order_seq_cst);
	} while (oldest != hz4_stacks_oldest(c, cls));
	if (top == oldest)
		return false;
	if (hz4_unlikely(lies_below(c, cls, top - 1, top[-1])))
		hz4_transfer_twice("malloc()", &hz4_classes[cls], top[-1]);
	hz4_poke(&s->top, top - 1);
	hz4_count_hit(hz4_hits(s, HZ4_HIT_MALLOC));
	*object = top[-1];
	hz4_stacks_called(c, cls);
	return true;
}

void
hz4_cache_counts(struct hz4_cache *c, unsigned cls, struct hz4_counts *out)
{
	unsigned i;

	if (!HZ4_MID_STATS_B1)
		return;
	for (i = 0; i < HZ4_COUNTERS; i++)
		hz4_poke(&out->value[i], hz4_peek(&c->counts[cls].value[i]));
	hz4_stacks_add_hits(c, cls, out);
}

size_t
hz4_cache_count(struct hz4_cache *c, unsigned cls)
{
	/* Acquire: who empties it gives what its thread pushed. */
	void **top = atomic_load_explicit(&c->stack[cls].top,
					  memory_order_acquire);
	void **base = hz4_peek(&c->stack[cls].base);

	if (base == NULL)
		return 0;
	base += hz4_peek(&c->tier[cls].gone);
	/* The owner may just be moving the stack. */
	if (top < base)
		return 0;
	return hz4_min((size_t)(top - base), HZ4_CACHE_MAX_OBJECTS);
}
