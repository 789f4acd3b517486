/*
 * realloc.c - realloc: staying, moving, copying, and room for what grows by
 * small steps.
 */
#include "heappaths.h"

#include "large.h"
#include "profile.h"

#include <string.h>

/*
 * An object of `size` bytes, with room for `want` where there is memory: for
 * that alone nobody gives anything back.
 */
static void *
take_with_room(size_t size, size_t want)
{
	void *p = want > size ? hz4_heap_take(want, hz4_thread_cache()) : NULL;

	if (p == NULL)
		return hz4_heap_malloc_told(size);
	if (want > HZ4_CLASS_MAX)
		hz4_large_ask(p, size);
	return p;
}

/* The first `n` bytes of an object go to where it shall be from now on. */
static void *
copy_to(void *to, void *p, size_t n)
{
	if (to == NULL)
		return NULL;
	hz4_heap_note_whole(to, n);
	memcpy(to, p, n);
	hz4_heap_free(p);
	return to;
}

/* To a smaller one; where the system has no memory it stays where it is. */
static HZ4_DEEP void *
shrink_to(void *p, size_t size)
{
	void *to = HZ4_TAKE_DUE(size, size, HZ4_ALIGN, false);

	if (to == NULL)
		to = hz4_heap_take(size, hz4_thread_cache());
	to = copy_to(to, p, size);
	return to != NULL ? to : p;
}

/*
 * Where the thread notes an object that it grows to `size`, and how much that
 * shall have.  One that grows by small steps is copied as often as its size
 * class changes, so from its second copy on it gets more than it asks for.
 * Which were copied before is known of the thread's latest alone: a wrong guess
 * costs no more than that room.  NULL: nowhere.
 */
static uintptr_t *
find_note(const void *p, size_t old, size_t size, size_t *want)
{
	struct hz4_cache *c = hz4_thread_cache();
	unsigned i = 0;

	*want = size;
	if (c == NULL || old < HZ4_GROWN_LEAST || size >= HZ4_HUGE_MIN / 2)
		return NULL;
	while (i < HZ4_GROWN_LATEST && c->grown[i] != (uintptr_t)p)
		i++;
	if (i == HZ4_GROWN_LATEST)
		i = c->grown_next++ % HZ4_GROWN_LATEST;
	else if (size - old <= old / HZ4_GROWN_STEP)
		*want = size + size / HZ4_GROWN_ROOM;
	return &c->grown[i];
}

/* Copy an object to where it has room to grow, a sample as any other. */
static HZ4_DEEP void *
grow_to(void *p, size_t old, size_t size)
{
	size_t want;
	uintptr_t *note = find_note(p, old, size, &want);
	void *to = HZ4_TAKE_DUE(size, want, HZ4_ALIGN, false);

	if (to == NULL)
		to = take_with_room(size, want);
	to = copy_to(to, p, old);
	if (to != NULL && note != NULL)
		*note = (uintptr_t)to;
	return to;
}

/* One that stays or is copied. */
static void *
realloc_small(void *p, unsigned cls, size_t old, size_t size)
{
	/* Shrinking by less than half is not worth a copy. */
	if (size > old)
		return grow_to(p, old, size);
	if (size < old / 2)
		return shrink_to(p, size);
	hz4_thread_count(cls, HZ4_COUNT_realloc_in_place);
	if (hz4_unlikely(cls == HZ4_CLS_MARKED))
		hz4_profile_kept(p, size);
	return p;
}

static HZ4_DEEP void *
realloc_large(void *p, size_t old, size_t size)
{
	void *to = hz4_large_resize(p, size);

	if (to == NULL)
		return realloc_small(p, HZ4_CLS_RUN, old, size);
	hz4_thread_count(HZ4_CLS_RUN, HZ4_COUNT_realloc_in_place);
	hz4_profile_resized(to, size, HZ4_CALLER);
	return to;
}

void *
hz4_heap_realloc(void *p, size_t size)
{
	size_t old;
	unsigned cls;

	if (p == NULL)
		return hz4_heap_malloc(size);
	cls = hz4_heap_class(p, "realloc()");
	if (size == 0) {
		hz4_heap_free(p);
		return NULL;
	}
	if (hz4_unlikely(size > PTRDIFF_MAX))
		return hz4_heap_refuse();
	old = hz4_heap_room(p, cls, "realloc()");
	return cls == HZ4_CLS_RUN && size > HZ4_CLASS_MAX ?
		       realloc_large(p, old, size) :
		       realloc_small(p, cls, old, size);
}
