/*
 * cache.c - refilling, overflowing, growing and shrinking of L0 and L1.
 *
 * Growth: below the base limit with every miss; above it only when a miss
 * follows an overflow or the other way round, since only then would a
 * larger stack have saved the trip.  A thread that only allocates, or only
 * frees, keeps small caches.  What all classes of a thread may hold
 * together is its budget, which its misses earn (tune.h).
 */
#include "cache.h"

#include "lock.h"
#include "log.h"
#include "meta.h"
#include "option.h"
#include "transfer.h"

#include <string.h>

struct hz4_cache hz4_empty_cache;

/* With the NULL below it, one line of the metadata. */
enum { FIRST_ROOM = 7 };

static size_t
budget_start(const struct hz4_cache *c)
{
	size_t most = hz4_option(HZ4_OPT_thread_cache) << 10;

	return hz4_min(most, c->first ? HZ4_BUDGET_FIRST_THREAD :
					HZ4_BUDGET_START);
}

void
hz4_cache_init(struct hz4_cache *c, bool first)
{
	c->first = first;
	c->granted = c->budget = budget_start(c);
}

static uint32_t
base_limit(unsigned cls)
{
	uint32_t size = hz4_classes[cls].size;

	if (cls < HZ4_CLS_FIRST_MID)
		return (uint32_t)hz4_min(HZ4_CACHE_BASE_BYTES / size,
					 HZ4_BATCH_MAX);
	if (cls < HZ4_CLS_FIRST_LARGE)
		return HZ4_MID_ALLOC_RUN_LIMIT;
	return 1;
}

/* Threads with a cache. [atomic] relaxed: a hint */
static _Atomic uint32_t users;

void
hz4_cache_users(int change)
{
	atomic_fetch_add_explicit(&users, (uint32_t)change,
				  memory_order_relaxed);
}

void
hz4_cache_fork_child(bool one)
{
	hz4_poke(&users, one);
}

/* What a thread may hold at most: more where there are few of them. */
static size_t
budget_most(void)
{
	size_t least = hz4_option(HZ4_OPT_thread_cache) << 10;
	size_t share = HZ4_BUDGET_SHARERS / hz4_max(1, hz4_peek(&users));

	return least * hz4_max(1, hz4_min(share, HZ4_BUDGET_FEW));
}

/*
 * Every so many missed bytes double the budget; above what all threads may
 * have, several times what it is.
 */
static void
earn(struct hz4_cache *c, unsigned cls)
{
	size_t most = budget_most();
	size_t more, price = HZ4_BUDGET_DOUBLES;

	if (c->granted >= most)
		return;
	c->missed += hz4_classes[cls].size;
	if (c->granted >= hz4_option(HZ4_OPT_thread_cache) << 10)
		price = hz4_max(price, HZ4_BUDGET_PRICE * c->granted);
	if (c->missed < price)
		return;
	c->missed = 0;
	more = hz4_min(c->granted, most - c->granted);
	c->granted += more;
	c->budget += more;
}

/* The first class in use from `cls` on, HZ4_CLS_END when there is none. */
static unsigned
next_used(const struct hz4_cache *c, unsigned cls)
{
	uint64_t left = c->used[cls / 64] >> cls % 64;

	if (left != 0)
		return cls + (unsigned)__builtin_ctzll(left);
	for (cls = cls / 64 + 1; cls <= HZ4_CLS_END / 64; cls++)
		if (c->used[cls] != 0)
			return cls * 64 +
			       (unsigned)__builtin_ctzll(c->used[cls]);
	return HZ4_CLS_END;
}

#define for_each_used(c, cls) \
	for ((cls) = next_used(c, 1); (cls) < HZ4_CLS_END; \
	     (cls) = next_used(c, (cls) + 1))

/* Bytes of a stack's array, with the NULL below its base. */
static size_t
array_bytes(size_t room)
{
	return (room + 1) * sizeof(void *);
}

