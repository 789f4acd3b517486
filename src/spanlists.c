/*
 * spanlists.c - the lists of the classes in their shards as such: their
 * locks, into a list and out of it.
 */
#include "spanlists.h"

struct hz4_spans hz4_lists[HZ4_SHARDS][HZ4_CLS_END];

/* The lists start as zeros; whoever locks them first makes them. */
bool
hz4_lists_lock(struct hz4_spans *c)
{
	bool waited = hz4_lock_acquire(&c->lock);

	if (hz4_unlikely(c->partial.next == NULL)) {
		hz4_list_init(&c->partial);
		hz4_list_init(&c->sparse);
		hz4_list_init(&c->idle);
		hz4_list_init(&c->unused);
	}
	return waited;
}

/* Only debug builds look at ranks; others leave these lines untouched. */
void
hz4_spans_init(void)
{
	unsigned shard, cls;

	if (!HZ4_DEBUG_BOX)
		return;
	for (shard = 0; shard < HZ4_SHARDS; shard++)
		for (cls = 1; cls < HZ4_CLS_END; cls++)
			hz4_lists[shard][cls].lock.rank = HZ4_RANK_CLASS;
}

void
hz4_lists_add_locked(struct hz4_spans *c, struct hz4_list *l,
		     struct hz4_span *s)
{
	hz4_list_push(l, &s->link);
	hz4_poke(&c->listed, hz4_peek(&c->listed) + 1);
	atomic_store(&s->linked, true);
}

/* `linked` stays as it is. */
void
hz4_lists_remove_locked(struct hz4_spans *c, struct hz4_span *s)
{
	hz4_list_remove(&s->link);
	hz4_poke(&c->listed, hz4_peek(&c->listed) - 1);
	if (!s->idle)
		return;
	s->idle = false;
	hz4_poke(&c->idle_pages,
		 hz4_peek(&c->idle_pages) - hz4_classes[s->cls].pages);
}
