/*
 * holes.c - finding OS pages of spans that hold nothing, and purging them.
 */
#include "holes.h"

#include "fresh.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "spanlists.h"
#include "transfer.h"

/* A stretch of OS pages of a span, counted from its start. */
struct stretch {
	uint32_t from, to;
};

/* Who has a round, and how far it has come.  [atomic] acquire, release */
static _Atomic bool walking;

/* A round is not over.  [atomic] relaxed: a hint */
static _Atomic bool midway;

static struct pass {
	/* The next one's, NULL: of the next lists; and its place there */
	const struct hz4_slab *slab;
	unsigned at;
	unsigned lists;
	size_t empty; /* OS pages to purge that held nothing so far */
	size_t refused; /* of these */
} pass;

/* That of the round before.  [atomic] relaxed: a hint */
static _Atomic size_t last_empty;

/*
 * Bytes that came back to spans since it began, less those that were taken.
 * [atomic] relaxed: a hint
 */
static _Atomic ptrdiff_t returned;

/* OS pages that the system would not purge.  [atomic] relaxed: a hint */
static _Atomic size_t refused;

/* ms. [atomic] relaxed: a rate limit */
static _Atomic uint64_t next_round;

/* Bytes that were resident at the last step. [atomic] relaxed: a hint */
static _Atomic size_t resident;

/* The first slot that has a part in a stretch, and the one behind the last. */
static uint32_t
first_slot(const struct hz4_class *k, struct stretch *at)
{
	return (uint32_t)(at->from * hz4_os_page / k->size);
}

static uint32_t
end_slot(const struct hz4_class *k, struct stretch *at)
{
	return (uint32_t)hz4_min((at->to * hz4_os_page - 1) / k->size + 1,
				 k->slots);
}

/* The bits of slots from `first` to `end` that lie in the word of the first. */
static uint64_t
bits_from(uint32_t first, uint32_t end)
{
	uint32_t n = hz4_min(64 - first % 64, end - first);

	return (n == 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1) << first % 64;
}

static bool
holds_nothing(struct hz4_span *s, const struct hz4_class *k, uint32_t page)
{
	struct stretch at = { page, page + 1 };
	uint32_t slot = first_slot(k, &at), end = end_slot(k, &at);
	uint64_t bits;

	for (; slot < end; slot = slot / 64 * 64 + 64) {
		bits = bits_from(slot, end);
		if ((hz4_peek(&s->bits[slot / 64]) & bits) != bits)
			return false;
	}
	return true;
}

/* The objects of a stretch, all of them free, are nobody else's. */
static void
take_locked(struct hz4_span *s, const struct hz4_class *k, struct stretch *at)
{
	uint32_t slot = first_slot(k, at), end = end_slot(k, at);

	/* Acquire: what their last users wrote comes before. */
	for (; slot < end; slot = slot / 64 * 64 + 64)
		atomic_fetch_and_explicit(&s->bits[slot / 64],
					  ~bits_from(slot, end),
					  memory_order_acq_rel);
}

static void
give(struct hz4_span *s, const struct hz4_class *k, struct stretch *at)
{
	uint32_t slot = first_slot(k, at), end = end_slot(k, at), next;

	for (; slot < end; slot = next) {
		next = hz4_min(slot / 64 * 64 + 64, end);
		hz4_transfer_give_bits(s, slot / 64, bits_from(slot, next));
	}
}

/* Which of the pages that hold nothing: none, those that did before, all. */
enum which { NONE, STAYED, ALL };

/* The next stretch to purge, from its `from` on.  False: there is none. */
static bool
find_locked(struct hz4_span *s, const struct hz4_class *k, enum which which,
	    struct stretch *at)
{
	uint32_t end = (uint32_t)(s->touched * (size_t)HZ4_FRESH_UNIT /
				  hz4_os_page);
	uint32_t page = at->from;
	bool empty, dirty, stays;