static bool
careful(struct hz4_cache *c, unsigned cls)
{
	return c->tier[cls].calls < HZ4_CAREFUL_CALLS;
}

/*
 * Where malloc has to stop: the floor of L0, or the end of L1; at once in a
 * careful class.
 */
static void **
low_of(struct hz4_cache *c, unsigned cls)
{
	if (careful(c, cls))
		return HZ4_NUDGED;
	if (hz4_l0_open(c->l0, cls))
		return hz4_l0_of(c->l0, cls)->floor;
	return hz4_peek(&c->stack[cls].base);
}

/*
 * Let `low` say what it should.  A nudge that comes meanwhile is not lost:
 * it sets `nudged` before `low`, so that either it is seen here or its
 * `low` comes after this one.
 */
static void
set_low(struct hz4_cache *c, unsigned cls)
{
	struct hz4_stack *s = &c->stack[cls];

	hz4_poke(&s->low, low_of(c, cls));
	HZ4_CHAOS();
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&c->nudged))
		hz4_poke(&s->low, HZ4_NUDGED);
}

/* The end of what a stack may hold; it may have no array yet. */
static void **
limit_of(struct hz4_cache *c, unsigned cls)
{
	void **base = hz4_peek(&c->stack[cls].base);

	return base == NULL ? NULL : base + c->tier[cls].limit;
}

/*
 * Set the ends of a stack after what lies between them has changed; L0
 * keeps its floor if it may.
 */
static void
frame(struct hz4_cache *c, unsigned cls)
{
	struct hz4_stack *s = &c->stack[cls];
	void **base = hz4_peek(&s->base), **top = hz4_peek(&s->top);
	struct hz4_l0 *l;

	s->high = careful(c, cls) ? top : limit_of(c, cls);
	if (!hz4_l0_open(c->l0, cls))
		return;
	l = hz4_l0_of(c->l0, cls);
	if (l->floor < base)
		l->floor = base;
	if (l->floor > top)
		l->floor = top;
	if (top - l->floor > HZ4_MID_DUAL_TIER_L0_LIMIT)
		l->floor = top - HZ4_MID_DUAL_TIER_L0_LIMIT;
	if (s->high - l->floor > HZ4_MID_DUAL_TIER_L0_LIMIT)
		s->high = l->floor + HZ4_MID_DUAL_TIER_L0_LIMIT;
	set_low(c, cls);
}

/* Move a stack to a larger array.  False without memory for one. */
static bool
make_room(struct hz4_cache *c, unsigned cls, uint32_t limit)
{
	struct hz4_stack *s = &c->stack[cls];
	struct hz4_tier *t = &c->tier[cls];
	uint32_t room = t->room ? t->room : FIRST_ROOM;
	void **base, **old = hz4_peek(&s->base);
	size_t held = old == NULL ? 0 : (size_t)(hz4_peek(&s->top) - old);

	while (room < limit)
		room = room * 2 + 1;
	base = hz4_meta_alloc(array_bytes(room));
	if (base == NULL)
		return false;
	*base++ = NULL;
	if (old != NULL)
		memcpy(base, old, held * sizeof *base);
	if (hz4_l0_open(c->l0, cls))
		hz4_l0_of(c->l0, cls)->floor =
			base + (hz4_l0_of(c->l0, cls)->floor - old);
	hz4_poke(&s->base, base);
	hz4_poke(&s->top, base + held);
	set_low(c, cls);
	if (old != NULL)
		hz4_meta_free(old - 1, array_bytes(t->room));
	t->room = (uint16_t)room;
	return true;
}

