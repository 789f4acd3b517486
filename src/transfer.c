/*
 * transfer.c - spans and their bitmaps.
 *
 * Taking holds the class's lock: it clears bits of the first span in the
 * partial list.  Giving holds no lock: it sets bits, one atomic OR for all
 * neighbours of a batch that share a word.  Only two changes need the lock
 * on that way: a span that was full gets a free object and must enter the
 * partial list, and a span that has become empty must leave it.
 *
 * The first of them is a handshake.  The taker that drains a span clears
 * `linked` and then looks at the bits once more; the giver sets a bit and
 * then looks at `linked`.  All four are seq_cst, so one of the two sees the
 * other, and no span with a free object stays outside the list.
 *
 * An empty span may stay with its class, in the idle list: to make a span
 * and to give it back costs as much as some dozens of objects, and big
 * objects have a span each.  Spans that are in use come before idle ones,
 * and of these the latest, which the CPU's caches may still have.
 */
#include "transfer.h"

#include "lock.h"
#include "log.h"
#include "meta.h"
#include "option.h"
#include "pageheap.h"
#include "pagemap.h"

struct class_spans {
	struct hz4_lock lock;
	struct hz4_list partial; /* spans with free objects [lock] */
	struct hz4_list idle;	 /* empty ones, the latest first [lock] */
	struct hz4_list unused;	 /* structures without pages [lock] */
	size_t spans;		 /* with pages [lock] */
	size_t idle_pages;	 /* of idle spans [lock] */
	/*
	 * The latest structure made; leads to all of them, for the child of
	 * a fork. [atomic] release: `older` comes before
	 */
	struct hz4_span *_Atomic made;
} HZ4_LINE_ALIGNED;

static struct class_spans spans_of[HZ4_CLS_END];

/*
 * What `linked` holds for a span in its class's list.  A fork that must
 * drop the lists takes the next value, so that spans of before count as
 * not linked.  Apart from the locks, since every giver reads it.
 * [lock: class] writes; [atomic] relaxed: changes only in a fork's child.
 */
static _Atomic uint32_t epoch_of[HZ4_CLS_END];

/* All classes' idle_pages. [atomic] relaxed: a sum that bounds itself */
static struct {
	_Atomic size_t pages;
} HZ4_LINE_ALIGNED idle;

static struct hz4_span *
of_link(struct hz4_list *l)
{
	return hz4_container(l, struct hz4_span, link);
}

/* The lists of a class start as zeros; whoever locks it first makes them. */
static struct class_spans *
lock_class(unsigned cls)
{
	struct class_spans *c = &spans_of[cls];

	hz4_lock_acquire(&c->lock);
	if (hz4_unlikely(c->partial.next == NULL)) {
		hz4_list_init(&c->partial);
		hz4_list_init(&c->idle);
		hz4_list_init(&c->unused);
		hz4_poke(&epoch_of[cls], 1);
	}
	return c;
}

/* Only debug builds look at ranks; others leave these lines untouched. */
void
hz4_transfer_init(void)
{
	unsigned cls;

	if (!HZ4_DEBUG_BOX)
		return;
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		spans_of[cls].lock.rank = HZ4_RANK_CLASS;
}

static void
unlock_class(struct class_spans *c)
{
	hz4_lock_release(&c->lock);
}

/* The bits that word `w` has when all its objects are free. */
static uint64_t
full_word(const struct hz4_class *k, uint32_t w)
{
	uint32_t rest = k->slots - w * 64;

	return rest >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << rest) - 1;
}