	at->to = 0;
	for (; page < end; page++) {
		empty = holds_nothing(s, k, page);
		dirty = empty && !hz4_holes_get(s, k, HZ4_HOLES_CLEAN, page);
		stays = dirty && which != NONE &&
			(which == ALL ||
			 hz4_holes_get(s, k, HZ4_HOLES_SEEN, page));
		/* It is looked at once more when this one is purged. */
		if (!stays && at->to != 0)
			break;
		/* Not `+=` of a condition: who purges all has no round. */
		if (which != ALL && dirty)
			pass.empty++;
		if (which == STAYED) {
			hz4_holes_set(s, k, HZ4_HOLES_SEEN, page, empty);
			s->marked = s->marked || empty;
		}
		if (stays) {
			at->from = at->to == 0 ? page : at->from;
			at->to = page + 1;
		}
	}
	return at->to != 0;
}

/*
 * Purge a stretch, which nobody else has.  False: the system would not, for
 * one since they are locked.
 */
static bool
purge(struct hz4_spans *c, struct hz4_span *s, struct stretch *at)
{
	const struct hz4_class *k = &hz4_classes[s->cls];
	size_t n = at->to - at->from;
	bool lazy = hz4_option(HZ4_OPT_purge_lazy) != 0;
	uintptr_t start = s->start + at->from * hz4_os_page;
	uint32_t page;
	bool done;

	hz4_pageheap_keep_small(start, n * hz4_os_page);
	done = hz4_os_purge((void *)start, n * hz4_os_page, lazy);
	if (done) {
		hz4_lists_lock(c);
		s->marked = true;
		for (page = at->from; page < at->to; page++)
			hz4_holes_set(s, k, HZ4_HOLES_CLEAN, page, true);
		hz4_holes_add(n);
		hz4_spans_unlock(c);
	}
	give(s, k, at);
	return done;
}

/*
 * How many OS pages of one of a slab's spans were purged; of those that could
 * not be, *kept more.
 */
static size_t
purge_span(const struct hz4_slab *slab, unsigned i, enum which which,
	   size_t *kept)
{
	struct hz4_spans *c = hz4_lists_of(slab);
	const struct hz4_class *k = &hz4_classes[slab->cls];
	struct hz4_span *s = hz4_slab_span(slab, i);
	struct stretch at = { 0, 0 };
	size_t pages = 0;
	bool found;

	/*
	 * A look might bring back what is purged.  In the child of a fork from
	 * within a round the place may be that of another slab.
	 */
	if (i >= slab->count || hz4_peek(&slab->unused) >> i & 1)
		return 0;
	for (;; at.from = at.to) {
		hz4_lists_lock(c);
		/* With less free there is no page that holds nothing. */
		found = s->active && !s->idle &&
			hz4_spans_count_free(k, s) * (size_t)k->size /
					hz4_os_page > 0 &&
			find_locked(s, k, which, &at);
		if (found)
			take_locked(s, k, &at);
		hz4_spans_unlock(c);
		if (!found)
			return pages;
		if (purge(c, s, &at))
			pages += at.to - at.from;
		else
			*kept += at.to - at.from;
	}
}

/* The latest slab of the lists; NULL: they have none. */
static const struct hz4_slab *
first_of(struct hz4_spans *c)
{
	/* Acquire: what it leads to comes before. */
	return atomic_load_explicit(&c->made, memory_order_acquire);
}

/*
 * The slab of the next span of all, its place there; NULL after the last.  Of
 * a slab with none any place.
 */
static const struct hz4_slab *
next_span(unsigned *at)
{
	const struct hz4_slab *slab = pass.slab;
	uint64_t used;

	while (slab == NULL && pass.lists < hz4_shards() * HZ4_CLS_END)
		slab = first_of(&hz4_lists[pass.lists++]);
	pass.slab = slab;
	if (slab == NULL)
		return NULL;
	used = (~hz4_peek(&slab->unused) & hz4_slab_all(slab)) >> pass.at;
	*at = pass.at + (used != 0 ? (unsigned)__builtin_ctzll(used) : 0);
	pass.at = *at + 1;
	if ((used & (used - 1)) == 0) {
		pass.slab = slab->older;
		pass.at = 0;
	}
	return slab;
}

