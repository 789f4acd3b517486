/*
 * cache.c - refilling, overflowing, growing and shrinking of L0 and L1.
 * Where the fast paths stop is stacks.c's.
 *
 * Growth: below the base limit with every miss; above it only when a miss
 * follows an overflow or the other way round, since only then would a
 * larger stack have saved the trip.  A thread that only allocates, or only
 * frees, keeps small caches.  What all classes of a thread may hold
 * together is its budget (budget.h).
 */
#include "cache.h"

#include "log.h"
#include "meta.h"
#include "os.h"
#include "transfer.h"

#include <string.h>

const struct hz4_cache hz4_empty_cache;

/* With the NULL below it, one line of the metadata. */
enum { FIRST_ROOM = 7 };

void
hz4_cache_init(struct hz4_cache *c, bool first)
{
	hz4_budget_init(&c->budget, first);
}

static uint32_t
base_limit(unsigned cls)
{
	uint32_t size = hz4_classes[cls].size;

	if (cls < HZ4_CLS_FIRST_MID)
		return (uint32_t)hz4_min(HZ4_CACHE_BASE_BYTES / size,
					 HZ4_CACHE_BASE_OBJECTS);
	if (cls < HZ4_CLS_FIRST_LARGE)
		return HZ4_MID_ALLOC_RUN_LIMIT;
	return 1;
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

/* What a class may hold takes of the budget. */
static size_t
limit_bytes(const struct hz4_cache *c, unsigned cls)
{
	return c->tier[cls].limit * (size_t)hz4_classes[cls].size;
}

/* Bytes of a stack's array, with the NULL below its start. */
static size_t
array_bytes(size_t room)
{
	return (room + 1) * sizeof(void *);
}

/*
 * Places that the array of a stack of so many objects should have: some
 * more, by which its base can rise, where moving the objects is dear.
 */
static uint32_t
places_for(uint32_t limit)
{
	return limit > HZ4_CACHE_BASE_OBJECTS ?
		       limit + limit / HZ4_CACHE_SLACK :
		       limit;
}

/*
 * Between busy and not busy again a fork's child must not use the class's
 * stack: what follows the first call, and what comes before the second,
 * stays on its side.
 */
static void
set_busy(struct hz4_cache *c, unsigned cls)
{
	atomic_store_explicit(&c->busy, cls, memory_order_release);
	atomic_thread_fence(memory_order_release);
}

/*
 * Let a stack be the objects from `from` to its top, at `to` now, in an array
 * of `room` places of which `gone` lie before them.  The caller sets the ends.
 */
static void
move_stack(struct hz4_cache *c, unsigned cls, void **from, void **to,
	   uint32_t gone, uint32_t room)
{
	struct hz4_stack *s = &c->stack[cls];
	size_t held = from ? (size_t)(hz4_peek(&s->top) - from) : 0;

	set_busy(c, cls);
	if (held > 0 && to != from)
		memmove(to, from, held * sizeof *to);
	to[-1] = NULL;
	if (hz4_l0_open(c->l0, cls)) {
		struct hz4_l0 *l = hz4_l0_of(c->l0, cls);

		l->floor = l->floor > from ? to + (l->floor - from) : to;
	}
	hz4_poke(&s->base, to);
	hz4_poke(&s->top, to + held);
	c->tier[cls].gone = (uint16_t)gone;
	c->tier[cls].room = (uint16_t)room;
	set_busy(c, HZ4_CLS_NONE);
}

/* A larger array for a stack.  False without memory for one. */
static bool
make_room(struct hz4_cache *c, unsigned cls, uint32_t limit)
{
	uint32_t gone = c->tier[cls].gone, had = c->tier[cls].room;
	uint32_t room = had ? had : FIRST_ROOM;
	void **array, **old = hz4_peek(&c->stack[cls].base);

	while (room < places_for(limit))
		room = room * 2 + 1;
	array = hz4_meta_alloc(array_bytes(room));
	if (array == NULL)
		return false;
	move_stack(c, cls, old, array + 1, 0, room);
	if (old != NULL)
		hz4_meta_free(old - gone - 1, array_bytes(had));
	return true;
}

/* The objects of a stack move to the start of its array. */
static void
lower_base(struct hz4_cache *c, unsigned cls)
{
	struct hz4_tier *t = &c->tier[cls];
	void **base = hz4_peek(&c->stack[cls].base);

	move_stack(c, cls, base, base - t->gone, 0, t->room);
}

/* Doubling up to the base limit, by a part of what it has above. */
static void
grow(struct hz4_cache *c, unsigned cls, enum hz4_turn turn)
{
	struct hz4_tier *t = &c->tier[cls];
	size_t size = hz4_classes[cls].size;
	bool turned = t->turn != HZ4_TURN_NONE && t->turn != turn;
	uint32_t base = base_limit(cls);
	uint32_t step = t->limit < base ?
		(uint32_t)hz4_min(t->limit, base - t->limit) :
		t->limit / HZ4_CACHE_GROWTH;

	t->turn = (uint8_t)turn;
	t->streak = turned ? 0 : (uint8_t)hz4_min(t->streak + 1u, UINT8_MAX);
	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX && hz4_sizeclass_is_mid(cls))
		return;
	if (t->limit >= base && !turned)
		return;
	step = (uint32_t)hz4_max(step, 1);
	step = (uint32_t)hz4_min(step, HZ4_CACHE_MAX_OBJECTS - t->limit);
	step = (uint32_t)hz4_min(step, c->budget.left / HZ4_CACHE_TAKES / size);
	if (step == 0)
		return;
	if (places_for(t->limit + step) > t->room &&
	    !make_room(c, cls, t->limit + step))
		return;
	if (t->gone + t->limit + step > t->room)
		lower_base(c, cls);
	c->budget.left -= step * size;
	t->limit = (uint16_t)(t->limit + step);
	hz4_stacks_set_ends(c, cls);
}

