/*
 * spanlists.c - the lists of the classes in their shards as such: their
 * locks, into a list and out of it; and the slabs of their structures.
 */
#include "spanlists.h"

#include <string.h>

#include "holemap.h"
#include "meta.h"

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

static bool
is_first(const struct hz4_slab *slab)
{
	return slab->spans == (const char *)(slab + 1);
}

/*
 * A small program has few spans of each class: the first slab has few
 * structures.  Those of others are zeros.
 */
static bool
make_slab_locked(struct hz4_spans *c)
{
	const struct hz4_class *k = &hz4_classes[hz4_lists_class(c)];
	bool first = hz4_peek(&c->made) == NULL;
	size_t bytes = hz4_round_up(offsetof(struct hz4_span, bits) +
				    k->words * sizeof(uint64_t) +
				    hz4_holes_bytes(k), 64);
	size_t size = first ? hz4_max(HZ4_SLAB_FIRST, bytes) : HZ4_SLAB;
	struct hz4_slab *slab = hz4_meta_alloc(sizeof *slab +
					       (first ? size : 0));

	if (slab == NULL)
		return false;
	slab->spans = first ? (char *)(slab + 1) : hz4_meta_page();
	if (slab->spans == NULL) {
		hz4_meta_free(slab, sizeof *slab);
		return false;
	}
	if (first)
		memset(slab->spans, 0, size);
	slab->bytes = (uint16_t)bytes;
	slab->count = (uint8_t)hz4_min(size / bytes, 64);
	slab->cls = (uint8_t)hz4_lists_class(c);
	slab->shard = (uint8_t)hz4_lists_shard(c);
	slab->purged = false;
	slab->unused = ~(uint64_t)0 >> (64 - slab->count);
	atomic_init(&slab->queued, 0);
	slab->older = hz4_peek(&c->made);
	atomic_store_explicit(&c->made, slab, memory_order_release);
	hz4_list_push(&c->unused, &slab->link);
	return true;
}

/* Those that were purged are used again when there is no other. */
static void
take_purged_locked(struct hz4_spans *c)
{
	struct hz4_list *l, *next;

	l = atomic_exchange_explicit(&c->purged, NULL, memory_order_acquire);
	for (; l != NULL; l = next) {
		next = l->next;
		/* None: lost to the child of a fork. */
		if (hz4_container(l, struct hz4_slab, link)->unused != 0)
			hz4_list_append(&c->unused, l);
	}
}

struct hz4_span *
hz4_slab_take_locked(struct hz4_spans *c)
{
	struct hz4_slab *slab;
	struct hz4_span *s;

	if (hz4_list_empty(&c->unused))
		take_purged_locked(c);
	if (hz4_list_empty(&c->unused) && !make_slab_locked(c))
		return NULL;
	slab = hz4_container(c->unused.next, struct hz4_slab, link);
	s = hz4_slab_span(slab, (unsigned)__builtin_ctzll(slab->unused));
	slab->unused &= slab->unused - 1;
	if (slab->unused == 0)
		hz4_list_remove(&slab->link);
	if (c->spare == slab)
		c->spare = NULL;
	if (slab->purged)
		hz4_meta_use_again(HZ4_SLAB);
	slab->purged = false;
	s->slab = slab;
	s->cls = slab->cls;
	return s;
}

/*
 * Of the slabs without a span with pages one stays as it is: the next span
 * may be made at once.
 */
struct hz4_slab *
hz4_slab_give_locked(struct hz4_spans *c, struct hz4_span *s)
{
	struct hz4_slab *slab = s->slab, *spare = c->spare;

	if (slab->unused == 0)
		hz4_list_push(&c->unused, &slab->link);
	slab->unused |= hz4_slab_bit(slab, s);
	if (slab->unused != ~(uint64_t)0 >> (64 - slab->count) ||
	    is_first(slab))
		return NULL;
	c->spare = slab;
	if (spare != NULL)
		hz4_list_remove(&spare->link);
	return spare;
}

/*
 * Where the system refuses, what is there serves as well: structures without
 * pages.
 */
void
hz4_slab_purge(struct hz4_slab *slab)
{
	struct hz4_spans *c = hz4_lists_of(slab);
	struct hz4_list *l = &slab->link;

	slab->purged = hz4_meta_purge(slab->spans, HZ4_SLAB);
	l->next = hz4_peek(&c->purged);
	while (!atomic_compare_exchange_weak_explicit(&c->purged, &l->next, l,
						      memory_order_release,
						      memory_order_relaxed))
		;
}