/* Few are worth nothing: they are in use again soon. */
static bool
is_much(size_t bytes)
{
	return bytes > HZ4_HOLES_LEAST &&
	       bytes > hz4_pageheap_used() / HZ4_HOLES_SHARE;
}

/* What would not go is tried again when there is as much besides. */
static bool
too_many(void)
{
	size_t empty = hz4_peek(&last_empty), kept = hz4_peek(&refused);

	return empty > kept && is_much((empty - kept) * hz4_os_page);
}

/* Two rounds are less than the time that free memory stays (ms). */
static uint64_t
round_time(void)
{
	return hz4_max(HZ4_HOLES_ROUND,
		       hz4_option(HZ4_OPT_purge_delay) * 3 / 8);
}

static void
end_round(uint64_t now, enum which which)
{
	hz4_poke(&last_empty, pass.empty);
	if (which == STAYED)
		hz4_poke(&refused, pass.refused);
	pass = (struct pass){ .slab = NULL };
	hz4_poke(&next_round, now + round_time());
	hz4_poke(&midway, false);
}

static void
walk(uint64_t now)
{
	enum which which = too_many() ? STAYED : NONE;
	const struct hz4_slab *slab;
	size_t pages = 0, before = pass.refused;
	unsigned n, at = 0;

	if (!hz4_peek(&midway))
		hz4_poke(&returned, 0);
	hz4_poke(&midway, true);
	for (n = 0; n < HZ4_HOLES_SPANS &&
		    (pages + pass.refused - before) * hz4_os_page <
			    HZ4_HOLES_STEP; n++) {
		slab = next_span(&at);
		if (slab == NULL) {
			end_round(now, which);
			return;
		}
		pages += purge_span(slab, at, which, &pass.refused);
	}
}

bool
hz4_holes_midway(void)
{
	return hz4_peek(&midway);
}

bool
hz4_holes_waiting(uint64_t now)
{
	ptrdiff_t bytes = hz4_peek(&returned);

	return hz4_unlikely(hz4_holes_midway() || too_many() ||
			    (bytes > 0 && is_much((size_t)bytes))) &&
	       hz4_peek(&next_round) <= now + HZ4_PURGE_LOOK &&
	       !hz4_pageheap_pinned();
}

void
hz4_holes_returned(ptrdiff_t bytes)
{
	atomic_fetch_add_explicit(&returned, bytes, memory_order_relaxed);
}

/*
 * While fresh memory is taken, nobody uses the holes there are: then the next
 * step comes with the growth, whatever the clock says.  A small heap has none
 * that are worth it; a long purge_delay is meant.
 */
static bool
has_grown(void)
{
	size_t before = hz4_peek(&resident);
	size_t bytes = hz4_pageheap_used() + hz4_pageheap_dirty();

	if (bytes >= before && bytes - before < HZ4_HOLES_GROWTH)
		return false;
	hz4_poke(&resident, bytes);
	return bytes > before && bytes > HZ4_HOLES_LEAST &&
	       round_time() == HZ4_HOLES_ROUND;
}

void
hz4_holes_step(uint64_t now)
{
	if ((!has_grown() && now < hz4_peek(&next_round)) ||
	    hz4_pageheap_pinned() ||
	    atomic_exchange_explicit(&walking, true, memory_order_acquire))
		return;
	walk(now);
	atomic_store_explicit(&walking, false, memory_order_release);
}

size_t
hz4_holes_purge_all(void)
{
	const struct hz4_slab *slab;
	size_t pages = 0, kept = 0;
	struct hz4_spans *c;
	unsigned i;

	hz4_lists_each (c)
		for (slab = first_of(c); slab != NULL; slab = slab->older)
			for (i = 0; i < slab->count; i++)
				pages += purge_span(slab, i, ALL, &kept);
	return pages * hz4_os_page;
}

void
hz4_holes_fork_child(void)
{
	pass = (struct pass){ .slab = NULL };
	hz4_poke(&midway, false);
	hz4_poke(&walking, false);
}