/* So many objects came from the spans. */
static void
note_taken(struct hz4_cache *c, unsigned cls, unsigned n)
{
	struct hz4_tier *t = &c->tier[cls];

	hz4_poke(&t->net, hz4_peek(&t->net) + n);
	hz4_pace_take(&c->pace, n * (size_t)hz4_classes[cls].size);
}

/* So many went back to them. */
static void
note_given(struct hz4_cache *c, unsigned cls, size_t n)
{
	struct hz4_tier *t = &c->tier[cls];

	hz4_poke(&t->net, hz4_peek(&t->net) - (int64_t)n);
	hz4_pace_give(&c->pace, n * hz4_classes[cls].size);
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

/*
 * Take the `n` oldest objects out of a stack.  Its base rises, or the others
 * move to the start of the array where there is no room above.
 */
static void
take_oldest(struct hz4_cache *c, unsigned cls, void **run, size_t n)
{
	struct hz4_tier *t = &c->tier[cls];
	void **base = hz4_peek(&c->stack[cls].base);
	uint32_t gone = t->gone + (uint32_t)n;

	memcpy(run, base, n * sizeof *run);
	if (gone + t->limit <= t->room)
		move_stack(c, cls, base + n, base + n, gone, t->room);
	else
		move_stack(c, cls, base + n, base - t->gone, 0, t->room);
	hz4_stacks_set_ends(c, cls);
}

/*
 * Give the `n` oldest objects of a class, at most HZ4_BATCH_MAX, back to the
 * spans.  Meanwhile they are in no stack, where a fork's child would find
 * them once more.
 */
static void
give_oldest(struct hz4_cache *c, unsigned cls, size_t n, uint64_t now)
{
	void *run[HZ4_BATCH_MAX];
	unsigned path;

	take_oldest(c, cls, run, n);
	hz4_transfer_give(cls, run, (unsigned)n, now, &path);
	note_given(c, cls, n);
	hz4_count(c->counts, cls, HZ4_COUNT_free_alloc_run_flush_calls, 1);
	hz4_count(c->counts, cls, HZ4_COUNT_free_alloc_run_flush_objs, n);
	count_way_back(c, cls, path);
}

/* Give the oldest objects of a class back until it has `limit` of them. */
static void
keep_at_most(struct hz4_cache *c, unsigned cls, size_t limit, uint64_t now)
{
	size_t held;

	while ((held = hz4_cache_count(c, cls)) > limit)
		give_oldest(c, cls, hz4_min(held - limit, HZ4_BATCH_MAX), now);
}

/* Objects of a class that its thread has use for, as far as L0 can tell. */
static uint32_t
l0_needed(struct hz4_cache *c, unsigned cls)
{
	if (!hz4_l0_open(c->l0, cls) || hz4_l0_of(c->l0, cls)->moves > 0)
		return UINT32_MAX;
	return HZ4_MID_DUAL_TIER_L0_LIMIT;
}

/* The class lay idle: give half of what it may hold back, or more. */
static void
shrink(struct hz4_cache *c, unsigned cls, uint64_t now)
{
	struct hz4_tier *t = &c->tier[cls];
	uint32_t limit = hz4_min(t->limit / 2, l0_needed(c, cls));

	keep_at_most(c, cls, limit, now);
	c->budget.left += (t->limit - limit) * (size_t)hz4_classes[cls].size;
	t->limit = (uint16_t)limit;
	t->streak = 0;
	hz4_stacks_idle(c, cls);
}

void
hz4_cache_decay(struct hz4_cache *c)
{
	uint64_t now = hz4_os_now();
	unsigned cls;

	for_each_used (c, cls) {
		if (c->tier[cls].events == 0 && c->tier[cls].limit > 0)
			shrink(c, cls, now);
		else
			hz4_stacks_busy(c, cls);
		c->tier[cls].events = 0;
	}
}

static void
note_event(struct hz4_cache *c, unsigned cls, enum hz4_turn turn)
{
	struct hz4_tier *t = &c->tier[cls];

	c->used[cls / 64] |= (uint64_t)1 << cls % 64;
	if (t->events < UINT16_MAX)
		t->events++;
	hz4_budget_earn(&c->budget, hz4_classes[cls].size);
	grow(c, cls, turn);
}

/*
 * Half of the limit, so that what comes next finds room both ways; all of
 * it where a thread goes one way only, as one does that allocates what
 * others free.  Of large limits no more than the class's batch.
 */
static unsigned
batch_of(const struct hz4_cache *c, unsigned cls)
{
	const struct hz4_tier *t = &c->tier[cls];
	uint32_t n = t->streak < HZ4_CACHE_ONE_WAY ? (t->limit + 1u) / 2 :
						     t->limit;

	return (unsigned)hz4_max(1, hz4_min(n, hz4_classes[cls].batch));
}

/*
 * All but the first of the `n` objects that were taken for a stack go on it.
 * A wrapper around one of libc's calls may have filled it since the miss:
 * what finds no place goes back.  Returns how many stay, at least one.
 */
static unsigned
keep_what_fits(struct hz4_cache *c, unsigned cls, void **run, unsigned n)
{
	const struct hz4_tier *t = &c->tier[cls];
	unsigned path, kept;
	uint64_t now;

	if (hz4_likely(n == 1 || hz4_cache_count(c, cls) + n - 1 <= t->limit))
		return n;
	now = hz4_os_now();	/* and now it may hold still more */
	kept = t->limit - (unsigned)hz4_cache_count(c, cls) + 1;
	kept = hz4_min(kept, n);
	hz4_transfer_give(cls, run + kept, n - kept, now, &path);
	note_given(c, cls, n - kept);
	return kept;
}

void *
hz4_cache_refill(struct hz4_cache *c, unsigned cls)
{
	struct hz4_stack *s = &c->stack[cls];
	void *run[HZ4_BATCH_MAX], **top;
	unsigned path, n, i;

	note_event(c, cls, HZ4_TURN_MISS);
	if (hz4_pace_due(&c->pace))
		hz4_pace_rest(&c->pace);
	n = hz4_transfer_take(cls, run, batch_of(c, cls), &path);
	if (n == 0)
		return NULL;
	hz4_count(c->counts, cls, HZ4_COUNT_malloc_lock_path, 1);
	hz4_count(c->counts, cls, path & HZ4_TRANSFER_CREATED ?
					  HZ4_COUNT_malloc_span_create :
					  HZ4_COUNT_malloc_transfer_hit, 1);
	hz4_count(c->counts, cls, HZ4_COUNT_malloc_alloc_run_refill_calls, 1);
	hz4_count(c->counts, cls, HZ4_COUNT_malloc_alloc_run_refill_objs, n);
	note_taken(c, cls, n);
	n = keep_what_fits(c, cls, run, n);
	if (c->tier[cls].gone > 0)
		lower_base(c, cls);
	/* The lowest address is popped first. */
	top = hz4_peek(&s->top);
	for (i = n - 1; i > 0; i--)
		*top++ = run[i];
	/* Release: as in hz4_cache_push. */
	atomic_store_explicit(&s->top, top, memory_order_release);
	if (hz4_l0_open(c->l0, cls))
		hz4_l0_of(c->l0, cls)->floor = top;
	hz4_stacks_called(c, cls);
	return run[0];
}

/* L0 is full and L1 is not: let its floor rise. */
static bool
l0_spill(struct hz4_cache *c, unsigned cls)
{
	struct hz4_stack *s = &c->stack[cls];
	void **top = hz4_peek(&s->top), **keep;

	if (!hz4_l0_open(c->l0, cls) || top != s->high ||
	    top == hz4_stacks_limit(c, cls))
		return false;
	keep = top - HZ4_L0_KEEP;
	hz4_count(c->counts, cls, HZ4_COUNT_free_l0_flush_calls, 1);
	hz4_count(c->counts, cls, HZ4_COUNT_free_l0_flush_objs,
		  (uint64_t)(keep - hz4_l0_of(c->l0, cls)->floor));
	hz4_stacks_move_floor(c, cls, keep);
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
	hz4_stacks_called(c, cls);
}

bool
hz4_cache_holds(struct hz4_cache *c, unsigned cls, const void *object)
{
	struct hz4_stack *s = &c->stack[cls];
	void **p;

	for (p = hz4_peek(&s->base); p < hz4_peek(&s->top); p++)
		if (*p == object)
			return true;
	return !hz4_transfer_is_out(object, cls);
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
	uint64_t now = hz4_os_now();
	struct hz4_stack *s = &c->stack[cls];
	unsigned path;

	if (hz4_unlikely(is_on_top(c, cls, object)))
		hz4_fatal("free(): double free: ptr %p, size %u", object,
			  (unsigned)hz4_classes[cls].size);
	if (hz4_unlikely(hz4_cache_suspects(c, cls, object)))
		hz4_transfer_reject(cls, object);
	if (l0_spill(c, cls) ||
	    hz4_peek(&s->top) < hz4_stacks_limit(c, cls)) {
		put(c, cls, object);
		return;
	}
	note_event(c, cls, HZ4_TURN_OVERFLOW);
	if (c->tier[cls].limit == 0) {
		hz4_transfer_give(cls, &object, 1, now, &path);
		note_given(c, cls, 1);
		hz4_count(c->counts, cls, HZ4_COUNT_free_uncached, 1);
		count_way_back(c, cls, path);
		return;
	}
	if (hz4_peek(&s->top) == hz4_stacks_limit(c, cls))
		give_oldest(c, cls, batch_of(c, cls), now);
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
	hz4_count(c->counts, cls, HZ4_COUNT_malloc_l0_refill_calls, 1);
	hz4_count(c->counts, cls, HZ4_COUNT_malloc_l0_refill_objs, n);
	hz4_stacks_move_floor(c, cls, top - n);
	return hz4_cache_pop(c, cls, &p) ? p : NULL;
}

void
hz4_cache_flush(struct hz4_cache *c)
{
	uint64_t now = hz4_os_now();
	unsigned cls;

	for_each_used (c, cls)
		keep_at_most(c, cls, 0, now);
}

void
hz4_cache_pass_on(struct hz4_cache *c)
{
	size_t has = hz4_budget_pass_on(&c->budget), had = 0, given = 0;
	struct hz4_tier *t;
	unsigned cls;

	hz4_cache_flush(c);
	for_each_used (c, cls)
		had += limit_bytes(c, cls);
	for_each_used (c, cls) {
		t = &c->tier[cls];
		if (had > has)
			t->limit = (uint16_t)(t->limit * (uint64_t)has / had);
		given += limit_bytes(c, cls);
		t->events = 0;
		t->turn = HZ4_TURN_NONE;
		t->streak = 0;
		hz4_stacks_busy(c, cls);
		if (t->limit == 0)
			c->used[cls / 64] &= ~((uint64_t)1 << cls % 64);
	}
	hz4_budget_recount(&c->budget, given);
}

/* What the class's stack holds is lost. */
static void
start_afresh(struct hz4_cache *c, unsigned cls)
{
	struct hz4_stack *s = &c->stack[cls];

	if (hz4_l0_built(cls))
		hz4_l0_of(c->l0, cls)->open = false;
	hz4_poke(&s->base, NULL);
	hz4_poke(&s->top, NULL);
	c->tier[cls].limit = 0;
	c->tier[cls].room = 0;
	c->tier[cls].gone = 0;
}

void
hz4_cache_adopt(struct hz4_cache *c)
{
	unsigned cls = hz4_peek(&c->busy);
	size_t bytes = 0;

	if (cls != HZ4_CLS_NONE)
		start_afresh(c, cls);
	set_busy(c, HZ4_CLS_NONE);
	for_each_used (c, cls) {
		hz4_stacks_set_ends(c, cls);
		bytes += limit_bytes(c, cls);
	}
	hz4_budget_recount(&c->budget, bytes);
}

bool
hz4_cache_pop_nudged(struct hz4_cache *c, unsigned cls, void **object)
{
	struct hz4_stack *s = &c->stack[cls];
	void **top = hz4_peek(&s->top);

	if (top == hz4_peek(&s->base)) {
		/* `low` may be that of a nudge settled before it came. */
		hz4_stacks_set_ends(c, cls);
		return false;
	}
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
	void **top = hz4_peek(&c->stack[cls].top);
	void **base = hz4_peek(&c->stack[cls].base);

	/* The owner may just be moving the stack. */
	if (top < base)
		return 0;
	return hz4_min((size_t)(top - base), HZ4_CACHE_MAX_OBJECTS);
}
