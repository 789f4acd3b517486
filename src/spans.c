/*
 * spans.c - partial, idle and unused spans of the classes in their shards,
 * and the child of a fork.
 */
#include "spans.h"

#include "fresh.h"
#include "meta.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"
#include "shard.h"

static struct hz4_spans spans_of[HZ4_SHARDS][HZ4_CLS_END];

/*
 * All classes' idle_pages of each shard. [atomic] relaxed: sums that bound
 * themselves
 */
static struct {
	_Atomic size_t pages;
} HZ4_LINE_ALIGNED idle[HZ4_SHARDS];

static struct hz4_span *
of_link(struct hz4_list *l)
{
	return hz4_container(l, struct hz4_span, link);
}

/*
 * The lists start as zeros; whoever locks them first makes them.  True when
 * that meant to wait.
 */
static bool
lock_lists(struct hz4_spans *c)
{
	bool waited = hz4_lock_acquire(&c->lock);

	if (hz4_unlikely(c->partial.next == NULL)) {
		hz4_list_init(&c->partial);
		hz4_list_init(&c->idle);
		hz4_list_init(&c->unused);
	}
	return waited;
}

struct hz4_spans *
hz4_spans_lock(unsigned cls)
{
	struct hz4_spans *c = &spans_of[hz4_shard_settle()][cls];

	hz4_shard_note_wait(lock_lists(c));
	return c;
}

struct hz4_spans *
hz4_spans_lock_next(unsigned cls, unsigned *shard)
{
	unsigned all = hz4_shards(), own = hz4_shard_own();
	struct hz4_spans *c;

	while (*shard < all) {
		c = &spans_of[(own + (*shard)++) % all][cls];
		if (hz4_peek(&c->listed) == 0)
			continue;
		lock_lists(c);
		return c;
	}
	return NULL;
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
			spans_of[shard][cls].lock.rank = HZ4_RANK_CLASS;
}

void
hz4_spans_unlock(struct hz4_spans *c)
{
	hz4_lock_release(&c->lock);
}

static bool
has_free(const struct hz4_class *k, struct hz4_span *s)
{
	uint32_t w;

	for (w = 0; w < k->words; w++)
		if (atomic_load(&s->bits[w]) != 0)
			return true;
	return false;
}

static void
list_locked(struct hz4_spans *c, struct hz4_list *l, struct hz4_span *s)
{
	hz4_list_push(l, &s->link);
	hz4_poke(&c->listed, hz4_peek(&c->listed) + 1);
}

/* Out of the list that it is in, the idle one or the partial one. */
static void
unlist_locked(struct hz4_spans *c, const struct hz4_class *k,
	      struct hz4_span *s)
{
	hz4_list_remove(&s->link);
	hz4_poke(&c->listed, hz4_peek(&c->listed) - 1);
	if (!s->idle)
		return;
	s->idle = false;
	/* In this order: a fork in between leaves too many, never too few. */
	atomic_fetch_sub_explicit(&idle[s->shard].pages, k->pages,
				  memory_order_relaxed);
	c->idle_pages -= k->pages;
}

/* To the end of the partial list. */
static void
link_locked(struct hz4_spans *c, struct hz4_span *s)
{
	list_locked(c, c->partial.prev, s);
	atomic_store(&s->linked, true);
}

struct hz4_span *
hz4_spans_next_locked(struct hz4_spans *c, const struct hz4_class *k)
{
	struct hz4_span *s;

	if (!hz4_list_empty(&c->partial))
		return of_link(c->partial.next);
	if (hz4_list_empty(&c->idle))
		return NULL;
	s = of_link(c->idle.next);
	unlist_locked(c, k, s);
	list_locked(c, &c->partial, s);
	return s;
}

/* Not linked, and then a look at the bits: the handshake (transfer.c). */
void
hz4_spans_drained_locked(struct hz4_spans *c, const struct hz4_class *k,
			 struct hz4_span *s)
{
	unlist_locked(c, k, s);
	HZ4_CHAOS();
	atomic_store(&s->linked, false);
	HZ4_CHAOS();
	if (has_free(k, s))
		link_locked(c, s);
}

