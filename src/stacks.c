/*
 * stacks.c - careful calls, the window of L0, nudges: what sets `high` and
 * `low`.
 */
#include "stacks.h"

#include "lock.h"

/*
 * Where malloc has to stop: the floor of L0, or the end of L1; at once in a
 * careful class.
 */
static void **
low_of(struct hz4_cache *c, unsigned cls)
{
	if (hz4_stacks_careful(c, cls))
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

/* Keep the window of an open L0 inside the stack and its size. */
static void
fit_window(struct hz4_cache *c, unsigned cls)
{
	struct hz4_stack *s = &c->stack[cls];
	struct hz4_l0 *l = hz4_l0_of(c->l0, cls);
	void **base = hz4_peek(&s->base), **top = hz4_peek(&s->top);

	if (l->floor < base)
		l->floor = base;
	if (l->floor > top)
		l->floor = top;
	if (top - l->floor > HZ4_MID_DUAL_TIER_L0_LIMIT)
		l->floor = top - HZ4_MID_DUAL_TIER_L0_LIMIT;
	if (s->high - l->floor > HZ4_MID_DUAL_TIER_L0_LIMIT)
		s->high = l->floor + HZ4_MID_DUAL_TIER_L0_LIMIT;
}

void
hz4_stacks_set_ends(struct hz4_cache *c, unsigned cls)
{
	struct hz4_stack *s = &c->stack[cls];
	void **low = hz4_peek(&s->low);

	HZ4_ASSERT(c->tier[cls].gone + c->tier[cls].limit <=
		   c->tier[cls].room);
	s->high = hz4_stacks_careful(c, cls) ? hz4_peek(&s->top) :
					     hz4_stacks_limit(c, cls);
	if (hz4_l0_open(c->l0, cls))
		fit_window(c, cls);
	/* A nudge's `low` is hz4_stacks_settle's to undo. */
	if (low == low_of(c, cls) ||
	    (low == HZ4_NUDGED && hz4_stacks_nudged(c)))
		return;
	set_low(c, cls);
}

static void
add_count(struct hz4_counts *out, enum hz4_counter which,
	  _Atomic uint64_t *hits)
{
	hz4_poke(&out->value[which],
		 hz4_peek(&out->value[which]) + hz4_peek(hits));
}

void
hz4_stacks_add_hits(struct hz4_cache *c, unsigned cls, struct hz4_counts *out)
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

/* What was counted so far belongs to the tier that the stack was. */
static void
settle_hits(struct hz4_cache *c, unsigned cls)
{
	if (!HZ4_MID_STATS_B1)
		return;
	hz4_stacks_add_hits(c, cls, &c->counts[cls]);
	hz4_poke(hz4_hits(&c->stack[cls], HZ4_HIT_MALLOC), 0);
	hz4_poke(hz4_hits(&c->stack[cls], HZ4_HIT_FREE), 0);
}

static void
close_l0(struct hz4_cache *c, unsigned cls)
{
	if (!hz4_l0_open(c->l0, cls))
		return;
	settle_hits(c, cls);
	hz4_l0_of(c->l0, cls)->open = false;
}

/* Give L0 a chance, with what the stack holds as its L1. */
static void
open_l0(struct hz4_cache *c, unsigned cls)
{
	struct hz4_l0 *l = hz4_l0_of(c->l0, cls);

	if (!hz4_l0_built(cls))
		return;
	l->moves = 0;
	if (l->open || hz4_stacks_careful(c, cls))
		return;
	settle_hits(c, cls);
	l->open = true;
	l->floor = hz4_peek(&c->stack[cls].top);
}

void
hz4_stacks_called(struct hz4_cache *c, unsigned cls)
{
	struct hz4_tier *t = &c->tier[cls];

	if (hz4_stacks_careful(c, cls) && ++t->calls == HZ4_CAREFUL_CALLS)
		open_l0(c, cls);
	hz4_stacks_set_ends(c, cls);
}

void
hz4_stacks_idle(struct hz4_cache *c, unsigned cls)
{
	close_l0(c, cls);
	c->tier[cls].calls = 0;
	hz4_stacks_set_ends(c, cls);
}

void
hz4_stacks_busy(struct hz4_cache *c, unsigned cls)
{
	open_l0(c, cls);
	hz4_stacks_set_ends(c, cls);
}

void
hz4_stacks_move_floor(struct hz4_cache *c, unsigned cls, void **floor)
{
	struct hz4_l0 *l = hz4_l0_of(c->l0, cls);

	l->floor = floor;
	if (++l->moves >= HZ4_L0_MOVES)
		close_l0(c, cls);
	hz4_stacks_set_ends(c, cls);
}

void
hz4_stacks_nudge(struct hz4_cache *c)
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
hz4_stacks_settle(struct hz4_cache *c)
{
	unsigned cls;

	c->looking = false;
	/* It reads the nudge that it undoes, so all before that is seen. */
	atomic_exchange(&c->nudged, false);
	HZ4_CHAOS();
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		hz4_poke(&c->stack[cls].low, low_of(c, cls));
	/* A nudge that came in between: as in set_low. */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&c->nudged))
		hz4_stacks_nudge(c);
}
