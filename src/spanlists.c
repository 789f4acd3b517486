/*
 * spanlists.c - the lists of the classes in their shards as such: their
 * locks, into a list and out of it; and the slabs of their structures.
 */
#include "spanlists.h"

#include <string.h>

#include "holemap.h"
#include "meta.h"

struct hz4_spans hz4_lists[HZ4_SHARDS * HZ4_CLS_END];

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
	unsigned i;

	if (HZ4_DEBUG_BOX)
		for (i = 0; i < HZ4_SHARDS * HZ4_CLS_END; i++)
			hz4_lists[i].lock.rank = HZ4_RANK_CLASS;
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

/*
 * A small program has few spans of each class: the first slab has few
 * structures, behind its head.  All of them are zeros.
 */
static bool
make_slab_locked(struct hz4_spans *c)
{
	const struct hz4_class *k = &hz4_classes[hz4_lists_class(c)];
	size_t each = hz4_round_up(offsetof(struct hz4_span, bits) +
				   k->words * sizeof(uint64_t) +
				   hz4_holes_bytes(k), 64);
	size_t few = hz4_max(HZ4_SLAB_FIRST, each);
	bool first = hz4_peek(&c->made) == NULL;
	struct hz4_slab *slab = hz4_meta_alloc(sizeof *slab +
					       (first ? few : 0));

	if (slab == NULL)
		return false;
	memset(slab, 0, sizeof *slab + (first ? few : 0));
	slab->spans = first ? (char *)(slab + 1) : hz4_meta_pages(HZ4_SLAB);
	if (slab->spans == NULL) {
		hz4_meta_free(slab, sizeof *slab);
		return false;
	}
	slab->bytes = (uint16_t)each;
	slab->count = (uint8_t)hz4_min((first ? few : HZ4_SLAB) / each, 64);
	slab->cls = (uint8_t)hz4_lists_class(c);
	slab->shard = (uint8_t)hz4_lists_shard(c);
	hz4_poke(&slab->unused, hz4_slab_all(slab));
	hz4_list_push(&c->unused, &slab->link);
	slab->older = hz4_peek(&c->made);
	atomic_store_explicit(&c->made, slab, memory_order_release);
	return true;
}

struct hz4_span *
hz4_slab_take_locked(struct hz4_spans *c)
{
	struct hz4_slab *slab;
	struct hz4_span *s;
	uint64_t rest;

	if (hz4_list_empty(&c->unused) && !make_slab_locked(c))
		return NULL;
	slab = hz4_container(c->unused.next, struct hz4_slab, link);
	rest = hz4_peek(&slab->unused);
	s = hz4_slab_span(slab, (unsigned)__builtin_ctzll(rest));
	rest &= rest - 1;
	hz4_poke(&slab->unused, rest);
	if (rest == 0)
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
 * Where the system does not purge, what is there serves as well: structures
 * without pages.
 */
static void
purge_slab_locked(struct hz4_spans *c, struct hz4_slab *slab)
{
	hz4_list_remove(&slab->link);
	hz4_list_append(&c->unused, &slab->link);
	slab->purged = hz4_meta_purge(slab->spans, HZ4_SLAB);
}

/*
 * Of a class with many spans one slab that nothing is in stays, for the next
 * ones.
 */
void
hz4_slab_give_locked(struct hz4_spans *c, struct hz4_span *s)
{
	struct hz4_slab *slab = s->slab, *spare = c->spare;
	uint64_t unused = hz4_peek(&slab->unused);

	if (unused == 0)
		hz4_list_push(&c->unused, &slab->link);
	unused |= hz4_slab_bit(slab, s);
	hz4_poke(&slab->unused, unused);
	if (unused != hz4_slab_all(slab) || slab->older == NULL)
		return;
	c->spare = hz4_peek(&c->spans) >= HZ4_SLAB_MANY ? slab : NULL;
	if (spare != NULL)
		purge_slab_locked(c, spare);
	if (c->spare == NULL)
		purge_slab_locked(c, slab);
}
