/*
 * target.h - the memory of another process, and hz4's view in it.
 *
 * The library's note leads to its view (src/view.h), and that to everything
 * else.  All of it is copied before it is looked at: the process may be
 * changing it, or may want to deceive.  Whose memory may be read is the
 * kernel's to say.
 */
#ifndef HZ4_TARGET_H
#define HZ4_TARGET_H

#include "tool.h"
#include "view.h"

struct target {
	pid_t task;  /* whose memory it is */
	uint64_t at; /* of the view, 0: there is none */
	struct hz4_view view;
};

/* Find the library in the process.  False: target_explain says why not. */
bool target_find(struct target *t, long pid);
enum status target_explain(const struct target *t, long pid);

/*
 * Of one in which it was not found: that it surely has none.  By its memory;
 * where that must not be read, by the files of its objects.
 */
bool target_is_absent(const struct target *t, long pid);

/* It complains that the process has another version than the tool's. */
enum status target_is_other(long pid);

bool target_get(const struct target *t, uint64_t at, void *to, size_t bytes);

/* A number of 2, 4 or 8 bytes that was copied; of others 0. */
uint64_t target_decode(const char *at, uint32_t width);

/* One that is there, 0 if it cannot be read. */
uint64_t target_number(const struct target *t,
		       const struct hz4_view_number *from);

/* A text of less than `width` bytes, to be freed; NULL: it is none. */
char *target_text(const struct target *t, const struct hz4_view_number *from);

#endif