static uint8_t
shard_of(const struct hz4_spans *c)
{
	return (uint8_t)((size_t)((const char *)c - (const char *)spans_of) /
			 sizeof spans_of[0]);
}

static struct hz4_span *
take_structure(struct hz4_spans *c, const struct hz4_class *k, unsigned cls)
{
	struct hz4_span *s = NULL;

	if (!hz4_list_empty(&c->unused)) {
		s = of_link(c->unused.next);
		hz4_list_remove(&s->link);
	}
	hz4_spans_unlock(c);
	if (s == NULL) {
		s = hz4_meta_alloc(sizeof *s + k->words * sizeof s->bits[0]);
		if (s == NULL)
			return NULL;
		hz4_list_init(&s->link);
		s->cls = cls;
		s->shard = shard_of(c);
		s->active = false;
		s->idle = false;
		atomic_init(&s->linked, false);
		s->older = hz4_peek(&c->made);
		while (!atomic_compare_exchange_weak_explicit(
			&c->made, &s->older, s, memory_order_release,
			memory_order_relaxed))
			;
	}
	return s;
}

/* The lists that a span belongs to. */
static struct hz4_spans *
lock_lists_of(const struct hz4_span *s)
{
	struct hz4_spans *c = &spans_of[s->shard][s->cls];

	lock_lists(c);
	return c;
}

static void
keep_structure(struct hz4_span *s)
{
	struct hz4_spans *c = lock_lists_of(s);

	hz4_list_push(&c->unused, &s->link);
	hz4_spans_unlock(c);
}

/* The pages of a span that has gone, and since when it was empty. */
struct gone {
	uintptr_t start;
	uint64_t since;
};

/*
 * Let nobody touch the objects of HZ4_CLS_ZERO, or make their pages usable
 * again.  Where the kernel refuses the first, they stay usable.
 */
static bool
set_access(unsigned cls, uintptr_t start, bool on)
{
	const struct hz4_class *k = &hz4_classes[cls];

	if (cls != HZ4_CLS_ZERO || !(on || hz4_option(HZ4_OPT_zero_trap)))
		return true;
	return hz4_os_protect((void *)start, k->pages * (size_t)HZ4_PAGE, on);
}

/* Pages that cannot be made usable are lost: addresses alone. */
static void
release_pages(unsigned cls, const struct gone *g)
{
	const struct hz4_class *k = &hz4_classes[cls];

	hz4_pagemap_set(g->start, k->pages, HZ4_CLS_NONE, NULL);
	if (set_access(cls, g->start, true))
		hz4_pageheap_free(g->start, k->pages, g->since);
}

/*
 * The structure of a span that is in no list is free again; its pages still
 * count as used.
 */
static struct gone
retire_locked(struct hz4_spans *c, struct hz4_span *s)
{
	struct gone g = { s->start, s->since };

	c->spans--;
	atomic_store(&s->linked, false);
	s->active = false;
	hz4_fresh_end(s);
	hz4_list_push(&c->unused, &s->link);
	return g;
}

static void
trim_lists(struct hz4_spans *c, unsigned cls)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct gone gone[HZ4_BATCH_MAX];
	struct hz4_span *s;
	unsigned n, i;

	if (hz4_peek(&c->listed) == 0)
		return;
	do {
		lock_lists(c);
		for (n = 0; n < HZ4_BATCH_MAX && !hz4_list_empty(&c->idle);
		     n++) {
			s = of_link(c->idle.prev);
			unlist_locked(c, k, s);
			gone[n] = retire_locked(c, s);
		}
		hz4_spans_unlock(c);
		for (i = 0; i < n; i++)
			release_pages(cls, &gone[i]);
	} while (n == HZ4_BATCH_MAX);
}

void
hz4_spans_trim(void)
{
	unsigned shard, cls;

	for (shard = 0; shard < hz4_shards(); shard++)
		for (cls = 1; cls < HZ4_CLS_END; cls++)
			trim_lists(&spans_of[shard][cls], cls);
}

