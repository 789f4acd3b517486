/*
 * samples.c - the table of call stacks, the slabs, and the sums.
 *
 * Sites are published by one store each and never change but for their sums,
 * so a dump needs no lock, and finds them whole in the child of a fork.  There
 * slabs whose list a gone thread was changing take no more objects, unless one
 * of theirs is freed.
 */
#include "samples.h"

#include "lock.h"
#include "log.h"
#include "meta.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"
#include "view.h"

#include <string.h>

struct slab {
	struct hz4_list link; /* while linked, in this epoch of the lists */
	uintptr_t start;
	uint32_t epoch;
	uint32_t used; /* slots */
	uint8_t cls;
	bool linked; /* has a free slot */
	struct hz4_sample sample[]; /* then the words of those in use */
};

/* All fields [lock], but `made`. */
static struct {
	struct hz4_lock lock;
	struct hz4_list partial[HZ4_CLS_END];
	uint32_t lists_epoch; /* older slabs are in no list */
	uint16_t epoch;	      /* of the sums: see struct hz4_sample */
	uint64_t rate;
	_Atomic uint64_t weight; /* of live ones [atomic] relaxed: a figure */
	_Atomic uint64_t objects[HZ4_CLS_END]; /* the same */
	size_t count, most, buckets;
	struct hz4_site **bucket;
	struct hz4_site *full, *unwalked; /* [const] once made */
	/* [atomic] release: `older` comes before */
	struct hz4_site *_Atomic made;
} samples;

/*
 * What a tool shows as the name of a call stack that found no place, or could
 * not be walked.  Nobody calls these.
 */
void hz4_no_room_for_stack(void);
void hz4_stack_not_walked(void);

