/*
 * spans.h - the spans of each size class: their lists, making them and
 * letting them go.  What goes on inside a span is transfer.c's.
 *
 * An empty span may stay with its class, in the idle list: to make a span
 * and to give it back costs as much as some dozens of objects, and big
 * objects have a span each.  Spans that are in use come before idle ones,
 * those that are nearly empty last of them, so that they become empty; and of
 * idle ones the latest, which the CPU's caches may still have.
 *
 * The lists of each class exist once for every shard (shard.h).  A span stays
 * in those of the shard it was made in.
 *
 * Who gives objects back never waits for a class's lock: a span that has to
 * enter a list or to leave one goes into the class's inbox, and whoever holds
 * the lock next sees to it.
 *
 * Layer 3.  Takes HZ4_RANK_CLASS; the page heap's lock only when that is
 * dropped.
 */
#ifndef HZ4_SPANS_H
#define HZ4_SPANS_H

#include "lock.h"
#include "span.h"

struct hz4_spans {
	struct hz4_lock lock;
	struct hz4_list partial; /* spans with free objects [lock] */
	struct hz4_list sparse;	 /* those that were nearly empty [lock] */
	struct hz4_list idle;	 /* empty ones, the latest first [lock] */
	struct hz4_list unused;	 /* slabs with some without pages [lock] */
	/*
	 * Spans with pages; pages of idle spans; spans of all three lists.
	 * [lock] writes; [atomic] relaxed: a figure, hints
	 */
	_Atomic uint32_t spans;
	_Atomic uint32_t idle_pages;
	_Atomic uint32_t listed;
	uint32_t idle_told; /* idle_pages as the shard knows them [lock] */
	/*
	 * The inbox: slabs of spans that may belong into another list, the
	 * latest first; and the pages of these, or more. [atomic] seq_cst:
	 * pushed without the lock, taken out with it, all at once
	 */
	struct hz4_slab *_Atomic inbox;
	_Atomic size_t waiting;
	/*
	 * The latest slab made; leads to all of them. [lock] writes;
	 * [atomic] release: `older` comes before
	 */
	struct hz4_slab *_Atomic made;
	struct hz4_slab *spare; /* the next one to purge [lock] */
} HZ4_LINE_ALIGNED;

/* Once, before the first other call: gives the classes' locks their rank. */
void hz4_spans_init(void);

/* The lists that this thread takes from first. */
struct hz4_spans *hz4_spans_lock(unsigned cls);
void hz4_spans_unlock(struct hz4_spans *c);

/*
 * Lock the next lists of the class, counted from this thread's own by
 * `*shard`, that may have free objects, with none locked.  NULL: no more.
 */
struct hz4_spans *hz4_spans_lock_next(unsigned cls, unsigned *shard);

/* Where the class takes next, left where it is; NULL when there is none. */
struct hz4_span *hz4_spans_see_locked(struct hz4_spans *c,
				      const struct hz4_class *k);

/* The same for who takes from it: in the partial list. */
struct hz4_span *hz4_spans_next_locked(struct hz4_spans *c,
				       const struct hz4_class *k);

/* This listed span has no free object any more. */
void hz4_spans_drained_locked(struct hz4_spans *c, const struct hz4_class *k,
			      struct hz4_span *s);

/*
 * Make a span: all its objects are free and nobody else takes any, until it
 * is admitted.  Called with the class locked, returns with it unlocked.  NULL
 * when the system refuses memory.
 */
struct hz4_span *hz4_spans_make(struct hz4_spans *c, unsigned cls);
void hz4_spans_admit(struct hz4_span *s, bool has_free);

/* The shards of spans that have changed, and which have too many; bits. */
struct hz4_changed {
	uint32_t shards, full;
};

/*
 * Objects came back to a span of the slab, which was not linked or may be
 * empty now, so that it may belong into another list: it goes into the inbox,
 * and is added to `*to`.  `now` (ms) since when it is idle, if it stays.  It
 * may since have been released and made anew by others, or be purged; what is
 * done with it is right for whatever it is then.
 */
void hz4_spans_note_changed(struct hz4_slab *slab, struct hz4_span *s,
			    uint64_t now, struct hz4_changed *to);

/*
 * See to such spans of one class.  Never waits for a class's lock: false when
 * all was left to others.  Tells in `*gone` how many spans went back to the
 * page heap.
 */
bool hz4_spans_refresh(unsigned cls, const struct hz4_changed *changed,
		       unsigned *gone);

/* An object of the span, above HZ4_FRESH_WHOLE, is used (fresh.h). */
void hz4_spans_note_whole(struct hz4_span *s);

/* See to all spans that were left to others, so that figures know them. */
void hz4_spans_settle(void);

/*
 * Bytes of empty spans that classes keep for their next objects, and of spans
 * that were left to others, nearly.
 */
size_t hz4_spans_idle(void);

/* Since when (ms) one is idle, the oldest; UINT64_MAX: none is. */
uint64_t hz4_spans_oldest(void);

/* Give those back to the page heap. */
void hz4_spans_trim(void);

/* The same where so many pages are needed and it would spare fresh ones. */
void hz4_spans_make_room(size_t pages);

struct hz4_spans_figures {
	size_t spans;	/* spans with pages */
	size_t objects; /* that they have room for */
};

void hz4_spans_figures(unsigned cls, struct hz4_spans_figures *out);

HZ4_SLOW void hz4_spans_fork_child(void);

/* The bits that word `w` has when all its objects are free. */
static inline uint64_t
hz4_spans_full_word(const struct hz4_class *k, uint32_t w)
{
	uint32_t rest = k->slots - w * 64;

	return rest >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << rest) - 1;
}

/* The first slot whose object is free; all of them: none is. */
static inline uint32_t
hz4_spans_first_free(const struct hz4_class *k, struct hz4_span *s)
{
	uint64_t free;
	uint32_t w;

	for (w = 0; w < k->words; w++) {
		free = atomic_load(&s->bits[w]);
		if (free != 0)
			return w * 64 + (uint32_t)__builtin_ctzll(free);
	}
	return k->slots;
}

/* How many are free; of those that others free meanwhile some. */
static inline uint32_t
hz4_spans_count_free(const struct hz4_class *k, struct hz4_span *s)
{
	uint32_t n = 0, w;

	for (w = 0; w < k->words; w++)
		n += (uint32_t)__builtin_popcountll(hz4_peek(&s->bits[w]));
	return n;
}

static inline bool
hz4_spans_is_empty(const struct hz4_class *k, struct hz4_span *s)
{
	uint32_t last = k->words - 1, w;

	for (w = 0; w < last; w++)
		if (atomic_load(&s->bits[w]) != ~(uint64_t)0)
			return false;
	return atomic_load(&s->bits[last]) == hz4_spans_full_word(k, last);
}

#endif
