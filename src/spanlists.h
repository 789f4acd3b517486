/*
 * spanlists.h - the inside of the classes' spans: their lists, as spans.c
 * keeps them, spanidle.c takes idle ones out to let their pages go
 * (spanpages.c), and holes.c walks through them.  Outside of them the heap
 * walker (walker.c) and the tools' view (note.c) look at it.
 *
 * Layer 3.  Has HZ4_RANK_CLASS.
 */
#ifndef HZ4_SPANLISTS_H
#define HZ4_SPANLISTS_H

#include "shard.h"
#include "spans.h"
#include "tune.h"

/* Shard by shard; of each those of class 0, too, always zeros. */
extern struct hz4_spans hz4_lists[HZ4_SHARDS * HZ4_CLS_END];

/* All that are in use. */
#define hz4_lists_each(c) \
	for ((c) = hz4_lists; \
	     (c) < &hz4_lists[(size_t)hz4_shards() * HZ4_CLS_END]; (c)++)

static inline struct hz4_spans *
hz4_lists_at(unsigned shard, unsigned cls)
{
	return &hz4_lists[shard * HZ4_CLS_END + cls];
}

static inline unsigned
hz4_lists_shard(const struct hz4_spans *c)
{
	return (unsigned)(c - hz4_lists) / HZ4_CLS_END;
}

static inline unsigned
hz4_lists_class(const struct hz4_spans *c)
{
	return (unsigned)(c - hz4_lists) % HZ4_CLS_END;
}

/* Those that a slab belongs to. */
static inline struct hz4_spans *
hz4_lists_of(const struct hz4_slab *slab)
{
	return hz4_lists_at(slab->shard, slab->cls);
}

static inline struct hz4_span *
hz4_lists_span(struct hz4_list *l)
{
	return hz4_container(l, struct hz4_span, link);
}

/* One of a slab's structures; the bits of all, and of one. */
static inline struct hz4_span *
hz4_slab_span(const struct hz4_slab *slab, unsigned i)
{
	char *at = slab->spans + (size_t)i * slab->bytes;

	return (struct hz4_span *)(void *)at;
}

static inline uint64_t
hz4_slab_all(const struct hz4_slab *slab)
{
	return ~(uint64_t)0 >> (64 - slab->count);
}

static inline uint64_t
hz4_slab_bit(const struct hz4_slab *slab, const struct hz4_span *s)
{
	uint32_t offset = (uint32_t)((const char *)s - slab->spans);

	return (uint64_t)1 << offset / slab->bytes;
}

/*
 * A structure without pages, of a new slab if need be; NULL when the system
 * refuses memory.  And it is without pages again.
 */
struct hz4_span *hz4_slab_take_locked(struct hz4_spans *c);
void hz4_slab_give_locked(struct hz4_spans *c, struct hz4_span *s);

/* True when it meant to wait.  And then empty the inbox. */
bool hz4_lists_lock(struct hz4_spans *c);
bool hz4_lists_lock_drained(struct hz4_spans *c);

/* Into a list a span that is in none, and out of the one that it is in. */
void hz4_lists_add_locked(struct hz4_spans *c, struct hz4_list *l,
			  struct hz4_span *s);
void hz4_lists_remove_locked(struct hz4_spans *c, struct hz4_span *s);

/*
 * Unlock, and let idle spans go that are too many, or all of them.  Returns
 * how many went back to the page heap.
 */
unsigned hz4_lists_unlock(struct hz4_spans *c, bool all);

/* The pages of a span that has gone, and since when it was empty. */
struct hz4_gone {
	uintptr_t start;
	uint64_t since;
};

/* Into the idle list, behind `at`, an empty span that is in none. */
void hz4_idle_add_locked(struct hz4_spans *c, struct hz4_list *at,
			 struct hz4_span *s);

/* Whether the shard does not know of some change of them. */
static inline bool
hz4_idle_changed(const struct hz4_spans *c)
{
	return hz4_peek(&c->idle_pages) != c->idle_told;
}

/* Tell it.  Returns its pages of idle spans. */
size_t hz4_idle_tell_locked(struct hz4_spans *c);

/*
 * The same, and take out idle spans that are too many, or all of them, the
 * oldest first, at most HZ4_SPANS_GONE at once.
 */
unsigned hz4_idle_shed_locked(struct hz4_spans *c, bool all,
			      struct hz4_gone *gone);

/*
 * The inbox has so many pages more now, or less.  Returns true when those of
 * all classes in the shard are too many.
 */
bool hz4_idle_add_waiting(struct hz4_spans *c, size_t pages);
void hz4_idle_sub_waiting(struct hz4_spans *c, size_t pages);

/* Give their pages back, with no lock held. */
void hz4_idle_release(unsigned cls, const struct hz4_gone *gone, unsigned n);

/*
 * Let nobody touch the objects of HZ4_CLS_ZERO, or make their pages usable
 * again.  Where the kernel refuses the first, they stay usable.
 */
bool hz4_lists_set_access(unsigned cls, uintptr_t start, bool on);

/* In the child of a fork: what the shard knows is what its classes have. */
void hz4_idle_recount(unsigned shard);

#endif