static bool
is_empty(const struct hz4_class *k, struct hz4_span *s)
{
	uint32_t last = k->words - 1, w;

	for (w = 0; w < last; w++)
		if (atomic_load(&s->bits[w]) != ~(uint64_t)0)
			return false;
	return atomic_load(&s->bits[last]) == full_word(k, last);
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

static bool
is_linked(struct hz4_span *s)
{
	return atomic_load(&s->linked) == hz4_peek(&epoch_of[s->cls]);
}

static void
link_locked(struct class_spans *c, struct hz4_span *s)
{
	hz4_list_append(&c->partial, &s->link);
	atomic_store(&s->linked, hz4_peek(&epoch_of[s->cls]));
}

/* They are somebody's from now on (base.h). */
static void
open_objects(const struct hz4_class *k, void *const *objects, unsigned n)
{
	for (; HZ4_SHADOW && n > 0; n--)
		hz4_open((uintptr_t)objects[n - 1], k->size);
}

/* Take the lowest free objects of one span; a part of hz4_transfer_take. */
static unsigned
take_from_span(const struct hz4_class *k, struct hz4_span *s, void **objects,
	       unsigned want)
{
	unsigned got = 0, bit;
	uint64_t free, rest;
	uint32_t w;
	uintptr_t base;

	for (w = 0; w < k->words && got < want; w++) {
		rest = free = hz4_peek(&s->bits[w]);
		if (free == 0)
			continue;
		base = s->start + (uintptr_t)w * 64 * k->size;
		while (rest != 0 && got < want) {
			bit = (unsigned)__builtin_ctzll(rest);
			rest &= rest - 1;
			objects[got++] = (void *)(base + (uintptr_t)bit *
							 k->size);
		}
		HZ4_CHAOS();
		/*
		 * Others only set bits, so those taken are still set.
		 * Acquire: pairs with the giver's release; what the last
		 * user wrote comes before what the next one does.
		 */
		atomic_fetch_and_explicit(&s->bits[w], ~(free ^ rest),
					  memory_order_acq_rel);
	}
	open_objects(k, objects, got);
	return got;
}

/* Out of the list that it is in, the idle one or the partial one. */
static void
unlist_locked(struct class_spans *c, const struct hz4_class *k,
	      struct hz4_span *s)
{
	hz4_list_remove(&s->link);
	if (!s->idle)
		return;
	s->idle = false;
	c->idle_pages -= k->pages;
	atomic_fetch_sub_explicit(&idle.pages, k->pages,
				  memory_order_relaxed);
}

/* A span with free objects, in the partial list; NULL when there is none. */
static struct hz4_span *
next_locked(struct class_spans *c, const struct hz4_class *k)
{
	struct hz4_span *s;

	if (!hz4_list_empty(&c->partial))
		return of_link(c->partial.next);
	if (hz4_list_empty(&c->idle))
		return NULL;
	s = of_link(c->idle.next);
	unlist_locked(c, k, s);
	hz4_list_push(&c->partial, &s->link);
	return s;
}

static unsigned
take_locked(struct class_spans *c, const struct hz4_class *k, void **objects,
	    unsigned want)
{
	unsigned got = 0;
	struct hz4_span *s;

	while (got < want && (s = next_locked(c, k)) != NULL) {
		got += take_from_span(k, s, objects + got, want - got);
		if (got == want)
			break;
		/* Drained.  The order of the next two is the handshake. */
		hz4_list_remove(&s->link);
		HZ4_CHAOS();
		atomic_store(&s->linked, 0);
		HZ4_CHAOS();
		if (has_free(k, s))
			link_locked(c, s);
	}
	return got;
}

static struct hz4_span *
take_structure(struct class_spans *c, const struct hz4_class *k, unsigned cls)
{
	struct hz4_span *s = NULL;

	if (!hz4_list_empty(&c->unused)) {
		s = of_link(c->unused.next);
		hz4_list_remove(&s->link);
	}
	unlock_class(c);
	if (s == NULL) {
		s = hz4_meta_alloc(sizeof *s + k->words * sizeof s->bits[0]);
		if (s == NULL)
			return NULL;
		hz4_list_init(&s->link);
		s->cls = cls;
		s->active = false;
		s->idle = false;
		atomic_init(&s->linked, 0);
		s->older = hz4_peek(&c->made);
		while (!atomic_compare_exchange_weak_explicit(
			&c->made, &s->older, s, memory_order_release,
			memory_order_relaxed))
			;
	}
	return s;
}

static void
keep_structure(unsigned cls, struct hz4_span *s)
{
	struct class_spans *c = lock_class(cls);

	hz4_list_push(&c->unused, &s->link);
	unlock_class(c);
}

/* The pages of a span that has gone, and since when it was empty. */
struct gone {
	uintptr_t start;
	uint64_t since;
};

static void
release_pages(const struct hz4_class *k, const struct gone *g)
{
	hz4_pagemap_set(g->start, k->pages, HZ4_CLS_NONE, NULL);
	hz4_pageheap_free(g->start, k->pages, g->since);
}

/* A span's structure is free again; its pages still count as used. */
static struct gone
retire_locked(struct class_spans *c, const struct hz4_class *k,
	      struct hz4_span *s)
{
	struct gone g = { s->start, s->since };

	unlist_locked(c, k, s);
	c->spans--;
	atomic_store(&s->linked, 0);
	s->active = false;
	hz4_list_push(&c->unused, &s->link);
	return g;
}

static void
trim_class(unsigned cls)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct gone gone[HZ4_BATCH_MAX];
	struct class_spans *c;
	unsigned n, i;

	do {
		c = lock_class(cls);
		for (n = 0; n < HZ4_BATCH_MAX && !hz4_list_empty(&c->idle);
		     n++)
			gone[n] = retire_locked(c, k, of_link(c->idle.prev));
		unlock_class(c);
		for (i = 0; i < n; i++)
			release_pages(k, &gone[i]);
	} while (n == HZ4_BATCH_MAX);
}

