/*
 * growth.c - how a cache grows, and gives back what others may have.
 *
 * Growth: a class's limit doubles up to a base limit with each miss or
 * overflow.  Where there is no L1 below it grows on when a miss follows an
 * overflow or the other way round, since only then would a larger stack have
 * saved the trip: a thread that only allocates, or only frees, keeps small
 * ones.  What all classes of a thread may hold together is bounded, and a
 * thread that has not missed much yet may have little (share.h).
 */
#include "growth.h"

#include "cache.h"
#include "meta.h"

#include <string.h>

/* With the words below it, one line of the metadata. */
enum { FIRST_ROOM = 8 - HZ4_STACK_BELOW };

/* Objects up to which a class's stack grows without proof. */
static uint32_t
base_limit(unsigned cls)
{
	uint32_t size = hz4_classes[cls].size;

	if (cls < HZ4_CLS_FIRST_MID) {
		size = (uint32_t)hz4_min(HZ4_CACHE_BASE_BYTES / size,
					 HZ4_CACHE_BASE_OBJECTS);
		return HZ4_MID_DUAL_TIER_ALLOC_BOX ?
			       hz4_max(size, (uint32_t)HZ4_L0_LEAST) :
			       size;
	}
	if (cls >= HZ4_CLS_FIRST_LARGE)
		return 1;
	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return 0;
	if (HZ4_MID_DUAL_TIER_ALLOC_BOX)
		return HZ4_MID_DUAL_TIER_L0_LIMIT;
	return HZ4_MID_ALLOC_RUN_LIMIT;
}

/* And with. */
static uint32_t
most_of(unsigned cls)
{
	uint32_t base = base_limit(cls);

	if (HZ4_MID_DUAL_TIER_ALLOC_BOX || base == 0)
		return base;
	return (uint32_t)hz4_max(HZ4_CACHE_MOST_BYTES / hz4_classes[cls].size,
				 HZ4_CACHE_MOST_OBJECTS);
}

size_t
hz4_growth_bytes(const struct hz4_cache *c, unsigned cls)
{
	return c->tier[cls].limit * (size_t)hz4_classes[cls].size;
}

void
hz4_growth_set(struct hz4_cache *c, unsigned cls, uint32_t limit)
{
	c->left += hz4_growth_bytes(c, cls);
	c->tier[cls].limit = (uint16_t)limit;
	c->left -= hz4_growth_bytes(c, cls);
}

/* Bytes of a stack's array, with the words below its base. */
static size_t
array_bytes(size_t room)
{
	return (room + HZ4_STACK_BELOW) * sizeof(void *);
}

/*
 * A larger array for a stack, if there is memory for one.  Closed: a signal's
 * handler must not take an array meanwhile.
 */
static void
make_room(struct hz4_cache *c, unsigned cls, uint32_t limit)
{
	struct hz4_stack *s = &c->stack[cls];
	struct hz4_tier *t = &c->tier[cls];
	void **array, **old;
	uint32_t had, room;
	size_t held;

	hz4_stacks_close(c, cls);
	had = t->room;
	room = had > 0 ? had : FIRST_ROOM;
	while (room < limit)
		room = room * 2 + HZ4_STACK_BELOW;
	old = hz4_peek(&s->base);
	held = hz4_cache_count(c, cls);
	array = room > had ? hz4_meta_alloc(array_bytes(room)) : NULL;
	if (array != NULL) {
		array += HZ4_STACK_BELOW;
		if (held > 0)
			memcpy(array, old + hz4_peek(&t->gone),
			       held * sizeof *array);
		hz4_poke(&t->gone, 0);
		hz4_poke(&s->base, array);
		hz4_stacks_move_top(c, cls, array + held);
		t->room = (uint16_t)room;
	}
	hz4_stacks_open(c, cls);
	if (array != NULL && had > 0)
		hz4_meta_free(old - HZ4_STACK_BELOW, array_bytes(had));
}

/*
 * A thread with so many events is no short one, and may have twice what it
 * had, again and again.
 */
static void
earn(struct hz4_cache *c)
{
	size_t most, more, own = c->granted - c->taken;

	if (++c->events < hz4_share_price())
		return;
	c->events = 0;
	most = hz4_share_most();
	if (c->granted >= most)
		return;
	more = hz4_min(c->granted, most - c->granted);
	if (own < HZ4_EARN_OWN) {
		more = hz4_min(more, HZ4_EARN_OWN - own);
	} else {
		more = hz4_share_take(more);
		c->taken += more;
	}
	c->granted += more;
	c->left += more;
}

static void
grow(struct hz4_cache *c, unsigned cls, enum hz4_turn turn)
{
	struct hz4_tier *t = &c->tier[cls];
	bool turned = t->turn != HZ4_TURN_NONE && t->turn != turn;
	uint32_t base = base_limit(cls), most = most_of(cls), step;

	t->turn = turn & 3;
	if (t->limit >= most || (t->limit >= base && !turned))
		return;
	step = t->limit < base ?
		       (uint32_t)hz4_min(t->limit, base - t->limit) :
		       t->limit / HZ4_CACHE_GROWTH;
	step = hz4_min(hz4_max(step, 1u), most - t->limit);
	step = (uint32_t)hz4_min(step, c->left / HZ4_CACHE_TAKES /
					       hz4_classes[cls].size);
	if (step == 0)
		return;
	if (t->limit + step > t->room)
		make_room(c, cls, t->limit + step);
	hz4_stacks_close(c, cls);
	/* There may be no memory, or a signal's handler has made it grow. */
	if (t->limit + step <= t->room) {
		hz4_growth_set(c, cls, t->limit + step);
		hz4_stacks_settle(c, cls);
	}
	hz4_stacks_open(c, cls);
}

void
hz4_growth_note(struct hz4_cache *c, unsigned cls, enum hz4_turn turn)
{
	c->tier[cls].used = true;
	earn(c);
	grow(c, cls, turn);
}

void
hz4_growth_give(struct hz4_cache *c, size_t bytes)
{
	bytes = hz4_min(bytes, c->taken);
	c->taken -= bytes;
	c->granted -= bytes;
	c->left -= bytes;
	hz4_share_give(bytes);
}