void
hz4_no_room_for_stack(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

void
hz4_stack_not_walked(void)
{
	atomic_signal_fence(memory_order_acquire);
}

/* --- sites ----------------------------------------------------------- */

static uint32_t
hash_of(const uintptr_t *frames, unsigned depth)
{
	uint64_t h = depth;
	unsigned i;

	for (i = 0; i < depth; i++) {
		h = (h ^ frames[i]) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 29;
	}
	return (uint32_t)(h >> 16);
}

/* A new site, in no bucket yet. */
static struct hz4_site *
make_site_locked(const uintptr_t *frames, unsigned depth, uint32_t hash)
{
	size_t bytes = depth * sizeof *frames;
	struct hz4_site *s = hz4_meta_alloc(sizeof *s + bytes);

	if (s == NULL)
		return NULL;
	memset(s, 0, sizeof *s);
	s->hash = hash;
	s->depth = depth;
	memcpy(s->frame, frames, bytes);
	s->older = hz4_peek(&samples.made);
	atomic_store_explicit(&samples.made, s, memory_order_release);
	return s;
}

/* A return address lies behind the call. */
static struct hz4_site *
make_named_locked(void (*name)(void))
{
	uintptr_t address = (uintptr_t)name + 1;

	return make_site_locked(&address, 1, 0);
}

static bool
make_table_locked(size_t most)
{
	size_t buckets = (size_t)1 << hz4_log2(most), i;

	samples.bucket = hz4_os_map(hz4_round_up(
		buckets * sizeof(void *), HZ4_PAGE), HZ4_PAGE);
	if (samples.bucket == NULL)
		return false;
	samples.buckets = buckets;
	samples.most = most;
	for (i = 0; i < HZ4_CLS_END; i++)
		hz4_list_init(&samples.partial[i]);
	samples.full = make_named_locked(hz4_no_room_for_stack);
	samples.unwalked = make_named_locked(hz4_stack_not_walked);
	return true;
}

bool
hz4_samples_start(size_t most)
{
	bool ok;

	samples.lock.rank = HZ4_RANK_SAMPLES;
	hz4_lock_acquire(&samples.lock);
	ok = samples.bucket != NULL || make_table_locked(most);
	ok = ok && samples.full != NULL && samples.unwalked != NULL;
	hz4_lock_release(&samples.lock);
	return ok;
}

static struct hz4_site *
find_site_locked(const uintptr_t *frames, unsigned depth, uint32_t hash)
{
	struct hz4_site *s = samples.bucket[hash % samples.buckets];

	while (s != NULL && (s->hash != hash || s->depth != depth ||
			     memcmp(s->frame, frames,
				    depth * sizeof *frames) != 0))
		s = s->next;
	return s;
}

static struct hz4_site *
enter_site_locked(const uintptr_t *frames, unsigned depth, uint32_t hash)
{
	struct hz4_site **bucket = &samples.bucket[hash % samples.buckets];
	struct hz4_site *s = NULL;

	if (samples.count < samples.most)
		s = make_site_locked(frames, depth, hash);
	if (s == NULL)
		return samples.full;
	samples.count++;
	s->next = *bucket;
	*bucket = s;
	return s;
}

struct hz4_site *
hz4_samples_site(const uintptr_t *frames, unsigned depth)
{
	uint32_t hash = hash_of(frames, depth);
	struct hz4_site *s;

	if (depth == 0)
		return samples.unwalked;
	hz4_lock_acquire(&samples.lock);
	s = find_site_locked(frames, depth, hash);
	if (s == NULL)
		s = enter_site_locked(frames, depth, hash);
	hz4_lock_release(&samples.lock);
	return s;
}

struct hz4_site *
hz4_samples_sites(void)
{
	return atomic_load_explicit(&samples.made, memory_order_acquire);
}

const struct hz4_site *
hz4_samples_full(void)
{
	return samples.full;
}

const struct hz4_site *
hz4_samples_unwalked(void)
{
	return samples.unwalked;
}

/* --- sums ------------------------------------------------------------ */

static void
add(_Atomic uint64_t *sum, uint64_t n)
{
	hz4_poke(sum, hz4_peek(sum) + n);
}

/* Bytes that a sample stands for, within some hundredths. */
static uint64_t
weight_of(uint64_t size)
{
	return samples.rate <= 1 ? size :
				   hz4_max(size, samples.rate + size / 2);
}

/* Into the live sums, or out of them: `sign` is 1 or -1. */
static void
count_locked(struct hz4_site *site, uint64_t size, uint64_t sign)
{
	add(&site->live, sign);
	add(&site->live_bytes, sign * size);
	add(&samples.weight, sign * weight_of(size));
}

static void
note_locked(struct hz4_sample *s, struct hz4_site *site, size_t size)
{
	s->site = site;
	s->size = size & ((UINT64_C(1) << 48) - 1);
	s->epoch = samples.epoch;
	count_locked(site, size, 1);
	add(&site->all, 1);
	add(&site->all_bytes, size);
}

static void
drop_locked(struct hz4_sample *s)
{
	if (s->site != NULL && s->epoch == samples.epoch)
		count_locked(s->site, s->size, (uint64_t)-1);
	s->site = NULL;
}

void
hz4_samples_note(struct hz4_sample *s, struct hz4_site *site, size_t size)
{
	hz4_lock_acquire(&samples.lock);
	note_locked(s, site, size);
	hz4_lock_release(&samples.lock);
}

void
hz4_samples_drop(struct hz4_sample *s)
{
	hz4_lock_acquire(&samples.lock);
	drop_locked(s);
	hz4_lock_release(&samples.lock);
}

void
hz4_samples_reset(uint64_t rate)
{
	struct hz4_site *s;

	hz4_lock_acquire(&samples.lock);
	samples.epoch++;
	samples.rate = rate;
	hz4_poke(&samples.weight, 0);
	for (s = hz4_peek(&samples.made); s != NULL; s = s->older) {
		hz4_poke(&s->live, 0);
		hz4_poke(&s->live_bytes, 0);
		hz4_poke(&s->all, 0);
		hz4_poke(&s->all_bytes, 0);
	}
	hz4_lock_release(&samples.lock);
}

uint64_t
hz4_samples_live(void)
{
	return hz4_peek(&samples.weight);
}

/* --- slabs ----------------------------------------------------------- */

static uint64_t *
bits_of(const struct slab *b)
{
	return (uint64_t *)(void *)&b->sample[hz4_classes[b->cls].slots];
}

static size_t
slab_bytes(const struct hz4_class *k)
{
	return sizeof(struct slab) + k->slots * sizeof(struct hz4_sample) +
	       k->words * sizeof(uint64_t);
}

static void
link_locked(struct slab *b)
{
	hz4_list_push(&samples.partial[b->cls], &b->link);
	b->epoch = samples.lists_epoch;
	b->linked = true;
}

static bool
is_linked(const struct slab *b)
{
	return b->linked && b->epoch == samples.lists_epoch;
}

static void
unlink_locked(struct slab *b)
{
	if (is_linked(b))
		hz4_list_remove(&b->link);
	b->linked = false;
}

static struct slab *
make_slab_locked(unsigned cls)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct slab *b = hz4_meta_alloc(slab_bytes(k));

	if (b == NULL)
		return NULL;
	memset(b, 0, sizeof *b);
	b->cls = (uint8_t)cls;
	memset(bits_of(b), 0, k->words * sizeof(uint64_t));
	b->start = hz4_pageheap_alloc(k->pages, HZ4_PAGE, false);
	if (b->start == 0) {
		hz4_meta_free(b, slab_bytes(k));
		return NULL;
	}
	hz4_pagemap_set(b->start, k->pages, HZ4_CLS_MARKED, b);
	link_locked(b);
	return b;
}

