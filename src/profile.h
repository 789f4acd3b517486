/*
 * profile.h - the sampled heap profile: which allocations are taken, and when
 * what is known of them is written.  profile.c tells how it works.
 *
 * Layer 4.  Takes HZ4_RANK_THREADS, HZ4_RANK_SAMPLES.
 */
#ifndef HZ4_PROFILE_H
#define HZ4_PROFILE_H

#include "thread.h"

/*
 * What the options ask for, when they are known.  And the last dump: returns
 * whether there are leaks.
 */
void hz4_profile_begin(void);
bool hz4_profile_end(void);

/*
 * Sample one in so many bytes from now on, 0 for the usual; another rate than
 * the last forgets what was counted.  False without memory.  Not in a signal's
 * handler.
 */
bool hz4_profile_on(uint64_t rate);
void hz4_profile_off(void);

/* The rate of the last start, 0 when there was none. */
uint64_t hz4_profile_rate(void);

void hz4_profile_forget(void);

/*
 * Count a call and its bytes, up to HZ4_CLASS_MAX, unless a way ends here or
 * has ended.  False: nothing is counted.
 */
HZ4_FAST bool
hz4_profile_passes(struct hz4_sampler *s, size_t size)
{
	int64_t left = (int64_t)((uint64_t)s->left - size);
	uint64_t calls;

	if (hz4_unlikely(left < 0) ||
	    hz4_unlikely(__builtin_sub_overflow(s->calls, 1, &calls)))
		return false;
	s->left = left;
	s->calls = calls;
	return true;
}

/* True at the end of one of the two ways, where it stays until it is taken. */
HZ4_FAST bool
hz4_profile_count(struct hz4_sampler *s, size_t size)
{
	/* Sizes that are refused may come to more than there are numbers. */
	s->left = (int64_t)((uint64_t)s->left - size);
	if (hz4_unlikely(s->calls == 0))
		return true;
	s->calls--;
	return s->left < 0;
}

/*
 * An allocation of `size` bytes is counted.  True when it is time for a
 * sample, or a guard: the caller asks hz4_profile_take for the object.
 */
HZ4_FAST bool
hz4_profile_due(size_t size)
{
	uint32_t generation = hz4_peek(&hz4_sampling);
	struct hz4_sampler *s = &hz4_tls_cache->sampler;

	if (hz4_unlikely(s->generation != generation))
		return true;
	return generation != 0 && hz4_profile_count(s, size);
}

/*
 * The object, which is a sample, with room for so many bytes, or guarded.
 * NULL: it was not to be one after all, or there is no memory.
 */
HZ4_SLOW void *hz4_profile_take(size_t size, size_t room, size_t align,
				bool zero, const struct hz4_caller *from);

/* The same if it is due, else NULL, for the function that this stands in. */
#define HZ4_TAKE_DUE(size, room, align, zero) \
	(hz4_unlikely(hz4_profile_due(size)) ? \
		 hz4_profile_take(size, room, align, zero, HZ4_CALLER) : \
		 NULL)

/* A large object was made to fit `size` bytes where it is, or moved there. */
void hz4_profile_resized(void *p, size_t size, const struct hz4_caller *from);

/* An object in a slab stays where it is with another size. */
void hz4_profile_kept(void *p, size_t size);

/* --- profdump.c ------------------------------------------------------ */

/*
 * Write the profile: to that path, or for NULL to the next of profile_file.
 * Allocates nothing, takes no lock, walks no call stack, so it may be called
 * wherever a signal's handler is.  0, or why not: an error number;
 * errno stays as it is.
 */
int hz4_profile_write(const char *path);

/* Names without %p are of this process, not of its children. */
void hz4_profile_note_start(void);

#endif