static void
grow(struct hz4_cache *c, unsigned cls, enum hz4_turn turn)
{
	struct hz4_tier *t = &c->tier[cls];
	size_t size = hz4_classes[cls].size;
	bool turned = t->turn != HZ4_TURN_NONE && t->turn != turn;
	uint32_t step = t->limit / (t->limit < base_limit(cls) ? 2 : 4);

	t->turn = (uint8_t)turn;
	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX && hz4_sizeclass_is_mid(cls))
		return;
	if (t->limit >= base_limit(cls) && !turned)
		return;
	step = (uint32_t)hz4_max(step, 1);
	step = (uint32_t)hz4_min(step, HZ4_CACHE_MAX_OBJECTS - t->limit);
	step = (uint32_t)hz4_min(step, c->budget / size);
	if (step == 0)
		return;
	if (t->limit + step > t->room && !make_room(c, cls, t->limit + step))
		return;
	c->budget -= step * size;
	t->limit = (uint16_t)(t->limit + step);
	frame(c, cls);
}

static void
add_net(struct hz4_tier *t, int64_t n)
{
	hz4_poke(&t->net, hz4_peek(&t->net) + n);
}

static void
count_way_back(struct hz4_cache *c, unsigned cls, unsigned path)
{
	hz4_count(c->counts, cls, path & HZ4_TRANSFER_LOCKED ?
					  HZ4_COUNT_free_lock_path :
					  HZ4_COUNT_free_transfer_hit, 1);
	hz4_count(c->counts, cls, HZ4_COUNT_free_span_release,
		  (path & HZ4_TRANSFER_RELEASED) != 0);
}

/* Objects below the floor of an open L0. */
static size_t
l1_held(struct hz4_cache *c, unsigned cls)
{
	return (size_t)(hz4_l0_of(c->l0, cls)->floor -
			hz4_peek(&c->stack[cls].base));
}

/* Give the `n` oldest objects of a class back to the spans. */
static void
give_oldest(struct hz4_cache *c, unsigned cls, size_t n)
{
	struct hz4_stack *s = &c->stack[cls];
	void **base = hz4_peek(&s->base);
	size_t held = (size_t)(hz4_peek(&s->top) - base);
	unsigned path;

	hz4_transfer_give(cls, base, (unsigned)n, &path);
	memmove(base, base + n, (held - n) * sizeof *base);
	hz4_poke(&s->top, base + held - n);
	if (hz4_l0_open(c->l0, cls))
		hz4_l0_of(c->l0, cls)->floor -=
			hz4_min(n, l1_held(c, cls));
	frame(c, cls);
	add_net(&c->tier[cls], -(int64_t)n);
	hz4_count(c->counts, cls, HZ4_COUNT_free_alloc_run_flush_calls, 1);
	hz4_count(c->counts, cls, HZ4_COUNT_free_alloc_run_flush_objs, n);
	count_way_back(c, cls, path);
}

static void
add_count(struct hz4_counts *out, enum hz4_counter which,
	  _Atomic uint64_t *hits)
{
	hz4_poke(&out->value[which],
		 hz4_peek(&out->value[which]) + hz4_peek(hits));
}

/* Add the hits that are in the stack's line. */
static void
add_hits(struct hz4_cache *c, unsigned cls, struct hz4_counts *out)
{
	struct hz4_stack *s = &c->stack[cls];
	bool l0 = hz4_l0_open(c->l0, cls);

	add_count(out, l0 ? HZ4_COUNT_malloc_l0_hit :
			    HZ4_COUNT_malloc_alloc_run_hit,
		  hz4_hits(s, HZ4_HIT_MALLOC));
	add_count(out, l0 ? HZ4_COUNT_free_l0_hit :
			    HZ4_COUNT_free_alloc_run_hit,
		  hz4_hits(s, HZ4_HIT_FREE));
}

/* What the stack's line counted goes to the tier that served it. */
static void
settle_hits(struct hz4_cache *c, unsigned cls)
{
	if (!HZ4_MID_STATS_B1)
		return;
	add_hits(c, cls, &c->counts[cls]);
	hz4_poke(hz4_hits(&c->stack[cls], HZ4_HIT_MALLOC), 0);
	hz4_poke(hz4_hits(&c->stack[cls], HZ4_HIT_FREE), 0);
}

