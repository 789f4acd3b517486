/*
 * spans.c - which span a class takes from, the inbox, and the child of a
 * fork.
 *
 * Calls go one way: spanpages.c, spans.c, spanidle.c, spanlists.c.
 */
#include "spans.h"

#include "fresh.h"
#include "option.h"
#include "probe.h"
#include "spanlists.h"

/*
 * Whose inbox this thread is about to push a span into, for a signal's
 * handler that forks.
 */
static HZ4_TLS struct hz4_spans *pushing;

static bool
has_free(const struct hz4_class *k, struct hz4_span *s)
{
	return hz4_spans_first_free(k, s) < k->slots;
}

/* To the end of the partial list. */
static void
link_locked(struct hz4_spans *c, struct hz4_span *s)
{
	s->looked = false;
	hz4_lists_add_locked(c, c->partial.prev, s);
}

/*
 * Of the partial list those that have come to its front while others were
 * used, so that most of their objects are free, go behind all others: they
 * may become empty.
 */
static void
sort_out_locked(struct hz4_spans *c, const struct hz4_class *k)
{
	unsigned looks = HZ4_SPAN_LOOKS;
	struct hz4_span *s;

	for (; looks > 0 && !hz4_list_empty(&c->partial); looks--) {
		s = hz4_lists_span(c->partial.next);
		if (s->looked)
			return;
		s->looked = true;
		if (hz4_spans_count_free(k, s) <=
		    k->slots - k->slots / HZ4_SPAN_SPARSE)
			return;
		hz4_list_remove(&s->link);
		hz4_list_append(&c->sparse, &s->link);
	}
}

struct hz4_span *
hz4_spans_see_locked(struct hz4_spans *c, const struct hz4_class *k)
{
	struct hz4_list *l = &c->partial;

	sort_out_locked(c, k);
	if (hz4_list_empty(l))
		l = hz4_list_empty(&c->sparse) ? &c->idle : &c->sparse;
	return hz4_list_empty(l) ? NULL : hz4_lists_span(l->next);
}

struct hz4_span *
hz4_spans_next_locked(struct hz4_spans *c, const struct hz4_class *k)
{
	struct hz4_span *s = hz4_spans_see_locked(c, k);

	if (s == NULL || !hz4_list_empty(&c->partial))
		return s;
	hz4_lists_remove_locked(c, s);
	hz4_lists_add_locked(c, &c->partial, s);
	s->looked = true;
	return s;
}

/* Not linked, and then a look at the bits: the handshake (transfer.c). */
void
hz4_spans_drained_locked(struct hz4_spans *c, const struct hz4_class *k,
			 struct hz4_span *s)
{
	hz4_lists_remove_locked(c, s);
	HZ4_CHAOS();
	atomic_store(&s->linked, false);
	HZ4_CHAOS();
	if (has_free(k, s))
		link_locked(c, s);
}

/*
 * Into the list that a span belongs to now; the idle one behind `*at`, which
 * it then is.
 */
static void
settle_locked(struct hz4_spans *c, struct hz4_span *s, struct hz4_list **at)
{
	const struct hz4_class *k = &hz4_classes[s->cls];

	if (!s->active || s->idle)
		return;
	if (hz4_spans_is_empty(k, s)) {
		if (atomic_load(&s->linked))
			hz4_lists_remove_locked(c, s);
		hz4_idle_add_locked(c, *at, s);
		*at = &s->link;
	} else if (!atomic_load(&s->linked) && has_free(k, s)) {
		link_locked(c, s);
	}
}

/*
 * A span is not queued any more before its bits are looked at: a giver sets
 * a bit, then looks whether the span is queued, and if it still is, that bit
 * is seen here.  The latest comes first, as in the idle list.
 */
HZ4_FAST size_t
drain_slab_locked(struct hz4_spans *c, struct hz4_slab *slab,
		  struct hz4_list **at)
{
	uint64_t queued = atomic_exchange(&slab->queued, 0);
	unsigned i;
	size_t n;

	HZ4_CHAOS();
	for (n = 0; queued != 0; n++) {
		i = 63 - (unsigned)__builtin_clzll(queued);
		queued ^= (uint64_t)1 << i;
		settle_locked(c, hz4_slab_span(slab, i), at);
	}
	return n * hz4_classes[slab->cls].pages;
}

/* Empty the inbox. */
static void
drain_locked(struct hz4_spans *c)
{
	struct hz4_list *at = &c->idle;
	struct hz4_slab *slab, *next;
	size_t pages = 0;

	if (hz4_peek(&c->waiting) == 0)
		return;
	for (slab = atomic_exchange(&c->inbox, NULL); slab != NULL;
	     slab = next) {
		next = slab->next;
		HZ4_CHAOS();
		pages += drain_slab_locked(c, slab, &at);
	}
	hz4_idle_sub_waiting(c, pages);
}