void
hz4_transfer_trim(void)
{
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++)
		trim_class(cls);
}

size_t
hz4_transfer_idle(void)
{
	return hz4_peek(&idle.pages) * HZ4_PAGE;
}

/*
 * Idle spans come before memory that the process does not have yet.  Not for
 * a few of them: it takes the lock of every class.
 */
void
hz4_transfer_make_room(size_t pages)
{
	if (hz4_transfer_idle() >= HZ4_SPAN_IDLE_WORTH &&
	    hz4_pageheap_dirty() < pages * HZ4_PAGE)
		hz4_transfer_trim();
}

/*
 * A new span, with the first `want` of its objects taken for the caller.
 * Called with the class locked, returns with it unlocked.
 */
static unsigned
create_span(struct class_spans *c, unsigned cls, void **objects, unsigned want)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct hz4_span *s = take_structure(c, k, cls);
	unsigned got;
	uint32_t w;

	if (s == NULL)
		return 0;
	hz4_transfer_make_room(k->pages);
	s->start = hz4_pageheap_alloc(k->pages, HZ4_PAGE);
	if (s->start == 0) {
		keep_structure(cls, s);
		return 0;
	}
	for (w = 0; w < k->words; w++)
		atomic_store_explicit(&s->bits[w], full_word(k, w),
				      memory_order_relaxed);
	hz4_close(s->start, k->pages * (size_t)HZ4_PAGE);
	got = take_from_span(k, s, objects, want);
	hz4_pagemap_set(s->start, k->pages, cls, s);

	lock_class(cls);
	s->active = true;
	c->spans++;
	if (got < k->slots)
		link_locked(c, s);
	unlock_class(c);
	return got;
}

unsigned
hz4_transfer_take(unsigned cls, void **objects, unsigned want, unsigned *path)
{
	struct class_spans *c = lock_class(cls);
	unsigned got;

	*path = HZ4_TRANSFER_LOCKED;
	got = take_locked(c, &hz4_classes[cls], objects, want);
	if (got > 0) {
		unlock_class(c);
		return got;
	}
	*path |= HZ4_TRANSFER_CREATED;
	return create_span(c, cls, objects, want);
}

/*
 * An empty span stays while all that do are few enough, or when it is all
 * that the class has: the next object may be asked for at once.
 */
static bool
may_idle_locked(const struct class_spans *c, const struct hz4_class *k,
		const struct hz4_span *s)
{
	size_t limit = hz4_option(HZ4_OPT_purge_delay) == 0 ?
		0 : HZ4_SPAN_IDLE / HZ4_PAGE;

	return hz4_peek(&idle.pages) + k->pages <= limit ||
	       (hz4_list_empty(&c->idle) && c->partial.next == &s->link &&
		c->partial.prev == &s->link);
}