static void
l0_close(struct hz4_cache *c, unsigned cls)
{
	if (!hz4_l0_open(c->l0, cls))
		return;
	settle_hits(c, cls);
	hz4_l0_of(c->l0, cls)->open = false;
	set_low(c, cls);
}

/* The floor of L0 has moved: too often, and the class is none for it. */
static void
note_move(struct hz4_cache *c, unsigned cls)
{
	struct hz4_l0 *l = hz4_l0_of(c->l0, cls);

	if (++l->moves >= HZ4_L0_MOVES)
		l0_close(c, cls);
	frame(c, cls);
}

/* Objects of a class that its thread has use for, as far as L0 can tell. */
static uint32_t
l0_needed(struct hz4_cache *c, unsigned cls)
{
	if (!hz4_l0_open(c->l0, cls) || hz4_l0_of(c->l0, cls)->moves > 0)
		return UINT32_MAX;
	return HZ4_MID_DUAL_TIER_L0_LIMIT;
}

/* What begins with a decay, and when the careful calls are over. */
static void
l0_reopen(struct hz4_cache *c, unsigned cls)
{
	struct hz4_l0 *l = hz4_l0_of(c->l0, cls);

	if (!hz4_l0_built(cls))
		return;
	l->moves = 0;
	if (l->open || careful(c, cls))
		return;
	settle_hits(c, cls);
	l->open = true;
	l->floor = hz4_peek(&c->stack[cls].top);
}

/* One careful call more; the last one makes the class a fast one. */
static void
count_careful(struct hz4_cache *c, unsigned cls)
{
	if (!careful(c, cls))
		return;
	if (++c->tier[cls].calls == HZ4_CAREFUL_CALLS) {
		l0_reopen(c, cls);
		set_low(c, cls);
	}
	frame(c, cls);
}

/* The class lay idle: what comes next is looked at again. */
static void
start_careful(struct hz4_cache *c, unsigned cls)
{
	l0_close(c, cls);
	c->tier[cls].calls = 0;
	set_low(c, cls);
	frame(c, cls);
}

void
hz4_cache_decay(struct hz4_cache *c)
{
	unsigned cls;

	for_each_used (c, cls) {
		struct hz4_stack *s = &c->stack[cls];
		struct hz4_tier *t = &c->tier[cls];
		size_t held = (size_t)(hz4_peek(&s->top) - hz4_peek(&s->base));
		uint32_t limit = t->limit / 2;
		uint32_t needed = l0_needed(c, cls);

		if (t->events == 0 && t->limit > 0) {
			limit = hz4_min(limit, needed);
			if (held > limit)
				give_oldest(c, cls, held - limit);
			c->budget += (t->limit - limit) *
				     (size_t)hz4_classes[cls].size;
			t->limit = (uint16_t)limit;
			start_careful(c, cls);
		}
		t->events = 0;
		l0_reopen(c, cls);
		frame(c, cls);
	}
}

static void
note_event(struct hz4_cache *c, unsigned cls, enum hz4_turn turn)
{
	struct hz4_tier *t = &c->tier[cls];

	c->used[cls / 64] |= (uint64_t)1 << cls % 64;
	if (t->events < UINT16_MAX)
		t->events++;
	earn(c, cls);
	grow(c, cls, turn);
}

/* Half of the limit, so that what comes next finds room both ways. */
static unsigned
batch_of(const struct hz4_cache *c, unsigned cls)
{
	uint32_t half = (c->tier[cls].limit + 1) / 2;

	return (unsigned)hz4_max(1, hz4_min(half, hz4_classes[cls].batch));
}