bool
hz4_lists_lock_drained(struct hz4_spans *c)
{
	bool waited = hz4_lists_lock(c);

	drain_locked(c);
	return waited;
}

/*
 * Queue a span that is not yet, and push its slab into the inbox if it is the
 * first of that.  Counted before: there is never more in it than `waiting`.
 * True when the shard's inboxes have too much.
 */
static bool
push(struct hz4_slab *slab, struct hz4_span *s, uint64_t now)
{
	struct hz4_spans *c = hz4_lists_of(slab);
	size_t pages = hz4_classes[slab->cls].pages;
	uint64_t before, bit = hz4_slab_bit(slab, s);
	struct hz4_slab *head;
	bool full = false;

	/* A handler that forks sees this before anything has changed. */
	pushing = c;
	atomic_signal_fence(memory_order_seq_cst);
	hz4_poke(&s->since, now);
	if (!(atomic_load(&slab->queued) & bit)) {
		full = hz4_idle_add_waiting(c, pages);
		HZ4_CHAOS();
		before = atomic_fetch_or(&slab->queued, bit);
		HZ4_CHAOS();
		if (before & bit) {
			hz4_idle_sub_waiting(c, pages);
		} else if (before == 0) {
			head = hz4_peek(&c->inbox);
			do
				slab->next = head;
			while (!atomic_compare_exchange_weak(&c->inbox, &head,
							     slab));
		}
	}
	atomic_signal_fence(memory_order_seq_cst);
	pushing = NULL;
	return full;
}

/*
 * Whether the inbox has more than may stay there.  Where threads wait for
 * one another, somebody will soon take from the class.
 */
static bool
is_crowded(struct hz4_spans *c)
{
	size_t most = 0;

	if (hz4_shards() > 1 && hz4_option(HZ4_OPT_purge_delay) > 0)
		most = HZ4_SPAN_WAITING / HZ4_PAGE;
	return atomic_load(&c->waiting) > most &&
	       atomic_load(&c->inbox) != NULL;
}

/*
 * After the lock is dropped a look at what those have left whom it refused:
 * they push, then try; so one of the two sees the other.
 */
unsigned
hz4_lists_unlock(struct hz4_spans *c, bool all)
{
	struct hz4_gone gone[HZ4_SPANS_GONE];
	unsigned n = 0, sum = 0;

	for (;;) {
		if (n == HZ4_SPANS_GONE || all || hz4_idle_changed(c))
			n = hz4_idle_shed_locked(c, all, gone);
		else
			n = 0;
		hz4_lock_release(&c->lock);
		hz4_idle_release(hz4_lists_class(c), gone, n);
		sum += n;
		if (n < HZ4_SPANS_GONE && !is_crowded(c))
			return sum;
		if (!hz4_lock_try(&c->lock))
			return sum;
		drain_locked(c);
	}
}

struct hz4_spans *
hz4_spans_lock(unsigned cls)
{
	struct hz4_spans *c = hz4_lists_at(hz4_shard_settle(), cls);

	hz4_shard_note_wait(hz4_lists_lock_drained(c));
	return c;
}

struct hz4_spans *
hz4_spans_lock_next(unsigned cls, unsigned *shard)
{
	unsigned all = hz4_shards(), own = hz4_shard_own();
	struct hz4_spans *c;

	while (*shard < all) {
		c = hz4_lists_at((own + (*shard)++) % all, cls);
		if (hz4_peek(&c->listed) == 0 && hz4_peek(&c->waiting) == 0)
			continue;
		hz4_lists_lock_drained(c);
		return c;
	}
	return NULL;
}

void
hz4_spans_unlock(struct hz4_spans *c)
{
	hz4_lists_unlock(c, false);
}

void
hz4_spans_admit(struct hz4_span *s, bool has_free)
{
	struct hz4_spans *c = hz4_lists_of(s->slab);

	HZ4_PROBE2(span_create, s->start, hz4_sizeclass_usable(s->cls));
	hz4_lists_lock(c);
	s->active = true;
	hz4_poke(&c->spans, hz4_peek(&c->spans) + 1);
	if (has_free)
		link_locked(c, s);
	hz4_lists_unlock(c, false);
}

void
hz4_spans_note_whole(struct hz4_span *s)
{
	struct hz4_spans *c = hz4_lists_of(s->slab);

	if (hz4_peek(&s->ahead) & HZ4_SPAN_WHOLE)
		return;
	hz4_lists_lock(c);
	hz4_fresh_note_whole(s);
	hz4_lists_unlock(c, false);
}