/* A slab with a free slot. */
static struct slab *
find_room_locked(unsigned cls)
{
	struct hz4_list *list = &samples.partial[cls];

	if (hz4_list_empty(list))
		return make_slab_locked(cls);
	return hz4_container(list->next, struct slab, link);
}

/* Take the lowest free slot; there is one. */
static uint32_t
take_slot_locked(struct slab *b)
{
	uint64_t *bits = bits_of(b);
	uint32_t w = 0, slot;

	while (bits[w] == UINT64_MAX)
		w++;
	slot = (uint32_t)__builtin_ctzll(~bits[w]);
	bits[w] |= (uint64_t)1 << slot;
	if (++b->used == hz4_classes[b->cls].slots)
		unlink_locked(b);
	return w * 64 + slot;
}

void *
hz4_samples_take(unsigned cls, struct hz4_site *site, size_t size)
{
	struct slab *b;
	uint32_t slot;
	void *p = NULL;

	hz4_lock_acquire(&samples.lock);
	b = find_room_locked(cls);
	if (b != NULL) {
		slot = take_slot_locked(b);
		note_locked(&b->sample[slot], site, size);
		p = (void *)(b->start + slot * (uintptr_t)
						 hz4_classes[cls].size);
		add(&samples.objects[cls], 1);
	}
	hz4_lock_release(&samples.lock);
	return p;
}

/* The slab of a live object, and its slot; NULL when it is none. */
static struct slab *
find_locked(const void *p, uint32_t *slot)
{
	const struct hz4_class *k;
	struct slab *b;
	uint64_t at;

	if (hz4_pagemap_class(p) != HZ4_CLS_MARKED)
		return NULL;
	b = hz4_pagemap_owner((uintptr_t)p);
	k = &hz4_classes[b->cls];
	at = hz4_sizeclass_slot(k, (uintptr_t)p - b->start);
	*slot = (uint32_t)at;
	if (at >= k->slots ||
	    !(bits_of(b)[*slot / 64] >> *slot % 64 & 1))
		return NULL;
	return b;
}

/* The same, or abort, with nothing locked. */
static struct slab *
find_or_abort(const void *p, uint32_t *slot, const char *call)
{
	struct slab *b;

	hz4_lock_acquire(&samples.lock);
	b = find_locked(p, slot);
	if (b != NULL)
		return b;
	hz4_lock_release(&samples.lock);
	hz4_fatal("%s: invalid pointer or double free: ptr %p", call, p);
}

/* An empty slab goes unless it is the only one with room. */
static bool
is_spare_locked(struct slab *b)
{
	struct hz4_list *list = &samples.partial[b->cls];

	return b->used == 0 && is_linked(b) && list->next != list->prev;
}

static void
release_slab(struct slab *b)
{
	const struct hz4_class *k = &hz4_classes[b->cls];

	hz4_pageheap_free(b->start, k->pages, hz4_os_now());
	hz4_meta_free(b, slab_bytes(k));
}