/* From the partial list to the idle one. */
static void
make_idle_locked(struct class_spans *c, const struct hz4_class *k,
		 struct hz4_span *s)
{
	hz4_list_remove(&s->link);
	hz4_list_push(&c->idle, &s->link);
	s->idle = true;
	c->idle_pages += k->pages;
	atomic_fetch_add_explicit(&idle.pages, k->pages,
				  memory_order_relaxed);
}

/* True when the span goes; false when it is not empty, or stays. */
static bool
detach_locked(struct class_spans *c, const struct hz4_class *k,
	      struct hz4_span *s, uint64_t now, struct gone *gone)
{
	if (!s->active || s->idle || !is_empty(k, s))
		return false;
	if (!is_linked(s))
		link_locked(c, s);
	s->since = now;
	if (may_idle_locked(c, k, s)) {
		make_idle_locked(c, k, s);
		return false;
	}
	*gone = retire_locked(c, k, s);
	return true;
}

/*
 * The locked part of giving: these spans were not linked, or may be empty.
 * Each of them may since have been released and made anew by others; what
 * is done here is right for whatever they are now.
 */
static void
relink_spans(unsigned cls, struct hz4_span **todo, unsigned n, uint64_t now,
	     unsigned *path)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct gone gone[HZ4_BATCH_MAX];
	struct class_spans *c = lock_class(cls);
	unsigned i, going = 0;

	*path |= HZ4_TRANSFER_LOCKED;
	for (i = 0; i < n; i++) {
		struct hz4_span *s = todo[i];

		if (detach_locked(c, k, s, now, &gone[going]))
			going++;
		else if (s->active && !is_linked(s) && has_free(k, s))
			link_locked(c, s);
	}
	unlock_class(c);
	for (i = 0; i < going; i++) {
		*path |= HZ4_TRANSFER_RELEASED;
		release_pages(k, &gone[i]);
	}
}

_Noreturn static HZ4_SLOW void
fatal_free(const struct hz4_class *k, struct hz4_span *s, uint32_t w,
	   uint64_t bits, const char *what)
{
	uint32_t slot = w * 64 + (uint32_t)__builtin_ctzll(bits);

	hz4_fatal("free(): %s: ptr %p, size %u", what,
		  (void *)(s->start + (uintptr_t)slot * k->size),
		  (unsigned)k->size);
}

/*
 * Set bits of one word.  True when the span needs the locked part.
 */
static bool
give_bits(const struct hz4_class *k, struct hz4_span *s, uint32_t w,
	  uint64_t bits)
{
	/* seq_cst: the handshake above; its release half publishes. */
	uint64_t before = atomic_fetch_or(&s->bits[w], bits);

	HZ4_CHAOS();
	if (hz4_unlikely(before & bits))
		fatal_free(k, s, w, before & bits, "double free");
	if (!is_linked(s))
		return true;
	HZ4_CHAOS();
	return (before | bits) == full_word(k, w) && is_empty(k, s);
}

/*
 * The span of a page of this class, NULL when the page is none (any more).
 */
static struct hz4_span *
span_of(const void *object, unsigned cls)
{
	struct hz4_span *s;

	if (hz4_pagemap_class(object) != cls)
		return NULL;
	s = hz4_pagemap_owner((uintptr_t)object);
	return s != NULL && s->cls == cls ? s : NULL;
}

/* The span of an object that is given back; aborts when there is none. */
static struct hz4_span *
find_span(unsigned cls, const struct hz4_class *k, void *object)
{
	struct hz4_span *s = span_of(object, cls);

	if (hz4_unlikely(s == NULL))
		hz4_fatal("free(): double free: ptr %p, size %u", object,
			  (unsigned)k->size);
	return s;
}

/* Which slot of its span an object is; aborts when it is none. */
static uint32_t
find_slot(const struct hz4_class *k, void *object, size_t offset)
{
	uint32_t slot = hz4_sizeclass_slot(k, offset);

	if (hz4_unlikely(slot * (size_t)k->size != offset || slot >= k->slots))
		hz4_fatal("free(): pointer into an object: ptr %p, size %u",
			  object, (unsigned)k->size);
	return slot;
}

/*
 * `bits` are those of word `last_w` of the span `last` that are still to be
 * set.  While there are any, an object of that span is out, so it has its
 * pages, and others that lie in these need no look at the page map.
 */