void
hz4_spans_note_changed(struct hz4_slab *slab, struct hz4_span *s, uint64_t now,
		       struct hz4_changed *to)
{
	hz4_fork_look();
	to->shards |= (uint32_t)1 << slab->shard;
	if (push(slab, s, now))
		to->full |= (uint32_t)1 << slab->shard;
}

bool
hz4_spans_refresh(unsigned cls, const struct hz4_changed *changed,
		  unsigned *gone)
{
	uint32_t shards = changed->shards;
	bool locked = false;
	struct hz4_spans *c;
	unsigned shard;

	*gone = 0;
	for (; shards != 0; shards &= shards - 1) {
		shard = (unsigned)__builtin_ctz(shards);
		c = hz4_lists_at(shard, cls);
		if (!(changed->full >> shard & 1) && !is_crowded(c))
			continue;
		if (!hz4_lock_try(&c->lock))
			continue;
		drain_locked(c);
		*gone += hz4_lists_unlock(c, false);
		locked = true;
	}
	return locked;
}

void
hz4_spans_settle(void)
{
	struct hz4_spans *c;

	hz4_lists_each (c) {
		if (hz4_peek(&c->waiting) == 0)
			continue;
		hz4_lists_lock_drained(c);
		hz4_lists_unlock(c, false);
	}
}

void
hz4_spans_figures(unsigned cls, struct hz4_spans_figures *out)
{
	unsigned shard;

	out->spans = 0;
	for (shard = 0; shard < hz4_shards(); shard++)
		out->spans += hz4_peek(&hz4_lists_at(shard, cls)->spans);
	out->objects = out->spans * hz4_classes[cls].slots;
}

/*
 * Lists of a class whose lock a gone thread held may be half changed: they
 * are made anew, and what was counted with them.  A structure without pages
 * is left out: it may be one that this very thread was about to use when a
 * signal's handler forked.
 */
static void
start_afresh(struct hz4_spans *c)
{
	struct hz4_list *at = &c->idle;
	struct hz4_slab *slab;
	struct hz4_span *s;
	unsigned i;

	hz4_poke(&c->idle_pages, 0);
	hz4_poke(&c->listed, 0);
	if (c->partial.next == NULL)
		return;
	hz4_list_init(&c->partial);
	hz4_list_init(&c->sparse);
	hz4_list_init(&c->idle);
	hz4_list_init(&c->unused);
	hz4_poke(&c->spans, 0);
	c->spare = NULL;
	for (slab = hz4_peek(&c->made); slab != NULL; slab = slab->older) {
		if (slab->purged) {
			hz4_poke(&slab->unused, hz4_slab_all(slab));
			hz4_list_push(&c->unused, &slab->link);
			continue;
		}
		hz4_poke(&slab->unused, 0);
		for (i = 0; i < slab->count; i++) {
			s = hz4_slab_span(slab, i);
			s->idle = false;
			atomic_store(&s->linked, false);
			hz4_poke(&c->spans, hz4_peek(&c->spans) + s->active);
			settle_locked(c, s, &at);
		}
	}
}

/*
 * A thread that is gone may have queued a span and not pushed its slab: all
 * slabs are looked at, whether they are in the inbox or not.
 */
static void
empty_inbox(struct hz4_spans *c)
{
	struct hz4_list *at = &c->idle;
	struct hz4_slab *slab;

	atomic_store(&c->inbox, NULL);
	for (slab = hz4_peek(&c->made); slab != NULL; slab = slab->older)
		drain_slab_locked(c, slab, &at);
	hz4_poke(&c->waiting, 0);
}

/*
 * All stays where this thread itself changes the lists or the inbox, in a
 * function that a signal's handler has interrupted; there the spans of a
 * slab that has the mark of a gone thread are lost.  True when there was
 * something to do.
 */
static bool
fork_child_of_class(struct hz4_spans *c)
{
	bool lost = hz4_fork_lost(&c->lock);
	bool waiting = hz4_peek(&c->waiting) != 0 && pushing != c &&
		       !hz4_lock_is_mine(&c->lock);

	if (!lost && !waiting)
		return false;
	hz4_fork_seize(&c->lock);
	if (lost)
		start_afresh(c);
	if (waiting)
		empty_inbox(c);
	hz4_fork_drop(&c->lock);
	return true;
}

static void
fork_child_of(unsigned shard)
{
	bool changed = false;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++)
		if (fork_child_of_class(hz4_lists_at(shard, cls)))
			changed = true;
	/* Else it is right, or this thread is just about to make it so. */
	if (changed)
		hz4_idle_recount(shard);
}

void
hz4_spans_fork_child(void)
{
	unsigned shard;

	for (shard = 0; shard < hz4_shards(); shard++)
		fork_child_of(shard);
}