void *
hz4_cache_refill(struct hz4_cache *c, unsigned cls)
{
	struct hz4_stack *s = &c->stack[cls];
	void *run[HZ4_BATCH_MAX], **top;
	unsigned path, n, i;

	note_event(c, cls, HZ4_TURN_MISS);
	n = hz4_transfer_take(cls, run, batch_of(c, cls), &path);
	if (n == 0)
		return NULL;
	hz4_count(c->counts, cls, HZ4_COUNT_malloc_lock_path, 1);
	hz4_count(c->counts, cls, path & HZ4_TRANSFER_CREATED ?
					  HZ4_COUNT_malloc_span_create :
					  HZ4_COUNT_malloc_transfer_hit, 1);
	hz4_count(c->counts, cls, HZ4_COUNT_malloc_alloc_run_refill_calls, 1);
	hz4_count(c->counts, cls, HZ4_COUNT_malloc_alloc_run_refill_objs, n);
	add_net(&c->tier[cls], n);
	/* The lowest address is popped first. */
	top = hz4_peek(&s->top);
	for (i = n - 1; i > 0; i--)
		*top++ = run[i];
	hz4_poke(&s->top, top);
	if (hz4_l0_open(c->l0, cls))
		hz4_l0_of(c->l0, cls)->floor = top;
	frame(c, cls);
	count_careful(c, cls);
	return run[0];
}

/* L0 is full and L1 is not: let its floor rise. */
static bool
l0_spill(struct hz4_cache *c, unsigned cls)
{
	struct hz4_stack *s = &c->stack[cls];
	void **top = hz4_peek(&s->top);
	struct hz4_l0 *l;

	if (!hz4_l0_open(c->l0, cls) || top != s->high ||
	    top == limit_of(c, cls))
		return false;
	l = hz4_l0_of(c->l0, cls);
	hz4_count(c->counts, cls, HZ4_COUNT_free_l0_flush_calls, 1);
	hz4_count(c->counts, cls, HZ4_COUNT_free_l0_flush_objs,
		  (uint64_t)(top - HZ4_L0_KEEP - l->floor));
	l->floor = top - HZ4_L0_KEEP;
	note_move(c, cls);
	return true;
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
	count_careful(c, cls);
}

bool
hz4_cache_suspects(struct hz4_cache *c, unsigned cls, const void *object)
{
	struct hz4_stack *s = &c->stack[cls];
	void **p;

	if (cls == HZ4_CLS_RUN || !careful(c, cls))
		return false;
	for (p = hz4_peek(&s->base); p < hz4_peek(&s->top); p++)
		if (*p == object)
			return true;
	return !hz4_transfer_is_out(object);
}

static bool
is_on_top(struct hz4_cache *c, unsigned cls, const void *object)
{
	struct hz4_stack *s = &c->stack[cls];

	return hz4_peek(&s->top) > hz4_peek(&s->base) &&
	       hz4_peek(&s->top)[-1] == object;
}

void
hz4_cache_overflow(struct hz4_cache *c, unsigned cls, void *object)
{
	struct hz4_stack *s = &c->stack[cls];
	unsigned path;

	if (hz4_unlikely(is_on_top(c, cls, object)))
		hz4_fatal("free(): double free: ptr %p, size %u", object,
			  (unsigned)hz4_classes[cls].size);
	if (hz4_unlikely(hz4_cache_suspects(c, cls, object)))
		hz4_transfer_reject(cls, object);
	if (l0_spill(c, cls) ||
	    hz4_peek(&s->top) < limit_of(c, cls)) {
		put(c, cls, object);
		return;
	}
	note_event(c, cls, HZ4_TURN_OVERFLOW);
	if (c->tier[cls].limit == 0) {
		hz4_transfer_give(cls, &object, 1, &path);
		add_net(&c->tier[cls], -1);
		hz4_count(c->counts, cls, HZ4_COUNT_free_uncached, 1);
		count_way_back(c, cls, path);
		return;
	}
	if (hz4_peek(&s->top) == limit_of(c, cls))
		give_oldest(c, cls, batch_of(c, cls));
	/* L1 has given them; L0 may still be full. */
	l0_spill(c, cls);
	put(c, cls, object);
}

