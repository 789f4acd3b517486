/*
 * leaks.c - what is reachable, from where a program can keep pointers.
 *
 * Every word that can be written and is none of the heap's may be a pointer:
 * variables, stacks from the exit on, other mappings, and objects that are no
 * samples.  What it points to, or into, is reachable, and so is what that has
 * pointers to.  All other samples are leaks.  With the rate 1 each object is a
 * sample.
 *
 * Other threads may run meanwhile: memory is copied by the kernel, which
 * refuses what is gone, and what they hold in registers alone may be told
 * though it is none.
 */
#include "leaks.h"

#include "guard.h"
#include "large.h"
#include "log.h"
#include "meta.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"
#include "profile.h"
#include "samples.h"
#include "sys.h"
#include "where.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	TOLD = 20,    /* call stacks */
	FRAMES = 24,  /* of each */
	WORDS = 8192, /* that are copied at once */
};

struct object {
	uintptr_t start;
	size_t size;
	struct hz4_site *site;
	bool reached;
};

/* Addresses that are no place for the program's pointers. */
struct range {
	uintptr_t start, end;
};

/* All in one mapping, which is such a range itself. */
struct search {
	struct object *object; /* ascending */
	uint32_t *todo;	       /* reached, and not looked into yet */
	struct range *own;     /* ascending, but for those of metadata */
	uintptr_t *word;       /* WORDS */
	size_t objects, most_objects, todos, owns, most_owns;
	uintptr_t stack; /* of this thread, where it is in use */
};

/* --- what there is --------------------------------------------------- */

static void
add_own(struct search *s, uintptr_t start, uintptr_t end)
{
	if (s->owns > 0 && s->own[s->owns - 1].end == start) {
		s->own[s->owns - 1].end = end;
	} else if (s->owns < s->most_owns) {
		s->own[s->owns].start = start;
		s->own[s->owns++].end = end;
	}
}

static void
add_object(uintptr_t start, size_t size, struct hz4_site *site, void *arg)
{
	struct search *s = arg;
	struct object *o;

	if (s->objects == s->most_objects)
		return;
	o = &s->object[s->objects++];
	o->start = start;
	o->size = size;
	o->site = site;
	o->reached = false;
}

/*
 * What was read of a page's owner, without its lock, is true if the page still
 * has it: it goes before the structure does.
 */
static bool
is_still(uintptr_t page, unsigned cls, const void *owner)
{
	/* Pairs with the release of what the next owner of the bytes wrote. */
	atomic_thread_fence(memory_order_acquire);
	return hz4_pagemap_class((void *)page) == cls &&
	       hz4_pagemap_owner(page) == owner;
}

static size_t
see_large(struct search *s, uintptr_t page, const struct hz4_large *l)
{
	size_t bytes = l->bytes;
	struct hz4_site *site = l->sample.site;

	if (l->start != page || !is_still(page, HZ4_CLS_RUN, l))
		return 0;
	add_object(page, bytes, site, s);
	return bytes;
}

static size_t
see_free(uintptr_t page, const struct hz4_run *r)
{
	size_t pages = r->pages;

	return (hz4_pagemap_flags(page) & HZ4_PAGE_FREE) &&
			       r->start == page &&
			       is_still(page, HZ4_CLS_NONE, r) ?
		       pages * HZ4_PAGE : 0;
}

/* Bytes of what begins at a page of ours, 0 if nothing does. */
static size_t
see_page(struct search *s, uintptr_t page)
{
	unsigned cls = hz4_pagemap_class((void *)page);
	void *owner = hz4_pagemap_owner(page);

	if (cls == HZ4_CLS_MARKED)
		return hz4_samples_each(page, add_object, s) * HZ4_PAGE;
	if (owner != NULL && cls == HZ4_CLS_RUN)
		return see_large(s, page, owner);
	if (owner != NULL && cls == HZ4_CLS_NONE)
		return see_free(page, owner);
	return 0;
}

static void
see_leaf(struct search *s, uintptr_t base)
{
	uintptr_t page;
	size_t i, n;

	/* By numbers: a leaf may have all the addresses there are. */
	for (i = 0; i < HZ4_LEAF_PAGES; i += hz4_max(n / HZ4_PAGE, 1)) {
		page = base + i * HZ4_PAGE;
		n = see_page(s, page);
		if (n > 0)
			add_own(s, page, page + n);
	}
}

static void
see_heap(struct search *s)
{
	uintptr_t i, base;

	for (i = 0; i < HZ4_ROOT_ENTRIES; i++) {
		base = (uintptr_t)((uint64_t)i << HZ4_LEAF_SHIFT);
		if (hz4_pagemap_has_leaf(base))
			see_leaf(s, base);
	}
}

static void
see_metadata(uintptr_t start, uintptr_t end, void *arg)
{
	add_own(arg, start, end);
}

/* --- what is reached ------------------------------------------------- */