size_t
hz4_spans_idle(void)
{
	size_t pages = 0;
	unsigned shard;

	for (shard = 0; shard < hz4_shards(); shard++)
		pages += hz4_peek(&idle[shard].pages);
	return pages * HZ4_PAGE;
}

/* Idle lists have the latest first. */
static uint64_t
oldest_of(struct hz4_spans *c)
{
	uint64_t since = UINT64_MAX;

	if (hz4_peek(&c->listed) == 0)
		return since;
	lock_lists(c);
	if (!hz4_list_empty(&c->idle))
		since = of_link(c->idle.prev)->since;
	hz4_spans_unlock(c);
	return since;
}

uint64_t
hz4_spans_oldest(void)
{
	uint64_t since = UINT64_MAX;
	unsigned shard, cls;

	for (shard = 0; shard < hz4_shards(); shard++)
		for (cls = 1; cls < HZ4_CLS_END; cls++)
			since = hz4_min(since,
					oldest_of(&spans_of[shard][cls]));
	return since;
}

/*
 * Idle spans come before memory that the process does not have yet.  Not for
 * a few of them: it takes the lock of every class.
 */
void
hz4_spans_make_room(size_t pages)
{
	if (hz4_spans_idle() >= HZ4_SPAN_IDLE_WORTH &&
	    hz4_pageheap_dirty() < pages * HZ4_PAGE)
		hz4_spans_trim();
}

struct hz4_span *
hz4_spans_make(struct hz4_spans *c, unsigned cls)
{
	const struct hz4_class *k = &hz4_classes[cls];
	size_t spans = c->spans;
	struct hz4_span *s = take_structure(c, k, cls);
	uint32_t w;

	if (s == NULL)
		return NULL;
	hz4_spans_make_room(k->pages);
	s->start = hz4_pageheap_alloc(k->pages, HZ4_PAGE);
	if (s->start == 0) {
		keep_structure(s);
		return NULL;
	}
	for (w = 0; w < k->words; w++)
		atomic_store_explicit(&s->bits[w], hz4_spans_full_word(k, w),
				      memory_order_relaxed);
	hz4_fresh_start(s, k, spans);
	hz4_close(s->start, k->pages * (size_t)HZ4_PAGE);
	set_access(cls, s->start, false);
	hz4_pagemap_set(s->start, k->pages, cls, s);
	return s;
}

void
hz4_spans_admit(struct hz4_span *s, bool has_free)
{
	struct hz4_spans *c = lock_lists_of(s);

	s->active = true;
	c->spans++;
	if (has_free)
		link_locked(c, s);
	hz4_spans_unlock(c);
}

/*
 * An empty span stays while all that do are few enough, or when it is all
 * that the shard has of the class: the next object may be asked for at once.
 */
static bool
may_idle_locked(const struct hz4_spans *c, const struct hz4_class *k,
		const struct hz4_span *s)
{
	size_t limit = hz4_max(HZ4_SPAN_IDLE,
			       hz4_pageheap_used() / HZ4_SPAN_IDLE_SHARE);

	if (hz4_option(HZ4_OPT_purge_delay) == 0)
		limit = 0;
	return (hz4_peek(&idle[s->shard].pages) + k->pages) * hz4_shards() <=
		       limit / HZ4_PAGE ||
	       (hz4_list_empty(&c->idle) && hz4_list_empty(&c->partial));
}

/* Into the idle list a span that is in none. */
static void
make_idle_locked(struct hz4_spans *c, const struct hz4_class *k,
		 struct hz4_span *s)
{
	list_locked(c, &c->idle, s);
	atomic_store(&s->linked, true);
	s->idle = true;
	c->idle_pages += k->pages;
	atomic_fetch_add_explicit(&idle[s->shard].pages, k->pages,
				  memory_order_relaxed);
}