void *
hz4_cache_l0_refill(struct hz4_cache *c, unsigned cls)
{
	struct hz4_stack *s = &c->stack[cls];
	void **base = hz4_peek(&s->base), **top = hz4_peek(&s->top);
	size_t n = hz4_min((size_t)(top - base),
			   HZ4_MID_DUAL_TIER_L0_REFILL_BATCH);
	void *p;

	if (!hz4_l0_open(c->l0, cls) || n == 0)
		return NULL;
	hz4_l0_of(c->l0, cls)->floor = top - n;
	hz4_count(c->counts, cls, HZ4_COUNT_malloc_l0_refill_calls, 1);
	hz4_count(c->counts, cls, HZ4_COUNT_malloc_l0_refill_objs, n);
	note_move(c, cls);
	return hz4_cache_pop(c, cls, &p) ? p : NULL;
}

void
hz4_cache_flush(struct hz4_cache *c)
{
	unsigned cls;
	size_t held;

	for_each_used (c, cls) {
		held = (size_t)(hz4_peek(&c->stack[cls].top) -
				hz4_peek(&c->stack[cls].base));
		if (held > 0)
			give_oldest(c, cls, held);
	}
}

void
hz4_cache_reset(struct hz4_cache *c)
{
	unsigned cls;

	hz4_cache_flush(c);
	for_each_used (c, cls) {
		c->tier[cls].limit = 0;
		l0_reopen(c, cls);
		frame(c, cls);
		c->tier[cls].events = 0;
		c->tier[cls].turn = HZ4_TURN_NONE;
	}
	memset(c->used, 0, sizeof c->used);
	c->missed = 0;
	c->granted = c->budget = budget_start(c);
}

void
hz4_cache_nudge(struct hz4_cache *c)
{
	unsigned cls;

	atomic_store(&c->nudged, true);
	/* Else a `low` could be seen, and overwritten, before `nudged` is. */
	atomic_thread_fence(memory_order_seq_cst);
	HZ4_CHAOS();
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		hz4_poke(&c->stack[cls].low, HZ4_NUDGED);
}

void
hz4_cache_settle(struct hz4_cache *c)
{
	unsigned cls;

	c->looking = 0;
	/* It reads the nudge that it undoes, so all before that is seen. */
	atomic_exchange(&c->nudged, false);
	HZ4_CHAOS();
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		hz4_poke(&c->stack[cls].low, low_of(c, cls));
	/* A nudge that came in between: as in set_low. */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&c->nudged))
		hz4_cache_nudge(c);
}

bool
hz4_cache_pop_nudged(struct hz4_cache *c, unsigned cls, void **object)
{
	struct hz4_stack *s = &c->stack[cls];
	void **top = hz4_peek(&s->top);

	/* The `low` of a nudge that was answered and settled before it came. */
	if (hz4_unlikely(hz4_peek(&s->low) == HZ4_NUDGED) &&
	    !hz4_cache_nudged(c) && !careful(c, cls))
		set_low(c, cls);
	if (top == hz4_peek(&s->base))
		return false;
	hz4_poke(&s->top, top - 1);
	hz4_count_hit(hz4_hits(s, HZ4_HIT_MALLOC));
	*object = top[-1];
	if (hz4_l0_open(c->l0, cls))
		frame(c, cls);
	count_careful(c, cls);
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
	add_hits(c, cls, out);
}

size_t
hz4_cache_count(struct hz4_cache *c, unsigned cls)
{
	void **top = hz4_peek(&c->stack[cls].top);
	size_t n = (size_t)(top - hz4_peek(&c->stack[cls].base));

	/* The owner may just be moving the stack to another array. */
	n = hz4_min(n, HZ4_CACHE_MAX_OBJECTS);
	return n;
}