void
hz4_transfer_give(unsigned cls, void *const *objects, unsigned n,
		  uint64_t now, unsigned *path)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct hz4_span *todo[HZ4_BATCH_MAX], *s, *last = NULL;
	size_t bytes = (size_t)k->pages * HZ4_PAGE, offset;
	unsigned todos = 0, i;
	uint32_t slot, w, last_w = 0;
	uint64_t bits = 0, bit;
	uintptr_t start = 0;

	*path = 0;
	for (i = 0; i < n; i++) {
		s = last;
		offset = (uintptr_t)objects[i] - start;
		if (s == NULL || offset >= bytes) {
			s = find_span(cls, k, objects[i]);
			start = s->start;
			offset = (uintptr_t)objects[i] - start;
		}
		slot = find_slot(k, objects[i], offset);
		w = slot / 64;
		bit = (uint64_t)1 << slot % 64;
		hz4_close((uintptr_t)objects[i], k->size);
		if (s == last && w == last_w) {
			if (hz4_unlikely(bits & bit))
				fatal_free(k, s, w, bit, "double free");
			bits |= bit;
			continue;
		}
		if (bits != 0 && give_bits(k, last, last_w, bits))
			todo[todos++] = last;
		if (hz4_unlikely(todos == HZ4_BATCH_MAX)) {
			relink_spans(cls, todo, todos, now, path);
			todos = 0;
		}
		bits = bit;
		last = s;
		last_w = w;
	}
	if (bits != 0 && give_bits(k, last, last_w, bits))
		todo[todos++] = last;
	if (todos > 0)
		relink_spans(cls, todo, todos, now, path);
}

void
hz4_transfer_figures(unsigned cls, struct hz4_transfer_figures *out)
{
	struct class_spans *c = lock_class(cls);

	out->spans = c->spans;
	out->objects = c->spans * hz4_classes[cls].slots;
	unlock_class(c);
}

void
hz4_transfer_reject(unsigned cls, void *object)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct hz4_span *s = find_span(cls, k, object);

	find_slot(k, object, (uintptr_t)object - s->start);
	hz4_fatal("free(): double free: ptr %p, size %u", object,
		  (unsigned)k->size);
}

bool
hz4_transfer_is_out(const void *p)
{
	unsigned cls = hz4_pagemap_class(p);
	const struct hz4_class *k = &hz4_classes[cls];
	struct hz4_span *s = span_of(p, cls);
	size_t offset;
	uint32_t slot;

	if (s == NULL)
		return false;
	offset = (uintptr_t)p - s->start;
	slot = hz4_sizeclass_slot(k, offset);
	return slot * (size_t)k->size == offset && slot < k->slots &&
	       !(hz4_peek(&s->bits[slot / 64]) >> slot % 64 & 1);
}

/*
 * Lists of a class whose lock a gone thread held may be half changed: they
 * are made anew.  A structure without pages is left out: it may be one that
 * this very thread was about to use when a signal's handler forked.
 */
static void
start_afresh(struct class_spans *c, unsigned cls)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct hz4_span *s;

	c->idle_pages = 0;
	if (c->partial.next == NULL)
		return;
	hz4_list_init(&c->partial);
	hz4_list_init(&c->idle);
	hz4_list_init(&c->unused);
	hz4_poke(&epoch_of[cls], hz4_peek(&epoch_of[cls]) + 1);
	for (s = hz4_peek(&c->made); s != NULL; s = s->older) {
		s->idle = false;
		if (!s->active || !has_free(k, s))
			continue;
		link_locked(c, s);
		if (is_empty(k, s))
			make_idle_locked(c, k, s);
	}
}

void
hz4_transfer_fork_child(void)
{
	bool lost = false;
	size_t pages = 0;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		struct class_spans *c = &spans_of[cls];

		if (hz4_lock_fork_child(&c->lock)) {
			lost = true;
			start_afresh(c, cls);
		}
		pages += c->idle_pages;
	}
	/* Else it is right, or this thread is just about to make it so. */
	if (lost)
		hz4_poke(&idle.pages, pages);
}