/* True when the span goes; false when it is not empty, or stays. */
static bool
detach_locked(struct hz4_spans *c, const struct hz4_class *k,
	      struct hz4_span *s, uint64_t now, struct gone *gone)
{
	if (!s->active || s->idle || !hz4_spans_is_empty(k, s))
		return false;
	if (atomic_load(&s->linked))
		unlist_locked(c, k, s);
	s->since = now;
	if (may_idle_locked(c, k, s)) {
		make_idle_locked(c, k, s);
		return false;
	}
	*gone = retire_locked(c, s);
	return true;
}

/* hz4_spans_refresh for those of one shard, whose lists are locked. */
static unsigned
refresh_locked(struct hz4_spans *c, const struct hz4_class *k,
	       struct hz4_span **todo, unsigned n, uint64_t now,
	       struct gone *gone)
{
	unsigned shard = todo[0]->shard, i, going = 0;

	for (i = 0; i < n; i++) {
		struct hz4_span *s = todo[i];

		if (s->shard != shard)
			continue;
		if (detach_locked(c, k, s, now, &gone[going]))
			going++;
		else if (s->active && !atomic_load(&s->linked) &&
			 has_free(k, s))
			link_locked(c, s);
	}
	return going;
}

unsigned
hz4_spans_refresh(unsigned cls, struct hz4_span **todo, unsigned n,
		  uint64_t now)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct gone gone[HZ4_BATCH_MAX];
	uint32_t seen = 0;
	struct hz4_spans *c;
	unsigned i, going = 0;

	/* Each shard is locked once, for all of its spans. */
	for (i = 0; i < n; i++) {
		if (seen >> todo[i]->shard & 1)
			continue;
		seen |= (uint32_t)1 << todo[i]->shard;
		c = lock_lists_of(todo[i]);
		going += refresh_locked(c, k, todo + i, n - i, now,
					gone + going);
		hz4_spans_unlock(c);
	}
	for (i = 0; i < going; i++)
		release_pages(cls, &gone[i]);
	return going;
}

void
hz4_spans_figures(unsigned cls, struct hz4_spans_figures *out)
{
	struct hz4_spans *c;
	unsigned shard;

	out->spans = 0;
	for (shard = 0; shard < hz4_shards(); shard++) {
		c = &spans_of[shard][cls];
		lock_lists(c);
		out->spans += c->spans;
		hz4_spans_unlock(c);
	}
	out->objects = out->spans * hz4_classes[cls].slots;
}

/*
 * Lists of a class whose lock a gone thread held may be half changed: they
 * are made anew, and what was counted with them.  A structure without pages
 * is left out: it may be one that this very thread was about to use when a
 * signal's handler forked.
 */
static void
start_afresh(struct hz4_spans *c, unsigned cls)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct hz4_span *s;

	c->idle_pages = 0;
	hz4_poke(&c->listed, 0);
	if (c->partial.next == NULL)
		return;
	hz4_list_init(&c->partial);
	hz4_list_init(&c->idle);
	hz4_list_init(&c->unused);
	c->spans = 0;
	for (s = hz4_peek(&c->made); s != NULL; s = s->older) {
		s->idle = false;
		atomic_store(&s->linked, false);
		if (!s->active)
			continue;
		c->spans++;
		if (!has_free(k, s))
			continue;
		if (hz4_spans_is_empty(k, s))
			make_idle_locked(c, k, s);
		else
			link_locked(c, s);
	}
}

static void
fork_child_of(unsigned shard)
{
	bool lost = false;
	size_t pages = 0;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		struct hz4_spans *c = &spans_of[shard][cls];

		if (hz4_lock_fork_child(&c->lock)) {
			lost = true;
			start_afresh(c, cls);
		}
		pages += c->idle_pages;
	}
	/* Else it is right, or this thread is just about to make it so. */
	if (lost)
		hz4_poke(&idle[shard].pages, pages);
}

void
hz4_spans_fork_child(void)
{
	unsigned shard;

	for (shard = 0; shard < hz4_shards(); shard++)
		fork_child_of(shard);
}