/* The object that an address is in, or NULL. */
static struct object *
find(const struct search *s, uintptr_t address)
{
	size_t low = 0, high = s->objects, mid;

	while (low < high) {
		mid = low + (high - low) / 2;
		if (address - s->object[mid].start < s->object[mid].size)
			return &s->object[mid];
		if (address < s->object[mid].start)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

static void
reach(struct search *s, uintptr_t address)
{
	struct object *o;

	if (s->objects == 0 || address < s->object[0].start)
		return;
	o = find(s, address);
	if (o == NULL || o->reached)
		return;
	o->reached = true;
	s->todo[s->todos++] = (uint32_t)(o - s->object);
}

/* The words between, as far as there is memory. */
static void
scan(struct search *s, uintptr_t start, uintptr_t end)
{
	size_t n, i;
	long got;

	for (; start < end; start += n) {
		struct iovec to = { s->word, 0 }, from = { (void *)start, 0 };

		n = hz4_min(end - start, WORDS * sizeof *s->word);
		to.iov_len = from.iov_len = n;
		got = hz4_syscall(SYS_process_vm_readv, getpid(), &to, 1,
				  &from, 1);
		for (i = 0; got > 0 && i < (size_t)got / sizeof *s->word; i++)
			reach(s, s->word[i]);
	}
}

static void
look_into_reached(struct search *s)
{
	const struct object *o;

	while (s->todos > 0) {
		o = &s->object[s->todo[--s->todos]];
		scan(s, o->start, o->start + o->size);
	}
}

/* The first of the heap's own ranges that lies in one, or behind it. */
static const struct range *
next_own(const struct search *s, uintptr_t start)
{
	const struct range *best = NULL;
	size_t i;

	for (i = 0; i < s->owns; i++)
		if (s->own[i].end > start &&
		    (best == NULL || s->own[i].start < best->start))
			best = &s->own[i];
	return best;
}

static bool
scan_mapping(const struct hz4_where *m, void *arg)
{
	struct search *s = arg;
	uintptr_t start = m->start, end;
	const struct range *own;

	if (m->access[0] != 'r' || m->access[1] != 'w' ||
	    memcmp(m->path, "/dev/", 5) == 0)
		return true;
	if (s->stack - start < m->end - start)
		start = s->stack;
	while (start < m->end) {
		own = next_own(s, start);
		end = own != NULL && own->start < m->end ?
			      hz4_max(own->start, start) : m->end;
		scan(s, start, end);
		start = own != NULL && own->start < m->end ? own->end : end;
	}
	return true;
}

/* --- what is told ---------------------------------------------------- */

/* The sums of each place; returns how many have any. */
static size_t
add_up(const struct search *s, size_t *objects, size_t *bytes)
{
	struct hz4_site *site;
	size_t i, places = 0;

	*objects = *bytes = 0;
	for (i = 0; i < s->objects; i++) {
		site = s->object[i].site;
		if (s->object[i].reached || site == NULL)
			continue;
		places += site->lost++ == 0;
		site->lost_bytes += s->object[i].size;
		++*objects;
		*bytes += s->object[i].size;
	}
	return places;
}

/* The place with the most bytes that was not told yet. */
static struct hz4_site *
next_place(void)
{
	struct hz4_site *site, *most = NULL;

	for (site = hz4_samples_sites(); site != NULL; site = site->older)
		if (site->lost > 0 &&
		    (most == NULL || site->lost_bytes > most->lost_bytes))
			most = site;
	return most;
}

/* False: there was nothing to be told. */
static bool
tell(const struct search *s)
{
	size_t objects, bytes, places = add_up(s, &objects, &bytes);
	struct hz4_site *site;
	unsigned told = 0;
	uint32_t i;

	hz4_log("leaks: %zu bytes in %zu objects from %zu places", bytes,
		objects, places);
	while (told++ < TOLD && (site = next_place()) != NULL) {
		hz4_log("  %zu bytes in %zu objects, allocated:",
			site->lost_bytes, site->lost);
		for (i = 0; i < site->depth && i < FRAMES; i++)
			hz4_where_log(site->frame[i]);
		site->lost = 0;
	}
	return objects > 0;
}

/* --- all of it ------------------------------------------------------- */

static size_t
count_objects(void)
{
	struct hz4_large_figures large;
	unsigned cls;
	size_t n = 0;

	for (cls = 1; cls < HZ4_CLS_END; cls++)
		n += hz4_samples_objects(cls);
	hz4_large_figures(&large);
	/* Other threads may make some more, which are then left out. */
	return n + large.objects + 64;
}

static bool
make(struct search *s, void **memory, size_t *bytes)
{
	size_t n = count_objects(), pages = hz4_pageheap_mapped() / HZ4_PAGE;

	memset(s, 0, sizeof *s);
	s->most_objects = n;
	s->most_owns = pages + hz4_meta_mapped() / HZ4_META_CHUNK + n + 4;
	*bytes = hz4_round_up(n * (sizeof *s->object + sizeof *s->todo) +
				      s->most_owns * sizeof *s->own +
				      WORDS * sizeof *s->word, HZ4_PAGE);
	*memory = hz4_os_map(*bytes, HZ4_PAGE);
	if (*memory == NULL)
		return false;
	s->word = *memory;
	s->own = (struct range *)(void *)(s->word + WORDS);
	s->object = (struct object *)(void *)(s->own + s->most_owns);
	s->todo = (uint32_t *)(void *)(s->object + n);
	return true;
}

bool
hz4_leaks_tell(void)
{
	bool any = false;
	int saved = errno;
	struct search s;
	size_t bytes;
	void *memory;

	hz4_profile_off();
	if (!make(&s, &memory, &bytes)) {
		hz4_log("leaks: no memory");
		return false;
	}
	s.stack = (uintptr_t)__builtin_frame_address(0);
	see_heap(&s);
	hz4_meta_each(see_metadata, &s);
	add_own(&s, (uintptr_t)memory, (uintptr_t)memory + bytes);
	if (hz4_where_each(scan_mapping, &s)) {
		look_into_reached(&s);
		any = tell(&s);
	} else {
		hz4_log("leaks: /proc/self/maps cannot be read");
	}
	hz4_os_unmap(memory, bytes);
	errno = saved;
	return any;
}
