/*
 * stacks.c - careful calls, the watch, closed stacks: what sets `high` and
 * `low`.
 */
#include "stacks.h"

#include "lock.h"

#include <string.h>

_Atomic uint32_t hz4_sampling;

/* Whether the array has room for the limit, where the objects lie. */
static bool
fits(struct hz4_cache *c, unsigned cls)
{
	struct hz4_tier *t = &c->tier[cls];

	return hz4_peek(&t->gone) + t->limit <= t->room;
}

void
hz4_stacks_set_ends(struct hz4_cache *c, unsigned cls)
{
	struct hz4_stack *s = &c->stack[cls];
	void **oldest, **limit;
	bool careful;

	if (hz4_peek(&c->busy) == cls)
		return;
	HZ4_ASSERT(fits(c, cls));
	/* Until no signal's handler has changed meanwhile what they follow. */
	do {
		careful = hz4_stacks_careful(c, cls);
		oldest = hz4_stacks_oldest(c, cls);
		limit = hz4_stacks_limit(c, cls);
		hz4_poke(&s->high, careful ? hz4_peek(&s->top) : limit);
		if (careful)
			hz4_poke(&s->low, HZ4_STOP);
		else if (c->watching || hz4_peek(&hz4_sampling) != 0)
			hz4_poke(&s->low, HZ4_STOP_OPEN);
		else
			hz4_poke(&s->low, oldest);
		atomic_signal_fence(memory_order_seq_cst);
	} while (oldest != hz4_stacks_oldest(c, cls) ||
		 limit != hz4_stacks_limit(c, cls));
}

void
hz4_stacks_stop(struct hz4_cache *c, unsigned cls)
{
	hz4_poke(&c->stack[cls].high, NULL);
	hz4_poke(&c->stack[cls].low, HZ4_STOP);
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

	add_count(out, HZ4_MID_DUAL_TIER_ALLOC_BOX ?
			       HZ4_COUNT_malloc_l0_hit :
			       HZ4_COUNT_malloc_alloc_run_hit,
		  hz4_hits(s, HZ4_HIT_MALLOC));
	add_count(out, HZ4_MID_DUAL_TIER_ALLOC_BOX ?
			       HZ4_COUNT_free_l0_hit :
			       HZ4_COUNT_free_alloc_run_hit,
		  hz4_hits(s, HZ4_HIT_FREE));
}

void
hz4_stacks_called(struct hz4_cache *c, unsigned cls)
{
	if (hz4_stacks_careful(c, cls))
		c->tier[cls].calls++;
	hz4_stacks_set_ends(c, cls);
}

void
hz4_stacks_idle(struct hz4_cache *c, unsigned cls)
{
	c->tier[cls].calls = 0;
	hz4_stacks_set_ends(c, cls);
}

void
hz4_stacks_set_busy(struct hz4_cache *c, unsigned cls)
{
	atomic_store_explicit(&c->busy, cls, memory_order_release);
	atomic_thread_fence(memory_order_release);
}

void
hz4_stacks_close(struct hz4_cache *c, unsigned cls)
{
	HZ4_ASSERT(hz4_peek(&c->busy) == HZ4_CLS_NONE);
	hz4_stacks_set_busy(c, cls);
	hz4_stacks_stop(c, cls);
	atomic_signal_fence(memory_order_seq_cst);
	HZ4_CHAOS();
}

void
hz4_stacks_move_top(struct hz4_cache *c, unsigned cls, void **top)
{
	HZ4_ASSERT(hz4_peek(&c->busy) == cls);
	/* Release: as in hz4_cache_push. */
	atomic_store_explicit(&c->stack[cls].top, top, memory_order_release);
}

void
hz4_stacks_settle(struct hz4_cache *c, unsigned cls)
{
	void **base = hz4_peek(&c->stack[cls].base);
	void **oldest;
	size_t held;

	if (fits(c, cls))
		return;
	oldest = base + hz4_peek(&c->tier[cls].gone);
	held = (size_t)(hz4_peek(&c->stack[cls].top) - oldest);
	memmove(base, oldest, held * sizeof *base);
	hz4_poke(&c->tier[cls].gone, 0);
	hz4_stacks_move_top(c, cls, base + held);
}

void
hz4_stacks_open(struct hz4_cache *c, unsigned cls)
{
	HZ4_CHAOS();
	atomic_signal_fence(memory_order_seq_cst);
	hz4_stacks_set_busy(c, HZ4_CLS_NONE);
	hz4_stacks_set_ends(c, cls);
}

void
hz4_stacks_watch(struct hz4_cache *c, bool watch)
{
	unsigned cls;

	c->watching = watch;
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		hz4_stacks_set_ends(c, cls);
}