void
hz4_samples_give(void *p)
{
	uint32_t slot;
	struct slab *b = find_or_abort(p, &slot, "free()");
	bool spare;

	drop_locked(&b->sample[slot]);
	bits_of(b)[slot / 64] &= ~((uint64_t)1 << slot % 64);
	b->used--;
	add(&samples.objects[b->cls], (uint64_t)-1);
	if (!is_linked(b))
		link_locked(b);
	spare = is_spare_locked(b);
	if (spare) {
		unlink_locked(b);
		hz4_pagemap_set(b->start, hz4_classes[b->cls].pages,
				HZ4_CLS_NONE, NULL);
	}
	hz4_lock_release(&samples.lock);
	if (spare)
		release_slab(b);
}

unsigned
hz4_samples_class(const void *p, const char *call)
{
	uint32_t slot;
	unsigned cls = find_or_abort(p, &slot, call)->cls;

	hz4_lock_release(&samples.lock);
	return cls;
}

size_t
hz4_samples_asked(const void *p)
{
	size_t size = 0;
	uint32_t slot;
	struct slab *b;

	hz4_lock_acquire(&samples.lock);
	b = find_locked(p, &slot);
	if (b != NULL && b->sample[slot].site != NULL)
		size = (size_t)b->sample[slot].size;
	hz4_lock_release(&samples.lock);
	return size;
}

/* What was allocated in all stays what was asked for first. */
void
hz4_samples_resize(void *p, size_t size, bool keep)
{
	struct hz4_sample *s;
	struct slab *b;
	uint32_t slot;

	hz4_lock_acquire(&samples.lock);
	b = find_locked(p, &slot);
	s = b != NULL ? &b->sample[slot] : NULL;
	if (s != NULL && s->site != NULL) {
		if (!keep) {
			drop_locked(s);
		} else if (s->epoch == samples.epoch) {
			count_locked(s->site, s->size, (uint64_t)-1);
			count_locked(s->site, size, 1);
			s->size = size & ((UINT64_C(1) << 48) - 1);
		}
	}
	hz4_lock_release(&samples.lock);
}

size_t
hz4_samples_objects(unsigned cls)
{
	return (size_t)hz4_peek(&samples.objects[cls]);
}

static void
each_locked(const struct slab *b, hz4_samples_see *see, void *arg)
{
	const struct hz4_class *k = &hz4_classes[b->cls];
	const uint64_t *bits = bits_of(b);
	uint32_t i;

	for (i = 0; i < k->slots; i++)
		if (bits[i / 64] >> i % 64 & 1)
			see(b->start + i * (uintptr_t)k->size, k->size,
			    b->sample[i].site, arg);
}

size_t
hz4_samples_each(uintptr_t page, hz4_samples_see *see, void *arg)
{
	size_t pages = 0;

	hz4_lock_acquire(&samples.lock);
	if (hz4_pagemap_class((void *)page) == HZ4_CLS_MARKED)
		pages = hz4_samples_pages(page);
	if (pages > 0)
		each_locked(hz4_pagemap_owner(page), see, arg);
	hz4_lock_release(&samples.lock);
	return pages;
}

size_t
hz4_samples_pages(uintptr_t page)
{
	struct slab *b = hz4_pagemap_owner(page);

	return b->start == page ? hz4_classes[b->cls].pages : 0;
}

const struct hz4_view_samples hz4_view_samples = {
	.objects = HZ4_VIEW_EACH(samples.objects[0],
				 sizeof samples.objects[0]),
	.start = HZ4_VIEW_MEMBER(struct slab, start),
	.cls = HZ4_VIEW_MEMBER(struct slab, cls),
	.sites = HZ4_VIEW_MEMBER_EACH(struct slab, sample[0].site,
				      sizeof(struct hz4_sample)),
	/* The size and the epoch are the last word of a sample. */
	.sizes = { offsetof(struct slab, sample[1]) - sizeof(uint64_t),
		   sizeof(struct hz4_sample), sizeof(uint64_t) },
	.depth = HZ4_VIEW_MEMBER(struct hz4_site, depth),
	.frames = HZ4_VIEW_MEMBER_EACH(struct hz4_site, frame[0],
				       sizeof(uintptr_t)),
};

void
hz4_samples_fork_child(void)
{
	unsigned cls;

	if (!hz4_fork_lost(&samples.lock))
		return;
	hz4_fork_seize(&samples.lock);
	samples.lists_epoch++;
	for (cls = 0; samples.bucket != NULL && cls < HZ4_CLS_END; cls++)
		hz4_list_init(&samples.partial[cls]);
	hz4_fork_drop(&samples.lock);
}
